"""Formats what events refer to: proposals, approvers, cells, local times."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import Approved, ProposalRaised
from rollout.reports.text.formatting import (
    format_cell_name,
    format_local_time,
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.reports.text.reading_text import format_reading

MAX_NAMED_CELLS: Final = 3  # of a stop


def _allow_every_site(_site: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class CitedProposals:
    """Proposals that events name, and the approvers of each, by id."""

    proposals: dict[str, ProposalRaised] = field(default_factory=dict)
    approvers: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def collect(cls, events: Iterable[LedgerEvent]) -> Self:
        """Return the proposals and approvers of events, in their order."""
        cited = cls()
        for event in events:
            cited.add_event(event)
        return cited

    def add_event(self, event: LedgerEvent) -> None:
        """Add an event, if it raised or approved a proposal."""
        if isinstance(event, ProposalRaised):
            self.proposals[event.proposal] = event
        elif isinstance(event, Approved):
            self.approvers.setdefault(event.proposal, []).append(event.by)


@dataclass(frozen=True, slots=True)
class EventDescriber:
    """Formats events with their policy, proposals and approvals.

    Times in the year of `reference_date` are formatted without the year. Cells of sites that
    the reader may not read (`is_readable` is false) are counted, not named.
    """

    policy: Policy
    cited: CitedProposals
    is_simulated: bool = False
    reference_date: datetime | None = None
    is_readable: Callable[[str], bool] = _allow_every_site

    def find_cell(self, event: LedgerEvent) -> Cell | None:
        """Return the cell of an event or of its proposal."""
        cell: Cell | None = getattr(event, "cell", None)
        if cell is not None:
            return cell
        proposal = self.cited.proposals.get(getattr(event, "proposal", ""))
        return proposal.cell if proposal else None

    def find_version(self, event: LedgerEvent) -> str | None:
        """Return the version of an event or of its proposal."""
        proposal = self.cited.proposals.get(getattr(event, "proposal", ""))
        return getattr(event, "version", "") or (proposal.version if proposal else "") or None

    def find_zone(self, cell: Cell | None) -> str:
        """Return the time zone of a cell, also if the site has left the policy."""
        return self.policy.get_timezone("" if cell is None else cell.site)

    def format_instant(self, at: datetime, zone: str, reference: datetime) -> str:
        """Return an instant on the zone's clock."""
        return format_local_time(at, zone, reference)

    def format_approvers(self, proposal: str) -> str:
        """Return the approvers, marked if simulated."""
        names = join_words(self.cited.approvers.get(proposal, []))
        return f"{names} (simulated)" if names and self.is_simulated else names or "no user"

    def format_cells(self, cells: Iterable[Cell]) -> str:
        """Return up to three names of cells and the number of the others."""
        all_cells = list(cells)
        names = [
            format_cell_name(cell.site, cell.window)
            for cell in all_cells
            if self.is_readable(cell.site)
        ][:MAX_NAMED_CELLS]
        others = len(all_cells) - len(names)
        if not names:
            return format_quantity(others, "cell")
        return join_words([*names, f"{others} more"] if others else names)

    def format_readings(self, proposal: str) -> str:
        """Return the readings of a proposal, without their logarithms."""
        event = self.cited.proposals.get(proposal)
        readings = event.readings if event else ()
        return "; ".join(format_reading(reading, self.policy) for reading in readings)

    def format_main_reading(self, proposal: str) -> str:
        """Return the agreement of a proposal, else its first reading."""
        lines = self.format_readings(proposal).split("; ")
        agreement_lines = (line for line in lines if line.startswith("agreement at least"))
        counts = next((line.rpartition(": ")[2] for line in agreement_lines), "")
        return f"{counts} agree" if counts else lines[0]


class ZonedEventDescriber(EventDescriber):
    """Formats events with the zone's abbreviation at each instant."""

    __slots__ = ()

    def format_instant(self, at: datetime, zone: str, reference: datetime) -> str:
        """Return an instant with its zone's abbreviation."""
        return format_zoned_time(at, zone, reference)
