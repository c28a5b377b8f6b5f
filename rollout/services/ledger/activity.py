"""What happened to a rollout, in words and a page at a time, and the changes around an instant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import Row, event_of
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import (
    Approved,
    CellEvent,
    Event,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    Renewed,
    ReportSealed,
    Resumed,
    RolloutCreated,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.text.event_text import Happening, Telling, Zoned, happening
from rollout.services.engine.evidence_reader import events_of
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import Watched
from rollout.services.ledger.ledger_reader import cited
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger

CHANGES: Final = (
    PolicyApplied, Widened, TakenOver, Narrowed, Suspended, SuspensionCleared, GrantExpired,
    Renewed, Stopped, Resumed, VersionRetired,
)  # fmt: skip
"""What may change what is allowed."""
LEFT_OUT: Final = (IncidentAcknowledged, ReportSealed)
FOR_ALL: Final = (RolloutCreated, PolicyApplied, VersionFirstUsed, VersionRetired)


@dataclass(frozen=True, slots=True)
class Happened:
    """Some of what happened, the newest first.

    Attributes:
        items: in words.
        before: the revision before which the next page begins, None at the end.
        revision: of the newest row there is.
    """

    items: tuple[Happening, ...]
    before: int | None
    revision: int


@dataclass(frozen=True, slots=True)
class Around:
    """The changes of what is allowed next to an instant; None where there is none."""

    before: datetime | None
    after: datetime | None


def happened(
    service: Service,
    caller: Caller,
    name: str,
    *,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 25,
) -> Happened:
    """Return what happened at the sites that the caller may read, and to all of them.

    Args:
        service: the replica that is asked.
        caller: who asks.
        name: of the rollout.
        until: the last instant that is told of, by default now.
        before: only rows before that revision.
        limit: how many at most.

    Raises:
        NotAllowed: the caller may read none.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    events = events_of(service.database, state)
    describer = telling(state.policy, events)
    last_revision = len(events) if before is None else min(before - 1, len(events))
    descriptions: list[Happening] = []
    for revision in range(last_revision, 0, -1):
        event = events[revision - 1]
        if (until is None or event.at <= until) and _seen(caller, name, event, describer):
            if len(descriptions) == limit:
                return Happened(tuple(descriptions), descriptions[-1].revision, len(events))
            descriptions.append(happening(revision, event, describer))
    return Happened(tuple(descriptions), None, len(events))


def around(service: Service, caller: Caller, name: str, when: datetime) -> Around:
    """Return when what is allowed was last changed before an instant, and when next after it."""
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    events = events_of(service.database, state)
    describer = telling(state.policy, events)
    times = [
        event.at
        for event in events
        if isinstance(event, CHANGES) and _seen(caller, name, event, describer)
    ]
    return Around(
        before=max((time for time in times if time < when), default=None),
        after=min((time for time in times if time > when), default=None),
    )


def telling(policy: Policy, events: Sequence[Event]) -> Telling:
    """Return what events are told with."""
    proposals = {e.proposal: e for e in events if isinstance(e, ProposalRaised)}
    approvers: dict[str, list[str]] = {}
    for event in events:
        if isinstance(event, Approved):
            approvers.setdefault(event.proposal, []).append(event.by)
    return Zoned(
        policy, proposals, approvers, simulated=False, since=events[0].at if events else None
    )


def _cells(event: Event) -> tuple[Cell, ...]:
    if isinstance(event, CellEvent):
        return (event.cell,)
    if isinstance(event, ProposalRaised) and event.cell is not None:
        return (event.cell,)
    return event.cells if isinstance(event, Stopped) else ()


def _seen(caller: Caller, name: str, event: Event, told: Telling) -> bool:
    """Say whether an event is told to a reader: it is about one of their sites, or about all."""
    if isinstance(event, LEFT_OUT) or (isinstance(event, IncidentOpened) and _told_of(event)):
        return False
    if isinstance(event, FOR_ALL) or caller.may(Act.READ, name):
        return True
    return any(caller.may(Act.READ, name, site) for site in _sites(event, told))


