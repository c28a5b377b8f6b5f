"""Text of incidents: what tripped, its effect, how to recover."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from api.console.page.page_context import Visitor
from api.console.page.time_format import format_time_span
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import RefusalError
from rollout.core.policy.policy import Guard, Policy, describe_guard
from rollout.core.scope.incident_kinds import ALARM, get_incident_kind
from rollout.core.scope.permissions import Permission
from rollout.kernel.measures import MeasureKey, Watch
from rollout.kernel.words import say_against
from rollout.reports.statistics.intervals import compute_share
from rollout.reports.text.formatting import (
    add_separators,
    format_count,
    format_interval,
    format_percent,
    format_ratio,
)
from rollout.reports.text.state_text import (
    describe_unopened_incidents,
    format_incident_heading,
)
from rollout.services.cells.cells import load_cell
from rollout.services.incidents.incident_impact import AffectedCell, EvidencePeriod, IncidentImpact
from rollout.services.incidents.incidents import IncidentStatus

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
        *(_describe_guard(impact.guard) if incident.kind == ALARM.name else ()),
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
    if any(entry.row.fields.get("restart") for entry in impact.own_entries):
        now_text = f" Now: {impact.attempt_text}." if impact.attempt_text else ""
        yield (
            f"Evidence restarts from zero.{now_text} Each attempt allows a smaller chance of a"
            " wrong widening, so it needs more cases."
        )
    else:
        yield "Evidence continues; new cases count towards the gate."
    if impact.open_proposals:
        yield f"A proposal needs approvals: {', '.join(impact.open_proposals)}."
    elif _is_in_policy(impact.policy, cell):
        try:
            detail = load_cell(visitor.service, visitor.caller, rollout, cell, at=visitor.at)
        except RefusalError:
            return
        yield detail.status.next_step


def _is_in_policy(policy: Policy, cell: Cell) -> bool:
    return cell in policy.cell_set


def _get_stage_level(stage: str, policy: Policy) -> int:
    return (
        policy.stage_ids.index(stage)
        if stage in policy.stage_ids
        else policy.stage_ids.index(SHADOW)
    )


def _describe_guard(guard: Guard | None) -> Iterator[str]:
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
    if guard.reach != "cell":
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
    closed = span.counts.closed
    return add_separators(f"{span.counts.missing} of {closed}") if closed else "no data"


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
