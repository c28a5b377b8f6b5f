"""A unit counts with what is known when its deadline passes, once."""

import pytest
from sqlalchemy import select

from rollout.core.records.records import Case, Outcome, Prediction
from rollout.core.scope.commands import Actor
from rollout.services.engine.evidence_check import EvidenceCheck
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.services.engine.unit_counting import queue_new_cases
from rollout.services.erasure.case_erasure import erase_case
from rollout.services.erasure.erasure import ErasureRequest
from rollout.store.counting.counted_outcomes import CountedOutcomes
from rollout.store.records.records import RecordStore
from rollout.store.tables.tables import outcomes
from tests.factories import HOUR, MINUTE, NOON
from tests.replay.pricing import POLICY
from tests.services.engine.test_evidence_check import ADMIN
from tests.store.conftest import database, other, url

__all__ = ["database", "other", "url"]
TEXT = POLICY.replace("closes: 2d", "closes: 3h")
DEADLINE = NOON + MINUTE + 3 * HOUR


def store(database, at, *records):
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "pricing")
        batch = RecordStore(transaction, state.rollout).store(records, received_at=at)
        assert {result.status for result in batch.results} == {"accepted"}
        queue_new_cases(transaction, state, batch, at)


def outcome(key, value, at, **more):
    return Outcome(key=key, at=at, values={"profit": value}, **more)


def read_counted(database):
    """Return score and known share by case number, in the order of cases."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "pricing").rollout
        lines = list(CountedOutcomes(transaction, rollout).read_lines(after=-1, until=2**62))
        values = transaction.execute(select(outcomes.c.outcome_values)).scalars().all()
    return sorted((line.case_id, line.score, line.known_share) for line in lines), values


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_late_values_are_missing_and_far_ones_count_as_the_end(database):
    apply_policy(database, TEXT, Actor("zoe"), NOON, salt=bytes(32))
    sold = NOON + MINUTE
    for key in ("a", "b", "c", "d"):
        case = Case(key=key, site="shop", window="always", occurred_at=sold)
        answer = Prediction(key=key, version="v1", answers={"price": "20"})
        store(database, sold, case, *([] if key == "d" else [answer]))  # `d` has no prediction
    store(database, NOON + HOUR, outcome("a", 20, NOON + HOUR), outcome("b", 75, NOON + HOUR))
    store(database, NOON + HOUR, outcome("d", 20, NOON + HOUR))
    ticker = Ticker(database, "pricing", "one")
    ticker.tick(NOON + 3 * HOUR)
    assert read_counted(database)[0] == []
    late = DEADLINE + MINUTE
    store(database, late, outcome("c", 20, late), outcome("a", 60, late, revision=2))
    for hours in (4, 5):
        ticker.tick(NOON + hours * HOUR)
        (first, second, third), values = read_counted(database)
        assert (second[1:], third[1:]) == ((1.0, 1.0), (0.0, 0.0))
        assert first[1:] == (0.0, 0.0)  # the newest revision counts, and it came too late
        assert {"profit": 75.0} in values
    store(database, late + HOUR, outcome("c", 60, NOON + HOUR, revision=2))
    ticker.tick(NOON + 6 * HOUR)
    assert read_counted(database)[0] == [first, second, third]
    request = ErasureRequest(ADMIN, "pricing", "they asked", NOON + 7 * HOUR)
    erase_case(database, request, "b")
    report = EvidenceCheck(database, "pricing").check_all()
    assert (report.faults, report.erased_units) == ([], 2)  # the unit, and it with its outcome
