"""Pages of incidents: the list, and one with its cause, its effect, recovery and acknowledgement.

The list has the incidents that the visitor may read, open ones first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.incidents.cause_text import CauseView, build_cause_view
from api.ledger.pages import describe_ledger_entries
from api.schema_forms import decode_cursor, encode_cursor
from api.web_kit.cell_view import format_cell_value, load_timeline_view
from api.web_kit.page import encode_segment, format_time_span, redirect_to, render_page
from api.web_kit.page_context import HOME, CurrentVisitor, SignedForm, Visitor, build_live_region
from rollout.engine.decide.incident_kinds import ALARM, get_incident_kind
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.words.event_text import ZonedEventDescriber
from rollout.engine.words.formatting import (
    format_count,
    format_interval,
    format_percent,
    format_ratio,
)
from rollout.engine.words.state_text import (
    describe_unopened_incidents,
    format_incident_heading,
    get_incident_text,
)
from rollout.features.cells.cells import load_cell
from rollout.features.incidents.incident_causes import (
    HIDDEN_COURSE_TEXTS,
    LoadedCause,
    load_detector_course,
    load_incident_cause,
)
from rollout.features.incidents.incident_impact import (
    AffectedCell,
    EvidencePeriod,
    IncidentImpact,
    load_incident_impact,
)
from rollout.features.incidents.incidents import (
    CauseSearch,
    IncidentCursor,
    IncidentRow,
    IncidentStatus,
    load_all_incidents,
    load_incident,
    load_unopened_numbers,
    record_acknowledgement,
)
from rollout.features.reports.figures.funnel import build_value_mark
from rollout.features.reports.inputs.cell_facts import TimelineMark
from rollout.features.reports.pages.number_charts import DetectorView, build_detector_view
from rollout.features.reports.pages.timeline_chart import TimelineView
from rollout.kernel.calendar.instants import EPOCH, MICROSECOND, SHADOW, Cell, to_micros
from rollout.kernel.errors import RefusalError
from rollout.kernel.measures import MeasureKey, Watch
from rollout.kernel.policy.policy import Guard, Policy, describe_guard
from rollout.kernel.statistics.intervals import compute_share
from rollout.kernel.words import say_against

COUNTS_OPEN_UNITS: Final = {Watch.UNITS, Watch.LABELS, Watch.HARMS}


@dataclass(frozen=True, slots=True)
class IncidentCountRow:
    """A row of the count table: name, before, since."""

    what: str
    before: str
    since: str


def format_page_heading(impact: IncidentImpact) -> str:
    """Format the heading of an incident's page, with stages if it narrowed its cell."""
    incident = impact.incident
    affected_cell = _find_own_cell(impact)
    heading_text = format_incident_heading(
        incident.id, incident.kind, incident.effect, incident.site, incident.window
    )
    if (
        incident.effect != "narrowed"
        or affected_cell is None
        or affected_cell.stage_before == affected_cell.stage_after
    ):
        return heading_text
    return f"{heading_text} from {affected_cell.stage_before} to {affected_cell.stage_after}"


def _find_own_cell(impact: IncidentImpact) -> AffectedCell | None:
    own_cell = Cell(impact.incident.site, impact.incident.window)
    return next((affected for affected in impact.cells if affected.cell == own_cell), None)


def describe_trigger(impact: IncidentImpact) -> tuple[str, ...]:
    """Describe the reading that tripped and the meaning of such an alarm."""
    incident = impact.incident
    cell = (incident.site, incident.window)
    return (
        incident.reason,
        *(_describe_guard(impact.guard, incident.effect) if incident.kind == ALARM.name else ()),
        *(
            (describe_unopened_incidents(incident.kind, *cell, incident.unopened),)
            if incident.unopened
            else ()
        ),
    )


def describe_incident_effect(impact: IncidentImpact) -> str:
    """Describe the effect of an incident in one sentence."""
    incident, other_count = impact.incident, len(impact.cells) - 1
    outcome = get_incident_kind(incident.kind).find_effect(incident.effect).outcome
    if incident.effect != "narrowed" or other_count < 1:
        return outcome
    others_text = "One other cell" if other_count == 1 else f"{other_count} other cells"
    return f"{outcome} {others_text} went down with it."


def describe_recovery(impact: IncidentImpact, visitor: Visitor, rollout: str) -> tuple[str, ...]:
    """Describe how the incident's effect ends."""
    incident = impact.incident
    recovery = get_incident_kind(incident.kind).find_effect(incident.effect).recovery
    return recovery or tuple(_describe_cell_recovery(impact, visitor, rollout))


def _describe_cell_recovery(
    impact: IncidentImpact, visitor: Visitor, rollout: str
) -> Iterator[str]:
    incident = impact.incident
    affected_cell = _find_own_cell(impact)
    if affected_cell is None:
        yield "The policy no longer has this cell or its version."
        return
    if affected_cell.withheld == "stopped":
        yield "A user has also stopped the cell. Resuming needs approvals."
    if incident.effect == "reported":
        yield "Nothing was ended, so nothing has to be restored."
    elif (
        _get_stage_level(affected_cell.stage_now, impact.policy)
        >= _get_stage_level(affected_cell.stage_before, impact.policy)
        and not affected_cell.withheld
    ):
        yield f"Recovered: the cell is {affected_cell.stage_now} again."
    elif affected_cell.withheld == "suspended":
        yield _describe_automatic_recovery(impact.guard, impact.policy)
    else:
        yield from _describe_evidence_recovery(impact, visitor, rollout, affected_cell.cell)


