"""Formats what events refer to: proposals, approvers, cells, local times."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import singledispatch
from typing import Final, Self

from rollout.engine.events import (
    Approved,
    CasesErased,
    GrantExpired,
    IncidentOpened,
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    RecordsPurged,
    Renewed,
    Resumed,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
    select_events,
)
from rollout.engine.words.formatting import (
    format_cell_name,
    format_local_time,
    format_quantity,
    format_reading,
    format_zoned_time,
    join_words,
)
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.confidence_floors import describe_floor, describe_floor_cases
from rollout.kernel.policy.policy import Policy, describe_guard
from rollout.kernel.words import say_counts, say_gain, say_looser


@singledispatch
def describe_mark(event: LedgerEvent) -> str:
    """Return an event's phrase, of a narrowing also who or what narrowed; "" without a phrase."""
    return phrase_event(event)


@describe_mark.register
def _(event: Narrowed | Suspended) -> str:
    cause = f"guard {describe_guard(event.alarms[0])}" if event.alarms else event.by
    return f"{phrase_event(event)} ({cause})"


@describe_mark.register
def _(event: Stopped) -> str:
    return f"{phrase_event(event)} by {event.by}"


EVENT_PHRASES: Final[Mapping[type[LedgerEvent], str]] = {
    Approved: "{event.proposal} approved by {event.by}",
    Widened: "{event.version} widened to {event.to_stage}{floor}",
    TakenOver: "{event.version} replaced {event.replaced_version} at {event.to_stage}{floor}",
    Renewed: "{event.version}: grant of {event.stage} renewed",
    Suspended: "{event.version} suspended",
    SuspensionCleared: "{event.version}: suspension or alarm ended",
    GrantExpired: "{event.version}: grant of {event.stage} expired",
    Resumed: "stop {event.stop} ended",
    PolicyApplied: "policy {event.number} applied",
    VersionFirstUsed: "new version {event.version}",
    VersionRetired: "{event.version} is retired",
    RecordsPurged: "old records deleted",
}
"""Of kinds whose phrase needs their own fields and `name_floor` alone."""


@singledispatch
def phrase_event(event: LedgerEvent) -> str:
    """Return an event in a few words; "" for events that no timeline marks."""
    return EVENT_PHRASES.get(type(event), "").format(event=event, floor=name_floor(event))


@phrase_event.register
def _(event: ProposalRaised) -> str:
    if not event.to_stage:
        return f"{event.proposal}: {event.kind} proposed"
    of_version, to_stage = {"takeover": ("by", "at"), "renewal": ("of", "at")}.get(
        event.kind, ("of", "to")
    )
    change = f"{event.kind} {of_version} {event.version} {to_stage} {event.to_stage}"
    return f"{event.proposal}: {change} proposed"


@phrase_event.register
def _(event: Narrowed) -> str:
    return phrase_narrowing(event, "")


@phrase_event.register
def _(event: IncidentOpened) -> str:
    of_version = f" of {event.version}" if event.version else ""
    return f"incident {event.incident}{of_version}, {event.effect}"


@phrase_event.register
def _(event: Stopped) -> str:
    return f"stop {event.stop}{' (a drill)' if event.drill else ''}"


@phrase_event.register
def _(event: CasesErased) -> str:
    return f"{event.by} erased the contents of {format_quantity(len(event.keys), 'case')}"


def phrase_narrowing(event: Narrowed, origin: str) -> str:
    """Return a narrowing in a few words; `origin` says from where, such as " from supervised"."""
    if event.confidence_floor:
        return f"{event.version} keeps {event.to_stage}{name_floor(event)} alone"
    if event.begins_attempt:
        return f"{event.version} began its next attempt"
    return f"{event.version} narrowed{origin} to {event.to_stage}"


def name_floor(event: LedgerEvent) -> str:
    """Return for which cases a stage is open, "" without several confidence floors."""
    floor = getattr(event, "acting_floor", "")
    return f" for {describe_floor_cases(floor)}" if floor else ""


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
        self.proposals.update((e.proposal, e) for e in select_events((event,), ProposalRaised))
        if event.is_approved and event.given_groups:
            self.approvers.setdefault(event.about_proposal, []).append(event.by)


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
        return "" if event is None else "; ".join(self._list_grounds(event))

    def _list_grounds(self, event: ProposalRaised) -> Iterator[str]:
        """Yield in words what a proposal rests on."""
        yield from (format_reading(reading, self.policy) for reading in event.readings)
        if event.confidence_floor:
            yield describe_floor(self.policy.evidence, event.confidence_floor)
        if event.cell is None:
            yield f"{event.kind} {event.about}"
        yield from map(say_looser, event.loosens)
        yield from map(str, event.cells)

    def format_main_reading(self, proposal: str) -> str:
        """Return the gain of a proposal, else its agreement, else its first reading."""
        event = self.cited.proposals.get(proposal)
        readings = [(r, r.parse_condition()) for r in event.readings] if event else []
        for reading, condition in readings:
            if reading.estimate:
                return f"gain {say_gain(reading, condition)}"
        for reading, condition in readings:
            if condition.is_whole_agreement:
                return f"{say_counts(reading.counts)} agree"
        return next(self._list_grounds(event), "") if event else ""


class ZonedEventDescriber(EventDescriber):
    """Formats events with the zone's abbreviation at each instant."""

    __slots__ = ()

    def format_instant(self, at: datetime, zone: str, reference: datetime) -> str:
        """Return an instant with its zone's abbreviation."""
        return format_zoned_time(at, zone, reference)
