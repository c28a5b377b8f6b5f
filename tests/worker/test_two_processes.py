"""Two processes, one PostgreSQL, 200 rollouts due: each slot is done once, whichever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from rollout.data.counting.count_queue import CASE_RECEIVED, CountQueue, DueCase
from rollout.data.database.session import Database
from rollout.data.records.records import RecordStore
from rollout.data.tables.tables import count_queue, counted_units, counts, tick_slots
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.databases import fresh

pytestmark = pytest.mark.faults

ROLLOUTS = 200
PATIENCE = 300  # seconds, on a machine that does much else; nothing here is about speed
TICK = 20  # seconds: a slot in which 200 rollouts can be done on two busy processors
POLICY = """
rollout: {name}
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [ramp]
evidence: {{unit: case, grace: 1m}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
tick: {tick}s
"""


@pytest.fixture
def url(tmp_path):
    with fresh("postgresql", tmp_path) as made:
        yield made


@pytest.fixture
def database(url):
    with closing(Database(url)) as made:
        yield made


def fill(database):
    """Make the rollouts, each with a case that both tracks have to count."""
    past = datetime.now(UTC) - timedelta(hours=1)
    said = {"parcel": "sound"}
    for n in range(ROLLOUTS):
        name = f"r{n}"
        apply_policy(database, POLICY.format(name=name, tick=TICK), Actor("zoe"), past)
        with database.begin_write() as transaction:
            stood = load_rollout_state(transaction, name)
            kept = RecordStore(transaction, stood.rollout).store(
                [
                    Case(key="c", site="ramp", occurred_at=past, window="always"),
                    Prediction(key="c", version="v1", answers=said, at=past),
                    Decision(
                        key="c", reviewer="ana", answers=said, exposure="blind", submitted_at=past
                    ),
                ],
                received_at=past,
            )
            came = (DueCase(past, number, CASE_RECEIVED) for number in kept.case_ids.values())
            CountQueue(transaction, stood.rollout).add(came)


@contextmanager
def replica(url, owner, folder):
    """Run one replica until the end of the block; what it says goes to a file."""
    environment = {**os.environ, "ROLLOUT_DATABASE_URL": url}
    script = Path(__file__).parent / "replica.py"
    with (folder / owner).open("wb") as said, (folder / f"{owner}.err").open("wb") as errors:
        started = subprocess.Popen(
            [sys.executable, script, owner], env=environment, stdout=said, stderr=errors
        )
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def one(database, query):
    with database.begin_read() as transaction:
        return transaction.execute(query).scalar_one()


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def said_by(folder, owner):
    """Return each slot that a replica says it did, as (rollout, slot)."""
    lines = (line.split() for line in (folder / owner).read_text().splitlines())
    return [(name, int(datetime.fromisoformat(at).timestamp()) // TICK) for name, at in lines]


def test_each_slot_is_done_once_and_a_killed_replica_is_taken_over(url, database, tmp_path):
    fill(database)
    done = select(func.count()).where(tick_slots.c.done_at.is_not(None))
    rollouts_done = select(func.count(tick_slots.c.rollout.distinct())).where(
        tick_slots.c.done_at.is_not(None)
    )
    midway = select(func.count()).where(
        tick_slots.c.done_at.is_(None), tick_slots.c.owner == "first"
    )
    with replica(url, "first", tmp_path) as first, replica(url, "second", tmp_path):
        wait_until(lambda: one(database, done) >= ROLLOUTS // 2, PATIENCE)
        wait_until(lambda: one(database, midway) > 0, PATIENCE)
        first.send_signal(signal.SIGKILL)
        first.wait()
        wait_until(lambda: one(database, rollouts_done) == ROLLOUTS, PATIENCE)
        queued = select(func.count()).select_from(count_queue)
        wait_until(lambda: one(database, queued) == 0, PATIENCE)
    first_said, second_said = said_by(tmp_path, "first"), said_by(tmp_path, "second")
    assert first_said
    assert second_said
    assert max(Counter(first_said + second_said).values()) == 1
    assert one(database, select(func.count()).select_from(counted_units)) == 2 * ROLLOUTS
    assert one(database, select(func.sum(counts.c.n))) == 2 * ROLLOUTS
    # under load the scheduler says there that a pass was skipped, as the one before still ran
    assert "Traceback" not in (tmp_path / "second.err").read_text()
