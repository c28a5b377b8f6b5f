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
from rollout.data.database.append_failures import APPEND
from rollout.data.database.errors import StoreError
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import CommitTimes, Ledger
from rollout.engine.decide.commands import Command
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.engine.ledger.ledger import CanonicalRow, list_fields
from rollout.kernel.errors import StaleRevisionError
from rollout.live.rollout_state import (
    RolloutState,
    find_rollout,
    keep_appended,
    list_new_versions,
    load_rollout_state,
)

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


@dataclass(frozen=True, slots=True)
class Appended:
    """What a command wrote.

    Attributes:
        rollout: name of the rollout.
        scope: the scope after the events.
        rows: the ledger entries, one for each event.
    """

    rollout: str
    scope: Scope
    events: tuple[LedgerEvent, ...] = ()
    rows: tuple[CanonicalRow, ...] = ()

    def build_result(self, database: Database) -> "CommandResult":
        """Return the result with the last entry, or with the ledger's head if nothing was written.

        Only then the ledger is read.
        """
        if not self.rows:
            return build_command_result(database, self.rollout, ())
        last = self.rows[-1]
        return _build_result(self.rollout, last.revision, last.hash, self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """The events that a command wrote, if any, and the last one's entry or the ledger's head."""

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
    appended = append_command(
        database, rollout_name, build_command, caller.access_head, append_kind
    )
    return appended.build_result(database)


def build_command_result(
    database: Database, rollout_name: str, events: tuple[LedgerEvent, ...]
) -> CommandResult:
    """Return the result of events; its head is read after them.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    with database.begin_read() as transaction:
        head = Ledger(transaction, find_rollout(transaction, rollout_name)).load_head()
    return _build_result(rollout_name, head.revision, head.hash, events)


def _build_result(
    rollout_name: str, revision: int, entry_hash: str, events: tuple[LedgerEvent, ...]
) -> CommandResult:
    event_records = tuple(
        Event(event.at, type(event).__name__, event.by, list_fields(event)) for event in events
    )
    return CommandResult(
        rollout=rollout_name, revision=revision, hash=entry_hash, events=event_records
    )


def execute_command(
    database: Database,
    rollout_name: str,
    build_command: CommandBuilder,
    access_head: int | None = None,
    append_kind: str = APPEND,
) -> tuple[LedgerEvent, ...]:
    """Execute a command as `append_command` does and return the appended events."""
    return append_command(database, rollout_name, build_command, access_head, append_kind).events


def append_command(
    database: Database,
    rollout_name: str,
    build_command: CommandBuilder,
    access_head: int | None = None,
    append_kind: str = APPEND,
) -> Appended:
    """Execute a command and return what it wrote.

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
        appended = retry_on_stale_revision(
            lambda: _try_execute(database, rollout_name, build_command, access_head, started_at)
        )
        # a stop or narrowing without events stands in the ledger already; any other append is
        # recorded by its transaction, and one without events is none
        attempt.is_appended = append_kind != APPEND
    return appended


def _try_execute(
    database: Database,
    rollout_name: str,
    build_command: CommandBuilder,
    access_head: int | None,
    started_at: float,
) -> Appended:
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
    faults.reach_point("command.read")
    events = decide_command(state, build_command)
    faults.reach_point("command.decided")
    if not events:
        return Appended(
            rollout_name, state.scope
        )  # nothing to write, so don't wait for the write lock
    if any(event.raises_proposal for event in events):
        events = _seal_proposals(database, state, events)
    with database.begin_write(is_urgent=True) as transaction:
        rows = Ledger(transaction, state.rollout).append(
            events, after=state.scope.revision, access_head=access_head
        )
    scope = keep_appended(database.engine.pool, state, rows)
    # the command is of the time when it began, by its own clock
    waited = timedelta(seconds=time.monotonic() - started_at)
    with suppress(StoreError), database.begin_write(is_urgent=True) as transaction:
        times = CommitTimes(transaction, state.rollout)
        times.store(state.scope.revision + 1, events[-1].at + waited)
    return Appended(rollout_name, scope, events, rows)


def _seal_proposals(
    database: Database, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    # what counts is loaded only here, because a stop from the command line must not wait for it
    from rollout.live.evidence.evidence_seals import seal_proposals
    from rollout.live.evidence.frozen_sources import freeze_sources

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
