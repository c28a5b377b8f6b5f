"""State of a live rollout, the versions that its ledger lacks, and the execution of commands.

The state has the scope, the policy in force and the known versions. Versions that are stored and
that the ledger lacks become events of their first use.

A command decides, appends, and retries if the ledger moved. Nothing is counted in the transaction
that appends, so that a stop never waits for counting.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from rollout import faults
from rollout.data.database.append_failures import APPEND, StoreError
from rollout.data.database.rollouts import PolicyTexts, Rollout, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import CommitTimes, Ledger
from rollout.data.records.versions import StoredVersion, VersionStore
from rollout.engine.decide.commands import AddVersion, Command
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.policy_changes import merge_training_cutoffs
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.engine.ledger.ledger import CanonicalRow, list_fields, parse_event
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.errors import PolicyRefusedError, StaleRevisionError, UnknownRolloutError
from rollout.kernel.policy.policy import Policy

if TYPE_CHECKING:
    from rollout.engine.records.records import Case
    from rollout.engine.records.reviews import CaseDraws
    from rollout.kernel.arrays import Floats


def list_new_versions(
    scope: Scope,
    policy: Policy,
    versions: Mapping[str, StoredVersion],
    until: datetime | None = None,
) -> tuple[LedgerEvent, ...]:
    """Return the events of versions first used by an instant, by default of all."""
    later_contents = {  # of a version that was asked about, or registered, before it answered
        name: stored.info.content
        for name, stored in versions.items()
        if name in scope.versions and stored.info.content
    }
    events: tuple[LedgerEvent, ...] = ()
    for at, name, content in _order_new_names(scope, versions):
        if until is not None and at > until:
            break
        with suppress(PolicyRefusedError):  # too many open versions: it stays unknown
            command = AddVersion(
                at=at, version=name, content=content, later_contents=later_contents
            )
            new_events = decide(command, scope, policy)
            scope, events = apply_events(new_events, scope), (*events, *new_events)
    return events


def _order_new_names(
    scope: Scope, versions: Mapping[str, StoredVersion]
) -> list[tuple[datetime, str, str]]:
    """Return start, name and content of names that the ledger lacks, in their order.

    Of names with one content the one that was received first comes first, and no other starts
    before it. A sender who states an earlier first use could otherwise make a new name the first
    one after units of the other were counted.
    """
    names = [name for name in versions if name not in scope.versions and name not in scope.aliases]
    starts: list[tuple[datetime, str, str]] = []
    last_starts: dict[str, datetime] = {}
    for name in sorted(names, key=lambda name: _get_order(name, versions[name])):
        start, content = versions[name].first_seen_at, versions[name].info.content
        if content:
            start = last_starts[content] = max(start, last_starts.get(content, start))
        starts.append((start, name, content))
    return sorted(starts, key=itemgetter(0))


def _get_order(name: str, stored: StoredVersion) -> tuple[datetime, datetime, str]:
    """Return what orders names: by receipt with a content, else by first use."""
    first_seen_at = stored.first_seen_at
    received_at = stored.declared_at if stored.info.content else first_seen_at
    return received_at, first_seen_at, name


def find_first_names(
    scope: Scope, policy: Policy, versions: Mapping[str, StoredVersion]
) -> Mapping[str, str]:
    """Return by later name of a version its first one, as of the ledger and the next tick.

    Records may arrive, and count, before the ledger names their version.
    """
    return apply_events(list_new_versions(scope, policy, versions), scope).aliases


class NoSuchRolloutError(UnknownRolloutError):
    """The database has no such rollout; the text lists the others."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout at one revision of its ledger.

    Attributes:
        rollout: number, name and salt.
        scope: the result of all ledger entries.
        policy: the policy in force.
        pending: policies that need approval, by hash.
        versions: information on each name of a version, and when it was first used.
        first_names: by later name of a version its first one, by which it counts.
    """

    rollout: Rollout
    scope: Scope
    policy: Policy
    pending: Mapping[str, Policy]
    versions: Mapping[str, StoredVersion]
    first_names: Mapping[str, str] = field(default_factory=dict)

    def replace_versions(self, versions: Mapping[str, StoredVersion]) -> "RolloutState":
        """Return the state with other information on versions."""
        first_names = find_first_names(self.scope, self.policy, versions)
        return replace(self, versions=versions, first_names=first_names)

    def draw_case(
        self, key: str, site: str, occurred: int, episode: str | None
    ) -> Mapping[str, bool]:
        """Return by version with a sample whether it runs on a case; `occurred` in microseconds."""
        if not self.policy.samples_by_version:  # asked for each case that is sent
            return {}
        from rollout.engine.decide.assignment import draw_case

        return draw_case(self.policy, self.rollout.service_salt, key, site, occurred, episode)

    def draw_units(self, keys: Sequence[str]) -> "tuple[Floats, Floats]":
        """Return the sampling values of units: those of deciders, and those of audits."""
        from rollout.kernel.statistics.sampling import (
            AUDIT,
            SAMPLING_PURPOSE,
            compute_sampling_values,
        )

        rollout = self.rollout
        deciders = compute_sampling_values(rollout.salt, SAMPLING_PURPOSE, keys)
        return deciders, compute_sampling_values(rollout.service_salt, AUDIT, keys)

    def draw_case_values(self, policy: Policy, case: "Case") -> "CaseDraws":
        """Return the sampling values of a case under a policy."""
        from rollout.engine.records.reviews import draw_case_values

        return draw_case_values(policy, self.rollout.salt, self.rollout.service_salt, case)

    def find_draw(self, draws: Mapping[str, bool], version: str) -> bool | None:
        """Return whether a version, by any of its names, runs on a case; None: on all cases."""
        return next((draws[name] for name in self.list_names(version) if name in draws), None)

    def list_names(self, version: str) -> tuple[str, ...]:
        """Return all names of a version, given by any of them, that one and its first first."""
        first_name = self.first_names.get(version, version)
        others = (name for name, first in self.first_names.items() if first == first_name)
        return tuple(dict.fromkeys([version, first_name, *others]))

    def list_sites_in_use(self) -> dict[tuple[str, ...], set[str]]:
        """Return by the names of each version that is in use the sites where it is."""
        sites: dict[tuple[str, ...], set[str]] = {}
        for (cell, version), cell_state in self.scope.cells.items():
            if cell_state.has_begun and not self.scope.versions[version].retired:
                sites.setdefault(self.list_names(version), set()).add(cell.site)
        return sites

    @property
    def trained_until(self) -> dict[str, datetime]:
        """Return by version when its training cases end, where recorded; the last of its names."""
        ends = {
            name: stored.info.trained_until
            for name, stored in self.versions.items()
            if stored.info.trained_until is not None
        }
        return merge_training_cutoffs(ends, self.first_names)

    @property
    def retired_until(self) -> dict[str, int]:
        """Return by retired version when it was retired, in microseconds."""
        return {
            name: to_micros(version.retired_at)
            for name, version in self.scope.versions.items()
            if version.retired_at is not None
        }


@dataclass(frozen=True, slots=True)
class _CachedState:
    """A state, and the hash of the last ledger entry in it."""

    state: RolloutState
    last_hash: str


_state_cache: WeakKeyDictionary[object, dict[str, _CachedState]] = WeakKeyDictionary()
"""Last loaded state, by database and rollout."""


def load_rollout_state(transaction: Transaction, rollout_name: str) -> RolloutState:
    """Load the current state of a rollout.

    A state loaded before is extended if the ledger still holds its last entry. Otherwise (a
    backup was restored, an append was rolled back) everything is read again.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    return _load_cached_state(transaction, find_rollout(transaction, rollout_name), None)


