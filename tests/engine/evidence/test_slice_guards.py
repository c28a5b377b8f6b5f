"""Guards by slice: which values an alarm names, what it counts, and when it is over."""

from datetime import timedelta

import numpy as np

from rollout.engine.evidence.guard_series import compute_drift_series, compute_slice_series
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.kernel.facts import AlarmSubject
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard
from rollout.kernel.populations import EachValue
from rollout.kernel.units import MISSING, UnitClass
from tests.engine.evidence.histories import a_policy

TICK = timedelta(hours=1)
POLICY = a_policy()
BY_GROUP = Condition(MEASURES["agreement"], 0.9, population=EachValue("group"))
GUARD = Guard(BY_GROUP, "suspend", false_alarm_every=1000)
MIX = Condition(MEASURES["drift"], 0.1, population=EachValue("group"))
CLASSES = UnitClasses(
    tuple(
        UnitClass("alarm", "bear", decided, slices=f'{{"group":"{group}"}}')
        for group in "abc"
        for decided in ("bear", "fox", MISSING)
    ),
    POLICY,
)
AGREES = {group: 3 * number for number, group in enumerate("abc")}
DIFFERS = {group: number + 1 for group, number in AGREES.items()}
MISSED = {group: number + 2 for group, number in AGREES.items()}


def rows(classes):
    """Return units of classes, one a slot."""
    slots, zeros = np.arange(len(classes)), np.zeros(len(classes), dtype=np.int64)
    return UnitArrays(slots, slots, np.array(classes, dtype=np.int64), zeros, zeros, slots)


def test_a_bad_value_trips_although_the_average_is_good():
    classes = [AGREES["a"]] * 9 + [AGREES["b"]]
    fallen = [AGREES["a"]] * 9 + [DIFFERS["b"]]
    series = compute_slice_series(GUARD, BY_GROUP, rows(classes * 10 + fallen * 8), CLASSES)
    slot = series.find_next_alarm(0)
    assert slot is not None
    assert 100 < slot < 180
    reading = series.read_at(slot, TICK)
    failed = (slot - 99) // 10
    assert reading.subject == AlarmSubject("group", "b")
    assert (reading.value, reading.records) == (failed, 10 + failed)


def test_an_alarm_lasts_without_new_units_of_its_value_and_ends_with_them():
    story = [AGREES["b"]] * 20 + [DIFFERS["b"]] * 8 + [AGREES["a"]] * 300
    lasting = compute_slice_series(GUARD, BY_GROUP, rows(story), CLASSES)
    assert lasting.read_at(10_000, TICK).is_alarm
    over = compute_slice_series(GUARD, BY_GROUP, rows(story + [AGREES["b"]] * 80), CLASSES)
    reading = over.read_at(10_000, TICK)
    assert not reading.is_alarm
    assert reading.has_recovered


def test_a_value_that_comes_later_changes_no_earlier_reading():
    story = [AGREES["a"]] * 120
    live = compute_slice_series(GUARD, BY_GROUP, rows(story), CLASSES)
    whole = compute_slice_series(GUARD, BY_GROUP, rows(story + [DIFFERS["b"]] * 3), CLASSES)
    assert live.read_at(119, TICK).has_recovered
    assert [whole.read_at(slot, TICK) for slot in range(120)] == [
        live.read_at(slot, TICK) for slot in range(120)
    ]


def test_drift_names_what_became_more_frequent_and_what_is_new():
    guard = Guard(MIX, "report", false_alarm_every=1000)
    reference = rows([AGREES["a"], AGREES["a"], DIFFERS["b"], MISSED["a"]] * 40)
    same = compute_drift_series(guard, rows([AGREES["a"], AGREES["b"]] * 10), reference, CLASSES)
    assert same.find_next_alarm(0) is None
    more = compute_drift_series(guard, rows([AGREES["b"]] * 60), reference, CLASSES)
    reading = more.read_at(59, TICK)
    assert reading.is_alarm
    assert reading.subject == AlarmSubject("group", "a", "fewer", 0.75)
    assert reading.value == 9
    new = compute_drift_series(
        guard, rows([AGREES["a"]] * 20 + [AGREES["c"]] * 30), reference, CLASSES
    )
    assert new.read_at(49, TICK).subject == AlarmSubject("group")


def test_drift_looks_for_no_share_above_1_or_below_0():
    guard = Guard(MIX, "report", false_alarm_every=1000)
    usual = [AGREES["a"]] * 9 + [
        AGREES["b"]
    ]  # with the tolerance from 80 to 100, and from 0 to 20 %
    reference = rows(usual * 10)  # as few as a reference has
    for story in (usual * 30, [AGREES["a"]] * 300):
        assert compute_drift_series(guard, rows(story), reference, CLASSES).is_alarm.sum() == 0
    fewer = compute_drift_series(guard, rows([AGREES["b"]] * 60), reference, CLASSES)
    assert fewer.find_next_alarm(0) is not None


def test_drift_of_decisions_ignores_units_without_one_and_needs_a_reference():
    guard = Guard(Condition(MEASURES["drift"], 0.1), "report", false_alarm_every=1000)
    reference = rows([AGREES["a"], DIFFERS["a"], MISSED["a"]] * 60)
    assert compute_drift_series(guard, rows([MISSED["a"]] * 99), reference, CLASSES).slots.size == 0
    shifted = rows([DIFFERS["a"]] * 80)
    reading = compute_drift_series(guard, shifted, reference, CLASSES).read_at(79, TICK)
    assert reading.is_alarm
    assert reading.subject == AlarmSubject("decision", "bear", "fewer", 0.5)
    few = rows([AGREES["a"], DIFFERS["a"]] * 49)
    assert compute_drift_series(guard, shifted, few, CLASSES).find_next_alarm(0) is None
