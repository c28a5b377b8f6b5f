"""What a version did in all cells lately: what an approver must know before it gets more.

Alarms about quality and harms of its own speak against it everywhere: they enter the hash of its
proposals' evidence, and void or hold those that are open. All else is shown beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from rollout.core.policy.familiarity import MISTAKEN
from rollout.core.scope.events import (
    IncidentAcknowledged,
    LedgerEvent,
    TrackFact,
    select_events,
)
from rollout.core.scope.incident_kinds import UNAUTHORIZED


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
    acknowledged = {e.incident: e.at for e in select_events(in_span, IncidentAcknowledged)}
    facts = [
        replace(fact, acknowledged_at=acknowledged.get(fact.incident))
        for event in in_span
        for fact in event.list_track_facts()
        if fact.version == version and _is_of_site(fact, site)
    ]
    answers = list(statuses)
    newest_first = tuple(reversed(facts))
    return TrackRecord(version, since, until, newest_first, len(answers), answers.count(MISTAKEN))


def _is_of_site(fact: TrackFact, site: str) -> bool:
    return fact.kind != UNAUTHORIZED.fact or (fact.cell is not None and fact.cell.site == site)
