"""The tick: claim a slot, count what is due, decide on what is known, append.

Counting, moving evidence and appending are transactions of their own. A pass that breaks off
loses nothing: its entries are still queued, and its claim goes to whoever asks after a tick.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zlib import crc32

import numpy as np
import polars as pl

from rollout import faults
from rollout.core.calendar.sites import Cell
from rollout.core.errors import PolicyRefused
from rollout.core.scope.commands import See
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Event, PolicyApplied
from rollout.core.scope.projection import fold
from rollout.core.statistics.sampling import draws
from rollout.services.engine.evidence_feeds import KEPT
from rollout.services.engine.live_evidence import LiveEvidence
from rollout.services.engine.reviewer_checks import People
from rollout.services.engine.revision_retry import retried
from rollout.services.engine.rollout_state import Standing, kept_policy, standing, standing_after
from rollout.services.engine.stage_history import Past
from rollout.services.engine.unit_counting import queue_units, units_of
from rollout.store.counting import counter
from rollout.store.counting.count_queue import CAME, DueQueue
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.evidence import Evidence
from rollout.store.ledger.ledger import Head, Ledger
from rollout.store.ledger.policies import Policies
from rollout.store.ledger.scopes import EVERY, Scopes
from rollout.store.ledger.tick_slots import Slots
from rollout.tally.slots import instant, slot_before

AGAIN = timedelta(minutes=1)  # after which a rollout that failed is tried again
BATCH = 500  # queue entries in one transaction: a stop waits for no more than one


class _OvertakenError(Exception):
    """A later slot was begun while we were paused: whoever does it decides on newer evidence."""


class Ticker:
    """One process' ticker of one rollout. It keeps between slots what it has read.

    What it keeps grows by what is new. It is not for several threads at once.
    """

    def __init__(self, database: Database, name: str, owner: str) -> None:
        """Read nothing yet; the first tick does."""
        self._database, self._name, self._owner = database, name, owner
        self._forget()

    def _forget(self) -> None:
        self._stood: Standing | None = None
        self._head = Head(0, "", None)
        self._past = Past()
        self._evidence: LiveEvidence | None = None
        self._people = People()
        self._kept_at = 0

    def tick(self, at: datetime, *, narrow_only: bool = False) -> tuple[Event, ...] | None:
        """Do the slot that `at` lies in; slots missed before it are folded into this pass.

        Args:
            at: now. Where clocks disagree, the earlier time.
            narrow_only: clocks disagree: guards narrow, grants lapse and proposals are void, but
                nothing is raised, applied or given back.

        Returns:
            The events written; None where the slot, or a later one, is done or somebody else's.

        Raises:
            NoSuchRolloutError: there is no such rollout.
        """
        try:
            return self._tick(at, narrow_only=narrow_only)
        except _OvertakenError:
            return None
        except BaseException:
            self._forget()  # it may have been read in part
            raise

    def _tick(self, at: datetime, *, narrow_only: bool) -> tuple[Event, ...] | None:
        state = self._standing()
        slot = slot_before(at, state.policy.tick)
        if not self._claimed(state, slot, at):
            return None
        faults.point("tick.claimed")
        self._count(state, slot)
        self._move(state, slot)
        version_events = (
            () if narrow_only else self._append(lambda current_state: _unseen(current_state, slot))
        )
        events = self._append(lambda state: self._decided(state, slot, at, narrow_only=narrow_only))
        faults.point("tick.not-done")
        with self._database.writing() as transaction:
            Slots(transaction, state.rollout).done(slot, at=at)
            DueQueue(transaction, state.rollout).forget_arrived(before=at - KEPT)
            self._keep_scope(transaction)
        return (*version_events, *events)

    def next_slot(self, at: datetime) -> datetime:
        """Return when the slot after the one that `at` lies in begins, by what was last read."""
        if self._stood is None:
            return at
        tick = self._stood.policy.tick
        return instant(slot_before(at, tick) + 1, tick)

    def _keep_scope(self, transaction: Transaction) -> None:
        """Keep the scope now and then, so that earlier instants are found without a long fold."""
        scope = self._known.scope
        if scope.revision - self._kept_at >= EVERY:
            Scopes(transaction, self._known.rollout).keep(scope)
            self._kept_at = scope.revision

    @property
    def _known(self) -> Standing:
        assert self._stood is not None  # noqa: S101 - a tick reads it first
        return self._stood

    def _standing(self) -> Standing:
        """Return how the rollout stands now, with all that came since the last time taken in."""
        with self._database.reading() as transaction:
            head = self._follows(transaction)
            if self._stood is None:
                state = standing(transaction, self._name)
                last_revision, head = 0, Ledger(transaction, state.rollout).head()
            else:
                last_revision = self._stood.scope.revision
                state = standing_after(transaction, self._stood)
            events = tuple(Ledger(transaction, state.rollout).events(after=last_revision))
            self._take(transaction, state, events)
        self._stood, self._head = state, head
        return state

    def _follows(self, transaction: Transaction) -> Head:
        """Return the ledger's head; forget all where it does not follow from the one known.

        A database may have been restored, or made anew under the same name.
        """
        if self._stood is None:
            return self._head
        is_same_chain = Rollouts(transaction).find(self._name) == self._stood.rollout
        ledger = Ledger(transaction, self._stood.rollout)
        head = ledger.head() if is_same_chain else self._head
        if head != self._head:
            next_row = next(ledger.rows(after=self._head.revision), None)
            is_same_chain = next_row is not None and next_row.previous == self._head.hash
        if not is_same_chain:
            self._forget()
        return head

    def _take(self, transaction: Transaction, stood: Standing, events: tuple[Event, ...]) -> None:
        applied_hashes = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
        texts = Policies(transaction, stood.rollout).texts(applied_hashes - {stood.policy.hash})
        policies = {policy_hash: kept_policy(text) for policy_hash, text in texts.items()} | {
            stood.policy.hash: stood.policy
        }
        self._past.take(events, policies.__getitem__)
        if applied_hashes or self._evidence is None:
            self._evidence = LiveEvidence(stood.policy, stood.scope, self._past)
        elif events:
            self._evidence.take(events, stood.scope)

    def _claimed(self, stood: Standing, slot: int, at: datetime) -> bool:
        with self._database.writing() as transaction:
            slots = Slots(transaction, stood.rollout)
            last_slot = slots.last_done()
            if last_slot is not None and last_slot >= slot:
                return False
            return slots.claim(slot, owner=self._owner, at=at, outlived=stood.policy.tick)

    def _count(self, stood: Standing, slot: int) -> None:
        """Count what is due by the slot, in short transactions."""
        reviewer_checks = self._relied_on(stood, slot)
        while True:
            with self._database.writing() as transaction:
                queue = DueQueue(transaction, stood.rollout)
                batch = queue.take(until=instant(slot, stood.policy.tick), limit=BATCH)
                if not batch:
                    return
                faults.point("tick.taken")
                units = units_of(transaction, stood, {e.case_id for e in batch}, reviewer_checks)
                ripe_units = self._marked(units.filter(pl.col("slot") <= slot), stood)
                is_episode_unit = stood.policy.evidence.unit == "episode"
                counter.count(transaction, stood.rollout, ripe_units, by_episode=is_episode_unit)
                incoming_case_ids = {entry.case_id for entry in batch if entry.track == CAME}
                if incoming_case_ids:
                    queue_units(transaction, stood, units.filter(pl.col("slot") > slot))
                queue.done(batch)

    def _relied_on(self, stood: Standing, slot: int) -> pl.DataFrame | None:
        """Return how people stand, read before anything is written: a stop waits for no history."""
        if stood.policy.evidence.min_reviewer_agreement is None:
            return None
        with self._database.reading() as transaction:
            return self._people.read(transaction, stood, instant(slot, stood.policy.tick))

    def _marked(self, units: pl.DataFrame, stood: Standing) -> pl.DataFrame:
        """Add to units what the store notes of each: definition, attempt, and band of the draw.

        Attempt and band are those that were in force when the unit occurred.
        """
        history, keys = self._past, units["unit"].to_list()
        cells = list(units.select("site", "window", "version", "occurred").iter_rows())
        sampling_values = draws(stood.rollout.salt, "stage", keys) if keys else np.empty(0)
        attempts = [
            history.attempt(Cell(site, window), version, occurred_slot)
            for site, window, version, occurred_slot in cells
        ]
        definitions = [history.definition(Cell(site, window)) for site, window, _, _ in cells]
        return units.with_columns(
            definition=pl.Series(definitions, dtype=pl.String),
            attempt=pl.Series(attempts, dtype=pl.Int64),
            band=pl.Series(
                history.bands(units["occurred"].to_numpy(), sampling_values), dtype=pl.Int64
            ),
        )

    def _move(self, stood: Standing, slot: int) -> None:
        """Make the slots up to this one evidence; one that is evidence already stays."""
        with self._database.writing() as transaction:
            evidence = Evidence(transaction, stood.rollout)
            last_slot = evidence.through(hold=True)
            if last_slot < slot:
                faults.point("tick.through-read")
                evidence.move(after=last_slot, to=slot)
        faults.point("tick.evidence")

    def _append(self, follows: Callable[[Standing], tuple[Event, ...]]) -> tuple[Event, ...]:
        """Write what follows; where somebody came first, decide again on the newer scope.

        Raises:
            StaleRevision: the rollout moved on at every try.
        """
        return retried(lambda: self._once(follows))

    def _once(self, follows: Callable[[Standing], tuple[Event, ...]]) -> tuple[Event, ...]:
        state = self._standing()
        faults.point("command.read")
        events = follows(state)
        faults.point("command.decided")
        if events:
            with self._database.writing() as transaction:
                Ledger(transaction, state.rollout).append(events, after=state.scope.revision)
        return events

    def _decided(
        self, stood: Standing, slot: int, now: datetime, *, narrow_only: bool
    ) -> tuple[Event, ...]:
        assert self._evidence is not None  # noqa: S101 - made with the standing
        with self._database.reading() as transaction:
            if (Slots(transaction, stood.rollout).last_claimed() or slot) > slot:
                raise _OvertakenError
            self._evidence.read(transaction, stood, slot)
        return self._evidence.decided(stood, slot, now, narrow_only=narrow_only)


def _unseen(stood: Standing, slot: int) -> tuple[Event, ...]:
    """Return that versions were seen by a slot of which the ledger does not know yet."""
    scope, until = stood.scope, instant(slot, stood.policy.tick)
    known_versions = (
        (known_versions.first_seen_at, version_name)
        for version_name, known_versions in stood.versions.items()
    )
    events: tuple[Event, ...] = ()
    for at, version in sorted(
        (at, version_name)
        for at, version_name in known_versions
        if version_name not in scope.versions
    ):
        if at <= until:
            with suppress(PolicyRefused):  # too many are open: it stays unknown, and people decide
                version_events = decide(See(at=at, version=version), scope, stood.policy)
                scope, events = fold(version_events, scope), (*events, *version_events)
    return events


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look at all rollouts came to: the events of those done here, errors of others."""

    done: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
    failed: Mapping[str, Exception] = field(default_factory=dict)


