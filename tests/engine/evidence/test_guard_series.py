"""Guard readings at any slot equal those of the plain computation."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.guard_series import compute_detector_series, compute_share_series
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses, build_empty_arrays
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.statistics import detector
from rollout.kernel.units import MISSING, CostRule, UnitClass
from tests.engine.evidence.histories import ALARM, HOUR, a_guard, a_policy
from tests.engine.evidence.plain_readings import Plain, in_alarm, within

COSTLY = replace(ALARM, costs=(CostRule(20, did="wait", right="ring"), CostRule(5)))
POLICY = a_policy(levers=(COSTLY,))
SAID = ("bear", "fox", "none", "(failed)")
KINDS = tuple(
    UnitClass("alarm", said, decided, level=level)
    for said in SAID
    for decided in ("bear", "fox")
    for level in (0, 1, 2)
)


def rows_from(pairs):
    """Rows of (slot, kind), in order."""
    slots, kinds = (np.array(column, dtype=np.int64) for column in zip(*sorted(pairs), strict=True))
    none = np.zeros_like(slots)
    return UnitArrays(slots, slots - 1, kinds, none, none, none)


pairs = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, len(KINDS) - 1)), min_size=1, max_size=120
)


WATCHED = (
    a_guard("agreement", 0.8, false_alarm_every=20),
    a_guard("recall", 0.7, label="bear", false_alarm_every=5),
    a_guard("precision", 0.6, label="fox", false_alarm_every=5),
    a_guard("cost", 4, false_alarm_every=20),
    a_guard("override", 0.3, false_alarm_every=20),
    a_guard("action_change", 1, action="ring", false_alarm_every=20),
)


@pytest.mark.parametrize("guard", WATCHED, ids=lambda guard: guard.condition.measure.name)
@given(pairs=pairs)
def test_a_detector_path_is_the_detector_stepped_slot_by_slot(guard, pairs):
    path = compute_detector_series(guard, rows_from(pairs), UnitClasses(KINDS, POLICY), POLICY)
    plain = Plain(guard, POLICY)
    for slot in range(32):
        now = [KINDS[kind] for at, kind in pairs if at == slot]
        if now:
            plain.see(now)
        reading = path.read_at(slot, HOUR)
        assert reading.is_alarm == plain.detector.is_alarm
        assert reading.records == plain.records
        assert reading.value == (plain.bad if plain.records else 0)


@pytest.mark.parametrize("guard", WATCHED, ids=lambda guard: guard.condition.measure.name)
@given(pairs=pairs)
def test_alarms_are_where_the_path_reaches_the_threshold(guard, pairs):
    series = compute_detector_series(guard, rows_from(pairs), UnitClasses(KINDS, POLICY), POLICY)
    path = [] if series.log_path is None else series.log_path.tolist()  # None without counts
    threshold = log(guard.false_alarm_every)
    assert series.is_alarm.tolist() == [value >= threshold for value in path]


@pytest.mark.parametrize(("line", "alarms"), [(0.8, False), (0.99, True)])
def test_a_path_that_stays_low_is_not_computed(line, alarms, monkeypatch):
    guard = a_guard("agreement", line, false_alarm_every=100)
    agreeing, differing = (KINDS.index(UnitClass("alarm", said, "bear")) for said in SAID[:2])
    rows = rows_from([(slot, differing if slot % 10 == 9 else agreeing) for slot in range(200)])
    paths, compute = [], detector._accumulate

    def note(additions, factors):
        paths.append(len(factors))
        return compute(additions, factors)

    monkeypatch.setattr(detector, "_accumulate", note)
    series = compute_detector_series(guard, rows, UnitClasses(KINDS, POLICY), POLICY)
    assert series.is_alarm.any() == alarms
    assert paths == ([20, 200] if alarms else [20])  # slots with a difference; all


def test_a_detector_without_rows_knows_nothing():
    for guard in WATCHED:
        path = compute_detector_series(
            guard, build_empty_arrays(), UnitClasses(KINDS, POLICY), POLICY
        )
        assert not path.read_at(10, HOUR).is_alarm
        assert path.find_next_alarm(0) is None


def test_a_unit_without_a_verdict_is_neither_action():
    kinds = UnitClasses((UnitClass("alarm", "bear", MISSING),), POLICY)
    assert not kinds.get_class_counts(WATCHED[-1].condition).any()


# Shares over a span of time


LINES = {"missing": 0.2, "failures": 0.2, "unaudited": 0.2, "latency_p95": 3, "harm": 2}


@pytest.mark.parametrize("measure", LINES)
@given(
    came=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=90),
    over=st.sampled_from([1, 3, 3.5, 30]),
)
def test_a_share_is_taken_over_the_span_before_each_slot(measure, came, over):
    guard = a_guard(measure, LINES[measure], "report", over=over * HOUR)
    came.sort()
    slots = np.array([slot for slot, _ in came], dtype=np.int64)
    path = compute_share_series(
        guard, slots, np.array([bad for _, bad in came], dtype=bool), POLICY
    )
    good_since = None
    for slot in range(80):
        window = within(guard, HOUR, slot, came)
        alarm = in_alarm(guard, sum(window), len(window))
        known = any(at <= slot for at, _ in came)
        good_since = None if alarm or not known else good_since if good_since is not None else slot
        reading = path.read_at(slot, HOUR)
        assert reading.is_alarm == alarm
        assert reading.good_since == (None if good_since is None else to_instant(good_since, HOUR))
        if known:
            assert (reading.value, reading.records) == (sum(window), len(window))
        assert (path.find_next_alarm(slot) == slot) == alarm


def test_twenty_audits_are_asked_for_before_unaudited_speaks():
    guard = a_guard("unaudited", 0.1, over=7 * 24 * HOUR)
    for count, alarm in ((19, False), (20, True)):
        path = compute_share_series(guard, np.arange(count), np.arange(count) < 3, POLICY)
        assert path.read_at(count, HOUR).is_alarm == alarm


# Silence
