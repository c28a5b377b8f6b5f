"""What a caller asked of a rollout, as it was written, with where its ledger is then."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollout.core.ledger.ledger import fields_of
from rollout.core.scope.events import Event as LedgerEvent
from rollout.core.scope.permissions import Caller
from rollout.services.engine.command_handler import Asked, carry_out
from rollout.services.engine.rollout_state import NoSuchRolloutError
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Head, Ledger


@dataclass(frozen=True, slots=True)
class Event:
    """One event as plain values; `body` holds its fields, with names and texts."""

    at: datetime
    kind: str
    by: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command wrote, nothing where what it asks for holds; and where the ledger is now."""

    rollout: str
    revision: int
    hash: str
    events: tuple[Event, ...]


def act(database: Database, caller: Caller, name: str, asked: Asked) -> CommandResult:
    """Carry out a command whose caller's rights were judged.

    Raises:
        Refusal: it can't be; nothing was written.
    """
    return written(database, name, carry_out(database, name, asked, caller.house))


def written(database: Database, name: str, events: tuple[LedgerEvent, ...]) -> CommandResult:
    """Return events as an answer; the head is read after them, so it covers them."""
    head = head_of(database, name)
    event_records = tuple(
        Event(event.at, type(event).__name__, event.by, fields_of(event)) for event in events
    )
    return CommandResult(rollout=name, revision=head.revision, hash=head.hash, events=event_records)


def head_of(database: Database, name: str) -> Head:
    """Return where a rollout's ledger is.

    Raises:
        NoSuchRolloutError: there is none of that name.
    """
    with database.reading() as transaction:
        rollout = Rollouts(transaction).find(name)
        if rollout is None:
            raise NoSuchRolloutError(f"no rollout {name}; `rollout apply` makes one")
        return Ledger(transaction, rollout).head()
