"""What happened to a rollout, in words and a page at a time, and the changes around an instant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.events import (
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
from rollout.core.places import Cell
from rollout.core.policy import Policy
from rollout.core.rights import Act, Caller, require
from rollout.reports.timeline_words import Happening, Telling, Zoned, happening
from rollout.services.service import Service
from rollout.services.sights import events_of

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
    stood = service.watch.confirmed(name).standing
    events = events_of(service.database, stood)
    told = telling(stood.policy, events)
    last = len(events) if before is None else min(before - 1, len(events))
    found: list[Happening] = []
    for revision in range(last, 0, -1):
        event = events[revision - 1]
        if (until is None or event.at <= until) and _seen(caller, name, event, told):
            if len(found) == limit:
                return Happened(tuple(found), found[-1].revision, len(events))
            found.append(happening(revision, event, told))
    return Happened(tuple(found), None, len(events))


def around(service: Service, caller: Caller, name: str, when: datetime) -> Around:
    """Return when what is allowed was last changed before an instant, and when next after it."""
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    events = events_of(service.database, stood)
    told = telling(stood.policy, events)
    times = [e.at for e in events if isinstance(e, CHANGES) and _seen(caller, name, e, told)]
    return Around(
        before=max((at for at in times if at < when), default=None),
        after=min((at for at in times if at > when), default=None),
    )


def telling(policy: Policy, events: Sequence[Event]) -> Telling:
    """Return what events are told with."""
    raised = {e.proposal: e for e in events if isinstance(e, ProposalRaised)}
    yes: dict[str, list[str]] = {}
    for event in events:
        if isinstance(event, Approved):
            yes.setdefault(event.proposal, []).append(event.by)
    return Zoned(policy, raised, yes, simulated=False, since=events[0].at if events else None)


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
    about = told.cell(event)
    if about is not None:
        yield about.site
