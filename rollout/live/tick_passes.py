"""One process's passes over all rollouts: due ticks, and the checks of evidence after them.

A tick claims a slot, counts what is due, decides and appends. Counting, moving evidence and
appending are separate transactions. An interrupted tick loses nothing: its entries stay queued, and
its claim expires after one tick.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from zlib import crc32

from rollout import faults
from rollout.data.counting.count_queue import StoredArrivals
from rollout.data.counting.counted_units import JustCounted
from rollout.data.counting.counter import take_back_slots
from rollout.data.database.append_failures import TICK, DatabaseUnavailableError, is_storage_failure
from rollout.data.database.rollouts import PolicyTexts, list_rollout_names
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import (
    CommitTimes,
    Ledger,
    StoredLedgerHead,
    VersionsMark,
    find_rollout_head,
)
from rollout.data.ledger.scopes import (
    REVISIONS_BETWEEN,
    EvidenceSnapshots,
    EvidenceStore,
    StoredScopes,
    TickSlots,
)
from rollout.engine.decide.commands import CheckClock
from rollout.engine.decide.decider import decide
from rollout.engine.decide.incidents import is_clock_behind
from rollout.engine.events import LedgerEvent, find_applied_policies
from rollout.engine.ledger.ledger import parse_event
from rollout.kernel.calendar.instants import Cell, find_slot_before, to_instant
from rollout.kernel.errors import StaleRevisionError
from rollout.live.evidence.counted_check import (
    CHECK_INTERVAL,
    HeldEvidenceCheck,
    stop_changed_cells,
)
from rollout.live.evidence.due_counting import PAGE_SIZE, DueCounter, PageSize
from rollout.live.evidence.evidence_feeds import ARRIVAL_RETENTION, store_guard_snapshot
from rollout.live.evidence.evidence_seals import EvidenceSeals
from rollout.live.evidence.live_evidence import LiveEvidence, sample_evidence
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import freeze_sources
from rollout.live.rollout_state import (
    RolloutState,
    extend_rollout_state,
    list_new_versions,
    load_state_and_events,
    parse_stored_policy,
    retry_on_stale_revision,
)
from rollout.live.tick_results import STORAGE_RETRY_DELAY, TickPass

log = logging.getLogger("rollout.scheduler")
BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)
DELETION_INTERVAL: Final = timedelta(hours=1)
"""Of arrivals that no replica needs any more."""
OPEN_ATTEMPTS: Final = 4
"""Decisions while commands can overtake them; the next one holds the ledger, and stops wait."""
SlotDecision = Callable[[RolloutState, Transaction], tuple[LedgerEvent, ...]]
"""Returns the events of a state; what else it reads, it reads in the transaction."""


class _SlotOvertakenError(Exception):
    """Another process decided a later slot, with newer evidence."""


class Ticker:
    """One process's ticker of one rollout; not for several threads.

    It keeps what it has read and adds what is new.
    """

    def __init__(
        self,
        database: Database,
        rollout_name: str,
        owner: str,
        *,
        page_size: PageSize = PAGE_SIZE,
    ) -> None:
        """Create a ticker; larger parts of a page take less time for each case, and delay stops."""
        self._database, self._rollout_name, self._owner = database, rollout_name, owner
        self._page_size = page_size
        self._held_check = HeldEvidenceCheck()
        self.is_counting = False
        self._next_deletion = BEFORE_ALL
        self._commits: dict[int, datetime] = {}  # of appends whose tick may have broken off
        self._reset()

    def _reset(self) -> None:
        self._state: RolloutState | None = None
        self._head = StoredLedgerHead(0, "", None)
        self._versions_mark: VersionsMark | None = None
        self._history = RolloutHistory()
        self._evidence: LiveEvidence | None = None
        self._counted = JustCounted()
        self._seals = EvidenceSeals(self._counted)
        self._stored_revision = 0
        self._is_overtaken = False
        self._last_event_slot = BEFORE_ALL

    def tick(
        self,
        at: datetime,
        *,
        narrow_only: bool = False,
        get_time: Callable[[], datetime] | None = None,
        count_until: datetime | None = None,
        has_time: Callable[[], bool] = lambda: True,
    ) -> tuple[LedgerEvent, ...] | None:
        """Run the tick of the slot that contains `at`.

        Slots missed before are included. `get_time` returns the time anew when the tick decides,
        since counting may take minutes: no event precedes what replicas answered meanwhile. If
        clocks disagree, `at` is the earliest and `narrow_only` is set: guards narrow, grants expire
        and proposals are voided, but nothing is proposed, applied or restored. The same holds if
        another process began a later slot meanwhile, or a stop is pending. If a later slot lies in
        the future of `get_time`, by a clock that was ahead, an incident is opened, and once it is
        acknowledged the rollout's time goes back: that slot counts as none. A tick of a stated
        time, without `get_time`, opens none: others may have gone on meanwhile. The result is None
        if the slot is claimed by another process, or it or a later one is decided. `count_until`,
        in a history whose records are stored ahead, also counts the units of later slots, which
        decide nothing before theirs: no evidence may begin anew before then. Without `has_time`
        counting ends after a page: `is_counting` says so, and the next call goes on.

        Raises:
            NoSuchRolloutError: there is no such rollout.
        """
        try:
            read_time = (lambda: at) if get_time is None else lambda: max(at, get_time())
            return self._run_tick(
                *(at, read_time, count_until or at, has_time),
                narrow_only=narrow_only,
                reads_clock=get_time is not None and not narrow_only,
            )
        except _SlotOvertakenError:
            return None
        except BaseException:
            self._reset()  # the read may be partial
            raise

    def _run_tick(
        self,
        at: datetime,
        read_time: Callable[[], datetime],
        count_until: datetime,
        has_time: Callable[[], bool],
        *,
        narrow_only: bool,
        reads_clock: bool,
    ) -> tuple[LedgerEvent, ...] | None:
        self.is_counting = False
        with self._database.begin_read() as transaction:
            state = self._update_state(transaction)
        slot = find_slot_before(at, state.policy.tick)
        clock_events: tuple[LedgerEvent, ...] = ()
        if reads_clock and is_clock_behind(state.scope.at or BEFORE_ALL, at):
            clock_events = self._check_clock(read_time)
            state = self._loaded_state
        if not self._claim_slot(state, slot, at):
            with self._database.begin_read() as transaction:
                latest_slot = self._find_latest_slot(transaction, state)
            return (
                (*clock_events, *self._check_clock(read_time))
                if reads_clock and is_clock_behind(latest_slot, at)
                else None
            )
        faults.reach_point("tick.claimed")
        last_slot = max(slot, find_slot_before(count_until, state.policy.tick))
        assert self._evidence is not None  # noqa: S101 - built with the state
        feeds = self._evidence.feeds
        counter = DueCounter(
            self._database, state, self._history, self._page_size, self._counted, feeds
        )
        if not counter.count_until(last_slot, has_time):
            self.is_counting = True
            return clock_events or None
        self._advance_evidence(state, slot)
        version_events: tuple[LedgerEvent, ...] = ()
        if not narrow_only and _add_seen_versions(counter.state, slot):
            version_events = self._append_events(
                lambda current, _: _add_seen_versions(current, slot), read_time
            )
        events = self._append_events(
            lambda current, transaction: self._decide_slot(
                current, slot, read_time(), transaction, narrow_only=narrow_only
            ),
            read_time,
        )
        self._counted.forget_until(slot)
        faults.reach_point("tick.not-done")
        with self._database.begin_write() as transaction:
            TickSlots(transaction, state.rollout).complete(slot, at=at)
            for first_revision, committed_at in self._commits.items():
                CommitTimes(transaction, state.rollout).store(first_revision, committed_at)
            if at >= self._next_deletion:
                StoredArrivals(transaction, state.rollout).delete_before(at - ARRIVAL_RETENTION)
                self._next_deletion = at + DELETION_INTERVAL
            self._store_scope(transaction)
        self._commits.clear()
        self._store_evidence(state)
        if self._is_overtaken and reads_clock:
            clock_events += self._check_clock(read_time)
        return (*clock_events, *version_events, *events)

    def check_evidence(self, at: datetime) -> Mapping[Cell, str]:
        """Compare some of the evidence in memory with the counted units, between ticks.

        Where it differs, cells are stopped and memory is read anew. Returns what differs by cell.
        """
        if self._evidence is None:
            return {}
        try:
            with self._database.begin_read() as transaction:
                state = self._update_state(transaction)
                memory, levels = self._evidence.memory, self._history.find_equivalent_definitions
                differences = self._held_check.find_differences(transaction, state, memory, levels)
        except BaseException:
            self._reset()  # the read may be partial
            raise
        if differences:
            stop_changed_cells(self._database, self._rollout_name, differences, at)
            self._evidence = None
        self._held_check.confirm()
        return differences

    def get_next_slot_time(self, at: datetime) -> datetime:
        """Return the start of the next slot, by the state last read."""
        if self._state is None:
            return at
        tick = self._state.policy.tick
        return to_instant(find_slot_before(at, tick) + 1, tick)

    def _store_scope(self, transaction: Transaction) -> None:
        """Store the scope now and then, so that earlier instants load fast."""
        scope = self._loaded_state.scope
        if scope.revision - self._stored_revision >= REVISIONS_BETWEEN:
            StoredScopes(transaction, self._loaded_state.rollout).store_if_due(scope)
            self._stored_revision = scope.revision

    def _store_evidence(self, state: RolloutState) -> None:
        """Store evidence and observations now and then, so that a process begins with them.

        The slot is done by then. A failure is logged, and the next snapshot is due as usual.
        """
        assert self._evidence is not None  # noqa: S101 - a slot was decided
        try:
            snapshot = self._evidence.encode_if_due(self._head.revision)
            if snapshot is not None:
                with self._database.begin_write() as transaction:
                    EvidenceSnapshots(transaction, state.rollout).store(snapshot)
            store_guard_snapshot(
                self._database, self._loaded_state, self._evidence.feeds, self._head.revision
            )
        except Exception as error:  # noqa: BLE001 - it only saves time
            log.warning("no snapshot of evidence of %s was stored: %s", self._rollout_name, error)

    @property
    def _loaded_state(self) -> RolloutState:
        assert self._state is not None  # noqa: S101 - a tick loads it first
        return self._state

    def _update_state(self, transaction: Transaction) -> RolloutState:
        """Return the current state, after applying all new events."""
        later = None if self._state is None else self._read_events(transaction, self._state)
        if self._state is None or later is None:
            if self._state is not None:
                self._commits.clear()  # of a ledger that another one has replaced
            self._reset()
            state, events = load_state_and_events(transaction, self._rollout_name)
            head, mark = Ledger(transaction, state.rollout).load_head(), None
        elif any(event.takes_back for event in later[1]):
            self._reset()  # its memory is of slots that were taken back
            return self._update_state(transaction)
        else:
            head, events, mark = later
            versions = self._state.versions if mark == self._versions_mark else None
            state = extend_rollout_state(transaction, self._state, events, versions)
        self._apply_events(transaction, state, events)
        self._state, self._head, self._versions_mark = state, head, mark
        return state

    def _read_events(
        self, transaction: Transaction, state: RolloutState
    ) -> tuple[StoredLedgerHead, tuple[LedgerEvent, ...], VersionsMark] | None:
        """Return the head, the events since the known one and the versions' mark, or None.

        None means that they don't follow it: a database may have been restored, or created again
        under the same name.
        """
        rollout_head = find_rollout_head(transaction, self._rollout_name)
        if rollout_head is None or rollout_head[0] != state.rollout:
            return None
        _, head, mark = rollout_head
        if head == self._head:
            return head, (), mark
        rows = tuple(Ledger(transaction, state.rollout).list_rows(after=self._head.revision))
        if not rows or rows[0].previous != self._head.hash:
            return None
        return head, tuple(map(parse_event, rows)), mark

    def _apply_events(
        self, transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
    ) -> None:
        applied_hashes = find_applied_policies(events)
        texts = PolicyTexts(transaction, state.rollout).load_texts(
            applied_hashes - {state.policy.hash}
        )
        policies = {
            policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()
        } | {state.policy.hash: state.policy}
        for event in events:
            if event.takes_back:
                self._last_event_slot = BEFORE_ALL
            elif event.slot is not None:
                self._last_event_slot = max(event.slot, self._last_event_slot)
        self._history.add_events(events, policies.__getitem__)
        self._seals.add_events(events, state.policy)
        is_discarded = any(event.discards_evidence for event in events)
        if is_discarded:
            self._counted.clear()
        if applied_hashes or is_discarded or self._evidence is None:
            self._evidence = LiveEvidence(state.policy, state.scope, self._history, self._counted)
        elif scope_events := [e for e in events if not e.seals_units]:
            self._evidence.apply_events(scope_events, state.scope)

    def _claim_slot(self, state: RolloutState, slot: int, at: datetime) -> bool:
        with self._database.begin_write() as transaction:
            slots = TickSlots(transaction, state.rollout)
            if slots.claim(slot, owner=self._owner, at=at, stale_after=state.policy.tick):
                return True
            last_slot = slots.load_last_done()
        if last_slot is not None and last_slot >= slot:
            # another replica's tick has stored what ours could not
            self._database.append_failures.record_success(self._rollout_name, TICK)
        return False

    def _find_latest_slot(self, transaction: Transaction, state: RolloutState) -> datetime:
        """Return the latest slot that a tick began, or an event is of."""
        _, slot, _ = TickSlots(transaction, state.rollout).load_slots_and_stops()
        return max(
            BEFORE_ALL if slot is None else to_instant(slot, state.policy.tick),
            self._last_event_slot,
        )

    def _check_clock(self, read_time: Callable[[], datetime]) -> tuple[LedgerEvent, ...]:
        """Return what follows from a clock behind the last entry or tick, if it is."""
        events = self._append_locked(
            lambda state, transaction: decide(
                CheckClock(at=read_time(), last_slot=self._find_latest_slot(transaction, state)),
                state.scope,
                state.policy,
            )
        )
        with self._database.begin_read() as transaction:
            self._update_state(transaction)
        return events

    def _advance_evidence(self, state: RolloutState, slot: int) -> None:
        """Turn the slots up to this one into evidence; earlier evidence stays."""
        with self._database.begin_write() as transaction:
            faults.reach_point("tick.due-counted")
            EvidenceStore(transaction, state.rollout).advance(slot)
        faults.reach_point("tick.evidence")

    def _append_events(
        self, decide_events: SlotDecision, read_time: Callable[[], datetime]
    ) -> tuple[LedgerEvent, ...]:
        """Append events, decided again if the ledger moved, and note when that was committed."""
        events = self._append_decided(decide_events)
        if events:
            self._commits[self._loaded_state.scope.revision + 1] = read_time()
        return events

    def _append_decided(self, decide_events: SlotDecision) -> tuple[LedgerEvent, ...]:
        """Append events; decide again if the ledger moved, at last while it can't move."""
        for _ in range(OPEN_ATTEMPTS):
            with suppress(StaleRevisionError):
                return self._try_append(decide_events)
        # a stop may be stored during this decision as well; then the next one only narrows
        return retry_on_stale_revision(lambda: self._append_locked(decide_events))

    def _try_append(self, decide_events: SlotDecision) -> tuple[LedgerEvent, ...]:
        with self._database.begin_read() as transaction:
            state, events = self._decide(decide_events, transaction)
        if events:
            with self._database.begin_write() as transaction:
                Ledger(transaction, state.rollout).append(events, after=state.scope.revision)
        return events

    def _append_locked(self, decide_events: SlotDecision) -> tuple[LedgerEvent, ...]:
        """Decide and append in one transaction, after commands overtook each other attempt.

        A stream of commands would else delay guards for as long as it lasts. The earlier attempts
        have loaded what is large, so that commands wait for the decision alone.
        """
        with (
            # connected before the lock, since whoever waits for the lock may hold the last
            # connection; it sees the database as of its first query, which follows the lock
            self._database.begin_read() as reading,
            self._database.begin_write(is_urgent=True) as transaction,
        ):
            Ledger(transaction, self._loaded_state.rollout).lock_head()
            state, events = self._decide(decide_events, reading)
            Ledger(transaction, state.rollout).append(events, after=state.scope.revision)
            if events and events[-1].takes_back:
                tick = state.policy.tick
                slot = find_slot_before(events[-1].at, tick)
                take_back_slots(transaction, state.rollout, first=slot, at=to_instant(slot, tick))
        return events

    def _decide(
        self, decide_events: SlotDecision, transaction: Transaction
    ) -> tuple[RolloutState, tuple[LedgerEvent, ...]]:
        """Return the current state and the events that follow from it, of one instant."""
        state = self._update_state(transaction)
        faults.reach_point("command.read")
        events = decide_events(state, transaction)
        faults.reach_point("command.decided")
        return state, freeze_sources(transaction, state, events) if events else events

    def _decide_slot(
        self,
        state: RolloutState,
        slot: int,
        now: datetime,
        transaction: Transaction,
        *,
        narrow_only: bool,
    ) -> tuple[LedgerEvent, ...]:
        assert self._evidence is not None  # noqa: S101 - built with the state
        slots = TickSlots(transaction, state.rollout)
        last_done, last_claimed, is_stopping = slots.load_slots_and_stops()
        is_later_done = (last_done or slot) > slot
        if is_later_done or self._last_event_slot > to_instant(slot, state.policy.tick):
            raise _SlotOvertakenError
        # Where every tick takes longer than its slot, another process has always begun a later
        # one. If each left everything to the next, no guard would ever narrow.
        self._is_overtaken = (last_claimed or slot) > slot
        # a stop that the ledger lacks is obeyed as one that it has
        narrow_only = narrow_only or self._is_overtaken or is_stopping
        self._evidence.load_slot(transaction, state, slot)
        events = self._evidence.decide_slot(state, slot, now, transaction, narrow_only=narrow_only)
        if narrow_only:
            return events  # the next tick with a clock seals this slot's evidence, too
        at = now if state.scope.at is None else max(now, state.scope.at)
        return self._seals.seal_events(transaction, state, events, slot, at)


