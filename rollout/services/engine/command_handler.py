"""Carry out a command on a live rollout: decide, append, and decide again if somebody came first.

Nothing is counted in the transaction that appends, so that a stop never waits for counting.
"""

from collections.abc import Callable
from contextlib import suppress

from rollout import faults
from rollout.core.errors import PolicyRefused
from rollout.core.scope.commands import Command, See
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Event
from rollout.core.scope.projection import fold
from rollout.services.engine.revision_retry import retried
from rollout.services.engine.rollout_state import Standing, standing
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

Asked = Callable[[Standing], Command]


def carry_out(
    database: Database, name: str, asked: Asked, house: int | None = None
) -> tuple[Event, ...]:
    """Decide what `asked` makes of the rollout's standing, and write what follows.

    Args:
        database: where the rollout is.
        name: of the rollout.
        asked: gives the command; called again with the newer standing when somebody came first.
        house: the revision of the house chain that the asker's rights were judged by.

    Returns:
        The events that were written, those of versions seen meanwhile first.

    Raises:
        Refusal: it can't be; nothing was written.
        NoSuchRolloutError: there is no such rollout.
        StaleRevision: the rollout moved on at every try.
    """
    return retried(lambda: _once(database, name, asked, house))


def _once(database: Database, name: str, asked: Asked, house: int | None) -> tuple[Event, ...]:
    with database.reading() as transaction:
        state = standing(transaction, name)
    faults.point("command.read")
    events = decided(state, asked)
    faults.point("command.decided")
    if not events:
        return ()  # what is asked for holds: nobody is waited for
    with database.writing(first=True) as transaction:
        Ledger(transaction, state.rollout).append(
            events, after=state.scope.revision, access_head=house
        )
    return events


def decided(stood: Standing, asked: Asked) -> tuple[Event, ...]:
    """Return what follows from a command, after the versions that were seen by then."""
    command = asked(stood)
    scope = stood.scope
    events: tuple[Event, ...] = ()
    new_versions = (
        (facts.first_seen_at, v) for v, facts in stood.versions.items() if v not in scope.versions
    )
    for at, version in sorted(new_versions):
        if at > command.at:
            break
        with suppress(PolicyRefused):  # too many are open: it stays unknown, and people decide
            seen_events = decide(See(at=at, version=version), scope, stood.policy)
            scope, events = fold(seen_events, scope), (*events, *seen_events)
    if events:
        stood = Standing(stood.rollout, scope, stood.policy, stood.pending, stood.versions)
        command = asked(stood)
    return (*events, *decide(command, scope, stood.policy))