@contextmanager
def read_rollout(
    database: Database, rollout_name: str
) -> Iterator[tuple[Transaction, RolloutState]]:
    """Open a transaction that reads, with the state of a rollout; raises `NoSuchRolloutError`."""
    with database.begin_read() as transaction:
        yield transaction, load_rollout_state(transaction, rollout_name)


@contextmanager
def write_rollout(
    database: Database, rollout_name: str
) -> Iterator[tuple[Transaction, RolloutState]]:
    """Open a transaction that writes, with the state of a rollout; raises `NoSuchRolloutError`."""
    with database.begin_write() as transaction:
        yield transaction, load_rollout_state(transaction, rollout_name)


def load_state_and_events(
    transaction: Transaction, rollout_name: str
) -> tuple[RolloutState, tuple[LedgerEvent, ...]]:
    """Load the current state of a rollout with all its events, which are read once.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    rollout = find_rollout(transaction, rollout_name)
    events = tuple(Ledger(transaction, rollout).list_events())
    return _load_cached_state(transaction, rollout, events), events


def _load_cached_state(
    transaction: Transaction, rollout: Rollout, events: tuple[LedgerEvent, ...] | None
) -> RolloutState:
    cached_states = _state_cache.setdefault(transaction.pool, {})
    cached_state = cached_states.get(rollout.name)
    cached_states[rollout.name] = _load_state(transaction, rollout, cached_state, events)
    return cached_states[rollout.name].state


def keep_appended(pool: object, state: RolloutState, rows: Sequence[CanonicalRow]) -> Scope:
    """Return the scope after entries that were committed to `state`; the next load starts there.

    `pool` is the database's. Entries that bring another policy are read again.
    """
    scope = apply_events(map(parse_event, rows), state.scope)
    if scope.policy_hash == state.scope.policy_hash:
        extended_state = _CachedState(replace(state, scope=scope), rows[-1].hash)
        _state_cache.setdefault(pool, {})[state.rollout.name] = extended_state
    return scope


def find_rollout(transaction: Transaction, rollout_name: str) -> Rollout:
    """Return the rollout of a name.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    rollouts = Rollouts(transaction)
    rollout = rollouts.find(rollout_name)
    if rollout is None:
        rollout_names = (
            ", ".join(other_rollout.name for other_rollout in rollouts.list_all()) or "none yet"
        )
        raise NoSuchRolloutError(
            f"no rollout {rollout_name}; rollouts: {rollout_names}. `rollout apply` creates one"
        )
    return rollout


