"""Applies events to a scope; it never refuses an event.

Events change one private copy in place, which is frozen at the end: the cost is linear in the
number of events, however many cells there are.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rollout.engine.decide.scope import Scope
from rollout.engine.decide.scope_builder import ScopeBuilder
from rollout.engine.events import LedgerEvent


def apply_event(scope: Scope, event: LedgerEvent) -> Scope:
    """Return the scope after `event`."""
    return apply_events((event,), scope)


def apply_events(events: Iterable[LedgerEvent], scope: Scope | None = None) -> Scope:
    """Return the scope after `events`, from the empty one by default."""
    start, builder = Scope() if scope is None else scope, None
    for event in events:
        builder = builder or ScopeBuilder(start)
        _apply_to_scope(event, builder)
    return start if builder is None else builder.build()


def _apply_to_scope(event: LedgerEvent, builder: ScopeBuilder) -> None:
    """Apply one event; only a correction sets the scope's time back."""
    previous_at = builder.at
    builder.at = event.at if previous_at is None else max(previous_at, event.at)
    builder.effective_at = event.compute_effective_time(builder.effective_at)
    event.apply(builder)
    builder.revision += 1


def list_effective_times(
    events: Iterable[LedgerEvent],
) -> Iterator[tuple[LedgerEvent, datetime]]:
    """Yield the events of a ledger, from its first, with the time from which each holds."""
    previous: datetime | None = None
    for event in events:
        previous = event.compute_effective_time(previous)
        yield event, previous
