"""A guard by slice or of drift that is in alarm goes on through a narrowing."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from rollout.engine.decide.projection import apply_events
from rollout.engine.events import (
    ClockCorrected,
    GrantExpired,
    IncidentOpened,
    Narrowed,
    Suspended,
    SuspensionCleared,
    VersionFirstUsed,
    Widened,
)
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.stage_history import StageHistory, build_stage_shares
from rollout.engine.evidence.unit_arrays import CellUnitArrays, UnitArrays, UnitClasses
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.facts import AlarmSubject
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard
from rollout.kernel.populations import EachValue
from rollout.kernel.units import UnitClass
from tests.engine.evidence.histories import HOUR, START, a_policy, hour

BY_GROUP = Guard(
    Condition(MEASURES["agreement"], 0.9, population=EachValue("group")),
    "suspend",
    false_alarm_every=100,
)
DRIFT = Guard(
    Condition(MEASURES["drift"], 0.1, population=EachValue("group")),
    "suspend",
    false_alarm_every=100,
)
GUARDS = (BY_GROUP, DRIFT)
POLICY = a_policy(guards=GUARDS)
(CELL,) = POLICY.cells
GOOD_A, GOOD_B, BAD_B = range(3)
CLASSES = UnitClasses(
    tuple(
        UnitClass("alarm", "bear", decided, slices=f'{{"group":"{group}"}}')
        for group, decided in (("a", "bear"), ("b", "bear"), ("b", "fox"))
    ),
    POLICY,
)
REFERENCE = [GOOD_A, GOOD_A, GOOD_A, GOOD_B] * 40  # before the widening at hour 160
ALARMED = [GOOD_B] * 20 + [BAD_B] * 20
NARROWED_AT = len(REFERENCE) + len(ALARMED)
AT = {"at": hour(NARROWED_AT), "by": "policy"}
IN_CELL = {"cell": CELL, "version": "v1"}


def widened(stage, number):
    until = hour(9_000)
    at = {"at": hour(number), "by": "policy"}
    return Widened(**at, **IN_CELL, to_stage=stage, until=until, proposal="")


BEFORE = [
    VersionFirstUsed(at=START, by="policy", version="v1"),
    widened("supervised", len(REFERENCE)),
    widened("autonomous", len(REFERENCE)),
]
EARLIER = {"at": hour(NARROWED_AT - 1), "by": "policy"}
SUSPENSIONS = [Suspended(**AT, **IN_CELL, guard=guard.id) for guard in GUARDS]
EARLIER_ONES = [replace(event, **EARLIER) for event in SUSPENSIONS]
REPORTS = [
    IncidentOpened(
        **EARLIER, **IN_CELL, incident="I-1", kind="alarm", effect="reported", reason="", guard=g.id
    )
    for g in GUARDS
]
NARROWED = Narrowed(
    **AT, **IN_CELL, from_stage="autonomous", to_stage="supervised", guard="other", restart=True
)
EXPIRED = GrantExpired(**AT, **IN_CELL, stage="autonomous", until=hour(NARROWED_AT))
CORRECTED = ClockCorrected(at=hour(NARROWED_AT), by="bo", previous_time=hour(NARROWED_AT + 5))
CLEARED = [
    SuspensionCleared(at=hour(NARROWED_AT + 1), by="policy", **IN_CELL, guard=g.id) for g in GUARDS
]


def state_after(*events):
    return apply_events([*BEFORE, *events]).get_cell_state(CELL, "v1")


def read_guard(guard, state, later):
    """Return a guard's reading after a story that ends with `later`."""
    classes = np.array([*REFERENCE, *ALARMED, *later], dtype=np.int64)
    slots = find_slot_before(START, HOUR) + np.arange(len(classes))
    zeros = np.zeros(len(classes), dtype=np.int64)
    view = EvidenceView(
        cell=CELL,
        version="v1",
        rows=CellUnitArrays(guard=UnitArrays(slots, slots, classes, zeros, zeros, slots)),
        unit_classes=CLASSES,
        policy=POLICY,
        state=state,
        first_seen=START,
        stage_history=StageHistory(),
        shares=build_stage_shares(POLICY),
        find_buckets=lambda rows: rows.unit,
        feeds=None,
    )
    return view.guard_series[guard.id].read_at(int(slots[-1]), timedelta(hours=1))


@pytest.mark.parametrize(
    "events",
    [
        [*EARLIER_ONES, NARROWED],
        [*EARLIER_ONES, EXPIRED],
        [*REPORTS, NARROWED],
        [NARROWED, *SUSPENSIONS],  # one tick: the reading rests on the units before
        [*EARLIER_ONES, NARROWED, CORRECTED],
    ],
    ids=["narrowed", "expired", "reported", "same tick", "clock set back"],
)
def test_good_units_of_another_value_do_not_end_an_alarm(events):
    state = state_after(*events)
    assert len(state.grants) == 1
    reading = read_guard(BY_GROUP, state, [GOOD_A] * 200)
    assert (reading.is_alarm, reading.has_recovered) == (True, False)
    assert reading.subject == AlarmSubject("group", "b")
    recovered = read_guard(BY_GROUP, state, [GOOD_A] * 20 + [GOOD_B] * 150)
    assert (recovered.is_alarm, recovered.has_recovered) == (False, True)


def test_drift_keeps_what_it_compares_with_although_the_attempt_restarts():
    state = state_after(*EARLIER_ONES, NARROWED)
    assert state.attempt == 2
    reading = read_guard(DRIFT, state, [GOOD_B] * 10)
    assert reading.is_alarm
    assert reading.subject is not None
    assert (reading.subject.moved, reading.subject.value) == ("fewer", "a")
    assert round(reading.subject.share, 3) == 0.745
    assert read_guard(DRIFT, state, REFERENCE * 3).has_recovered


def test_detectors_without_an_alarm_restart_and_a_cleared_one_goes_on_until_then():
    quiet = state_after(NARROWED)
    assert quiet.find_detector_start(BY_GROUP.id) == quiet.current_start
    assert read_guard(BY_GROUP, quiet, [GOOD_A] * 200).has_recovered
    cleared = state_after(*EARLIER_ONES, NARROWED, *CLEARED)
    assert cleared.find_detector_start(BY_GROUP.id).changed_at == hour(len(REFERENCE))
    again = replace(NARROWED, at=hour(NARROWED_AT + 2), from_stage="supervised", restart=False)
    further = [widened("autonomous", NARROWED_AT + 1), replace(again, from_stage="autonomous")]
    state = state_after(*EARLIER_ONES, NARROWED, *CLEARED, *further)
    assert state.find_detector_start(BY_GROUP.id) == state.current_start


def test_of_two_narrowings_in_one_tick_the_first_says_where_detectors_started():
    state = state_after(NARROWED, replace(NARROWED, from_stage="supervised"), *SUSPENSIONS)
    assert state.find_detector_start(DRIFT.id).changed_at == hour(len(REFERENCE))


def test_an_alarm_after_a_narrowing_rests_on_the_units_since():
    later = [replace(each, at=hour(NARROWED_AT + 1)) for each in SUSPENSIONS]
    state = state_after(NARROWED, *later)
    assert state.find_detector_start(BY_GROUP.id) == state.current_start
