"""The page of one incident, and its acknowledgement."""

from datetime import timedelta
from functools import partial
from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.ledger import incident_text as words
from api.console.ledger.cause_text import CauseView, build_cause_view
from api.console.ledger.ledger_text import describe_ledger_entries
from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.revision import build_live_region
from api.console.page.stop_target import format_cell_value
from api.console.page.text import encode_segment
from api.console.page.timeline_view import load_timeline_view
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.incident_kinds import get_incident_kind
from rollout.core.scope.permissions import Permission
from rollout.reports.figures.first_values import build_value_mark
from rollout.reports.figures.timeline_parts import TimelineMark
from rollout.reports.pages.detector_chart import DetectorView, build_detector_view
from rollout.reports.pages.timeline_page import TimelineView
from rollout.reports.text.event_describer import ZonedEventDescriber
from rollout.reports.text.state_text import get_incident_text
from rollout.services.incidents.cause_runs import CauseSearch
from rollout.services.incidents.detector_courses import HIDDEN_COURSE_TEXTS, load_detector_course
from rollout.services.incidents.incident_causes import LoadedCause, load_incident_cause
from rollout.services.incidents.incident_impact import IncidentImpact, load_incident_impact
from rollout.services.incidents.incidents import load_incident, record_acknowledgement

router = APIRouter()
MAX_NOTE_LENGTH: Final = 2_000  # maximum characters of a stored note
TIME_BEFORE, TIME_AFTER = timedelta(days=14), timedelta(days=7)  # of the timeline
NOTE_TOO_LONG_TEXT: Final = f"Shorten the note: at most {MAX_NOTE_LENGTH:,} letters are kept"
ALREADY_ACKNOWLEDGED_TEXT: Final = "{} had acknowledged it already, so your note was not kept: {}"


@router.get("/rollouts/{rollout}/incidents/{incident}")
def show_incident(
    request: Request, visitor: CurrentVisitor, rollout: str, incident: str
) -> Response:
    """Show what tripped, its effect, and how to recover."""
    return _render_incident(request, visitor, rollout, incident)


@router.post("/rollouts/{rollout}/incidents/{incident}")
def submit_acknowledgement(
    request: Request, visitor: CurrentVisitor, rollout: str, incident: str, form: SignedForm
) -> Response:
    """Acknowledge the incident; this restores nothing."""
    note = form.get_raw_text("note").strip()
    if len(note) > MAX_NOTE_LENGTH:
        errors = {"note": NOTE_TOO_LONG_TEXT}
        return _render_incident(
            request, visitor, rollout, incident, errors=errors, typed={"note": note}
        )
    database, caller = visitor.service.database, visitor.caller
    result = record_acknowledgement(database, caller, rollout, incident, at=visitor.at, note=note)
    if not result.events and note:
        incident_details = load_incident(visitor.service, caller, rollout, incident)
        if (incident_details.acknowledged_by, incident_details.note) != (visitor.name, note):
            errors = {"": ALREADY_ACKNOWLEDGED_TEXT.format(incident_details.acknowledged_by, note)}
            return _render_incident(request, visitor, rollout, incident, errors=errors)
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/incidents/{encode_segment(incident)}")


