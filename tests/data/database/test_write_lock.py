"""Writers of one process take turns in order of arrival, with a time-out."""

import threading
import time
from contextlib import suppress

import pytest

from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.database.session import WriteLock
from tests.data.databases import on_sqlite


def started(work, *more):
    thread = threading.Thread(target=work, args=more)
    thread.start()
    time.sleep(0.02)  # so that it has asked before the next one does
    return thread


def test_turns_are_given_in_the_order_of_asking(tmp_path):
    turns, came = WriteLock(5, tmp_path), []

    def take(name):
        with turns.hold():
            came.append(name)

    with turns.hold():
        waiting = [started(take, n) for n in range(5)]
    for thread in waiting:
        thread.join()
    assert came == [0, 1, 2, 3, 4]


def test_who_waits_too_long_is_told_and_holds_up_nobody(tmp_path):
    turns, came = WriteLock(0.05, tmp_path), []

    def give_up():
        with suppress(DatabaseBusyError), turns.hold():
            came.append("late")

    with turns.hold():
        started(give_up).join()
    with turns.hold():
        came.append("next")
    assert came == ["next"]


def test_an_error_gives_the_turn_back(tmp_path):
    turns = WriteLock(0.05, tmp_path)
    with pytest.raises(OSError, match="disk"), turns.hold():
        raise OSError("disk")
    with turns.hold():
        pass


def test_writer_that_gives_way_waits_for_urgent_ones_elsewhere(tmp_path):
    here, elsewhere, came = WriteLock(5, tmp_path), WriteLock(5, tmp_path, gives_way=True), []

    def take(name, *, is_urgent):
        with elsewhere.hold(is_urgent=is_urgent):
            came.append(name)

    with here.hold(is_urgent=True):
        count = threading.Thread(target=take, args=("count",), kwargs={"is_urgent": False})
        count.start()
        time.sleep(0.05)
        take("order", is_urgent=True)
        came.append("stop")
    count.join()
    assert came == ["order", "stop", "count"]
    with here.hold():
        take("count", is_urgent=False)
    assert came[3:] == ["count"]  # only urgent ones hold it back


def test_writer_that_gives_way_goes_on_in_the_end(tmp_path):
    here, elsewhere = WriteLock(5, tmp_path), WriteLock(0.05, tmp_path, gives_way=True)
    with here.hold(is_urgent=True), elsewhere.hold():
        pass


def test_urgent_writers_need_no_sign(tmp_path):
    with WriteLock(5, tmp_path / "gone").hold(is_urgent=True):
        pass


@pytest.mark.slow
@on_sqlite
def test_one_who_writes_without_pause_starves_nobody(database):
    over = threading.Event()

    def without_pause():
        while not over.is_set():
            with database.begin_write():
                time.sleep(0.01)

    busy = [started(without_pause) for _ in range(3)]
    waited = []
    for _ in range(20):
        began = time.monotonic()
        with database.begin_write():
            waited.append(time.monotonic() - began)
    over.set()
    for thread in busy:
        thread.join()
    assert max(waited) < 2  # three turns before one's own; by looking again it took up to 5 s
