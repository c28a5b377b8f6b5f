"""Has anything moved? Open pages ask every second; one read in a quarter of it answers all."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from rollout.services.clock import Clock
from rollout.store.revisions import revisions
from rollout.store.session import Database

STALE = 0.25
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
        fresh = known is not None and 0 <= self._clock.boot() - known.read < STALE
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
