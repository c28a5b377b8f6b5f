"""Pending tasks of a visitor: stops first, then by deadline."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.web_kit.figures import list_brief_grounds
from api.web_kit.page import encode_segment
from api.web_kit.page_context import Visitor
from rollout.engine.decide.permissions import Permission
from rollout.engine.decide.scope import Incident, Stop
from rollout.engine.decide.scope import ProposalState as ScopeProposal
from rollout.engine.decide.stops import has_open_resume
from rollout.engine.words.formatting import format_cell_name, format_quantity, join_words
from rollout.engine.words.state_text import ANY_PROPOSAL, PROPOSAL_KINDS
from rollout.features.cells.overview import RolloutSummary
from rollout.features.proposals.proposal_details import Proposal, load_proposal
from rollout.features.proposals.proposals import list_pending_approvals
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import RolloutState

MAX_TASKS: Final = 25
"""Maximum number of listed tasks; further ones are counted."""
REQUEST_TEXT: Final = "Request resume"
READ_TEXT: Final = "Read and decide"


@dataclass(frozen=True, slots=True)
class PendingTask:
    """One pending task.

    Attributes:
        title: the task in a few words.
        rollout: its rollout.
        detail: the relevant figures.
        closes: its deadline, or None.
        since: when the stop or incident happened; None for proposals.
        zone: timezone of the site, or of the policy.
        href: path of its page, below the console's home.
        link_text: text of the link.
    """

    title: str
    rollout: str
    detail: tuple[str, ...]
    closes: datetime | None
    since: datetime | None
    zone: str
    href: str
    link_text: str


def list_pending_tasks(
    summaries: Sequence[RolloutSummary], visitor: Visitor
) -> tuple[tuple[PendingTask, ...], int]:
    """Return at most `MAX_TASKS` pending tasks, and their total number."""
    approvals = sorted(
        _list_approvable_proposals(summaries, visitor),
        key=lambda pair: (not pair[1].rules.ends_stop, pair[1].expires_at),
    )
    details = [
        _build_approval_task(summary, proposal, visitor)
        for summary, proposal in approvals[:MAX_TASKS]
    ]
    tasks = [
        *_list_stop_tasks(summaries, visitor),
        *(task for task in details if task is not None),
        *_list_incident_tasks(summaries, visitor),
    ]
    return tuple(tasks[:MAX_TASKS]), len(tasks) + max(0, len(approvals) - MAX_TASKS)


def format_proposal_title(details: Proposal) -> str:
    """Format what a proposal would do: `Widen creek · day to supervised`."""
    cell = format_cell_name(details.site, details.window)
    return PROPOSAL_KINDS.get(details.kind, ANY_PROPOSAL).title.format(
        cell=cell, to=details.to, version=details.version, about=details.about
    )


def _list_approvable_proposals(
    summaries: Iterable[RolloutSummary], visitor: Visitor
) -> Iterator[tuple[RolloutSummary, ScopeProposal]]:
    """Yield the proposals that the visitor can approve now."""
    for summary in summaries:
        for proposal in list_pending_approvals(summary.state, visitor.caller, at=visitor.at):
            yield summary, proposal


def _build_approval_task(
    summary: RolloutSummary, proposal: ScopeProposal, visitor: Visitor
) -> PendingTask | None:
    """Return a proposal's task, or None if the visitor may not approve it."""
    try:
        details = load_proposal(
            visitor.service, visitor.caller, summary.name, proposal.id, at=visitor.at
        )
    except RefusalError:
        return None
    if not details.can_approve:
        return None
    approved_count = len(details.required_approvals) - details.approvals_missing
    evidence = (
        list_brief_grounds(details.readings, details.texts, summary.state.policy)[:1]
        if details.site
        else []
    )
    version = f"{summary.name} {details.version}".strip()
    stopped_cells = {cell for stop in summary.state.scope.stops.values() for cell in stop.cells}
    stopped = ["stopped now"] if proposal.cell in stopped_cells else []
    return PendingTask(
        title=format_proposal_title(details),
        rollout=summary.name,
        detail=(
            version,
            *stopped,
            *evidence,
            f"{approved_count} of {format_quantity(len(details.required_approvals), 'approval')}",
        ),
        closes=details.expires_at,
        since=None,
        zone=summary.state.policy.get_timezone(details.site),
        href=f"/rollouts/{encode_segment(summary.name)}/proposals/{encode_segment(details.id)}",
        link_text=READ_TEXT,
    )


def list_requestable_stops(state: RolloutState, visitor: Visitor) -> list[Stop]:
    """Return the stops whose resume the visitor can request, newest first."""
    scope, rollout = state.scope, state.rollout.name
    stops = sorted(scope.stops.values(), key=lambda stop: stop.at, reverse=True)
    return [
        stop
        for stop in stops
        if not has_open_resume(scope, stop)
        and all(visitor.has_permission(Permission.PROPOSE, rollout, c.site) for c in stop.cells)
    ]


def _list_stop_tasks(
    summaries: Iterable[RolloutSummary], visitor: Visitor
) -> Iterator[PendingTask]:
    for summary in summaries:
        for stop in list_requestable_stops(summary.state, visitor):
            sites = join_words(sorted({cell.site for cell in stop.cells}))
            yield PendingTask(
                title=f"Stopped: {format_quantity(len(stop.cells), 'cell')} at {sites}",
                rollout=summary.name,
                detail=(summary.name, f"{stop.id} by {stop.by}{', a drill' * stop.drill}"),
                closes=None,
                since=stop.at,
                zone=summary.state.policy.timezone,
                href=f"/rollouts/{encode_segment(summary.name)}/stops",
                link_text=REQUEST_TEXT,
            )


def _list_incident_tasks(
    summaries: Iterable[RolloutSummary], visitor: Visitor
) -> Iterator[PendingTask]:
    for summary in summaries:
        for incident in list_open_incidents(summary, visitor):
            if visitor.has_permission(Permission.OPERATE, summary.name, incident.site):
                yield _build_incident_task(summary, incident)


def list_open_incidents(summary: RolloutSummary, visitor: Visitor) -> list[Incident]:
    """Return the open incidents that the visitor may read."""
    incidents = summary.state.scope.open_incidents.values()
    return [
        incident
        for incident in incidents
        if visitor.has_permission(Permission.READ, summary.name, incident.site)
    ]


def _build_incident_task(summary: RolloutSummary, incident: Incident) -> PendingTask:
    location = (
        "" if incident.cell is None else format_cell_name(incident.cell.site, incident.cell.window)
    )
    return PendingTask(
        title=f"Acknowledge incident {incident.id}: {incident.kind}"
        + (f" at {location}" if location else ""),
        rollout=summary.name,
        detail=(
            f"{summary.name} {incident.version}".strip(),
            incident.cause_text,
        ),
        closes=None,
        since=incident.at,
        zone=summary.state.policy.get_timezone(incident.site),
        href=f"/rollouts/{encode_segment(summary.name)}/incidents/{encode_segment(incident.id)}",
        link_text="Read the incident",
    )
