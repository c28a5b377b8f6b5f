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
        known = self._known.get(name)
        return known if known is not None and self._fresh(known) else None

    def rollout(self, name: str) -> Watched:
        """Return a rollout as it was at most `STALE` ago.

        Raises:
            NoSuchRolloutError: there is none of that name.
            StoreError: the database can't be asked; nothing older is given instead.
        """
        known = self.at_hand(name)
        if known is not None:
            return known
        try:
            with self._locks.setdefault(name, Lock()):
                known = self.at_hand(name)
                return self.confirmed(name) if known is None else known
        except NoSuchRolloutError:
            self._locks.pop(name, None)  # names are the askers': nothing is kept for them
            raise

    def confirmed(self, name: str) -> Watched:
        """Ask the database now, however fresh what is known is."""
        began = self._clock.boot()  # before the read: what is read is at least as new
        known = self._known.get(name)
        try:
            self._compare_clocks(began)
            with self._database.reading() as transaction:
                found = _read(transaction, name, known)
        except Exception:
            self._known.pop(name, None)
            raise
        self._known[name] = replace(found, confirmed=began)
        return self._known[name]

    def everything(self) -> tuple[Watched, ...]:
        """Ask the database for all rollouts at once, and read anew those that moved; by name."""
        began = self._clock.boot()
        self._compare_clocks(began)
        with self._database.reading() as transaction:
            found = heads(transaction)
        return tuple(self._at_head(name, *found[name], began) for name in sorted(found))

    def _at_head(self, name: str, number: int, head: Head, began: float) -> Watched:
        known = self._known.get(name)
        if known is None or known.head != head or known.standing.rollout.number != number:
            return self.confirmed(name)
        self._known[name] = replace(known, confirmed=max(began, known.confirmed))
        return self._known[name]

    def doubt(self, name: str) -> None:
        """Ask the database before the next answer: something was just written here."""
        known = self._known.get(name)
        if known is not None:
            self._known[name] = replace(known, confirmed=float("-inf"))

    def told(self, name: str) -> None:
        """Read the versions of a rollout again: one was told, which moves no ledger."""
        known = self._known.get(name)
        if known is None:
            return
        with self._database.reading() as transaction:
            versions = Versions(transaction, known.standing.rollout).all()
        self._known[name] = replace(known, standing=replace(known.standing, versions=versions))

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
        later = tuple(ledger.rows(after=known.head.revision))
        follows = bool(later) and later[0].previous == known.head.hash
        if rollout == known.standing.rollout and follows:
            stood = standing_after(transaction, known.standing)
            return _watched(stood, head, (*known.hashes, *(row.hash for row in later)))
    stood = standing(transaction, name)
    ledger = Ledger(transaction, stood.rollout)
    return _watched(stood, ledger.head(), tuple(_hashes(ledger)))


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
        known = self._known
        fresh = known is not None and 0 <= self._clock.boot() - known.read < REVISIONS_STALE
        return known.by_rollout if known is not None and fresh else None

    def all(self) -> Mapping[str, str]:
        """Return a text for each rollout that changes when its pages would.

        Raises:
            StoreError: the database can't be asked.
        """
        with self._lock:
            found = self.at_hand()
            if found is None:
                began = self._clock.boot()
                with self._database.reading() as transaction:
                    found = revisions(transaction)
                self._known = Known(found, began)
            return found
