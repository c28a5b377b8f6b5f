"""A proposal's figures: those that were frozen, and those of now, each told from the other."""

from dataclasses import replace

import pytest

from rollout.core.errors import NotAllowed
from rollout.core.scope.permissions import Caller, Right
from rollout.services.engine.service import service_on
from rollout.services.engine.ticks import Ticker
from rollout.services.proposals.proposal_details import one
from rollout.services.proposals.proposal_evidence import evidence_of, raised_on
from rollout.services.support.clock import SetClock
from tests.api.bears import CREEK, LAKE, POLICY, founded, scope_of, tick, widened
from tests.api.conftest import Doorkeeper
from tests.console.told_cases import CLOSED, some
from tests.factories import DAY, MET, NOON, counted, known

VIC = Caller("vic", rights=(Right("viewer"),))
COSTS = POLICY.replace(
    "sites:", "    costs: [{did: nothing, right: siren, cost: 20}, {cost: 1}]\nsites:"
).replace("measure: agreement, at_least: 95%", "measure: cost, at_most: 4")


@pytest.fixture
def service(database):
    founded(database, NOON)
    return service_on(database, Doorkeeper(), SetClock(NOON), entropy=bytes)


def figures(service, proposal="P-1", who=VIC):
    shown = one(service, who, "bears", proposal, at=NOON)
    return evidence_of(service, who, "bears", shown)


def test_the_frozen_counts_are_read_and_weighed_as_they_were(service):
    tick(service.database, NOON, of=known(counted(418, 8)))
    (line,) = figures(service).lines
    frozen = line.frozen
    assert (frozen.counts, frozen.met) == ((418, 8), True)
    assert frozen.estimate == pytest.approx(418 / 426)
    assert 0.95 < frozen.bound < frozen.estimate


def test_what_is_counted_now_stands_beside_what_was_frozen(service):
    tick(service.database, NOON)
    some(service.database)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    found = figures(service)
    (line,) = found.lines
    assert line.frozen.counts == (2000, 0)
    assert line.now.counts == (1, 3)
    assert not line.now.met
    assert found.turned
    assert (found.beside.units, found.beside.minimum.units) == (4, 100)
    assert "4 of 100 judged units" in found.lacks
    assert found.promise.startswith("If in a cell the average so far did not meet")


def test_a_renewal_is_held_to_no_bound(service):
    widened(service.database, NOON, CREEK)
    late = NOON + 80 * DAY
    tick(service.database, late, of=MET)
    (renewal,) = scope_of(service.database).proposals.values()
    shown = one(service, VIC, "bears", renewal.id, at=late)
    (line,) = evidence_of(service, VIC, "bears", shown).lines
    assert line.frozen.counts == (2000, 0)
    assert line.frozen.bound is None


def test_costs_are_read_by_their_levels(database, monkeypatch):
    monkeypatch.setattr("tests.api.bears.POLICY", COSTS)
    founded(database, NOON)
    service = service_on(database, Doorkeeper(), SetClock(NOON), entropy=bytes)
    seen = replace(counted(2000), counts={("cost", None, None): (1990, 8, 2)})
    tick(database, NOON, of=known(seen))
    (line,) = figures(service).lines
    assert line.frozen.counts == (1990, 8, 2)
    assert line.frozen.estimate == pytest.approx(48 / 2000)


def test_lines_that_the_policy_asks_for_no_more_stand_as_text(service):
    tick(service.database, NOON)
    shown = one(service, VIC, "bears", "P-1", at=NOON)
    odd = ("recall of fox at least 90 %: 3 of 4, log E 1.000000 of 2.000000 (risk 0.05)", "rest")
    lines = evidence_of(service, VIC, "bears", replace(shown, readings=odd)).lines
    assert [(one.text, one.frozen, one.now) for one in lines] == [
        (text, None, None) for text in odd
    ]
    broken = ("agreement at least 95 %: 3 of 4 of 5, log E 1.0 of 2.0 (risk 0.05)",)
    (line,) = evidence_of(service, VIC, "bears", replace(shown, readings=broken)).lines
    assert line.frozen is None
    gone = replace(shown, to="elsewhere")
    assert evidence_of(service, VIC, "bears", gone).beside is None


def test_the_readings_under_a_hash_are_found_by_who_may_read_them(service):
    tick(service.database, NOON, cells=(CREEK, LAKE))
    proposals = scope_of(service.database).proposals
    evidence = proposals["P-2"].evidence
    assert raised_on(service, VIC, "bears", evidence)[0].startswith("agreement at least 95 %")
    assert raised_on(service, VIC, "bears", "0" * 64) == ()
    cleo = Caller("cleo", rights=(Right("operator", "bears", "creek"),))
    assert raised_on(service, cleo, "bears", evidence) == ()
    shown = one(service, VIC, "bears", "P-2", at=NOON)
    with pytest.raises(NotAllowed):
        evidence_of(service, cleo, "bears", shown)
