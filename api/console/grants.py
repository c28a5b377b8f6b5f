"""The grants of cells: since when and on whose word each holds, and when it ends."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.core.places import Cell
from rollout.core.proposing import renewal_starts
from rollout.services.cell_rows import Cells


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One grant.

    Attributes:
        cell, stage, version: what it is of.
        since, until: its span.
        by: who approved it.
        zone: of the site.
        tag: the kind and word of what is said beside its end, none where all is well.
        proposal: the proposal that it stands on.
        renewal: the id of an open renewal of it, "" without one.
    """

    cell: Cell
    stage: str
    version: str
    since: datetime
    until: datetime
    by: tuple[str, ...]
    zone: str
    tag: tuple[str, str] | None
    proposal: str
    renewal: str


def grants_of(found: Cells, cells: Iterable[Cell]) -> tuple[GrantRow, ...]:
    """Return the grants that cells hold, withheld ones too: they go on ageing."""
    return tuple(row for cell in cells for row in _of_cell(found, cell))


def _of_cell(found: Cells, cell: Cell) -> Iterator[GrantRow]:
    scope, policy = found.stood.scope, found.stood.policy
    holder = scope.holder(cell)
    if holder is None:
        return
    state = scope.state(cell, holder)
    for grant in reversed(state.grants):
        ended = found.at >= grant.until
        known = grant.stage in policy.rungs
        lapsing = known and found.at >= renewal_starts(
            policy, state, policy.rungs.index(grant.stage)
        )
        tag = ("warn", "Lapsed") if ended else ("warn", "Lapsing") if lapsing else None
        renewals = (
            p.id
            for p in scope.proposals.values()
            if (p.kind, p.cell, p.to) == ("renewal", cell, grant.stage)
        )
        yield GrantRow(
            cell=cell,
            stage=grant.stage,
            version=holder,
            since=grant.since,
            until=grant.until,
            by=found.lately.approvers.get(grant.proposal, ()),
            zone=policy.site[cell.site].timezone,
            tag=tag,
            proposal=grant.proposal,
            renewal=next(renewals, ""),
        )
