"""The dearest divergences behind a proposal: which they are, and who may see them."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from rollout.data.database.rollouts import Rollouts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.access import users
from rollout.features.divergences.case_explanation import PROPOSAL_PAGE, load_costliest_divergences
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import NotAllowedError
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.bears import CREEK, LAKE, POLICY, founded
from tests.api.conftest import Doorkeeper
from tests.console.told_cases import AT, CLOSED, asked_again, case, judged, some, tell, verdict
from tests.factories import NOON

VIC = Caller("vic", role_assignments=(AssignedRole("viewer"),))
MIA = Caller("mia", role_assignments=(AssignedRole("operator"), AssignedRole("reviewer")))
COSTLY = POLICY.replace(
    "sites:", "    costs: [{did: nothing, right: siren, cost: 20}, {cost: 1}]\nsites:"
)
LATER = CLOSED + timedelta(hours=1)


@pytest.fixture
def service(database, monkeypatch):
    monkeypatch.setattr("tests.api.bears.POLICY", COSTLY)
    founded(database, NOON)
    return build_service(database, Doorkeeper(), ManualClock(LATER), entropy=bytes)


@pytest.fixture
def told(service):
    some(service.database)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    return service


def worst(service, who=VIC, cell=CREEK, version="v1", **more):
    return load_costliest_divergences(service, who, "bears", cell, version, at=LATER, **more)


def shown_to(service, name, *keys):
    with service.database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        numbers = ExternalKeys(transaction, rollout).find_ids(set(keys))
        found = ExposureStore(transaction, rollout).list_for_reviewer(name, set(numbers.values()))
        return {key: set(found.get(number, ())) for key, number in numbers.items()}


@pytest.mark.slow
def test_the_dearest_come_first_with_what_each_would_have_done(told):
    found = worst(told)
    assert [one.key for one in found.items] == ["missed", "false-2", "false-1"]
    assert (found.count, found.withheld_cases) == (3, 0)
    first = found.items[0]
    (said,) = first.differences
    assert (said.human, said.model) == ("bear", "none")
    assert (said.human_action, said.model_action) == ("siren", "nothing")
    assert (first.cost, first.confidence, first.occurred_at) == (20.0, 0.71, AT)
    assert [one.key for one in worst(told, limit=1).items] == ["missed"]
    assert worst(told, limit=1).count == 3


def test_each_cell_and_version_has_its_own(told):
    assert [one.key for one in worst(told, cell=LAKE).items] == ["lake-1"]
    assert worst(told, cell=Cell("creek", "night")).items == ()
    assert worst(told, version="v9").items == ()


def test_what_was_not_counted_is_not_among_them(told):
    judged(told.database, "open", "bear", "none", at=CLOSED)
    tell(told.database, case("unsure"), verdict("unsure", "none"))
    assert {one.key for one in worst(told).items} == {"missed", "false-1", "false-2"}


def test_what_a_person_noted_stands_with_the_case(service):
    judged(service.database, "noted", "bear", "none")
    noted = replace(verdict("noted", "none"), note="a stump <b>", revision=2)
    tell(service.database, noted)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    (one,) = worst(service).items
    assert one.note == "a stump <b>"


def test_a_case_that_the_reader_may_still_judge_is_kept_from_them(told):
    users.create_first_admin(told.database, "ada", at=NOON)
    asked_again(told, "missed", LATER)
    found = worst(told, MIA)
    assert [one.key for one in found.items] == ["false-2", "false-1"]
    assert (found.count, found.withheld_cases) == (3, 1)
    assert [one.key for one in worst(told, VIC).items] == ["missed", "false-2", "false-1"]
    assert shown_to(told, "mia", "missed") == {"missed": set()}


def test_what_was_shown_is_noted_and_of_machines_nothing(told):
    worst(told)
    told_vic = shown_to(told, "vic", "missed", "same-1")
    assert told_vic == {
        "missed": {("prediction", PROPOSAL_PAGE), ("decisions", PROPOSAL_PAGE)},
        "same-1": set(),
    }
    worst(told, Caller("bot", is_service_account=True, role_assignments=(AssignedRole("viewer"),)))
    assert shown_to(told, "bot", "missed") == {"missed": set()}


def test_who_may_not_read_the_sites_cases_gets_none(told):
    eve = Caller("eve", role_assignments=(AssignedRole("viewer", "bears", "lake"),))
    with pytest.raises(NotAllowedError):
        worst(told, eve)
    assert shown_to(told, "eve", "missed") == {"missed": set()}
