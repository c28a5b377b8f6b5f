"""Records that arrive while a tick counts, or a purge deletes, are counted as any others."""

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import text

from rollout import faults
from rollout.data.counting.counts import CountedOutcomes
from rollout.data.records.records import RecordStore
from rollout.data.records.versions import VersionStore, build_version_info
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Case, Outcome, Prediction
from rollout.features.records.record_import import import_records
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.retention import purge_old_records
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.engine.evidence.histories import START, cases, predictions, records
from tests.engine.slots.pricing import POLICY
from tests.factories import HOUR, MINUTE, NOON

TEXT = POLICY.replace("closes: 2d", "closes: 3h") + "\nretention: {cases: 30d}\n"
LATE = NOON + MINUTE + 4 * HOUR
CONTENT = "ab" * 32


@pytest.fixture
def ticker(database):
    """The ticker of a rollout with a case whose units are due at `LATE`."""
    apply_policy(database, TEXT, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    record_version(database, "v1", NOON)
    case = Case(key="a", site="shop", window="always", occurred_at=NOON + MINUTE)
    store(database, NOON + MINUTE, case, predict("v1"))
    ticker = Ticker(database, "pricing", "one")
    ticker.tick(NOON + 2 * MINUTE)
    return ticker


def predict(version):
    return Prediction(key="a", version=version, answers={"price": "20"}, at=NOON + MINUTE)


def record_version(database, name, at):
    contents = {"v1": CONTENT, "v1b": CONTENT}
    with database.begin_write() as transaction:
        versions = VersionStore(transaction, load_rollout_state(transaction, "pricing").rollout)
        versions.record_info(build_version_info(name, "records", contents), at=at)


def store(database, at, *records, before_commit=lambda: None):
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "pricing")
        batch = RecordStore(transaction, state.rollout).store(records, received_at=at, sender="acc")
        assert {result.status for result in batch.results} == {"accepted"}
        queue_new_cases(transaction, state, batch, at)
        before_commit()


def list_counted(database):
    """Return the versions of the counted units, and of the counted outcomes, in order."""
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "pricing").rollout
        units = transaction.execute(text("select distinct version from counted_units order by 1"))
        outcomes = CountedOutcomes(transaction, rollout).read_lines(after=-1, until=2**62)
        return list(units.scalars()), sorted(outcome.version for outcome in outcomes)


def meet_tick(database, ticker, thread):
    """Run a thread after a tick has read and before it takes the case out of the queue.

    The tick goes on when the thread has ended or waits for it.
    """

    def begin():
        thread.start()
        while thread.is_alive() and not has_waiting_session(database):
            time.sleep(0.01)

    with faults.install_action(run_once(begin), "tick.counted"):
        ticker.tick(LATE)
    thread.join()


def has_waiting_session(database):
    with database.begin_read() as transaction:
        query = "select 1 from pg_stat_activity where datname = current_database()"
        return bool(transaction.execute(text(f"{query} and wait_event_type = 'Lock'")).all())


def run_once(work):
    """Return an action for a point that does the work when it is reached first."""
    works = [work]
    return lambda _: works.pop()() if works else None


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("is_between", [True, False])
def test_a_version_that_answers_while_its_case_is_counted_is_counted(database, ticker, is_between):
    if is_between:  # the record is stored after the tick has read, and before it takes the case out
        thread = threading.Thread(target=store, args=(database, LATE, predict("v2")))
        meet_tick(database, ticker, thread)
    else:  # the tick counts and takes the case out while the record is not committed
        store(database, LATE, predict("v2"), before_commit=lambda: ticker.tick(LATE))
    ticker.tick(LATE + HOUR)
    assert list_counted(database) == (["v1", "v2"], ["v1", "v2"])


def import_prediction(database, version):
    """Import a version's answer to the stored case at `LATE`."""
    answer = ("a", "20", {"version": version, "at": (NOON + MINUTE - START) / HOUR})
    history = records(cases(), predictions(answer, levers=("price",)))
    counts = import_records(database, "pricing", history, LATE)
    assert counts["prediction"] == {"accepted": 1}


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("is_between", [True, False])
def test_an_import_that_meets_a_tick_is_counted(database, ticker, is_between):
    if is_between:
        meet_tick(
            database, ticker, threading.Thread(target=import_prediction, args=(database, "v2"))
        )
    else:
        with faults.install_action(run_once(lambda: ticker.tick(LATE)), "ingest.due"):
            import_prediction(database, "v2")
    ticker.tick(LATE + HOUR)
    assert list_counted(database) == (["v1", "v2"], ["v1", "v2"])


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_purge_waits_for_who_stores_a_case_that_it_deletes(database, ticker):
    ticker.tick(LATE)
    ticker.tick(LATE + HOUR)
    at = NOON + timedelta(days=40)
    thread = threading.Thread(target=purge_old_records, args=(database, "pricing", at))

    def begin():
        thread.start()
        thread.join(1.0)

    revised = Case(key="a", site="shop", window="always", occurred_at=at, revision=2)
    store(database, at, revised, Outcome(key="a", at=at, harm="injury"), before_commit=begin)
    thread.join()
    ticker.tick(at + HOUR)
    with database.begin_read() as transaction:
        stored = transaction.execute(text("select revision from cases order by 1")).scalars().all()
    assert stored == [1, 2]
    assert EvidenceCheck(database, "pricing").check_all().faults == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_outcomes_are_counted_under_the_names_that_versions_have_by_then(database, ticker):
    def rename():
        record_version(database, "v1b", LATE)
        store(database, LATE, predict("v1b"))

    with faults.install_action(run_once(rename), "tick.claimed"):
        ticker.tick(LATE)
    ticker.tick(LATE + HOUR)
    assert list_counted(database) == (["v1"], ["v1"])
    assert EvidenceCheck(database, "pricing").check_all().faults == []
