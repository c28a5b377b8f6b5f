"""Ticks in a process of their own: what it does, and what the process that answers makes of it."""

import json
import logging
import sys
import time
from datetime import timedelta
from threading import Thread

import pytest

from api.metrics import JsonFormatter
from rollout.data.database.append_failures import TICK
from rollout.data.database.migrations import add_revision, finish_upgrade
from rollout.engine.decide.incident_kinds import EVIDENCE_CHANGED
from rollout.engine.events import IncidentOpened
from rollout.kernel.calendar.instants import to_instant
from rollout.live.tick_passes import RETRY_DELAY, Ticker
from rollout.live.work.user_runs import ProcessFailedError
from rollout.worker import jobs
from rollout.worker.jobs import TickWorker
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.live.test_evidence_check import change_decision
from tests.live.test_live import begun, count_waiting, written
from tests.live.test_ticks import HISTORY, SLOTS
from tests.live.test_ticks import TICK as SLOT
from tests.migrations.further import FURTHER, HEAD

pytestmark = pytest.mark.slow

FIRST, LAST = to_instant(SLOTS[0], SLOT), to_instant(SLOTS[-1], SLOT)
on_both = pytest.mark.parametrize("url", ENGINES, indirect=True)
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@filled_once
def fill(database):
    begun(database, HISTORY, SLOTS[0])


@filled_once
def count(database):
    """Count all but the last slot, for tests of other things than what a tick writes."""
    fill(database)
    Ticker(database, "story", "before").tick(LAST - SLOT)


@pytest.fixture
def start(database, begin):
    """Start workers of a rollout whose last slot is due; they end with the test."""
    count(database)
    return begin


@pytest.fixture
def begin(database):
    """Start workers of any rollout; they end with the test."""
    workers = []

    def start_worker(fault="", mark=""):
        command = (sys.executable, "-m", "tests.worker.faulty_process", fault, str(mark))
        workers.append(TickWorker(database, "one", command if fault else jobs.COMMAND))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.close()


@pytest.fixture
def mark(tmp_path):
    """Return a file; while it exists ticks do what they must not."""
    path = tmp_path / "faulty"
    path.touch()
    return path


def list_failures(database):
    return {key: failure.reason for key, failure in database.append_failures.failures.items()}


@pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
def test_ticks_of_process_write_what_ticks_here_write(database, begin, tmp_path):
    fill(database)
    result = begin().run_due_ticks(LAST)
    assert not result.errors
    assert result.seconds_by_rollout["story"] > 0
    assert count_waiting(database) == 0
    (tmp_path / "other").mkdir()
    with fresh("sqlite", tmp_path / "other") as url:
        other = type(database)(url)
        fill(other)
        Ticker(other, "story", "one").tick(LAST)
        assert [type(event) for event in written(database)] == [
            type(event) for event in written(other)
        ]
        other.close()


@pytest.mark.slow
@on_sqlite
def test_process_is_started_when_tick_is_due_and_ended_when_idle(database, start, monkeypatch):
    worker = start()
    worker.run_due_ticks(LAST)
    process = worker._process
    assert worker.run_due_ticks(LAST + timedelta(microseconds=1)).seconds_by_rollout == {}
    assert worker._process is process  # nothing was due
    worker.run_due_ticks(LAST + SLOT)
    assert worker._process is process  # slots that follow each other keep it
    monkeypatch.setattr(jobs, "IDLE_SECONDS", 0.0)
    worker.run_due_ticks(LAST + SLOT)
    assert worker._process is None
    assert worker.run_due_ticks(LAST + 2 * SLOT).seconds_by_rollout.keys() == {"story"}


@pytest.mark.slow
@on_sqlite
def test_write_that_fails_there_ends_autonomy_here_until_tick_succeeds(database, start, mark):
    worker = start("fail", mark)
    result = worker.run_due_ticks(LAST)
    assert "the disk is full" in str(result.errors["story"])
    assert "test_tick_worker" not in result.errors["story"].__notes__[0]
    assert "raise_busy" in result.errors["story"].__notes__[0]
    assert list_failures(database) == {("story", TICK): "DatabaseBusyError: the disk is full"}
    mark.unlink()
    assert worker.run_due_ticks(LAST + timedelta(seconds=4)).errors == {}
    assert list_failures(database)  # it is tried again after five seconds
    assert worker.run_due_ticks(LAST + timedelta(seconds=5)).seconds_by_rollout
    assert list_failures(database) == {}


@pytest.mark.slow
@on_sqlite
def test_damage_met_there_is_known_here(database, start, mark):
    start("damage", mark).run_due_ticks(LAST)
    assert database.damage_signs.text == "page 3 is broken"