def _add_seen_versions(state: RolloutState, slot: int) -> tuple[LedgerEvent, ...]:
    """Return events for versions that the ledger lacks, up to a slot."""
    until = to_instant(slot, state.policy.tick)
    return list_new_versions(state.scope, state.policy, state.versions, until)


RETRY_DELAY = timedelta(minutes=1)  # after a failed tick
TURN_SECONDS = 1.0
"""After so long a rollout that is counting lets the others tick; a page is counted to its end."""


class TickScheduler:
    """One process's tickers of all rollouts.

    Attributes:
        next_due: when each rollout's next tick is due; one that is missing is due.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        announce: Callable[[str], object] = lambda _rollout_name: None,
    ) -> None:
        """Build it; `owner` differs for each process, `announce` gets what it begins with."""
        self._database, self._owner, self._announce = database, owner, announce
        self._tickers: dict[str, Ticker] = {}
        self.next_due: dict[str, datetime] = {}
        self._next_check: dict[str, datetime] = {}

    def run_due_ticks(
        self,
        at: datetime,
        *,
        narrow_only: bool = False,
        get_time: Callable[[], datetime] | None = None,
    ) -> TickPass:
        """Run every due tick that no other process has claimed.

        Rollouts take turns: one that counts for long goes on when the others had theirs. An error
        in one rollout delays no other: it is retried after a minute. Processes begin at different
        rollouts, and the database gives each slot to one of them. A check before a slot is due
        costs one query. If clocks disagree, `at` is the earliest and `narrow_only` is set.
        `get_time` returns the time anew for each rollout, since a pass over many takes a while, in
        which a user's command could seem to be ahead of the clock.

        Raises:
            DatabaseUnavailableError: the database does not respond; the pass ends.
        """
        events_by_rollout, errors, seconds_by_rollout = {}, {}, {}
        for rollout_name in self._iterate_turns():
            at = at if get_time is None else max(at, get_time())
            if at < self.next_due.get(rollout_name, at):
                continue
            ticker = self._tickers.setdefault(
                rollout_name, Ticker(self._database, rollout_name, self._owner)
            )
            self._announce(rollout_name)
            started_at = time.monotonic()
            try:
                with self._database.append_failures.watch(rollout_name, TICK) as attempt:
                    ends_at = started_at + TURN_SECONDS
                    events = ticker.tick(
                        at,
                        narrow_only=narrow_only,
                        get_time=get_time,
                        has_time=partial(_is_before, ends_at),
                    )
                    attempt.is_appended = events is not None
            except DatabaseUnavailableError:
                raise  # true of all rollouts; each is tried again in the next pass
            except Exception as error:  # noqa: BLE001 - returned to the caller, which logs it
                errors[rollout_name] = error
                is_passing = is_storage_failure(error)
                self.next_due[rollout_name] = at + (
                    STORAGE_RETRY_DELAY if is_passing else RETRY_DELAY
                )
            else:
                self.next_due[rollout_name] = (
                    at if ticker.is_counting else ticker.get_next_slot_time(at)
                )
                if events is not None:
                    events_by_rollout[rollout_name] = events
                    seconds_by_rollout[rollout_name] = time.monotonic() - started_at
        self._check_evidence(at)
        return TickPass(events_by_rollout, errors, seconds_by_rollout)

    def sample_evidence(self, at: datetime) -> dict[str, str]:
        """Check a sample of each rollout's evidence; say by rollout what differs."""
        reports = sample_evidence(self._database, at)
        return {name: report.summarize() for name, report in reports.items()}

    def _check_evidence(self, at: datetime) -> None:
        """Compare some evidence of each rollout with the counted units, when it is time."""
        for rollout_name, ticker in self._tickers.items():
            if at < self._next_check.get(rollout_name, at):
                continue
            self._next_check[rollout_name] = at + CHECK_INTERVAL
            self._announce(rollout_name)
            try:
                differences = ticker.check_evidence(at)
            except DatabaseUnavailableError:
                return  # the pass's ticks were run; the next pass meets the outage
            except Exception:
                log.exception("evidence of %s could not be compared", rollout_name)
            else:
                if differences:
                    log.error("evidence of %s was changed, see its incident", rollout_name)

    def _iterate_turns(self) -> Iterator[str]:
        """Yield all rollouts, and again as long as one is counting."""
        is_counting = True
        while is_counting:
            rollout_names = self._load_rollout_names()
            yield from rollout_names
            is_counting = any(
                ticker is not None and ticker.is_counting
                for ticker in map(self._tickers.get, rollout_names)
            )

    def _load_rollout_names(self) -> tuple[str, ...]:
        rollout_names = list_rollout_names(self._database)
        first_index = crc32(self._owner.encode()) % max(len(rollout_names), 1)
        return (*rollout_names[first_index:], *rollout_names[:first_index])


def _is_before(ends_at: float) -> bool:
    """Return whether a reading of the monotonic clock is still to come."""
    return time.monotonic() < ends_at
