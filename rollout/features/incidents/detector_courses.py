"""The course of the detector behind an incident, loaded for a caller.

It tells how each record counted, so it is shown of cases that nobody may still be asked about, and
never to a user who may be asked for blind reviews at the site: a value after each batch would still
depend on the order within it (decision record 0085).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rollout.data.counting.closed_units import list_counted_cases
from rollout.data.counting.period_records import PeriodRecords
from rollout.engine.decide.permissions import Caller, may_be_asked_blind
from rollout.engine.evidence.slots import find_slot_before
from rollout.features.incidents.incident_impact import IncidentImpact
from rollout.features.reports.figures.incident_cause import (
    DetectorCourse,
    build_detector_course,
    has_detector,
)
from rollout.kernel.calendar.sites import Cell
from rollout.live.evidence.evidence_reader import load_evidence_views
from rollout.live.service import Service

MAY_BE_ASKED: Final = "asked"
OPEN: Final = "open"
RECOUNTED: Final = "recounted"
HIDDEN_COURSE_TEXTS: Final = {
    MAY_BE_ASKED: (
        "The detector's course is not shown to you, because you may be asked for blind reviews"
        " here."
    ),
    OPEN: (
        "The detector's course appears when nobody may still be asked about a case that it read."
    ),
    RECOUNTED: (
        "The detector's course can't be drawn: the records of today are not those that it read, as"
        " after a change of the policy."
    ),
}


@dataclass(frozen=True, slots=True)
class LoadedCourse:
    """The course of an incident's detector, or why there is none: a key of the texts above."""

    course: DetectorCourse | None
    hidden: Literal["", "asked", "open", "recounted"] = ""


def load_detector_course(
    service: Service, caller: Caller, rollout_name: str, impact: IncidentImpact, *, at: datetime
) -> LoadedCourse | None:
    """Return the course of the incident's detector, None if its guard has none.

    Args:
        impact: the incident as the caller may read it.
    """
    incident, guard, state_before = impact.incident, impact.guard, impact.state_before
    if guard is None or state_before is None or not has_detector(guard):
        return None
    if may_be_asked_blind(caller, rollout_name, (incident.site,)):
        return LoadedCourse(None, MAY_BE_ASKED)
    state = service.state_cache.reload_rollout(rollout_name).state
    cell = Cell(incident.site, incident.window)
    last_slot = find_slot_before(incident.opened_at, state.policy.tick)
    with service.database.begin_read() as transaction:
        counted_cases = list_counted_cases(
            transaction, state.rollout, cell, incident.version, until=last_slot
        )
        if counted_cases & PeriodRecords(transaction, state.rollout).list_blind_cases(at):
            return LoadedCourse(None, OPEN)
    view = load_evidence_views(service.database, state, (cell,))[cell, incident.version]
    course = build_detector_course(view, guard, state_before, incident.opened_at, incident.readings)
    return LoadedCourse(course, RECOUNTED if course is None else "")
