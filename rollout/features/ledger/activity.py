"""Activity of rollouts: descriptions of events, by page, and changes around an instant."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import LedgerFilter, LedgerPages
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.events import LedgerEvent
from rollout.engine.ledger.ledger import CanonicalRow, parse_event
from rollout.engine.words.event_kinds import COUNTING_KINDS, SCOPE_KINDS
from rollout.engine.words.event_text import (
    CitedProposals,
    EventDescriber,
    EventDescription,
    ZonedEventDescriber,
    describe_event,
)
from rollout.features.ledger.ledger_reader import load_cited_proposals
from rollout.kernel.policy.policy import Policy
from rollout.live.evidence.evidence_reader import load_events
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service
from rollout.live.state_cache import CachedRollout

MAX_ROLLOUTS: Final = 10  # to read, those changed last


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """A page of event descriptions, newest first.

    Attributes:
        before: the revision before which the next page begins; None at the end.
        revision: of the ledger's newest entry.
    """

    items: tuple[EventDescription, ...]
    before: int | None
    revision: int


@dataclass(frozen=True, slots=True)
class AdjacentChanges:
    """The scope changes next to an instant; None if there are none."""

    before: datetime | None
    after: datetime | None


def load_activity(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 25,
) -> ActivityPage:
    """Return the events that concern all sites or the caller's sites.

    `until` is an instant and `before` a revision, which both limit the page.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    events = load_events(service.database, state)
    describer = replace(
        build_describer(state.policy, events), is_readable=_find_readable(caller, rollout_name)
    )
    last_revision = len(events) if before is None else min(before - 1, len(events))
    descriptions: list[EventDescription] = []
    for revision in range(last_revision, 0, -1):
        event = events[revision - 1]
        if (until is None or event.at <= until) and _is_visible(
            caller, rollout_name, event, describer
        ):
            if len(descriptions) == limit:
                return ActivityPage(tuple(descriptions), descriptions[-1].revision, len(events))
            descriptions.append(describe_event(revision, event, describer))
    return ActivityPage(tuple(descriptions), None, len(events))


def find_adjacent_changes(
    service: Service, caller: Caller, rollout_name: str, moment: datetime
) -> AdjacentChanges:
    """Return the last scope change before an instant, and the next."""
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    events = load_events(service.database, state)
    describer = build_describer(state.policy, events)
    times = [
        event.at
        for event in events
        if type(event).__name__ in SCOPE_KINDS
        and _is_visible(caller, rollout_name, event, describer)
    ]
    return AdjacentChanges(
        before=max((time for time in times if time < moment), default=None),
        after=min((time for time in times if time > moment), default=None),
    )


def build_describer(policy: Policy, events: Sequence[LedgerEvent]) -> EventDescriber:
    """Return the describer of a rollout's events."""
    reference_date = events[0].at if events else None
    return ZonedEventDescriber(
        policy, CitedProposals.collect(events), reference_date=reference_date
    )


def _is_visible(
    caller: Caller, rollout_name: str, event: LedgerEvent, describer: EventDescriber
) -> bool:
    """Return whether a caller sees an event."""
    if event.is_hidden or event.repeats_effect:
        return False
    if event.is_for_all or caller.has_permission(Permission.READ, rollout_name):
        return True
    return any(
        caller.has_permission(Permission.READ, rollout_name, site)
        for site in _list_sites(event, describer)
    )


def _find_readable(caller: Caller, rollout_name: str) -> Callable[[str], bool]:
    """Return whether a caller may read a site, as a function of the site."""
    return partial(caller.has_permission, Permission.READ, rollout_name)


def _list_sites(event: LedgerEvent, describer: EventDescriber) -> Iterator[str]:
    if event.about_stop:
        yield from (cell.site for cell in event.list_cells())
    described_cell = describer.find_cell(event)
    if described_cell is not None:
        yield described_cell.site


def describe_ledger_rows(
    transaction: Transaction,
    state: RolloutState,
    rows: Sequence[CanonicalRow],
    since: datetime | None,
    caller: Caller,
) -> tuple[EventDescription, ...]:
    """Return descriptions of ledger entries for a caller, in their order.

    Times in the year of `since` are formatted without the year.
    """
    events = [parse_event(row) for row in rows]
    cited = load_cited_proposals(transaction, state.rollout, rows)
    is_readable = _find_readable(caller, state.rollout.name)
    describer = ZonedEventDescriber(
        state.policy, cited, reference_date=since, is_readable=is_readable
    )
    return tuple(
        describe_event(row.revision, event, describer)
        for row, event in zip(rows, events, strict=True)
    )


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """One event of one rollout; `timezone` is that of its site."""

    rollout: str
    timezone: str
    event_description: EventDescription


def load_recent_activity(
    service: Service, caller: Caller, since: datetime | None, *, limit: int = 12
) -> tuple[ActivityItem, ...]:
    """Return the newest events after `since` that the caller may read."""
    active_rollouts = [
        cached_rollout
        for cached_rollout in service.state_cache.load_all()
        if cached_rollout.head.at is not None
    ]
    readable_rollouts = [
        cached_rollout
        for cached_rollout in active_rollouts
        if caller.has_permission_somewhere(Permission.READ, cached_rollout.state.rollout.name)
    ]
    changed_rollouts = [
        cached_rollout
        for cached_rollout in readable_rollouts
        if since is None or (cached_rollout.head.at or since) > since
    ]
    newest_rollouts = sorted(
        changed_rollouts,
        key=lambda each: 0.0 if each.head.at is None else each.head.at.timestamp(),
        reverse=True,
    )[:MAX_ROLLOUTS]
    with service.database.begin_read() as transaction:
        items = [
            item
            for cached_rollout in newest_rollouts
            for item in _load_rollout_activity(transaction, caller, cached_rollout, since, limit)
        ]
    newest_first = sorted(
        items,
        key=lambda item: (item.event_description.at, item.rollout, item.event_description.revision),
        reverse=True,
    )
    return tuple(newest_first[:limit])


def _load_rollout_activity(
    transaction: Transaction,
    caller: Caller,
    cached_rollout: CachedRollout,
    since: datetime | None,
    limit: int,
) -> list[ActivityItem]:
    state = cached_rollout.state
    rollout_name = state.rollout.name
    entries = LedgerPages(transaction, state.rollout).list_page(
        LedgerFilter(hidden_kinds=COUNTING_KINDS), before=None, limit=limit
    )
    rows = [entry.row for entry in reversed(entries)]
    event_descriptions = describe_ledger_rows(
        transaction, state, rows, cached_rollout.head.at, caller
    )
    return [
        ActivityItem(
            rollout_name, state.policy.get_timezone(event_description.site or ""), event_description
        )
        for row, event_description in zip(rows, event_descriptions, strict=True)
        if (since is None or event_description.at > since)
        and _is_row_visible(caller, rollout_name, row, event_description)
    ]


def _is_row_visible(
    caller: Caller, rollout_name: str, row: CanonicalRow, event_description: EventDescription
) -> bool:
    """Return whether a caller sees a described ledger entry."""
    if event_description.site is not None:
        return caller.has_permission(Permission.READ, rollout_name, event_description.site)
    event = parse_event(row)
    if event.is_for_all or caller.has_permission(Permission.READ, rollout_name):
        return True
    cells = event.list_cells() if event.about_stop else ()
    return any(caller.has_permission(Permission.READ, rollout_name, cell.site) for cell in cells)