def _told_of(event: IncidentOpened) -> bool:
    """Say whether the row before it tells the same: what a guard narrowed or withheld."""
    return event.effect in {"narrowed", "suspended"}


def _sites(event: Event, told: Telling) -> Iterator[str]:
    yield from (cell.site for cell in _cells(event))
    described_cell = told.cell(event)
    if described_cell is not None:
        yield described_cell.site


def told(
    transaction: Transaction, stood: Standing, rows: Sequence[Row], since: datetime | None = None
) -> tuple[Happening, ...]:
    """Return rows of a rollout's ledger in words, in their order.

    Args:
        transaction: in which they were read.
        stood: the rollout's standing: its policy names the zones.
        rows: some rows of its ledger.
        since: an instant of the reader's year: times of that year are told without it.
    """
    events = [event_of(row) for row in rows]
    cited_proposals, approvers = cited(transaction, stood.rollout, rows)
    describer = Zoned(stood.policy, cited_proposals, approvers, simulated=False, since=since)
    return tuple(
        happening(row.revision, event, describer) for row, event in zip(rows, events, strict=True)
    )


ROLLOUTS = 10
"""Ledgers that are looked into, those that moved last."""


@dataclass(frozen=True, slots=True)
class News:
    """One event of one rollout; `zone` is that of the site's clock."""

    rollout: str
    zone: str
    what: Happening


def lately(
    service: Service, caller: Caller, since: datetime | None, *, limit: int = 12
) -> tuple[News, ...]:
    """Return what happened after `since` at sites that the caller may read, the newest first.

    Args:
        service: the replica that is asked.
        caller: who asks.
        since: an instant; None for ever before.
        limit: of how many events at most.
    """
    active_rollouts = [
        cached_rollout
        for cached_rollout in service.watch.everything()
        if cached_rollout.head.at is not None
    ]
    readable_rollouts = [
        cached_rollout
        for cached_rollout in active_rollouts
        if caller.may_somewhere(Act.READ, cached_rollout.standing.rollout.name)
    ]
    changed_rollouts = [
        cached_rollout
        for cached_rollout in readable_rollouts
        if since is None or (cached_rollout.head.at or since) > since
    ]
    newest_rollouts = sorted(changed_rollouts, key=_moved, reverse=True)[:ROLLOUTS]
    with service.database.reading() as transaction:
        items = [
            item
            for cached_rollout in newest_rollouts
            for item in _of(transaction, caller, cached_rollout, since, limit)
        ]
    return tuple(sorted(items, key=_newest, reverse=True)[:limit])


def _moved(watched: Watched) -> float:
    return 0.0 if watched.head.at is None else watched.head.at.timestamp()


def _newest(news: News) -> tuple[datetime, str, int]:
    return news.what.at, news.rollout, news.what.revision


def _of(
    transaction: Transaction, caller: Caller, watched: Watched, since: datetime | None, limit: int
) -> list[News]:
    state = watched.standing
    rollout_name = state.rollout.name
    ledger = Ledger(transaction, state.rollout)
    rows = list(ledger.rows(after=max(0, watched.head.revision - limit)))
    event_descriptions = told(transaction, state, rows, watched.head.at)
    return [
        News(rollout_name, state.policy.zone_of(event_description.site or ""), event_description)
        for row, event_description in zip(rows, event_descriptions, strict=True)
        if (since is None or event_description.at > since)
        and _tells(caller, rollout_name, row, event_description)
    ]


def _tells(caller: Caller, name: str, row: Row, what: Happening) -> bool:
    """Say whether an event is told to a reader: it is about one of their sites, or about all."""
    if what.site is not None:
        return caller.may(Act.READ, name, what.site)
    event = event_of(row)
    if isinstance(event, FOR_ALL) or caller.may(Act.READ, name):
        return True
    cells = event.cells if isinstance(event, Stopped) else ()
    return any(caller.may(Act.READ, name, cell.site) for cell in cells)