class Ticking:
    """One process' tickers of all rollouts of a database."""

    def __init__(self, database: Database, owner: str) -> None:
        """Read nothing yet.

        Args:
            database: where the rollouts are.
            owner: name of this process, different from every other's.
        """
        self._database, self._owner = database, owner
        self._tickers: dict[str, Ticker] = {}
        self._next: dict[str, datetime] = {}

    def look(
        self,
        at: datetime,
        *,
        narrow_only: bool = False,
        now: Callable[[], datetime] | None = None,
    ) -> Looked:
        """Do the slot of every rollout whose slot is due and nobody else's, one after the other.

        An error in one rollout holds up no other: it is tried again a minute later. Several
        processes may look at once: they begin at different rollouts, and the database gives each
        slot to one of them. Looking before a slot is due costs one query.

        Args:
            at: now. Where clocks disagree, the earlier time.
            narrow_only: clocks disagree: nothing is raised, applied or given back.
            now: tells the time anew for each rollout, since a pass over many takes a while: a
                person who acts meanwhile would seem to be ahead of the clock.
        """
        events_by_rollout, errors = {}, {}
        for rollout_name in self._names():
            at = at if now is None else max(at, now())
            if at < self._next.get(rollout_name, at):
                continue
            ticker = self._tickers.setdefault(
                rollout_name, Ticker(self._database, rollout_name, self._owner)
            )
            try:
                events = ticker.tick(at, narrow_only=narrow_only)
            except Exception as error:  # noqa: BLE001 - told to the caller, who writes it down
                errors[rollout_name] = error
                self._next[rollout_name] = at + AGAIN
            else:
                self._next[rollout_name] = ticker.next_slot(at)
                if events is not None:
                    events_by_rollout[rollout_name] = events
        return Looked(events_by_rollout, errors)

    def _names(self) -> tuple[str, ...]:
        with self._database.reading() as transaction:
            rollout_names = [rollout.name for rollout in Rollouts(transaction).all()]
        first_index = crc32(self._owner.encode()) % max(len(rollout_names), 1)
        return (*rollout_names[first_index:], *rollout_names[:first_index])
