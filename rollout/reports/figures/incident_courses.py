"""The courses of the detectors whose alarms opened the newest incidents of a report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import IncidentOpened, Narrowed, ProposalVoided, Suspended
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope
from rollout.reports.figures.detector_course import DetectorCourse, build_detector_course
from rollout.reports.inputs.inputs import ReportInputs

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
        for index, event in enumerate(inputs.events)
        if isinstance(event, IncidentOpened)
        and event.guard
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
        isinstance(events[index - 1], ProposalVoided)
        or (isinstance(event := events[index - 1], Narrowed | Suspended) and event.guard == guard)
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
        incident.reason,
        max_points=MAX_REPORT_POINTS,
    )
    if course is None:
        return None
    return IncidentCourse(
        *(incident.incident, cell.site, cell.window, version),
        *(incident.at, policy.get_timezone(cell.site)),
        course,
    )
