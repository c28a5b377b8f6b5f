"""What a version did in all cells lately: what an approver must know before it gets more.

Alarms about quality and harms of its own speak against it everywhere: they enter the hash of its
proposals' evidence, and void or hold those that are open. All else is shown beside them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import MISTAKEN
from rollout.core.scope.events import (
    HARM_FACT,
    QUALITY_FACT,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Suspended,
)
from rollout.core.scope.incident_kinds import UNAUTHORIZED, get_incident_kind

SUSPENSION_FACT: Final = "suspended"
AGAINST: Final = (HARM_FACT, QUALITY_FACT)
"""Facts that enter the hash of a proposal's evidence, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class TrackFact:
    """What happened to a version in a cell.

    Attributes:
        kind: `quality` (narrowed for quality), `harm`, `unauthorized` or `suspended`.
        incident: its id; "" for a suspension.
        guard: the guard in alarm, "" for an action without an authorization.
        acknowledged_at: when a user acknowledged the incident, None before.
    """

    kind: str
    version: str
    at: datetime
    cell: Cell | None
    incident: str = ""
    guard: str = ""
    acknowledged_at: datetime | None = None

    @property
    def speaks_against(self) -> bool:
        """Return whether it voids or holds the version's open proposals."""
        return self.kind in AGAINST


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The facts about a version over all cells, newest first, in a span.

    Attributes:
        values_met: attribute values that it has met in any cell, familiar or not.
        values_mistaken: those of them about which it is wrong too often.
    """

    version: str
    since: datetime
    until: datetime
    facts: tuple[TrackFact, ...] = ()
    values_met: int = 0
    values_mistaken: int = 0

    def list_facts(self, kind: str) -> tuple[TrackFact, ...]:
        """Return the facts of one kind, newest first."""
        return tuple(fact for fact in self.facts if fact.kind == kind)


def build_track_record(
    version: str,
    events: Iterable[LedgerEvent],
    statuses: Iterable[str],
    *,
    site: str,
    since: datetime,
    until: datetime,
) -> TrackRecord:
    """Return a version's track record in [since, until].

    Args:
        version: its first name.
        events: those of the span, in order; of other kinds and times, too.
        statuses: of each attribute value that it has met.
        site: the only one whose actions without an authorization count.
    """
    in_span = [event for event in events if since <= event.at <= until]
    acknowledged = {e.incident: e.at for e in in_span if isinstance(e, IncidentAcknowledged)}
    facts = [
        replace(fact, acknowledged_at=acknowledged.get(fact.incident))
        for fact in _read_facts(in_span)
        if fact.version == version and _is_of_site(fact, site)
    ]
    answers = list(statuses)
    newest_first = tuple(reversed(facts))
    return TrackRecord(version, since, until, newest_first, len(answers), answers.count(MISTAKEN))


def _is_of_site(fact: TrackFact, site: str) -> bool:
    return fact.kind != UNAUTHORIZED.fact or (fact.cell is not None and fact.cell.site == site)


def _read_facts(events: Iterable[LedgerEvent]) -> Iterator[TrackFact]:
    for event in events:
        if isinstance(event, IncidentOpened):
            yield from read_incident_fact(event)
        elif isinstance(event, Suspended):
            parts = (SUSPENSION_FACT, event.version, event.at, event.cell)
            yield TrackFact(*parts, guard=event.guard)


def read_incident_fact(event: IncidentOpened) -> Iterator[TrackFact]:
    """Yield what an incident says about a version, if anything."""
    kind = event.fact or get_incident_kind(event.kind).fact
    if kind and event.version:
        parts = (kind, event.version, event.at, event.cell)
        yield TrackFact(*parts, incident=event.incident, guard=event.guard)
