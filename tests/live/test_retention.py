"""Records leave at their age; counts, tallies and the ledger stay."""

from datetime import timedelta

import pytest

from rollout import faults
from rollout.data.database.append_failures import SMALL_APPEND, StoreError
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.events import RecordsPurged
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.live.policy_application import apply_policy
from rollout.live.retention import purge_all_rollouts
from tests.data.conftest import database, url
from tests.factories import NOON

__all__ = ["database", "url"]
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
YEAR = timedelta(days=365)


def filled(database, policy):
    apply_policy(database, policy, Actor("zoe"), NOON)
    said = {"parcel": "sound"}
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        items = [
            *(
                Case(key=f"c-{n}", site="ramp-a", occurred_at=NOON, window="always")
                for n in range(5)
            ),
            Prediction(key="c-0", version="v1", answers=said),
            Decision(key="c-0", reviewer="ana", answers=said, exposure="blind"),
        ]
        RecordStore(transaction, rollout).store(items, received_at=NOON)


def events(database):
    with database.begin_read() as transaction:
        return list(Ledger(transaction, Rollouts(transaction).find("ramps")).list_events())


def test_records_leave_at_their_age_and_the_ledger_says_so(database):
    filled(database, POLICY + "retention: {cases: 365d}\n")
    assert purge_all_rollouts(database, NOON + YEAR) == {}  # not older yet
    assert purge_all_rollouts(database, NOON + YEAR + timedelta(seconds=1)) == {"ramps": 7}
    (noted,) = [event for event in events(database) if isinstance(event, RecordsPurged)]
    assert dict(zip(noted.tables, noted.counts, strict=True)) == {
        "cases": 5,
        "decisions": 1,
        "predictions": 1,
    }
    assert purge_all_rollouts(database, NOON + 2 * YEAR) == {}


def test_without_an_age_nothing_ever_leaves(database):
    filled(database, POLICY)
    assert purge_all_rollouts(database, NOON + 10 * YEAR) == {}


def test_a_purge_in_batches_notes_each(database, monkeypatch):
    monkeypatch.setattr("rollout.live.retention.CASES_PER_BATCH", 2)
    filled(database, POLICY + "retention: {cases: 365d}\n")
    assert purge_all_rollouts(database, NOON + 2 * YEAR) == {"ramps": 7}
    assert sum(isinstance(event, RecordsPurged) for event in events(database)) == 3


def test_it_looks_again_until_nothing_old_is_left(database, monkeypatch):
    monkeypatch.setattr("rollout.live.retention.CASES_PER_BATCH", 1)
    monkeypatch.setattr("rollout.live.retention.CASES_PER_SEARCH", 2)
    filled(database, POLICY + "retention: {cases: 365d}\n")
    assert purge_all_rollouts(database, NOON + 2 * YEAR) == {"ramps": 7}


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_was_not_noted_was_not_deleted(database, monkeypatch, fails_at):
    monkeypatch.setattr("rollout.live.retention.CASES_PER_BATCH", 2)
    filled(database, POLICY + "retention: {cases: 365d}\n")
    append, calls = Ledger.append, []

    def failing(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError("power")
        return append(self, *args, **kwargs)

    monkeypatch.setattr(Ledger, "append", failing)
    with pytest.raises(OSError, match="power"):
        purge_all_rollouts(database, NOON + 2 * YEAR)
    monkeypatch.undo()
    purge_all_rollouts(database, NOON + 2 * YEAR)
    noted = [event for event in events(database) if isinstance(event, RecordsPurged)]
    assert sum(sum(event.counts) for event in noted) == 7


def test_a_purge_that_fails_before_its_append_counts_until_it_succeeds(database):
    filled(database, POLICY + "retention: {cases: 365d}\n")

    def fail(_point):
        raise StoreError("database or disk is full")

    with faults.install_action(fail, "purge.deleted"), pytest.raises(StoreError):
        purge_all_rollouts(database, NOON + 2 * YEAR)
    ((key, failure),) = database.append_failures.failures.items()
    assert (key, failure.rows > SMALL_APPEND) == (("ramps", "RecordsPurged"), True)
    purge_all_rollouts(database, NOON + 2 * YEAR)
    assert database.append_failures.failures == {}
