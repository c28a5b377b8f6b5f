"""States, assignments and revisions of rollouts in a replica's memory.

States are confirmed against the ledger's head. Answers use a state confirmed at most
`MAX_STALENESS` ago, so a stop holds here within that time. New entries are applied to the cached
state. If the ledger lacks the last known entry (a backup was restored, a failover lost rows), every
cell is stopped and everything is read again.

Assignments are cached for one scope: what `decide_assignment` returns, until it may change. The
compiled table answers; near an edge, near the end of a lease, and for questions in which anything
is missing, the rules are evaluated. Equal assignments are one object, whose text is formatted once.
A new scope has a new cache. A test compares the cache with `decide_assignment`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from math import inf
from threading import Lock
from typing import Final, Protocol

from rollout.data.database.append_failures import UnreadableRowsError
from rollout.data.database.migrations import check_newest
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger, StoredLedgerHead, load_heads, load_revisions
from rollout.data.ledger.scopes import (
    NO_SAFETY_ROWS,
    Damage,
    PendingStop,
    SafetyRows,
    load_safety_rows,
)
from rollout.data.records.versions import VersionStore
from rollout.engine.decide.assignment import Assignment, CaseQuestion, decide_assignment
from rollout.engine.decide.assignment_table import EDGE_MARGIN, AssignmentTable
from rollout.engine.decide.commands import StopAfterRollback
from rollout.engine.decide.scope import Scope, Stop, format_revision
from rollout.engine.ledger.ledger import BrokenLedgerError
from rollout.kernel.facts import LOST_ENTRY, Trigger
from rollout.kernel.policy.policy import Policy
from rollout.live.autonomy import MAX_REPLICA_SKEW, measure_clock_skew
from rollout.live.clock import Clock
from rollout.live.rollout_state import (
    NoSuchRolloutError,
    RolloutState,
    execute_command,
    load_rollout_state,
    refresh_rollout_state,
)
from rollout.live.stop_latches import StopLatches

EPOCH: Final = datetime.fromtimestamp(0, UTC)
# bounded, because clients choose the names of versions
MAX_CACHED_ASSIGNMENTS: Final = 20_000


class ClientQuestion(Protocol):
    """A client's question about a case: `CaseQuestion`, or a request body."""

    @property
    def site(self) -> str:
        """Return the site of the case."""

    @property
    def at(self) -> datetime | None:
        """Return when the case occurred."""

    @property
    def version(self) -> str:
        """Return the version that would decide."""

    @property
    def key(self) -> str:
        """Return the client's key of the case."""

    @property
    def episode(self) -> str | None:
        """Return the episode of the case."""

    @property
    def confidence(self) -> float | None:
        """Return the version's confidence."""

    @property
    def attributes(self) -> Mapping[str, str] | None:
        """Return the attributes that windows depend on."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedAssignment:
    """An assignment shared by equal cases; hashed by identity, which is fast."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class CachedAssignment:
    """An assignment with the full lease, granted until `full_lease_until` in Unix seconds."""

    shared_assignment: SharedAssignment
    full_lease_until: float


class AssignmentCache:
    """The assignments of one scope.

    Several threads may use it: what two compute at once is equal.
    """

    def __init__(self, scope: Scope, policy: Policy, salt: bytes) -> None:
        self._scope, self._policy, self._salt = scope, policy, salt
        self._shared_assignments: dict[Assignment, SharedAssignment] = {}
        # a salt that was edited to nothing fails questions, and not the reading of the rollout
        self._table = (
            AssignmentTable(scope, policy, salt, EPOCH, self._cache_assignment) if salt else None
        )

    def assign_questions(
        self,
        questions: Sequence[ClientQuestion],
        now: datetime,
        draws: Sequence[bool | None] = (),
    ) -> list[SharedAssignment]:
        """Return the assignment of each question; `now` needs a time zone.

        `draws` has whether the sample of each question's version has the case, if any has one.
        """
        if self._table is None or True in draws or False in draws:
            drawn = draws or repeat(None)
            return [self._evaluate_rules(q, now, d) for q, d in zip(questions, drawn, strict=False)]
        seconds, find_answer = now.timestamp(), self._table.find_answer
        return [
            cached_assignment.shared_assignment
            if (
                cached_assignment := find_answer(
                    question.site,
                    question.at,
                    question.version,
                    question.key,
                    seconds,
                    question.episode,
                    question.confidence,
                    question.attributes,
                )
            )
            is not None
            and seconds < cached_assignment.full_lease_until
            else self._evaluate_rules(question, now)
            for question in questions
        ]

    def _evaluate_rules(
        self, question: ClientQuestion, now: datetime, is_drawn: bool | None = None
    ) -> SharedAssignment:
        return self._share_assignment(self._compute_assignment(question, now, is_drawn))

    def _compute_assignment(
        self, question: ClientQuestion, now: datetime, is_drawn: bool | None
    ) -> Assignment:
        assignment_question = CaseQuestion(
            site=question.site,
            at=question.at,
            version=question.version,
            key=question.key,
            episode=question.episode or "",
            confidence=question.confidence,
            attributes=question.attributes,
            is_drawn=is_drawn,
        )
        return decide_assignment(
            self._scope, self._policy, self._salt, assignment_question, now=now
        )

    def _share_assignment(self, assignment: Assignment) -> SharedAssignment:
        """Return the shared object of an assignment."""
        if len(self._shared_assignments) >= MAX_CACHED_ASSIGNMENTS:
            self._shared_assignments.clear()
        return self._shared_assignments.setdefault(assignment, SharedAssignment(assignment))

    def _cache_assignment(
        self, _site: str, assignment: Assignment, until: float
    ) -> CachedAssignment:
        full_lease_until = until if until == inf else until - assignment.lease.total_seconds()
        return CachedAssignment(self._share_assignment(assignment), full_lease_until - EDGE_MARGIN)


