"""Decisions whose case nobody sent, or sent to another place, count against the model there."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.case_pages import CasePages
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import RejectedRecords
from rollout.data.tables.tables import counted_units
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Prediction
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.features.records.decision_places import NO_PLACE
from rollout.features.records.ingest import build_reader, ingest_items
from rollout.kernel.units import AFTER_DECISION, CASELESS, NOT_PREDICTED
from rollout.live.clock import ManualClock
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import GATE, GUARD
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.factories import DAY, HOUR, NOON
from tests.features.erasure.traces import find_traces

pytestmark = pytest.mark.slow

POLICY = """
rollout: moles
timezone: Europe/Berlin
levers: [{id: alarm, labels: [ship, none]}]
sites: [quay, hill]
windows: [{id: day, hours: "00:00-18:00"}, {id: night, hours: "18:00-24:00"}]
stages: [{id: supervised, blind: 50%}]
evidence:
  unit: case
  grace: 2h
  sources: {accounts: [{account: desk, reviewers: ["*"]}]}
gates:
  - to: supervised
    minimum: {units: 100, days: 7}
    approvals: [operator]
    require: [{measure: agreement, at_least: 95%}]
guards: [{measure: agreement, at_least: 90%, false_alarm_every: 100}]
tick: 1h
"""
EPISODES = POLICY.replace("unit: case", "unit: episode\n  episode_span: 1h")
MINUTE = timedelta(minutes=1)
MISNAMED = {"key": "c", "site": "quay", "occurred_at": NOON, "episode": "pier without a case"}
BOX, DESK = (
    Caller(name, is_service_account=True, role_assignments=(AssignedRole(role),))
    for name, role in (("box", "ingest"), ("desk", "ingest-decisions"))
)
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
BOTH = Caller(
    "box", is_service_account=True, role_assignments=(*BOX.role_assignments, *DESK.role_assignments)
)


class Mole:
    """A service with a version in use at both sites by day, an hour before noon."""

    def __init__(self, database, policy=POLICY, *, episodes=False):
        self.database = database
        apply_policy(
            database, policy, Actor("zoe"), NOON - 5 * HOUR, salt=bytes(32), service_salt=bytes(32)
        )
        self.service = build_service(database, None, ManualClock(NOON - 5 * HOUR))
        for site in ("quay", "hill"):
            facts = {"episode": f"first-{site}"} if episodes else {}
            self.send_case(f"first-{site}", site, NOON - 4 * HOUR, **facts)
            self.decide(f"first-{site}", NOON - 4 * HOUR + MINUTE)

    def send_case(self, key, site, at, *, received=None, answer="ship", **facts):
        case = Case(key=key, site=site, occurred_at=at, window="day", **facts)
        prediction = Prediction(key=key, version="v1", answers={"alarm": answer})
        self._send(BOX, [case, prediction], received or at)

    def decide(self, key, at, *, by=None, reviewer="ana", **place):
        reader = build_reader(self.service, "moles", at)
        body = {
            "kind": "decision",
            "key": key,
            "reviewer": reviewer,
            "answers": {"alarm": "ship"},
            "exposure": "blind",
            **{name: str(value).replace(" ", "T") for name, value in place.items()},
        }
        (item,) = reader.read_body(json.dumps([body]).encode())
        (receipt,) = self._send(by or DESK, [item], at, all_accepted=False)
        return receipt

    def _send(self, caller, items, at, *, all_accepted=True):
        receipts = ingest_items(self.service, caller, "moles", items, at)
        assert not all_accepted or all(r.status.value == "accepted" for r in receipts), receipts
        return receipts

    def count_unplaced(self, until):
        with self.database.begin_read() as transaction:
            rejected = RejectedRecords(transaction, Rollouts(transaction).find("moles"))
            return rejected.count_unplaced_decisions(until)

    def count(self, track=GATE):
        """Tick for half a day; return key, site, window and predicted of units since noon."""
        for hours in (-1, 3, 9):
            Ticker(self.database, "moles", "one").tick(NOON + timedelta(hours=hours))
        assert EvidenceCheck(self.database, "moles").check_all().faults == []
        query = select(counted_units.c.case_id).distinct().where(counted_units.c.track == track)
        with self.database.begin_read() as transaction:
            rollout = Rollouts(transaction).find("moles")
            pages = CasePages(transaction, rollout)
            case_ids = transaction.execute(query).scalars().all()
            keys = ExternalKeys(transaction, rollout).find_keys(case_ids)
            return sorted(
                (keys[case_id], lever.site, lever.window, lever.predicted)
                for case_id in case_ids
                for lever in pages.list_counted(case_id, timedelta(minutes=1))
                if lever.track == track and not keys[case_id].startswith("first")
            )


@pytest.fixture
def mole(database):
    return Mole(database)


def test_a_decision_without_a_case_names_its_site_or_is_rejected(mole):
    receipt = mole.decide("a", NOON)
    assert (receipt.status, receipt.reason) == ("rejected", NO_PLACE)
    receipt = mole.decide("a", NOON, site="pier")
    assert receipt.reason == "its site is none of the policy's: pier instead of quay, hill"
    with mole.database.begin_read() as transaction:
        rejected = RejectedRecords(transaction, Rollouts(transaction).find("moles"))
        assert [record.item.reason for record in rejected.list_after()].count(NO_PLACE) == 1
    assert mole.count_unplaced(NOON) == (1, 3)  # the key, and the first cases
    assert mole.decide("a", NOON, site="quay").status == "accepted"
    assert mole.count_unplaced(NOON) == (0, 3)


def test_a_version_is_no_reviewer_as_soon_as_it_is_stored(mole):
    receipt = mole.decide("a", NOON, reviewer="v1", site="quay")
    assert (receipt.status, "v1" in receipt.reason) == ("rejected", True)


def test_decisions_without_a_place_are_those_of_a_week(mole):
    mole.decide("a", NOON)
    mole.decide("b", NOON, site="pier")
    mole.decide("c", NOON, reviewer="v1", site="quay")  # rejected, and its place is known
    assert mole.count_unplaced(NOON - MINUTE) == (0, 0)
    assert mole.count_unplaced(NOON + 6 * DAY) == (2, 4)
    assert mole.count_unplaced(NOON + 8 * DAY) == (0, 0)


def test_what_a_tick_counted_is_counted_again_from_the_records(mole):
    """Of three keys one is sent again, one is placed a day later, one was placed before."""
    mole.decide("c", NOON - DAY, site="quay")
    counted = {}
    for hours in range(0, 16 * 24, 8):
        at = NOON + timedelta(hours=hours)
        for key, start, place in (
            *(("a", 0, {}), ("b", 24, {}), ("c", 24, {}), ("b", 48, {"site": "quay"})),
            *(("a", 96, {"site": "pier"}), ("d", 200, {"site": "quay"})),
        ):
            if start == hours:
                mole.decide(key, at, **place)
        for moment in (at, at + timedelta.resolution):
            counted[moment] = mole.count_unplaced(moment)
    with mole.database.begin_read() as transaction:
        records = PeriodRecords(transaction, Rollouts(transaction).find("moles"))
        history = records.load_unplaced(NOON, max(counted))
        assert records.load_unplaced(NOON + 30 * DAY, NOON + 31 * DAY) is None
    for at, count in counted.items():  # live reads no others where all have a place
        again = history.count_at(at)
        assert again == count or again.unplaced == count.unplaced == 0
    assert {unplaced for unplaced, _ in counted.values()} == {0, 1, 2}


def test_a_decision_without_a_case_is_a_missing_unit_of_its_cell(mole):
    mole.decide("a", NOON, site="quay")
    mole.decide("b", NOON, site="hill", occurred_at=NOON - HOUR)
    mole.decide("c", NOON + 7 * HOUR, site="quay")  # in a window where no version is in use
    assert mole.count() == [("a", "quay", "day", CASELESS), ("b", "hill", "day", CASELESS)]


def test_guards_count_a_decision_without_a_case_once_its_case_can_no_longer_come(mole):
    mole.decide("a", NOON, site="quay")
    Ticker(mole.database, "moles", "one").tick(NOON + HOUR)
    with mole.database.begin_read() as transaction:
        slots = select(counted_units.c.slot).where(counted_units.c.track == GUARD)
        assert len(transaction.execute(slots).all()) == 2  # the first at each site
    assert mole.count(GUARD) == [("a", "quay", "day", NOT_PREDICTED)]


def test_a_case_that_comes_in_time_counts_as_it_is(mole):
    mole.decide("a", NOON, site="quay")
    mole.send_case("a", "quay", NOON, received=NOON + HOUR)
    assert mole.count() == [("a", "quay", "day", AFTER_DECISION)]


def test_a_case_that_comes_too_late_is_not_counted_again(mole):
    mole.decide("a", NOON, site="quay")
    before = mole.count()
    mole.send_case("a", "hill", NOON - HOUR, received=NOON + 9 * HOUR)
    assert mole.count() == before == [("a", "quay", "day", CASELESS)]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "place", [{"site": "hill"}, {"site": "quay", "occurred_at": NOON - 18 * HOUR}]
)
def test_a_case_sent_to_another_cell_is_missing_where_it_was_decided(mole, place, is_first):
    cell = {"hill": ("hill", "day"), "quay": ("quay", "night")}[place["site"]]
    if is_first:
        mole.send_case("a", "quay", NOON - MINUTE)
    mole.decide("a", NOON, **place)
    if not is_first:
        mole.send_case("a", "quay", NOON - MINUTE, received=NOON + MINUTE)
    expected = [("a", *cell, CASELESS)]
    assert mole.count() == expected
    guard_units = [("a", "quay", "day", "ship" if is_first else NOT_PREDICTED)]
    assert mole.count(GUARD) == guard_units


def test_a_sender_moves_none_of_its_own_cases(mole):
    mole.send_case("a", "quay", NOON - MINUTE)
    assert mole.decide("a", NOON, by=BOTH, site="hill").status == "accepted"
    mole.decide("b", NOON, by=BOTH, site="hill")
    mole.send_case("b", "quay", NOON - MINUTE, received=NOON + MINUTE)
    mole.decide("c", NOON, by=BOTH, site="hill")
    assert mole.count() == [
        ("a", "quay", "day", "ship"),
        ("b", "quay", "day", AFTER_DECISION),
        ("c", "hill", "day", CASELESS),
    ]


def test_a_rejected_decision_places_no_case(mole):
    mole.send_case("a", "quay", NOON - MINUTE)
    mole.service.state_cache.reload_versions("moles")  # the name is new
    receipt = mole.decide("a", NOON, reviewer="v1", site="hill")
    assert receipt.status == "rejected"
    mole.decide("a", NOON + MINUTE)
    assert mole.count() == [("a", "quay", "day", "ship")]


def test_one_span_has_one_missing_unit(database):
    mole = Mole(database, EPISODES)
    for number in range(3):
        mole.decide(f"a{number}", NOON + number * MINUTE, site="quay")
    mole.send_case("b", "quay", NOON)
    mole.decide("b", NOON + MINUTE)
    assert [row[1:] for row in mole.count()] == [
        ("quay", "day", CASELESS),
        ("quay", "day", "ship"),
    ]


def test_a_decision_without_a_case_joins_no_episode_called_as_its_key(database):
    mole = Mole(database, POLICY.replace("unit: case", "unit: episode"), episodes=True)
    mole.decide("pier", NOON, site="quay", occurred_at=NOON)
    mole.send_case("b", "quay", NOON, episode="pier")
    mole.decide("b", NOON + MINUTE)
    assert mole.count() == [("b", "quay", "day", "ship"), ("pier", "quay", "day", CASELESS)]
    receipt, *_ = mole._send(BOX, [case := Case(**MISNAMED)], NOON, all_accepted=False)
    assert receipt.status == "rejected"
    assert case.episode in receipt.reason


def test_an_erased_case_leaves_no_trace_in_its_units_name(database):
    mole = Mole(database, POLICY.replace("unit: case", "unit: episode"), episodes=True)
    mole.decide("kestrel", NOON, site="quay", occurred_at=NOON)
    assert mole.count() == [("kestrel", "quay", "day", CASELESS)]
    assert "external_keys.key" in find_traces(database, "kestrel")
    erase_case(database, ErasureRequest(ADMIN, "moles", "asked", NOON + DAY), "kestrel")
    assert find_traces(database, "kestrel") == []
    assert EvidenceCheck(database, "moles").check_all().faults == []