def _describe_automatic_recovery(guard: Guard | None, policy: Policy) -> str:
    period_text = format_time_span((guard.over if guard else None) or policy.tick)
    return f"The grants return automatically after {period_text} within the threshold."


def _describe_evidence_recovery(
    impact: IncidentImpact, visitor: Visitor, rollout: str, cell: Cell
) -> Iterator[str]:
    if any(entry.row.fields.get("restart") for entry in impact.entries.own):
        now_text = f" Now: {impact.attempt_text}." if impact.attempt_text else ""
        yield (
            f"Evidence restarts from zero.{now_text} Each attempt allows a smaller chance of a"
            " wrong widening, so it needs more cases."
        )
    else:
        yield "Evidence continues; new cases count towards the gate."
    if impact.open_proposals:
        yield f"A proposal needs approvals: {', '.join(impact.open_proposals)}."
    elif cell in impact.policy.cell_set:
        try:
            detail = load_cell(visitor.service, visitor.caller, rollout, cell, at=visitor.at)
        except RefusalError:
            return
        yield f"What decides next: {detail.status.next_step}."


def _get_stage_level(stage: str, policy: Policy) -> int:
    return (
        policy.stage_ids.index(stage)
        if stage in policy.stage_ids
        else policy.stage_ids.index(SHADOW)
    )


def _describe_guard(guard: Guard | None, effect: str) -> Iterator[str]:
    if guard is None:
        yield "The policy no longer has this guard."
        return
    if guard.over:
        yield f"The guard's threshold: {describe_guard(guard)}."
    if guard.condition.measure.watch is Watch.UNITS:
        interval_text = f"{guard.false_alarm_every:,.0f}"
        yield (
            f"A false alarm of this kind is expected at most once in {interval_text} decided units."
        )
        yield (
            "Counted since the stage began, or since the guard's last alarm. The guard trips on a"
            " recent rise, so the whole share may still be within the threshold."
        )
    if guard.reach != "cell" and effect == "narrowed":
        yield f"It applies to the whole {guard.reach}."


def build_count_rows(impact: IncidentImpact) -> tuple[IncidentCountRow, ...]:
    """Return counts before and since on the same stage; empty without data."""
    before, after = impact.period_before, impact.period_after
    if before is None or after is None or not before.counts.closed + after.counts.closed:
        return ()
    keys = dict.fromkeys((*before.counts.counts, *after.counts.counts))
    rows = [
        IncidentCountRow("Units with a decision", _format_judged(before), _format_judged(after))
    ]
    rows += [
        IncidentCountRow(
            f"{_format_key(key)}", _format_share(before, key), _format_share(after, key)
        )
        for key in keys
        if len(_get_counts(before, key) or _get_counts(after, key)) == 2
    ]
    rows.append(
        IncidentCountRow(
            "Closed without a decision", _format_missing(before), _format_missing(after)
        )
    )
    return tuple(rows)


def describe_counts(impact: IncidentImpact) -> str:
    """Describe which units the count table has, and what the guard counted besides."""
    periods = [period for period in (impact.period_before, impact.period_after) if period]
    counts = [period.counts.closed for period in periods]
    grace = format_time_span(impact.policy.evidence.grace)
    closing = f"a unit closes about {grace} after it began."
    note = "Closed units only: those that began and closed within the span."
    if not any(counts):
        note = f"No unit began and closed in this time: {closing}" if counts else "No data."
    elif not counts[-1]:
        note += f" None since then: {closing}"
    alarms = impact.incident.readings
    if not alarms or alarms[0].condition.measure.watch not in COUNTS_OPEN_UNITS:
        return note
    return f"{note} The guard also counted open units: {say_against(alarms[0])}."


def _format_key(key: MeasureKey) -> str:
    measure, label, lever = key
    label_text = f" of {label}" if label else ""
    lever_text = f" on {lever}" if lever and not label else ""
    return f"{measure.capitalize()}{label_text}{lever_text}"


def _format_judged(span: EvidencePeriod) -> str:
    return format_count(span.counts.decided)


def _format_missing(span: EvidencePeriod) -> str:
    missing, closed = span.counts.missing, span.counts.closed
    return f"{missing:,} of {closed:,}" if closed else "no data"


def _get_counts(span: EvidencePeriod, key: MeasureKey) -> tuple[int, ...]:
    return span.counts.counts.get(key, ())


def _format_share(span: EvidencePeriod, key: MeasureKey) -> str:
    good_count, bad_count = (*_get_counts(span, key), 0, 0)[:2]
    estimate = compute_share(good_count, good_count + bad_count)
    if estimate.rate is None:
        return "no data"
    return (
        f"{format_percent(estimate.rate)} ({format_interval(estimate)}), {format_ratio(estimate)}"
    )


