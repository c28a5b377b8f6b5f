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
    asked = sorted(_asked(lines, visitor), key=lambda pair: pair[1].expires_at)
    shown = [_approval(line, p, visitor) for line, p in asked[:MOST]]
    mine = [thing for thing in shown if thing is not None]
    seen = list(_incidents(lines, visitor))
    further = max(0, len(asked) - MOST)
    return tuple([*mine, *seen][:MOST]), len(mine) + len(seen) + further


def title_of(shown: Proposal) -> str:
    """Say what a proposal would do, in a few words.

    >>> KINDS["widening"].format(cell="creek · day", to="supervised", version="v7", about="")
    'Widen creek · day to supervised'
    """
    cell = cell_name(shown.site, shown.window)
    said = KINDS.get(shown.kind, "Decide about {cell}")
    return said.format(cell=cell, to=shown.to, version=shown.version, about=shown.about)


def _asked(lines: Iterable[Line], visitor: Visitor) -> Iterator[tuple[Line, ScopeProposal]]:
    """Yield the proposals to which a yes of the visitor's would count now."""
    for line in lines:
        for proposal in waiting_for(line.stood, visitor.caller, at=visitor.at):
            yield line, proposal


def _approval(line: Line, proposal: ScopeProposal, visitor: Visitor) -> Thing | None:
    """Return a proposal as what waits, None where the visitor may not approve it after all."""
    try:
        shown = one(visitor.service, visitor.caller, line.name, proposal.id, at=visitor.at)
    except Refusal:
        return None
    if not shown.can_approve:
        return None
    given = len(shown.required_approvals) - shown.approvals_missing
    evidence = [line.partition(", log E")[0] for line in shown.readings[:1] if shown.site]
    version = f"{line.name} {shown.version}".strip()
    return Thing(
        title=title_of(shown),
        rollout=line.name,
        detail=(
            version,
            *evidence,
            f"{given} of {several(len(shown.required_approvals), 'approval')}",
        ),
        closes=shown.expires_at,
        since=None,
        zone=line.stood.policy.zone_of(shown.site),
        href=f"/rollouts/{segment(line.name)}/proposals/{segment(shown.id)}",
        does="Read and decide",
    )


def _incidents(lines: Iterable[Line], visitor: Visitor) -> Iterator[Thing]:
    for line in lines:
        for incident in open_incidents(line, visitor):
            if visitor.may(Act.OPERATE, line.name, _site(incident)):
                yield _incident(line, incident)


def open_incidents(line: Line, visitor: Visitor) -> list[Incident]:
    """Return the incidents that the visitor may read and nobody has acknowledged."""
    found = line.stood.scope.open_incidents.values()
    return [i for i in found if visitor.may(Act.READ, line.name, _site(i))]


def _incident(line: Line, incident: Incident) -> Thing:
    where = "" if incident.cell is None else cell_name(incident.cell.site, incident.cell.window)
    return Thing(
        title=f"Acknowledge: {incident.kind}" + (f" at {where}" if where else ""),
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
