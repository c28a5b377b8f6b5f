"""Files of stops and memory change together, however threads interleave."""

from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread

import pytest

from rollout.data.ledger.scopes import ALL_ROLLOUTS, Damage, PendingStop
from rollout.engine.decide.commands import Actor
from rollout.kernel.calendar.instants import Cell
from rollout.live import stop_latches
from rollout.live.stop_latches import LatchFolder, StopLatches
from tests.factories import NOON

DAMAGE = Damage("bears", "malformed", NOON)
STOP = PendingStop("x", "bears", (Cell("creek", "day"),), Actor("bo"), "fog", NOON, drill=False)
SECONDS = 20


@contextmanager
def paused(monkeypatch, owner, name):
    """Let a function wait, after the work that it does, until the block has ended."""
    is_reached, may_go_on = Event(), Event()
    work = getattr(owner, name)

    def pause(*arguments):
        is_reached.set()
        result = work(*arguments) if name == "load" else None
        may_go_on.wait(SECONDS)
        return result if name == "load" else work(*arguments)

    monkeypatch.setattr(owner, name, pause)
    yield is_reached
    may_go_on.set()


@pytest.mark.parametrize(("step", "row"), [("save", STOP), ("save", DAMAGE), ("load", STOP)])
def test_what_ends_while_its_file_is_written_or_read_leaves_nothing(
    monkeypatch, tmp_path, step, row
):
    latches = StopLatches(LatchFolder(tmp_path))
    is_stop = isinstance(row, PendingStop)
    (latches.latch if is_stop else latches.add_damage)(row)
    if step == "load":
        latches.save_all()
        assert len(list(tmp_path.iterdir())) == 1
    owner, name = (
        (LatchFolder, "load") if step == "load" else (stop_latches, "write_files_atomically")
    )
    heartbeat = Thread(target=latches.obey_files if step == "load" else latches.save_all)
    request = Thread(target=latches.remove if is_stop else latches.remove_damage, args=(row,))
    with paused(monkeypatch, owner, name) as is_reached:
        heartbeat.start()
        assert is_reached.wait(SECONDS)
        request.start()
        request.join(0.2)  # long enough to overtake, were it not for the lock
    heartbeat.join(SECONDS)
    request.join(SECONDS)
    assert (latches.stops, latches.damages, list(tmp_path.iterdir())) == ((), (), [])


def test_latching_waits_for_no_file(monkeypatch, tmp_path):
    latches = StopLatches(LatchFolder(tmp_path))
    latches.add_damage(DAMAGE)
    with paused(monkeypatch, stop_latches, "write_files_atomically") as is_reached:
        heartbeat = Thread(target=latches.save_all)
        heartbeat.start()
        assert is_reached.wait(SECONDS)
        request = Thread(target=latches.latch, args=(STOP,))
        request.start()
        request.join(SECONDS)
        assert latches.stops == (STOP,)
    heartbeat.join(SECONDS)


def test_an_order_outlives_the_refusal_of_the_same_by_another_user():
    latches, same = StopLatches(), replace(STOP, id="y", by=Actor("dan"))
    assert latches.latch(STOP)
    assert latches.latch(same)
    latches.remove(STOP)
    assert latches.stops == (same,)


def test_damage_of_all_rollouts_is_damage_of_each():
    latches = StopLatches()
    assert not latches.is_damaged("bears")
    latches.add_damage(Damage(ALL_ROLLOUTS, "malformed", NOON))
    assert latches.is_damaged("bears")
