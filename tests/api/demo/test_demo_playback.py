"""The story's speed, by the monotonic clock."""

import time
from datetime import timedelta
from threading import Thread

import pytest

from api.demo.live import Playback

HOUR = timedelta(hours=1)


def waited(playback, span, patience=5.0):
    started = time.monotonic()
    is_due = playback.wait_until_due(started, span, patience=patience)
    return is_due, time.monotonic() - started


def test_an_hour_takes_its_share_of_wall_time():
    is_due, seconds = waited(Playback(3600), HOUR / 10)
    assert is_due
    assert 0.1 <= seconds < 1


def test_patience_ends_a_wait():
    is_due, seconds = waited(Playback(1), HOUR, patience=0.05)
    assert (is_due, seconds < 1) == (False, True)


def test_a_paused_story_is_never_due_and_neither_is_one_at_its_end():
    paused, over = Playback(3600), Playback(3600, is_over=True)
    paused.pause()
    assert waited(paused, timedelta(0), patience=0.02)[0] is False
    assert waited(over, timedelta(0), patience=0.02)[0] is False
    paused.play_at(60)
    assert waited(paused, timedelta(0))[0] is True


def test_a_change_of_speed_ends_a_wait_at_once():
    playback = Playback(1)
    changer = Thread(target=lambda: (time.sleep(0.05), playback.play_at(3600)))
    changer.start()
    is_due, seconds = waited(playback, timedelta(minutes=5))
    changer.join()
    assert is_due
    assert seconds < 2


@pytest.mark.parametrize("speed", [0, -3, 3601])
def test_a_speed_out_of_range_is_named(speed):
    playback = Playback(360)
    with pytest.raises(ValueError, match=f"speed {speed} is out of range: give 1"):
        playback.play_at(speed)
    assert playback.speed == 360