def explain_permission(visitor: Visitor, rollout: str, incident: IncidentStatus) -> str:
    """Explain why the visitor can't acknowledge, "" if they can."""
    if visitor.has_permission(Permission.OPERATE, rollout, incident.site):
        return ""
    site_text = f" at {incident.site}" if incident.site else " of every site"
    return f"Acknowledging takes an operator{site_text} of {rollout}. An admin can grant that role."


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
        heading=format_page_heading(impact),
        tripped=describe_trigger(impact),
        names_harm=impact.guard is not None and impact.guard.condition.measure.watch is Watch.HARMS,
        effect=describe_incident_effect(impact),
        returns=describe_recovery(impact, visitor, rollout),
        counted=build_count_rows(impact),
        count_note=describe_counts(impact),
        entries=_describe_entries(impact, visitor, rollout),
        reads_all=all(
            visitor.has_permission(Permission.READ, rollout, site)
            for site in impact.policy.sites_by_id
        ),
        own=frozenset(entry.row.revision for entry in impact.entries.own),
        narrower=_find_narrowable_cell(impact),
        timeline=_load_timeline(impact, visitor, rollout, found_cause.loaded),
        cause=cause_view,
        cause_run=found_cause.run,
        course=_load_course(impact, visitor, rollout),
        who_may=explain_permission(visitor, rollout, incident_details),
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
    if cause is None or cause.started_at is None or not cause.cause.new_values:
        return []
    value = cause.cause.new_values[0]
    return [build_value_mark(value.kind, value.value, cause.started_at)]


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
    entries = (*impact.entries.earlier, *impact.entries.own, *impact.entries.later)
    is_readable = partial(visitor.has_permission, Permission.READ, rollout)
    describer = ZonedEventDescriber(impact.policy, impact.cited, is_readable=is_readable)
    return describe_ledger_entries(entries, describer)


MAX_OPEN_INCIDENTS: Final = 100
PAGE_SIZE: Final = 25
CURSOR_PARTS: Final = 3  # parts of a cursor: instant, rollout, revision
MAX_NUMBER: Final = 2**53
CursorQuery = Annotated[str, Query(max_length=200)]


@router.get("/incidents")
def show_incidents(
    request: Request,
    visitor: CurrentVisitor,
    older: CursorQuery = "",
    acknowledged_cursor: CursorQuery = "",
) -> Response:
    """Show open incidents, then pages of acknowledged ones."""
    if not visitor.has_permission_somewhere(Permission.READ):
        require_permission(visitor.caller, Permission.READ, "")
    database, caller = visitor.service.database, visitor.caller
    live_region = build_live_region(request, visitor)
    open_page = load_all_incidents(
        database,
        caller,
        acknowledged=False,
        before=_parse_position(older),
        limit=MAX_OPEN_INCIDENTS,
    )
    acknowledged_page = load_all_incidents(
        database,
        caller,
        acknowledged=True,
        before=_parse_position(acknowledged_cursor),
        limit=PAGE_SIZE,
    )
    return render_page(
        request,
        visitor,
        "incidents",
        live=live_region,
        waiting=open_page.items,
        known=acknowledged_page.items,
        unopened=[
            f"{n.rollout}: {describe_unopened_incidents(n.kind, n.site, n.window, n.number)}"
            for n in load_unopened_numbers(visitor.service, open_page.items)
        ],
        zones=_load_timezones(visitor, (*open_page.items, *acknowledged_page.items)),
        heading_of=format_incident_heading,
        tag_of=get_incident_text,
        first=not (older or acknowledged_cursor),
        older=_build_page_path("older", open_page.before),
        earlier=_build_page_path("seen", acknowledged_page.before),
    )


def _load_timezones(visitor: Visitor, rows: tuple[IncidentRow, ...]) -> dict[tuple[str, str], str]:
    """Return the timezone of each incident's site, or the rollout's."""
    timezones: dict[tuple[str, str], str] = {}
    for row in rows:
        policy = visitor.service.state_cache.load_rollout(row.rollout).state.policy
        timezones[row.rollout, row.site] = policy.get_timezone(row.site)
    return timezones


def _build_page_path(name: str, position: IncidentCursor | None) -> str:
    if position is None:
        return ""
    cursor_text = f"{to_micros(position.at)}.{position.rollout}.{position.revision}"
    return f"{HOME}/incidents?{name}={encode_cursor(cursor_text)}"


def _parse_position(cursor_text: str) -> IncidentCursor | None:
    decoded = decode_cursor(cursor_text or None)
    if decoded is None:
        return None
    parts = decoded.split(".")
    if len(parts) != CURSOR_PARTS or not all(
        part_text.isascii() and part_text.isdigit() for part_text in parts
    ):
        raise RefusalError("this address leads nowhere; begin anew at Incidents")
    at, rollout, revision = (min(int(part), MAX_NUMBER) for part in parts)
    return IncidentCursor(EPOCH + at * MICROSECOND, rollout, min(revision, 2**31 - 1))