MAX_STALENESS = 0.5
"""Maximum age in seconds of the state behind an answer; part of every stop latency."""
UNREADABLE = (BrokenLedgerError, ValueError, LookupError, TypeError)
"""Errors of stored rows without a valid form."""
MAX_REVISIONS_AGE = 0.25
"""Maximum age in seconds of cached revisions."""
CLOCK_CHECK_INTERVAL = 5.0
"""Seconds between comparisons of the clock with the database's."""


@dataclass(frozen=True, slots=True)
class CachedRollout:
    """A rollout's state, ledger head and time of confirmation (boot clock).

    Attributes:
        state: the ledger's state, in which pending stops hold as well.
        ledger_state: the state by the ledger alone.
        safety_rows: pending stops and damage, stored or in memory.
        latch_version: the version of the latches when this was loaded.
    """

    state: RolloutState
    head: StoredLedgerHead
    confirmed_at: float
    hashes: tuple[str, ...] = field(repr=False)
    assignment_cache: AssignmentCache = field(repr=False)
    ledger_state: RolloutState = field(repr=False)
    safety_rows: SafetyRows = NO_SAFETY_ROWS
    latch_version: int = 0

    def has_row(self, revision: int, row_hash: str) -> bool:
        """Return whether the ledger holds that entry; revision 0 always matches."""
        if revision == 0:
            return True
        return 0 < revision <= len(self.hashes) and self.hashes[revision - 1] == row_hash