def _render_incident(
    request: Request,
    visitor: Visitor,
    rollout: str,
    incident: str,
    *,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    live_region = build_live_region(request, visitor, rollout)
    impact = load_incident_impact(visitor.service, visitor.caller, rollout, incident, at=visitor.at)
    incident_details = impact.incident
    cause_view, found_cause = _find_cause(request, impact, visitor, rollout)
    return render_page(
        request,
        visitor,
        "incident",
        422 if errors else 200,
        live=live_region,
        rollout=rollout,
        impact=impact,
        incident=incident_details,
        zone=impact.policy.get_timezone(incident_details.site),
        kind=get_incident_kind(incident_details.kind),
        tag=get_incident_text(incident_details.kind, incident_details.effect),
        heading=words.format_page_heading(impact),
        tripped=words.describe_trigger(impact),
        effect=words.describe_incident_effect(impact),
        returns=words.describe_recovery(impact, visitor, rollout),
        counted=words.build_count_rows(impact),
        count_note=words.describe_counts(impact),
        entries=_describe_entries(impact, visitor, rollout),
        reads_all=all(
            visitor.has_permission(Permission.READ, rollout, site)
            for site in impact.policy.sites_by_id
        ),
        own=frozenset(entry.row.revision for entry in impact.own_entries),
        narrower=_find_narrowable_cell(impact),
        timeline=_load_timeline(impact, visitor, rollout, found_cause.loaded),
        cause=cause_view,
        cause_run=found_cause.run,
        course=_load_course(impact, visitor, rollout),
        who_may=words.explain_permission(visitor, rollout, incident_details),
        errors=errors or {},
        typed=typed or {},
    )


def _find_cause(
    request: Request, impact: IncidentImpact, visitor: Visitor, rollout: str
) -> tuple[CauseView | None, CauseSearch]:
    load = partial(
        load_incident_cause, visitor.service, visitor.caller, rollout, impact, at=visitor.at
    )
    cause_search: CauseSearch = request.app.state.cause_runs.find(
        visitor.caller, (rollout, impact.incident.id), load, at=visitor.at
    )
    if cause_search.loaded is None:
        return None, cause_search
    return build_cause_view(cause_search.loaded, impact.policy, visitor), cause_search


def _load_course(
    impact: IncidentImpact, visitor: Visitor, rollout: str
) -> DetectorView | str | None:
    """Return the course of the detector, or the sentence that says why it isn't shown."""
    loaded = load_detector_course(visitor.service, visitor.caller, rollout, impact, at=visitor.at)
    if loaded is None:
        return None
    if loaded.course is None:
        return HIDDEN_COURSE_TEXTS[loaded.hidden]
    zone = impact.policy.get_timezone(impact.incident.site)
    return build_detector_view(loaded.course, zone, "det")


def _load_timeline(
    impact: IncidentImpact, visitor: Visitor, rollout: str, cause: LoadedCause | None
) -> TimelineView | None:
    """Return two weeks before an incident and one since, None without a cell of the policy.

    The first case with the value that its cause names is a mark, unless events tell of it.
    """
    incident = impact.incident
    cell = Cell(incident.site, incident.window)
    if cell not in impact.policy.cell_set or incident.opened_at >= visitor.at:
        return None
    marks = _list_value_marks(cause) if impact.policy.evidence.familiar is None else []
    since, until = incident.opened_at - TIME_BEFORE, incident.opened_at + TIME_AFTER
    return load_timeline_view(visitor, rollout, cell, since, until, marks)


def _list_value_marks(cause: LoadedCause | None) -> list[TimelineMark]:
    if cause is None or cause.started is None or not cause.cause.new_values:
        return []
    value = cause.cause.new_values[0]
    return [build_value_mark(value.kind, value.value, cause.started)]


def _find_narrowable_cell(impact: IncidentImpact) -> str:
    """Return the incident's cell for the narrowing page, "" if nothing is granted there."""
    cell = Cell(impact.incident.site, impact.incident.window)
    is_acting = any(
        affected_cell.cell == cell and affected_cell.stage_now != SHADOW
        for affected_cell in impact.cells
    )
    return format_cell_value(cell) if is_acting else ""


def _describe_entries(impact: IncidentImpact, visitor: Visitor, rollout: str) -> tuple[object, ...]:
    """Return the ledger entries of its cells in words, oldest first."""
    entries = (*impact.earlier_entries, *impact.own_entries, *impact.later_entries)
    is_readable = partial(visitor.has_permission, Permission.READ, rollout)
    describer = ZonedEventDescriber(impact.policy, impact.cited, is_readable=is_readable)
    return describe_ledger_entries(entries, describer)
