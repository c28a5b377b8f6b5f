"""A unit counts with what is known when its deadline passes, once."""

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from rollout.data.counting.counts import CountedOutcomes
from rollout.data.records.records import RecordStore
from rollout.data.records.versions import VersionInfo, VersionStore, build_version_info
from rollout.data.tables.tables import outcomes
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Case, Outcome, Prediction
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.conftest import database, other, url
from tests.engine.slots.pricing import POLICY
from tests.factories import HOUR, MINUTE, NOON
from tests.live.test_evidence_check import ADMIN

__all__ = ["database", "other", "url"]
RETURNS = "{id: returns, from: 0, to: 1, better: less, closes: 3h, missing_at_most: 5%}"
TEXT = POLICY.replace("closes: 2d", "closes: 3h").replace(
    "missing_at_most: 5%}]", f"missing_at_most: 5%}}, {RETURNS}]"
)
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
    """Return score and known share of profits by case number, in the order of cases."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "pricing").rollout
        lines = list(CountedOutcomes(transaction, rollout).read_lines(after=-1, until=2**62))
        values = transaction.execute(select(outcomes.c.outcome_values)).scalars().all()
    profits = [line for line in lines if line.outcome == "profit"]
    return sorted((line.case_id, line.score, line.known_share) for line in profits), values


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_late_values_are_missing_and_far_ones_count_as_the_end(database):
    apply_policy(database, TEXT, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    sold = NOON + MINUTE
    for key in ("a", "b", "c", "d"):
        case = Case(key=key, site="shop", window="always", occurred_at=sold)
        answer = Prediction(key=key, version="v1", answers={"price": "20"})
        store(database, sold, case, *([] if key == "d" else [answer]))  # `d` has no prediction
    store(database, NOON + HOUR, outcome("a", 20, NOON + HOUR), outcome("b", 75, NOON + HOUR))
    store(database, NOON + HOUR, outcome("d", 20, NOON + HOUR))
    returned = Outcome(key="b", at=NOON + HOUR, values={"returns": 1}, revision=2)
    store(database, NOON + HOUR, returned)  # its profit stays
    ticker = Ticker(database, "pricing", "one")
    ticker.tick(NOON + 3 * HOUR)
    assert read_counted(database)[0] == []
    late = DEADLINE + MINUTE
    store(database, late, outcome("c", 20, late), outcome("a", 60, late, revision=2))
    for hours in (4, 5):
        ticker.tick(NOON + hours * HOUR)
        (first, second, third, silent), values = read_counted(database)
        assert (second[1:], third[1:]) == ((1.0, 1.0), (0.0, 0.0))
        assert first[1:] == silent[1:] == (0.5, 1.0)  # the second revision came too late
        assert {"profit": 75.0} in values
    store(database, late + HOUR, outcome("c", 60, NOON + HOUR, revision=2))
    ticker.tick(NOON + 6 * HOUR)
    assert read_counted(database)[0] == [first, second, third, silent]
    request = ErasureRequest(ADMIN, "pricing", "they asked", NOON + 7 * HOUR)
    erase_case(database, request, "b")
    report = EvidenceCheck(database, "pricing").check_all()
    assert (report.faults, report.erased_units) == ([], 3)  # the unit, and it with two outcomes


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_case_erased_before_its_deadline_counts_with_what_is_known_of_it(database):
    apply_policy(database, TEXT, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    sold = NOON + MINUTE
    for key, records in {"a": [outcome("a", 20, sold)], "b": []}.items():
        case = Case(key=key, site="shop", window="always", occurred_at=sold)
        answer = Prediction(key=key, version="v1", answers={"price": "20"})
        store(database, sold, case, answer, *records)
        erase_case(database, ErasureRequest(ADMIN, "pricing", "they asked", sold), key)
    Ticker(database, "pricing", "one").tick(NOON + 4 * HOUR)
    assert [line[1:] for line in read_counted(database)[0]] == [(0.5, 1.0), (0.0, 0.0)]
    report = EvidenceCheck(database, "pricing").check_all()
    assert (report.faults, report.erased_units) == ([], 6)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_comes_after_a_unit_was_counted_is_no_fault_of_it(database):
    """A question under another name of its version, and an end of the version's training."""
    apply_policy(database, TEXT, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    sold, asked = NOON + MINUTE, DEADLINE + HOUR
    names = {"v1": "ab" * 32, "v1b": "ab" * 32}
    with database.begin_write() as transaction:
        versions = VersionStore(transaction, load_rollout_state(transaction, "pricing").rollout)
        for number, name in enumerate(names):
            info = build_version_info(name, "records", names)
            versions.record_info(info, at=NOON + number * MINUTE)
    case = Case(key="a", site="shop", window="always", occurred_at=sold)
    answer = Prediction(key="a", version="v1", answers={"price": "20"})
    store(database, sold, case, answer, outcome("a", 20, sold))
    Ticker(database, "pricing", "one").tick(DEADLINE + HOUR)
    assert len(read_counted(database)[0]) == 1
    question = replace(answer, version="v1b", decider="model", exposure="blind", share=0.3)
    store(database, asked, question)
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "pricing")
        assert state.first_names == {"v1b": "v1"}
        info = VersionInfo("v1", "registration", sold + HOUR, {"content": names["v1"]})
        VersionStore(transaction, state.rollout).record_info(info, at=asked)
    report = EvidenceCheck(database, "pricing").check_all()
    assert report.units == 3  # the unit, and it with two outcomes
    (fault,) = report.faults  # of the end, which has no entry, and not of the unit
    assert fault.startswith("v1: versions.trained_until says")


@pytest.mark.slow
@pytest.mark.parametrize("narrow_only", [False, True], ids=["two ticks", "one digest"])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_version_that_answers_later_rests_on_records_of_its_own(database, narrow_only):
    """A late revision is behind a later version's unit, and not behind the first one's."""
    apply_policy(database, TEXT, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    sold = NOON + MINUTE
    case = Case(key="a", site="shop", window="always", occurred_at=sold)
    answer = Prediction(key="a", version="v1", answers={"price": "20"})
    store(database, sold, case, answer, outcome("a", 75, sold))
    ticker = Ticker(database, "pricing", "one")
    ticker.tick(DEADLINE + HOUR, narrow_only=narrow_only)  # which writes no digest
    store(database, DEADLINE + HOUR, outcome("a", 20, sold, revision=2))
    store(database, DEADLINE + HOUR, replace(answer, version="v3"))
    ticker.tick(DEADLINE + 2 * HOUR)
    assert {score for _, score, _ in read_counted(database)[0]} == {1.0, 0.5}
    assert EvidenceCheck(database, "pricing").check_all().faults == []
