"""Execute commands on live rollouts: decide, append, and retry if the ledger moved.

Nothing is counted in the transaction that appends, so that a stop never waits for counting.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from rollout import faults
from rollout.core.errors import StaleRevisionError
from rollout.core.ledger.ledger import list_fields
from rollout.core.scope.commands import Command
from rollout.core.scope.decider import decide
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import ProposalRaised
from rollout.core.scope.permissions import Caller
from rollout.core.scope.projection import apply_events
from rollout.services.engine.new_versions import list_new_versions
from rollout.services.engine.rollout_state import (
    NoSuchRolloutError,
    RolloutState,
    load_rollout_state,
)
from rollout.store.database.append_failures import APPEND
from rollout.store.database.errors import StoreError
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.commit_times import CommitTimes
from rollout.store.ledger.ledger import Ledger, StoredLedgerHead

MAX_ATTEMPTS: Final = 20  # more is a fault, not contention
ResultT = TypeVar("ResultT")
CommandBuilder = Callable[[RolloutState], Command]


@dataclass(frozen=True, slots=True)
class Event:
    """One event as plain values; `body` holds its fields."""

    at: datetime
    kind: str
    by: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """The events that a command wrote, if any, and the ledger's head."""

    rollout: str
    revision: int
    hash: str
    events: tuple[Event, ...]


def run_command(
    database: Database,
    caller: Caller,
    rollout_name: str,
    build_command: CommandBuilder,
    append_kind: str = APPEND,
) -> CommandResult:
    """Execute a command for a caller whose permissions were checked.

    `append_kind` tells failed stops and narrowings from other appends.

    Raises:
        RefusalError: the command is refused; nothing was written.
    """
    return build_command_result(
        database,
        rollout_name,
        execute_command(database, rollout_name, build_command, caller.access_head, append_kind),
    )


def build_command_result(
    database: Database, rollout_name: str, events: tuple[LedgerEvent, ...]
) -> CommandResult:
    """Return the result of events; its head is read after them."""
    head = load_ledger_head(database, rollout_name)
    event_records = tuple(
        Event(event.at, type(event).__name__, event.by, list_fields(event)) for event in events
    )
    return CommandResult(
        rollout=rollout_name, revision=head.revision, hash=head.hash, events=event_records
    )


def load_ledger_head(database: Database, rollout_name: str) -> StoredLedgerHead:
    """Return the head of a rollout's ledger.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find(rollout_name)
        if rollout is None:
            raise NoSuchRolloutError(f"no rollout {rollout_name}; `rollout apply` makes one")
        return Ledger(transaction, rollout).load_head()


def execute_command(
    database: Database,
    rollout_name: str,
    build_command: CommandBuilder,
    access_head: int | None = None,
    append_kind: str = APPEND,
) -> tuple[LedgerEvent, ...]:
    """Execute a command and return the appended events.

    `build_command` is called again with the newer state if the ledger moved. Versions first used by
    then are appended before the command's own events. `access_head` is the revision of the access
    ledger at which the caller's permissions were checked.

    Raises:
        RefusalError: the command is refused; nothing was written.
        NoSuchRolloutError: there is no such rollout.
        StaleRevisionError: the ledger moved at every attempt.
    """
    started_at = time.monotonic()
    with database.append_failures.watch(rollout_name, append_kind) as attempt:
        events = retry_on_stale_revision(
            lambda: _try_execute(database, rollout_name, build_command, access_head, started_at)
        )
        # a stop or narrowing without events stands in the ledger already; any other append is
        # recorded by its transaction, and one without events is none
        attempt.is_appended = append_kind != APPEND
    return events


def _try_execute(
    database: Database,
    rollout_name: str,
    build_command: CommandBuilder,
    access_head: int | None,
    started_at: float,
) -> tuple[LedgerEvent, ...]:
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
    faults.reach_point("command.read")
    events = decide_command(state, build_command)
    faults.reach_point("command.decided")
    if not events:
        return ()  # nothing to write, so don't wait for the write lock
    if any(isinstance(event, ProposalRaised) for event in events):
        events = _seal_proposals(database, state, events)
    with database.begin_write(is_urgent=True) as transaction:
        Ledger(transaction, state.rollout).append(
            events, after=state.scope.revision, access_head=access_head
        )
    # the command is of the time when it began, by its own clock
    waited = timedelta(seconds=time.monotonic() - started_at)
    with suppress(StoreError), database.begin_write(is_urgent=True) as transaction:
        times = CommitTimes(transaction, state.rollout)
        times.store(state.scope.revision + 1, events[-1].at + waited)
    return events


def _seal_proposals(
    database: Database, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    # what counts is loaded only here, because a stop from the command line must not wait for it
    from rollout.services.engine.evidence_seals import seal_proposals
    from rollout.services.engine.frozen_sources import freeze_sources

    with database.begin_read() as transaction:
        events = seal_proposals(transaction, state, events)
        return freeze_sources(transaction, state, events)


def decide_command(state: RolloutState, build_command: CommandBuilder) -> tuple[LedgerEvent, ...]:
    """Return the events of a command, after those of new versions."""
    command = build_command(state)
    events = list_new_versions(state.scope, state.policy, state.versions, command.at)
    if events:
        state = replace(state, scope=apply_events(events, state.scope))
        command = build_command(state)
    return (*events, *decide(command, state.scope, state.policy))


def retry_on_stale_revision(work: Callable[[], ResultT]) -> ResultT:
    """Return the result of `work`, which reads anew at each call.

    Raises:
        StaleRevisionError: the ledger moved at every attempt.
    """
    for _ in range(MAX_ATTEMPTS - 1):
        with suppress(StaleRevisionError):
            return work()
    return work()
