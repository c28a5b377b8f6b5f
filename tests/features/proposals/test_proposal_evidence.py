"""A proposal's figures: those that were frozen, and those of now, each told from the other."""

from dataclasses import replace

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.proposals.proposal_details import load_proposal
from rollout.features.proposals.proposal_evidence import (
    find_proposal_by_evidence,
    load_proposal_evidence,
)
from rollout.kernel.errors import NotAllowedError
from rollout.kernel.words import say_reading
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.bears import CREEK, LAKE, POLICY, founded, scope_of, tick, widened
from tests.api.conftest import Doorkeeper
from tests.console.told_cases import CLOSED, some
from tests.factories import DAY, MET, NOON, build_evidence, counted

VIC = Caller("vic", role_assignments=(AssignedRole("viewer"),))
COSTS = POLICY.replace(
    "sites:", "    costs: [{did: nothing, right: siren, cost: 20}, {cost: 1}]\nsites:"
).replace("measure: agreement, at_least: 95%", "measure: cost, at_most: 4")


@pytest.fixture
def service(database):
    founded(database, NOON)
    return build_service(database, Doorkeeper(), ManualClock(NOON), entropy=bytes)


def figures(service, proposal="P-1", who=VIC):
    shown = load_proposal(service, who, "bears", proposal, at=NOON)
    return load_proposal_evidence(service, who, "bears", shown)


def test_the_frozen_counts_are_read_and_weighed_as_they_were(service):
    tick(service.database, NOON, of=build_evidence(counted(418, 8)))
    (line,) = figures(service).readings
    frozen = line.frozen
    assert (frozen.counts, frozen.is_met) == ((418, 8), True)
    assert frozen.estimate == pytest.approx(418 / 426)
    assert 0.95 < frozen.bound < frozen.estimate


def test_what_is_counted_now_stands_beside_what_was_frozen(service):
    tick(service.database, NOON)
    some(service.database)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    found = figures(service)
    (line,) = found.readings
    assert line.frozen.counts == (2000, 0)
    assert line.current.counts == (1, 3)
    assert not line.current.is_met
    assert found.has_turned
    assert (found.minimum_progress.decided.decided, found.minimum_progress.minimum.units) == (
        4,
        100,
    )
    assert "4 of 100 decided units" in found.unmet_requirements
    assert found.promise.startswith("If the true average of a cell's units so far does not meet")


def test_a_renewal_is_held_to_no_bound(service):
    widened(service.database, NOON, CREEK)
    late = NOON + 80 * DAY
    tick(service.database, late, of=MET)
    (renewal,) = scope_of(service.database).proposals.values()
    shown = load_proposal(service, VIC, "bears", renewal.id, at=late)
    (line,) = load_proposal_evidence(service, VIC, "bears", shown).readings
    assert line.frozen.counts == (2000, 0)
    assert line.frozen.bound is None


def test_costs_are_read_by_their_levels(database, monkeypatch):
    monkeypatch.setattr("tests.api.bears.POLICY", COSTS)
    founded(database, NOON)
    service = build_service(database, Doorkeeper(), ManualClock(NOON), entropy=bytes)
    seen = replace(counted(2000), counts={("cost", None, None): (1990, 8, 2)})
    tick(database, NOON, of=build_evidence(seen))
    (line,) = figures(service).readings
    assert line.frozen.counts == (1990, 8, 2)
    assert line.frozen.estimate == pytest.approx(48 / 2000)


def test_lines_that_the_policy_asks_for_no_more_stand_as_text(service):
    tick(service.database, NOON)
    shown = load_proposal(service, VIC, "bears", "P-1", at=NOON)
    (reading,) = shown.readings
    fox = replace(reading, condition={"measure": "recall", "threshold": "0.9", "label": "fox"})
    odd = replace(shown, readings=(fox,), texts=(say_reading(fox), "rest"))
    lines = load_proposal_evidence(service, VIC, "bears", odd).readings
    assert [(one.text, one.frozen, one.current) for one in lines] == [
        (text, None, None) for text in odd.texts
    ]
    levels = replace(reading, counts=(3, 1, 1))
    broken = replace(shown, readings=(levels,), texts=("as counted",))
    (line,) = load_proposal_evidence(service, VIC, "bears", broken).readings
    assert line.frozen is None
    gone = replace(shown, to="elsewhere")
    assert load_proposal_evidence(service, VIC, "bears", gone).minimum_progress is None


def test_the_readings_under_a_hash_are_found_by_who_may_read_them(service):
    tick(service.database, NOON, cells=(CREEK, LAKE))
    proposals = scope_of(service.database).proposals
    evidence = proposals["P-2"].evidence_hash
    assert find_proposal_by_evidence(service, VIC, "bears", evidence).proposal == "P-2"
    assert find_proposal_by_evidence(service, VIC, "bears", "0" * 64) is None
    cleo = Caller("cleo", role_assignments=(AssignedRole("operator", "bears", "creek"),))
    assert find_proposal_by_evidence(service, cleo, "bears", evidence) is None
    shown = load_proposal(service, VIC, "bears", "P-2", at=NOON)
    with pytest.raises(NotAllowedError):
        load_proposal_evidence(service, cleo, "bears", shown)
