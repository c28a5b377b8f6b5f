"""The course of a guard's detector until its alarm, by the records that it read."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np

from rollout.core.policy.measures import DETECTOR_MEASURES
from rollout.core.policy.policy import Guard
from rollout.core.policy.slice_conditions import names_slices
from rollout.core.scope.floor_steps import find_acting_index
from rollout.core.scope.scope import CellState
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.slots import find_slot_before, to_instant

MAX_COURSE_POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class CoursePoint:
    """The detector after a slot; `against` and `records` are counted since its start."""

    at: datetime
    log_value: float
    against: int
    records: int


@dataclass(frozen=True, slots=True)
class DetectorCourse:
    """A detector from its start to its alarm.

    Attributes:
        threshold: the value that raises the alarm.
        points: in order; of more slots than the most points, each n-th and the last one.
    """

    guard: str
    threshold: float
    points: tuple[CoursePoint, ...]


def has_detector(guard: Guard) -> bool:
    """Return whether a guard has one detector, of decided units."""
    return guard.condition.measure in DETECTOR_MEASURES and not names_slices(guard.condition)


def build_detector_course(
    view: EvidenceView,
    guard: Guard,
    state: CellState,
    opened_at: datetime,
    reason: str,
    *,
    max_points: int | None = None,
) -> DetectorCourse | None:
    """Return the detector's course until an incident, None if it can't be told any more.

    Args:
        view: the evidence of the incident's version in its cell.
        state: the version's state before the incident, at which its detectors start.
        reason: of the incident. If the records of today are not those that it counted, as after a
            change of the policy, there is no course.
        max_points: most points, by default `MAX_COURSE_POINTS`.
    """
    if not has_detector(guard):
        return None
    view = replace(view, state=state)
    view = view.get_floor_view(find_acting_index(view.policy, state))
    series = view.compute_guard_series(guard)
    number = int(
        np.searchsorted(series.slots, find_slot_before(opened_at, view.policy.tick), side="right")
    )
    if series.log_path is None or not number:
        return None
    counts = f": {series.bad_counts[number - 1]} of {series.record_counts[number - 1]} records"
    if counts not in reason:
        return None
    step = -(-number // (max_points or MAX_COURSE_POINTS))
    return DetectorCourse(
        guard.id,
        guard.false_alarm_every,
        tuple(
            CoursePoint(
                to_instant(int(series.slots[i]), view.policy.tick),
                float(series.log_path[i]),
                int(series.bad_counts[i]),
                int(series.record_counts[i]),
            )
            for i in range((number - 1) % step, number, step)
        ),
    )
