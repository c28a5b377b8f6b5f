"""What waits for a person: what closes first comes first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.console.page.page_context import Visitor
from api.console.page.text import segment
from rollout.core.errors import Refusal
from rollout.core.scope.permissions import Act
from rollout.core.scope.scope import Incident
from rollout.core.scope.scope import Proposal as ScopeProposal
from rollout.reports.text.formatting import cell_name, several
from rollout.services.cells.overview import Line
from rollout.services.proposals.eligible_approvers import waiting_for
from rollout.services.proposals.proposal_details import Proposal, one

MOST: Final = 25
"""Things that are shown; more of them are counted."""
KINDS: Final = {
    "widening": "Widen {cell} to {to}",
    "renewal": "Renew {cell}, {to}",
    "takeover": "Let {version} take over {cell}, {to}",
    "resume": "Resume what stop {about} withholds",
    "policy": "Change the policy",
    "clock": "Set the ledger's time right",
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that waits.

    Attributes:
        title: what is to be done, in a few words.
        rollout: where.
        detail: the figures that decide, in a line.
        closes: when it can't be done any more; None where it waits for ever.
        since: when it happened; None of what is only asked for.
        zone: of the site that it is about, the policy's where it is about none.
        href: where it is done, below the console's home.
        does: the words of the link.
    """

    title: str
    rollout: str
    detail: tuple[str, ...]
    closes: datetime | None
    since: datetime | None
    zone: str
    href: str
    does: str


def things(lines: Sequence[Line], visitor: Visitor) -> tuple[tuple[Thing, ...], int]:
    """Return what waits for a visitor, at most `MOST`, and how many things there are."""
    approvals = sorted(_asked(lines, visitor), key=lambda pair: pair[1].expires_at)
    details = [_approval(summary, proposal, visitor) for summary, proposal in approvals[:MOST]]
    approval_tasks = [task for task in details if task is not None]
    incident_tasks = list(_incidents(lines, visitor))
    hidden_count = max(0, len(approvals) - MOST)
    return tuple([*approval_tasks, *incident_tasks][:MOST]), len(approval_tasks) + len(
        incident_tasks
    ) + hidden_count


def title_of(shown: Proposal) -> str:
    """Say what a proposal would do, in a few words.

    >>> KINDS["widening"].format(cell="creek · day", to="supervised", version="v7", about="")
    'Widen creek · day to supervised'
    """
    cell = cell_name(shown.site, shown.window)
    title_format = KINDS.get(shown.kind, "Decide about {cell}")
    return title_format.format(cell=cell, to=shown.to, version=shown.version, about=shown.about)


def _asked(lines: Iterable[Line], visitor: Visitor) -> Iterator[tuple[Line, ScopeProposal]]:
    """Yield the proposals to which a yes of the visitor's would count now."""
    for summary in lines:
        for proposal in waiting_for(summary.stood, visitor.caller, at=visitor.at):
            yield summary, proposal


def _approval(line: Line, proposal: ScopeProposal, visitor: Visitor) -> Thing | None:
    """Return a proposal as what waits, None where the visitor may not approve it after all."""
    try:
        details = one(visitor.service, visitor.caller, line.name, proposal.id, at=visitor.at)
    except Refusal:
        return None
    if not details.can_approve:
        return None
    approved_count = len(details.required_approvals) - details.approvals_missing
    evidence = [line.partition(", log E")[0] for line in details.readings[:1] if details.site]
    version = f"{line.name} {details.version}".strip()
    return Thing(
        title=title_of(details),
        rollout=line.name,
        detail=(
            version,
            *evidence,
            f"{approved_count} of {several(len(details.required_approvals), 'approval')}",
        ),
        closes=details.expires_at,
        since=None,
        zone=line.stood.policy.zone_of(details.site),
        href=f"/rollouts/{segment(line.name)}/proposals/{segment(details.id)}",
        does="Read and decide",
    )


def _incidents(lines: Iterable[Line], visitor: Visitor) -> Iterator[Thing]:
    for summary in lines:
        for incident in open_incidents(summary, visitor):
            if visitor.may(Act.OPERATE, summary.name, _site(incident)):
                yield _incident(summary, incident)


def open_incidents(line: Line, visitor: Visitor) -> list[Incident]:
    """Return the incidents that the visitor may read and nobody has acknowledged."""
    incidents = line.stood.scope.open_incidents.values()
    return [incident for incident in incidents if visitor.may(Act.READ, line.name, _site(incident))]


def _incident(line: Line, incident: Incident) -> Thing:
    location = "" if incident.cell is None else cell_name(incident.cell.site, incident.cell.window)
    return Thing(
        title=f"Acknowledge: {incident.kind}" + (f" at {location}" if location else ""),
        rollout=line.name,
        detail=(f"{line.name} {incident.version}".strip(), incident.reason),
        closes=None,
        since=incident.at,
        zone=line.stood.policy.zone_of(_site(incident)),
        href=f"/rollouts/{segment(line.name)}/incidents/{segment(incident.id)}",
        does="Read the incident",
    )


def _site(incident: Incident) -> str:
    return "" if incident.cell is None else incident.cell.site