def _load_state(
    transaction: Transaction,
    rollout: Rollout,
    cached_state: _CachedState | None,
    events: tuple[LedgerEvent, ...] | None,
) -> _CachedState:
    """Return the state, from all events if they were read, else from new or all ones."""
    ledger = Ledger(transaction, rollout)
    if cached_state is not None and cached_state.state.rollout == rollout:
        last = cached_state.state.scope.revision
        rows = tuple(ledger.list_rows(after=max(last - 1, 0)))  # hashes the last known one anew
        if rows and (rows[0].revision, rows[0].hash) == (last, cached_state.last_hash):
            later_events = tuple(map(parse_event, rows[1:]))
            state = extend_rollout_state(transaction, cached_state.state, later_events)
            return _CachedState(state, rows[-1].hash)
    scope = ledger.load_scope() if events is None else apply_events(events, Scope())
    last_rows = ledger.list_rows(after=scope.revision - 1, until=scope.revision)
    last_hash = next((row.hash for row in last_rows), "")
    return _CachedState(_build_state(transaction, rollout, scope), last_hash)


def refresh_rollout_state(transaction: Transaction, known_state: RolloutState) -> RolloutState:
    """Return the current state, applying only entries after `known_state`."""
    ledger = Ledger(transaction, known_state.rollout)
    events = tuple(ledger.list_events(after=known_state.scope.revision))
    return extend_rollout_state(transaction, known_state, events)


def extend_rollout_state(
    transaction: Transaction,
    known_state: RolloutState,
    events: tuple[LedgerEvent, ...],
    versions: Mapping[str, StoredVersion] | None = None,
) -> RolloutState:
    """Return the state after the ledger's next events, which were read in this transaction.

    After an erasure all entries are read again, so that memory forgets what was erased. Stored
    versions are read unless the caller has them.
    """
    ledger = Ledger(transaction, known_state.rollout)
    is_erased = any(event.erases for event in events)
    scope = ledger.load_scope() if is_erased else apply_events(events, known_state.scope)
    policies = {**known_state.pending, known_state.scope.policy_hash: known_state.policy}
    return _build_state(
        transaction, known_state.rollout, scope, policies, None if is_erased else versions
    )


def _build_state(
    transaction: Transaction,
    rollout: Rollout,
    scope: Scope,
    known_policies: Mapping[str, Policy] = MappingProxyType({}),
    versions: Mapping[str, StoredVersion] | None = None,
) -> RolloutState:
    pending_hashes = {
        proposal.about for proposal in scope.proposals.values() if proposal.rules.changes_policy
    }
    unread_hashes = {scope.policy_hash, *pending_hashes} - known_policies.keys()
    texts = PolicyTexts(transaction, rollout).load_texts(unread_hashes) if unread_hashes else {}
    policies = {
        **known_policies,
        **{policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()},
    }
    policy = policies[scope.policy_hash]
    versions = VersionStore(transaction, rollout).list_all() if versions is None else versions
    return RolloutState(
        rollout=rollout,
        scope=scope,
        policy=policy,
        pending={policy_hash: policies[policy_hash] for policy_hash in pending_hashes},
        versions=versions,
        first_names=find_first_names(scope, policy, versions),
    )


@lru_cache(maxsize=64)
def parse_stored_policy(text: str) -> Policy:
    """Parse a stored policy, which was valid when it was stored."""
    # imported here: Pydantic takes a tenth of a second, and not every command reads a policy
    from rollout.kernel.policy_files.reader import parse_checked_policy

    return parse_checked_policy(text)


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
    from rollout.live.evidence.unit_counting import freeze_sources

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
