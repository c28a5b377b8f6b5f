"""Each rollout as one replica knows it: held in memory, confirmed against the ledger's head.

An answer comes from a standing that was confirmed at most `STALE` ago: a stop holds here within
that span. What came meanwhile is folded onto what is known; a chain that no longer holds the last
row known here (a backup was restored) is read anew from its beginning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import Lock

from rollout.services.engine.assignment_cache import Rulings
from rollout.services.engine.readiness import MOST_ASKEW, askew
from rollout.services.engine.rollout_state import (
    NoSuchRolloutError,
    Standing,
    standing,
    standing_after,
)
from rollout.services.support.clock import Clock
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Head, Ledger
from rollout.store.ledger.revisions import heads, revisions
from rollout.store.ledger.versions import Versions

STALE = 0.5
"""Seconds: the greatest age of what a replica answers from; `s` of a stop's reach."""
CLOCK_STALE = 5.0
"""Seconds after which the clock is compared with the database's again."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A rollout's standing with the head it was read at, and when that was confirmed.

    `rulings` remembers what the standing answers.
    """

    standing: Standing
    head: Head
    confirmed: float
    hashes: tuple[str, ...] = field(repr=False)
    rulings: Rulings = field(repr=False)

    def has(self, revision: int, row_hash: str) -> bool:
        """Say whether the chain holds that row at that revision; revision 0 is in every chain."""
        if revision == 0:
            return True
        return 0 < revision <= len(self.hashes) and self.hashes[revision - 1] == row_hash


class Watch:
    """One replica's view of all rollouts."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read nothing yet."""
        self._database, self._clock = database, clock
        self._known: dict[str, Watched] = {}
        self._locks: dict[str, Lock] = {}
        self._askew = timedelta(0)
        self._compared: float | None = None

    def at_hand(self, name: str) -> Watched | None:
        """Return a rollout without asking the database; None where it has to be asked."""
        cached_rollout = self._known.get(name)
        return (
            cached_rollout if cached_rollout is not None and self._fresh(cached_rollout) else None
        )

    def rollout(self, name: str) -> Watched:
        """Return a rollout as it was at most `STALE` ago.

        Raises:
            NoSuchRolloutError: there is none of that name.
            StoreError: the database can't be asked; nothing older is given instead.
        """
        cached_rollout = self.at_hand(name)
        if cached_rollout is not None:
            return cached_rollout
        try:
            with self._locks.setdefault(name, Lock()):
                cached_rollout = self.at_hand(name)
                return self.confirmed(name) if cached_rollout is None else cached_rollout
        except NoSuchRolloutError:
            self._locks.pop(name, None)  # names are the askers': nothing is kept for them
            raise

    def confirmed(self, name: str) -> Watched:
        """Ask the database now, however fresh what is known is."""
        started_at = self._clock.boot()  # before the read: what is read is at least as new
        cached_rollout = self._known.get(name)
        try:
            self._compare_clocks(started_at)
            with self._database.reading() as transaction:
                loaded_rollout = _read(transaction, name, cached_rollout)
        except Exception:
            self._known.pop(name, None)
            raise
        self._known[name] = replace(loaded_rollout, confirmed=started_at)
        return self._known[name]

    def everything(self) -> tuple[Watched, ...]:
        """Ask the database for all rollouts at once, and read anew those that moved; by name."""
        started_at = self._clock.boot()
        self._compare_clocks(started_at)
        with self._database.reading() as transaction:
            heads_by_rollout = heads(transaction)
        return tuple(
            self._at_head(rollout_name, *heads_by_rollout[rollout_name], started_at)
            for rollout_name in sorted(heads_by_rollout)
        )

    def _at_head(self, name: str, number: int, head: Head, began: float) -> Watched:
        cached_rollout = self._known.get(name)
        if (
            cached_rollout is None
            or cached_rollout.head != head
            or cached_rollout.standing.rollout.number != number
        ):
            return self.confirmed(name)
        self._known[name] = replace(cached_rollout, confirmed=max(began, cached_rollout.confirmed))
        return self._known[name]

    def doubt(self, name: str) -> None:
        """Ask the database before the next answer: something was just written here."""
        cached_rollout = self._known.get(name)
        if cached_rollout is not None:
            self._known[name] = replace(cached_rollout, confirmed=float("-inf"))

    def told(self, name: str) -> None:
        """Read the versions of a rollout again: one was told, which moves no ledger."""
        cached_rollout = self._known.get(name)
        if cached_rollout is None:
            return
        with self._database.reading() as transaction:
            versions = Versions(transaction, cached_rollout.standing.rollout).all()
        self._known[name] = replace(
            cached_rollout, standing=replace(cached_rollout.standing, versions=versions)
        )

    @property
    def askew(self) -> bool:
        """Say whether the clock was too far off the database's when last compared."""
        return self._askew > MOST_ASKEW

    def _compare_clocks(self, now: float) -> None:
        if self._compared is None or not 0 <= now - self._compared < CLOCK_STALE:
            self._askew = askew(self._database, self._clock)
            self._compared = now

    def _fresh(self, known: Watched) -> bool:
        return 0 <= self._clock.boot() - known.confirmed < STALE


def _read(transaction: Transaction, name: str, known: Watched | None) -> Watched:
    if known is not None:
        rollout = Rollouts(transaction).find(name)
        ledger = Ledger(transaction, known.standing.rollout)
        head = ledger.head()
        if rollout == known.standing.rollout and head == known.head:
            return known
        later_rows = tuple(ledger.rows(after=known.head.revision))
        is_continuation = bool(later_rows) and later_rows[0].previous == known.head.hash
        if rollout == known.standing.rollout and is_continuation:
            state = standing_after(transaction, known.standing)
            return _watched(state, head, (*known.hashes, *(row.hash for row in later_rows)))
    state = standing(transaction, name)
    ledger = Ledger(transaction, state.rollout)
    return _watched(state, ledger.head(), tuple(_hashes(ledger)))


def _watched(stood: Standing, head: Head, hashes: tuple[str, ...]) -> Watched:
    return Watched(stood, head, 0.0, hashes, Rulings(stood.scope, stood.policy, stood.rollout.salt))


def _hashes(ledger: Ledger) -> Iterator[str]:
    return (row.hash for row in ledger.rows())


REVISIONS_STALE = 0.25
"""Seconds: the greatest age of an answer."""


@dataclass(frozen=True, slots=True)
class Known:
    """The revisions of all rollouts as of an instant of the boot clock."""

    by_rollout: Mapping[str, str]
    read: float


class Revisions:
    """One replica's memory of how far each rollout is."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Read nothing yet."""
        self._database, self._clock = database, clock
        self._known: Known | None = None
        self._lock = Lock()

    def at_hand(self) -> Mapping[str, str] | None:
        """Return what was read lately without asking the database; None where it must be asked."""
        known_revisions = self._known
        is_fresh = (
            known_revisions is not None
            and 0 <= self._clock.boot() - known_revisions.read < REVISIONS_STALE
        )
        return known_revisions.by_rollout if known_revisions is not None and is_fresh else None

    def all(self) -> Mapping[str, str]:
        """Return a text for each rollout that changes when its pages would.

        Raises:
            StoreError: the database can't be asked.
        """
        with self._lock:
            current_revisions = self.at_hand()
            if current_revisions is None:
                started_at = self._clock.boot()
                with self._database.reading() as transaction:
                    current_revisions = revisions(transaction)
                self._known = Known(current_revisions, started_at)
            return current_revisions
