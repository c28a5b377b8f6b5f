"""Only cases of the accounts that the policy names count for gates; guards count all of them."""

from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Prediction
from rollout.features.records.decision_places import describe_missing_case
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import AFTER_DECISION, CASELESS, LATE_CASE
from rollout.live.clock import ManualClock
from rollout.live.evidence.unit_counting import GUARD
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from tests.factories import HOUR, NOON
from tests.live.test_placed_decisions import BOX, EPISODES, MINUTE, POLICY, Mole

pytestmark = pytest.mark.slow

CAMERA = Caller("camera", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
REGISTERED = "sources: {cases: [camera], accounts:"
NAMED = POLICY.replace("sources: {accounts:", REGISTERED)


class Pier(Mole):
    """A service whose camera registers cases; a box sends predictions, and cases of its own."""

    def send_case(self, key, site, at, *, received=None, answer="ship", by=None):
        case = Case(key=key, site=site, occurred_at=at, window="day")
        prediction = Prediction(key=key, version="v1", answers={"alarm": answer})
        by = by or (CAMERA if key.startswith("first") else BOX)
        (receipt, *_) = self._send(by, [case, prediction], received or at)
        return receipt

    def register(self, key, site, at, *, received=None):
        case = Case(key=key, site=site, occurred_at=at, window="day")
        (receipt,) = self._send(CAMERA, [case], received or at, all_accepted=False)
        return receipt


@pytest.fixture
def pier(database):
    return Pier(database, NAMED)


def test_a_case_of_another_account_counts_for_guards_alone(pier):
    pier.send_case("a", "quay", NOON)
    assert pier.decide("a", NOON + MINUTE, site="hill").status == "accepted"
    assert pier.count() == [("a", "hill", "day", CASELESS)]
    assert pier.count(GUARD) == [("a", "quay", "day", "ship")]


def test_a_decision_of_a_case_that_nobody_registered_names_its_site(pier):
    pier.send_case("a", "quay", NOON)
    receipt = pier.decide("a", NOON + MINUTE)
    sources = parse_policy(NAMED).evidence.sources
    assert (receipt.status, receipt.reason) == ("rejected", describe_missing_case(sources))
    assert "camera" in receipt.reason
    assert pier.count() == pier.count(GUARD) == []


def test_a_registered_case_replaces_the_other(pier):
    pier.send_case("a", "hill", NOON - HOUR)
    assert pier.register("a", "quay", NOON).status == "accepted"
    pier.decide("a", NOON + MINUTE)
    pier.send_case("b", "quay", NOON)
    pier.register("b", "quay", NOON)  # the same content
    pier.decide("b", NOON + MINUTE)
    assert pier.register("b", "quay", NOON, received=NOON + HOUR).status == "duplicate"
    units = [("a", "quay", "day", "ship"), ("b", "quay", "day", "ship")]
    assert pier.count() == pier.count(GUARD) == units


@pytest.mark.parametrize("is_first", [True, False])
def test_another_account_corrects_no_registered_case(pier, is_first):
    if is_first:
        pier.register("a", "quay", NOON)
    pier._send(BOX, [Case(key="a", site="hill", occurred_at=NOON, window="day", revision=9)], NOON)
    if not is_first:
        pier.register("a", "quay", NOON)
    pier.send_case("a", "hill", NOON)
    pier.decide("a", NOON + MINUTE)
    assert pier.count() == [("a", "quay", "day", "ship")]


def test_lateness_is_that_of_the_registered_case(pier):
    for key in ("a", "b"):
        pier.send_case(key, "quay", NOON)
        pier.decide(key, NOON + MINUTE, site="quay")
    pier.register("a", "quay", NOON, received=NOON + HOUR)
    before = pier.count(GUARD)
    pier.register("b", "hill", NOON, received=NOON + 8 * HOUR)
    assert pier.count() == [("a", "quay", "day", AFTER_DECISION), ("b", "quay", "day", CASELESS)]
    assert pier.count(GUARD) == before
    assert before == [("a", "quay", "day", "ship"), ("b", "quay", "day", "ship")]


def test_a_registered_case_without_a_place_can_come_too_late(pier):
    pier.send_case("a", "quay", NOON)
    pier.register("a", "quay", NOON, received=NOON + 3 * HOUR)
    pier.decide("a", NOON + 4 * HOUR)
    assert pier.count() == [("a", "quay", "day", LATE_CASE)]


def test_an_edit_of_the_policy_changes_nothing_that_was_received(database):
    pier = Pier(database, POLICY)
    pier.send_case("a", "quay", NOON - 2 * HOUR)
    apply_policy(database, NAMED, Actor("zoe"), NOON - HOUR)
    pier.service = build_service(database, None, ManualClock(NOON))  # as its cache reads it again
    pier.send_case("b", "quay", NOON)
    pier.decide("a", NOON + MINUTE)
    pier.decide("b", NOON + MINUTE, site="quay")
    assert pier.count() == [("a", "quay", "day", "ship"), ("b", "quay", "day", CASELESS)]


def test_an_episode_draws_among_registered_cases(database):
    pier = Pier(database, EPISODES.replace("sources: {accounts:", REGISTERED))
    for number in range(5):
        pier.send_case(f"a{number}", "quay", NOON + number * timedelta(seconds=1), answer="none")
    pier.register("b", "quay", NOON + MINUTE)
    pier.send_case("b", "quay", NOON + MINUTE)
    pier.decide("b", NOON + 2 * MINUTE)
    assert pier.count() == [("b", "quay", "day", "ship")]


@pytest.mark.parametrize("revision", [0, 2**31, 2**31 + 5])
def test_no_revision_makes_a_case_registered(pier, revision):
    case = Case(key="a", site="quay", occurred_at=NOON, window="day", revision=revision)
    (receipt,) = pier._send(BOX, [case], NOON, all_accepted=False)
    assert (receipt.status, receipt.reason) == (
        "rejected",
        f"revision {revision} is invalid; the first is 1",
    )
