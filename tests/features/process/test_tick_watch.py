"""Work that ticks leave undone takes autonomy; a quiet night does not."""

from datetime import timedelta

import pytest

from rollout.features.process.replica_safety import MIN_WAIT, TickWork, WatchedScope, is_overdue
from tests.factories import DAY, HOUR, MINUTE, NOON

SECOND, NONE = timedelta(seconds=1), timedelta(0)
TICK = 15 * MINUTE


def build_work(
    last_slot=NOON, queued_at=None, arrived_at=None, first_end=NOON + DAY, *, needs_signs=False
):
    scope = WatchedScope(1, first_end, needs_signs)
    return TickWork(TICK, last_slot, queued_at, arrived_at, scope)


@pytest.mark.parametrize(
    ("work", "minutes", "wait"),
    [
        (build_work(), 300, NONE),  # nothing is due all night
        (build_work(queued_at=NOON + MINUTE), 14, NONE),  # the slot at 12:15 counts it
        (build_work(queued_at=NOON + MINUTE), 16, MINUTE),
        (build_work(queued_at=NOON - DAY), 0, NONE),  # it came since the tick
        (build_work(queued_at=NOON - DAY), 16, 16 * MINUTE),
        (build_work(last_slot=None, queued_at=NOON), 16, 16 * MINUTE),
        (build_work(arrived_at=NOON + MINUTE), 16, MINUTE),
        (build_work(first_end=NOON + 20 * MINUTE), 29, NONE),
        (build_work(first_end=NOON + 20 * MINUTE), 31, MINUTE),
        (build_work(needs_signs=True), 14, NONE),
        (build_work(needs_signs=True), 16, MINUTE),
        (build_work(last_slot=NOON + HOUR), 0, -HOUR),  # a tick of a time to come
        (build_work(last_slot=NOON + MINUTE), 0, NONE),
    ],
)
def test_work_waits_from_the_slot_that_should_do_it(work, minutes, wait):
    assert work.measure_wait(NOON + minutes * MINUTE) == wait


@pytest.mark.parametrize(
    ("tick", "longest"),
    [
        (SECOND, 10 * SECOND),
        (MINUTE, 3 * MINUTE),
        (15 * MINUTE, 10 * MINUTE),
        (DAY, 10 * MINUTE),
    ],
)
def test_it_may_wait_three_slots_and_at_most_ten_minutes(tick, longest):
    assert not is_overdue(longest, tick)
    assert is_overdue(longest + SECOND, tick)
    assert is_overdue(-SECOND, tick)
    assert not is_overdue(NONE, tick)
    assert longest >= MIN_WAIT
