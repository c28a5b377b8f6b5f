"""The heartbeat thread: autonomy within seconds of a start, and retries that a stop wakes."""

import time
from types import SimpleNamespace

from rollout.data.database.append_failures import DatabaseUnavailableError, StoreError
from rollout.data.database.session import Database
from rollout.live.autonomy import MAX_WRITE_AGE, NOT_WRITTEN
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from rollout.worker import jobs
from rollout.worker.jobs import HeartbeatWorker
from tests.data.databases import fresh


def wait_until(is_true):
    ends_at = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def test_three_heartbeats_fit_into_the_age_at_which_humans_decide():
    assert MAX_WRITE_AGE / jobs.HEARTBEAT_INTERVAL >= 3


def find_write_time(service):
    """Return when the last write was confirmed, by the boot clock."""
    return service.clock.read_boot_clock() - service.autonomy.measure_write_age()


def test_the_thread_confirms_writes_at_once_and_wakes_for_a_stop(tmp_path):
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        service = build_service(database, None, SystemClock())
        service.autonomy.require_writes(reserve=0)
        worker = HeartbeatWorker(service, "a", interval=600)
        assert service.autonomy.find_doubt("bears") == NOT_WRITTEN
        worker.start()
        try:
            wait_until(lambda: not service.autonomy.find_doubt("bears"))
            first = find_write_time(service)
            service.autonomy.latches.changed.set()
            wait_until(lambda: find_write_time(service) > first + 0.001)
        finally:
            worker.stop()
            database.close()
        assert not worker._thread.is_alive()


def test_an_outage_is_left_to_its_own_lines_in_the_log_and_other_failures_are_told_once(
    tmp_path, caplog
):
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        worker = HeartbeatWorker(build_service(database, None, SystemClock()), "one")
        full, gone = StoreError("the disk is full"), DatabaseUnavailableError("no answer")
        passes = iter([(gone, gone), (full, gone), (full,), (gone,), (), (gone,), ()])
        worker._safety = SimpleNamespace(run_pass=lambda: next(passes))
        for _ in range(7):
            worker._run_pass()
        database.close()
    assert caplog.messages == [
        "humans decide until this replica can write again: StoreError: the disk is full",
        "this replica can write again",
    ]
