"""Points do nothing unless a test installs something, and what it installs does not outlive it."""

import pytest

from rollout import faults
from rollout.live.clock import ManualClock
from tests.factories import HOUR, NOON
from tests.faults.kinds import Arm, Injected, raises, step


def test_nothing_happens_where_nothing_is_installed():
    assert not faults.has_actions()
    faults.reach_point("append.locked")


def test_an_action_of_a_name_goes_before_that_of_all():
    every, own = [], []
    with faults.install_action(every.append), faults.install_action(own.append, "append.locked"):
        assert faults.has_actions()
        faults.reach_point("append.locked")
        faults.reach_point("append.moved")
    assert (every, own) == (["append.moved"], ["append.locked"])


def test_what_was_installed_before_comes_back_after_an_error():
    outer = []
    with faults.install_action(outer.append):
        with pytest.raises(Injected), faults.install_action(Arm(0, raises)):
            faults.reach_point("tick.taken")
        faults.reach_point("tick.counted")
    assert outer == ["tick.counted"]
    assert not faults.has_actions()


def test_the_kth_point_fails_once_or_from_there_on():
    def failed(arm):
        found = []
        for name in "abcd":
            try:
                arm(name)
            except Injected:
                found.append(name)
        return found

    assert failed(Arm(1, raises)) == ["b"]
    assert failed(Arm(1, raises, always=True)) == ["b", "c", "d"]
    assert failed(Arm(9, raises)) == []


def test_a_clock_steps_at_a_point_and_the_time_since_boot_does_not():
    clock = ManualClock(NOON, since_boot=5.0)
    with faults.install_action(Arm(1, step(clock, -HOUR))):
        faults.reach_point("assign.read")
        assert clock.now() == NOON
        faults.reach_point("assign.kept")
    assert (clock.now(), clock.read_boot_clock()) == (NOON - HOUR, 5.0)


def test_no_variable_of_the_environment_installs_anything(monkeypatch):
    monkeypatch.setenv("ROLLOUT_FAULTS", "append.locked=kill")
    faults.reach_point("append.locked")
    assert not faults.has_actions()
