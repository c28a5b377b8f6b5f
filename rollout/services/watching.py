"""Each rollout as one replica knows it: held in memory, confirmed against the ledger's head.

An answer comes from a standing that was confirmed at most `STALE` ago: a stop holds here within
that span. What came meanwhile is folded onto what is known; a chain that no longer holds the last
row known here (a backup was restored) is read anew from its beginning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from threading import Lock

from rollout.services.clock import Clock
from rollout.services.standing import Standing, standing, standing_after
from rollout.store.ledger import Head, Ledger
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database, Transaction

STALE = 0.5
"""Seconds: the greatest age of what a replica answers from; `s` of a stop's reach."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A rollout's standing with the head it was read at, and when that was confirmed."""

    standing: Standing
    head: Head
    confirmed: float
    hashes: tuple[str, ...] = field(repr=False)

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

    def rollout(self, name: str) -> Watched:
        """Return a rollout as it was at most `STALE` ago.

        Raises:
            NoSuchRolloutError: there is none of that name.
            StoreError: the database can't be asked; nothing older is given instead.
        """
        known = self._known.get(name)
        if known is not None and self._fresh(known):
            return known
        with self._locks.setdefault(name, Lock()):
            known = self._known.get(name)
            if known is not None and self._fresh(known):
                return known
            return self.confirmed(name)

    def confirmed(self, name: str) -> Watched:
        """Ask the database now, however fresh what is known is."""
        began = self._clock.boot()  # before the read: what is read is at least as new
        known = self._known.get(name)
        try:
            with self._database.reading() as transaction:
                found = _read(transaction, name, known)
        except Exception:
            self._known.pop(name, None)
            raise
        self._known[name] = replace(found, confirmed=began)
        return self._known[name]

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
            return Watched(stood, head, 0.0, (*known.hashes, *(row.hash for row in later)))
    stood = standing(transaction, name)
    ledger = Ledger(transaction, stood.rollout)
    return Watched(stood, ledger.head(), 0.0, tuple(_hashes(ledger)))


def _hashes(ledger: Ledger) -> Iterator[str]:
    return (row.hash for row in ledger.rows())