@pytest.mark.slow
@on_sqlite
def test_newer_kind_waits_there_until_upgrade_is_finished(database, start, mark):
    """A tick of the next program writes nothing that the program before can't read."""
    worker = start("newer", mark)
    with database.begin_write() as transaction:
        add_revision(transaction.connection, FURTHER, HEAD)
    before = written(database)
    errors = worker.run_due_ticks(LAST).errors
    assert "can't be read by the program before" in str(errors["story"])
    assert written(database) == before
    with database.begin_write() as transaction:
        finish_upgrade(transaction)
    assert not worker.run_due_ticks(LAST + RETRY_DELAY).errors
    assert len(written(database)) > len(before)


@pytest.mark.slow
@on_sqlite
def test_process_that_dies_within_tick_is_failed_tick_until_one_succeeds(database, start, mark):
    worker = start("die", mark)
    result = worker.run_due_ticks(LAST)
    assert str(result.errors["story"]) == "the process of ticks ended within one (9)"
    assert list_failures(database) == {("story", TICK): str(result.errors["story"])}
    mark.unlink()
    assert worker.run_due_ticks(LAST + timedelta(seconds=5)).seconds_by_rollout
    assert list_failures(database) == {}


@on_sqlite
def test_no_line_of_log_has_text_of_exception_there(start, mark, caplog):
    error = start("log", mark).run_due_ticks(LAST).errors["story"]
    caplog.records.append(
        logging.LogRecord("rollout", logging.ERROR, "", 1, "tick", (), (type(error), error, None))
    )
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [line["message"] for line in lines] == ["it failed: ValueError", "tick"]
    for line in lines:
        assert line["exception"] == "ValueError"
        assert line["stack"][-1].endswith(" log_error")
    assert "secret-case" not in json.dumps(lines)
    assert "secret-case" in error.__notes__[0]  # as text it is for who debugs


@pytest.mark.slow
@on_sqlite
def test_process_that_died_while_idle_is_replaced_and_nothing_failed(database, start):
    worker = start()
    worker.run_due_ticks(LAST)
    worker._process.kill()
    while not worker._process.has_ended():
        time.sleep(0.01)
    assert worker.run_due_ticks(LAST + SLOT).seconds_by_rollout.keys() == {"story"}
    assert list_failures(database) == {}


@on_sqlite
def test_process_that_can_not_start_is_failed_tick_of_all_that_are_due(database):
    fill(database)
    worker = TickWorker(database, "one", (sys.executable, "-c", "raise SystemExit(3)"))
    assert worker.run_due_ticks(LAST).errors.keys() == {"story"}
    assert list_failures(database).keys() == {("story", TICK)}


@pytest.mark.slow
@on_sqlite
def test_silent_process_is_ended_and_is_failed_tick(database, start, mark, monkeypatch):
    worker = start("wait", mark)
    monkeypatch.setattr(jobs, "SILENT_SECONDS", 6.0)
    assert str(worker.run_due_ticks(LAST).errors["story"]).endswith("(-9)")
    assert list_failures(database).keys() == {("story", TICK)}


@on_sqlite
def test_stop_gives_running_tick_its_seconds_and_counts_no_failure(
    database, start, mark, monkeypatch
):
    worker, passes = start("wait", mark), []
    monkeypatch.setattr(jobs, "STOP_SECONDS", 0.2)
    thread = Thread(target=lambda: passes.append(worker.run_due_ticks(LAST)))
    thread.start()
    while worker._process is None:
        time.sleep(0.01)
    worker.stop()
    thread.join(20)
    assert [result.errors for result in passes] == [{}]
    assert list_failures(database) == {}
    assert worker.run_due_ticks(LAST).seconds_by_rollout == {}


@pytest.mark.slow
@on_both
def test_evidence_is_checked_beside_ticks_in_process_that_ends(database, start):
    worker = start()
    worker.run_due_ticks(LAST)
    assert worker.sample_evidence(LAST) == {}
    assert worker._check_process is None
    change_decision(database, exposure="revealed")
    assert worker.sample_evidence(LAST).keys() == {"story"}
    opened = [event.kind for event in written(database) if isinstance(event, IncidentOpened)]
    assert opened == [EVIDENCE_CHANGED.name]


@on_sqlite
def test_stop_ends_check_at_once(database, start, mark):
    worker, checked = start("wait", mark), []
    thread = Thread(target=lambda: checked.append(worker.sample_evidence(LAST)))
    thread.start()
    while worker._check_process is None:
        time.sleep(0.01)
    worker.stop()
    thread.join(20)
    assert checked == [{}]


@on_sqlite
def test_check_that_dies_says_so(start, mark):
    with pytest.raises(ProcessFailedError, match=r"checks evidence ended within \(9\)"):
        start("die", mark).sample_evidence(LAST)


@pytest.mark.slow
@on_sqlite
def test_process_ends_with_its_parent(start):
    worker = start()
    worker.run_due_ticks(LAST)
    assert worker._process.close() == 0


@pytest.mark.slow
@on_sqlite
def test_log_of_process_is_log_of_service(database, begin, caplog):
    fill(database)
    with caplog.at_level(logging.INFO):
        begin().run_due_ticks(FIRST, narrow_only=True)
    assert not [record for record in caplog.records if record.name == "rollout.database"]