class StateCache:
    """One replica's cached rollouts."""

    def __init__(
        self, database: Database, clock: Clock, latches: StopLatches | None = None
    ) -> None:
        self._database, self._clock = database, clock
        self._latches = StopLatches() if latches is None else latches
        self._rollouts: dict[str, CachedRollout] = {}
        self._last_policies: dict[str, Policy] = {}
        self._locks: dict[str, Lock] = {}
        self._lost_heads: dict[str, StopAfterRollback] = {}
        self._clock_skew = timedelta(0)
        self._clock_checked_at: float | None = None

    def find_cached(self, rollout_name: str) -> CachedRollout | None:
        """Return a fresh rollout, or None if the database is needed."""
        cached_rollout = self._rollouts.get(rollout_name)
        return (
            cached_rollout
            if cached_rollout is not None and self._is_fresh(cached_rollout)
            else None
        )

    def load_rollout(self, rollout_name: str) -> CachedRollout:
        """Return a rollout as it was at most `MAX_STALENESS` ago.

        Raises:
            NoSuchRolloutError: there is no such rollout.
            StoreError: the database is unavailable, or a newer program wrote what this one can't
                read; no older state is returned.
        """
        cached_rollout = self.find_cached(rollout_name)
        if cached_rollout is not None:
            return cached_rollout
        try:
            with self._locks.setdefault(rollout_name, Lock()):
                cached_rollout = self.find_cached(rollout_name)
                return (
                    self.reload_rollout(rollout_name) if cached_rollout is None else cached_rollout
                )
        except NoSuchRolloutError:
            self._locks.pop(rollout_name, None)  # callers choose names: keep no lock for them
            raise

    def reload_rollout(self, rollout_name: str) -> CachedRollout:
        """Load a rollout from the database, however fresh the cache is."""
        started_at = self._clock.read_boot_clock()  # before the read, which is at least as new
        latch_version = self._latches.version  # likewise
        cached_rollout = self._rollouts.get(rollout_name)
        try:
            self._check_clock(started_at)
            loaded_rollout = self._load_latest(rollout_name, cached_rollout)
        except Exception as error:
            self._rollouts.pop(rollout_name, None)
            if not isinstance(error, UNREADABLE):
                raise
            check_newest(self._database)
            self._latch_damage(rollout_name, error)
            raise UnreadableRowsError(
                f"rows of {rollout_name} can't be read: humans decide its cases; run"
                " `rollout doctor`"
            ) from error
        self._last_policies[rollout_name] = loaded_rollout.state.policy
        self._rollouts[rollout_name] = replace(
            loaded_rollout, confirmed_at=started_at, latch_version=latch_version
        )
        return self._rollouts[rollout_name]

    def find_last_policy(self, rollout_name: str) -> Policy | None:
        """Return the policy last loaded, however old; None before the first."""
        return self._last_policies.get(rollout_name)

    def _load_safety_rows(self, transaction: Transaction, rollout_name: str) -> SafetyRows:
        stored_rows = load_safety_rows(transaction).select_rollout(rollout_name)
        return self._latches.add_to_rows(stored_rows, rollout_name)

    def _latch_damage(self, rollout_name: str, error: Exception) -> None:
        """Latch damage of rows without a valid form; the driver finds other damage."""
        text = f"{type(error).__name__}: {error}"
        self._latches.add_damage(Damage(rollout_name, text, self._clock.now()))

    def _load_latest(
        self, rollout_name: str, cached_rollout: CachedRollout | None
    ) -> CachedRollout:
        """Load a rollout; stop every cell first if the ledger was set back.

        The loss is remembered until the stop is written, because the cached state is not.
        """
        with self._database.begin_read() as transaction:
            safety_rows = self._load_safety_rows(transaction, rollout_name)
            loaded_rollout = _load_rollout(transaction, rollout_name, cached_rollout, safety_rows)
        if cached_rollout is not None and _lacks_head(loaded_rollout, cached_rollout):
            self._lost_heads[rollout_name] = _build_stop(cached_rollout, self._clock.now())
        command = self._lost_heads.get(rollout_name)
        if command is None:
            return loaded_rollout
        execute_command(self._database, rollout_name, lambda _: command)
        self._lost_heads.pop(rollout_name, None)
        with self._database.begin_read() as transaction:
            return _load_rollout(transaction, rollout_name, loaded_rollout, safety_rows)

    def load_all(self) -> tuple[CachedRollout, ...]:
        """Load the heads of all rollouts; return the rollouts by name."""
        started_at = self._clock.read_boot_clock()
        self._check_clock(started_at)
        latch_version = self._latches.version
        with self._database.begin_read() as transaction:
            heads_by_rollout = load_heads(transaction)
            safety_rows = {
                rollout_name: self._load_safety_rows(transaction, rollout_name)
                for rollout_name in heads_by_rollout
            }
        return tuple(
            self._update_at_head(
                rollout_name,
                *heads_by_rollout[rollout_name],
                safety_rows[rollout_name],
                (started_at, latch_version),
            )
            for rollout_name in sorted(heads_by_rollout)
        )

    def _update_at_head(
        self,
        rollout_name: str,
        rollout_number: int,
        head: StoredLedgerHead,
        safety_rows: SafetyRows,
        start: tuple[float, int],
    ) -> CachedRollout:
        cached_rollout = self._rollouts.get(rollout_name)
        started_at, latch_version = start
        if (
            cached_rollout is None
            or cached_rollout.head != head
            or cached_rollout.safety_rows != safety_rows
            or cached_rollout.state.rollout.number != rollout_number
        ):
            return self.reload_rollout(rollout_name)
        self._rollouts[rollout_name] = replace(
            cached_rollout,
            confirmed_at=max(started_at, cached_rollout.confirmed_at),
            latch_version=latch_version,
        )
        return self._rollouts[rollout_name]

    def invalidate(self, rollout_name: str) -> None:
        """Make the next read of a rollout use the database."""
        cached_rollout = self._rollouts.get(rollout_name)
        if cached_rollout is not None:
            self._rollouts[rollout_name] = replace(cached_rollout, confirmed_at=float("-inf"))

    def reload_versions(self, rollout_name: str) -> None:
        """Load a rollout's versions again: a new one moves no ledger."""
        cached_rollout = self._rollouts.get(rollout_name)
        if cached_rollout is None:
            return
        with self._database.begin_read() as transaction:
            versions = VersionStore(transaction, cached_rollout.state.rollout).list_all()
        self._rollouts[rollout_name] = replace(
            cached_rollout,
            state=cached_rollout.state.replace_versions(versions),
            ledger_state=cached_rollout.ledger_state.replace_versions(versions),
        )

    @property
    def is_clock_skewed(self) -> bool:
        """Return whether the clock last differed too much from the database's."""
        return self._clock_skew > MAX_REPLICA_SKEW

    def _check_clock(self, now: float) -> None:
        if (
            self._clock_checked_at is None
            or not 0 <= now - self._clock_checked_at < CLOCK_CHECK_INTERVAL
        ):
            self._clock_skew = measure_clock_skew(self._database, self._clock)
            self._clock_checked_at = now

    def _is_fresh(self, cached_rollout: CachedRollout) -> bool:
        return (
            0 <= self._clock.read_boot_clock() - cached_rollout.confirmed_at < MAX_STALENESS
            and cached_rollout.latch_version == self._latches.version
        )


