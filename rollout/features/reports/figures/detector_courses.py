"""Courses of detectors before an incident."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np

from rollout.engine.decide.floor_steps import find_acting_index
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import CellState, Scope
from rollout.engine.events import VOID_STATE, IncidentOpened, LedgerEvent, Reach, select_events
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.guard_evidence import GuardEvidence
from rollout.engine.evidence.slots import find_slot_before, to_instant
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.measures import Watch
from rollout.kernel.policy.cell_evidence import names_slices
from rollout.kernel.policy.policy import Guard, describe_guard

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
        guard: its condition and period.
        counted: which records speak against the condition, to follow `15 of 182`.
        threshold: the value that raises the alarm.
        points: in order; of more slots than the most points, each n-th and the last one.
    """

    guard: str
    counted: str
    threshold: float
    points: tuple[CoursePoint, ...]


def has_detector(guard: Guard) -> bool:
    """Return whether a guard has one detector, of decided units."""
    return guard.condition.measure.watch is Watch.UNITS and not names_slices(guard.condition)


def build_detector_course(
    view: EvidenceView,
    guard: Guard,
    state: CellState,
    opened_at: datetime,
    alarms: tuple[StoredAlarm, ...],
    *,
    max_points: int | None = None,
) -> DetectorCourse | None:
    """Return the detector's course until an incident, None if it can't be told any more.

    Args:
        view: the evidence of the incident's version in its cell.
        state: the version's state before the incident, at which its detectors start.
        alarms: of the incident. If the records of today are not those that it counted, as after a
            change of the policy, there is no course.
        max_points: most points, by default `MAX_COURSE_POINTS`.
    """
    if not has_detector(guard):
        return None
    view = replace(view, state=state)
    view = view.get_floor_view(find_acting_index(view.policy, state))
    series = GuardEvidence(view).compute_series(guard)
    number = int(
        np.searchsorted(series.slots, find_slot_before(opened_at, view.policy.tick), side="right")
    )
    if series.log_path is None or not number:
        return None
    counts = series.bad_counts[number - 1], series.record_counts[number - 1]
    if counts not in {(alarm.against, alarm.records) for alarm in alarms[:1]}:
        return None
    step = -(-number // (max_points or MAX_COURSE_POINTS))
    return DetectorCourse(
        describe_guard(guard),
        guard.condition.measure.describe_against(guard.condition.subject),
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


MAX_COURSES: Final = 4
MAX_REPORT_POINTS: Final = 60


@dataclass(frozen=True, slots=True)
class IncidentCourse:
    """The detector behind an incident, from its start to its alarm.

    Attributes:
        incident: its id.
        site, window, version: of the incident.
        at: when it opened.
        timezone: of the site.
        course: at most 60 points, the last at the alarm.
    """

    incident: str
    site: str
    window: str
    version: str
    at: datetime
    timezone: str
    course: DetectorCourse


def compute_incident_courses(inputs: ReportInputs) -> tuple[IncidentCourse, ...]:
    """Return the courses of the newest incidents of the span, oldest first.

    A course is whole or there is none: records that the report withholds were read by the detector
    as well, and then its counts are not those of the alarm.
    """
    newest: list[IncidentCourse] = []
    for incident, scope in reversed(list(_list_alarms(inputs))):
        course = _build_course(inputs, incident, scope)
        if course is not None:
            newest.append(course)
        if len(newest) == MAX_COURSES:
            break
    return tuple(reversed(newest))


def _list_alarms(inputs: ReportInputs) -> Iterator[tuple[IncidentOpened, Scope]]:
    """Yield the alarms of versions in the policy's cells, with the scope before each."""
    starts = {
        index: (event, _find_first_effect(inputs.events, index, event.guard))
        for index, each in enumerate(inputs.events)
        for event in select_events((each,), IncidentOpened)
        if event.guard
        and event.at >= inputs.first
        and (event.cell, event.version) in inputs.evidence_views
    }
    scope, applied = Scope(), 0
    for event, start in starts.values():
        scope, applied = apply_events(inputs.events[applied:start], scope), start
        yield event, scope


def _find_first_effect(events: Sequence[LedgerEvent], index: int, guard: str) -> int:
    """Return the index of the first effect of the alarm that opened an incident.

    A tick writes an alarm's effects and then the incident.
    """
    while index and (
        (event := events[index - 1]).closing_state == VOID_STATE
        or (event.stage_reach is Reach.OWN and event.alarm and event.alarm.guard == guard)
    ):
        index -= 1
    return index


def _build_course(
    inputs: ReportInputs, incident: IncidentOpened, scope: Scope
) -> IncidentCourse | None:
    cell, version, policy = incident.cell, incident.version, inputs.policy
    guard = next((guard for guard in policy.guards if guard.id == incident.guard), None)
    if cell is None or guard is None or version not in scope.versions:
        return None
    course = build_detector_course(
        inputs.evidence_views[cell, version],
        guard,
        scope.get_cell_state(cell, version),
        incident.at,
        incident.alarms,
        max_points=MAX_REPORT_POINTS,
    )
    if course is None:
        return None
    return IncidentCourse(
        *(incident.incident, cell.site, cell.window, version),
        *(incident.at, policy.get_timezone(cell.site)),
        course,
    )