def _load_rollout(
    transaction: Transaction,
    rollout_name: str,
    cached_rollout: CachedRollout | None,
    safety_rows: SafetyRows,
) -> CachedRollout:
    if cached_rollout is not None:
        rollout = Rollouts(transaction).find(rollout_name)
        ledger = Ledger(transaction, cached_rollout.state.rollout)
        head = ledger.load_head()
        if rollout == cached_rollout.state.rollout and head == cached_rollout.head:
            if safety_rows == cached_rollout.safety_rows:
                return cached_rollout
            return _build_cached_rollout(
                cached_rollout.ledger_state, head, cached_rollout.hashes, safety_rows
            )
        later_rows = tuple(ledger.list_rows(after=cached_rollout.head.revision))
        is_continuation = bool(later_rows) and later_rows[0].previous == cached_rollout.head.hash
        if rollout == cached_rollout.state.rollout and is_continuation:
            state = refresh_rollout_state(transaction, cached_rollout.ledger_state)
            hashes = (*cached_rollout.hashes, *(row.hash for row in later_rows))
            return _build_cached_rollout(state, head, hashes, safety_rows)
    state = load_rollout_state(transaction, rollout_name)
    ledger = Ledger(transaction, state.rollout)
    hashes = tuple(row.hash for row in ledger.list_rows())
    return _build_cached_rollout(state, ledger.load_head(), hashes, safety_rows)


def _lacks_head(loaded_rollout: CachedRollout, known_rollout: CachedRollout) -> bool:
    """Return whether a ledger lost an entry that this replica has read.

    Another rollout of the same name and the era of a declared restore are no loss.
    """
    return (
        loaded_rollout.state.rollout == known_rollout.state.rollout
        and loaded_rollout.state.scope.era <= known_rollout.state.scope.era
        and not loaded_rollout.has_row(known_rollout.head.revision, known_rollout.head.hash)
    )


def _build_stop(known_rollout: CachedRollout, at: datetime) -> StopAfterRollback:
    era = known_rollout.state.scope.era
    return StopAfterRollback(
        at=at,
        era=era,
        trigger=Trigger(
            LOST_ENTRY, {"revision": format_revision(era, known_rollout.head.revision)}
        ),
    )


def _build_cached_rollout(
    ledger_state: RolloutState,
    head: StoredLedgerHead,
    hashes: tuple[str, ...],
    safety_rows: SafetyRows,
) -> CachedRollout:
    state = _apply_pending_stops(ledger_state, safety_rows.stops)
    assignment_cache = AssignmentCache(state.scope, state.policy, state.rollout.salt)
    return CachedRollout(state, head, 0.0, hashes, assignment_cache, ledger_state, safety_rows)


def _apply_pending_stops(state: RolloutState, pending_stops: Sequence[PendingStop]) -> RolloutState:
    """Return the state with stops that the ledger lacks, each under a name of its own."""
    if not pending_stops:
        return state
    stops = {
        f"pending-{stop.id}": Stop(
            id=f"pending-{stop.id}",
            cells=frozenset(stop.cells or state.policy.cells),
            by=stop.by.name,
            at=stop.at,
            drill=stop.drill,
        )
        for stop in pending_stops
    }
    return replace(state, scope=replace(state.scope, stops={**state.scope.stops, **stops}))


@dataclass(frozen=True, slots=True)
class KnownRevisions:
    """The revisions of all rollouts at an instant of the boot clock."""

    by_rollout: Mapping[str, str]
    read_at: float


class RevisionCache:
    """One replica's cache of all rollouts' revisions."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._known_revisions: KnownRevisions | None = None
        self._lock = Lock()

    def find_cached(self) -> Mapping[str, str] | None:
        """Return fresh revisions, or None if the database is needed."""
        known_revisions = self._known_revisions
        is_fresh = (
            known_revisions is not None
            and 0 <= self._clock.read_boot_clock() - known_revisions.read_at < MAX_REVISIONS_AGE
        )
        return known_revisions.by_rollout if known_revisions is not None and is_fresh else None

    def load(self) -> Mapping[str, str]:
        """Return a text per rollout that changes when its pages do.

        Raises:
            StoreError: the database is unavailable.
        """
        with self._lock:
            current_revisions = self.find_cached()
            if current_revisions is None:
                started_at = self._clock.read_boot_clock()
                with self._database.begin_read() as transaction:
                    current_revisions = load_revisions(transaction)
                self._known_revisions = KnownRevisions(current_revisions, started_at)
            return current_revisions
