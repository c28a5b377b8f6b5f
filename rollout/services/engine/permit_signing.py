"""Permits, as the service signs and reads them: by keys that all replicas share.

A turned key stays valid until the next turn. So let a turn wait until every replica has read the
new key (`READ_AGAIN`) and every permit of the old one is past its lease.
"""

from collections.abc import Callable
from threading import Lock

from rollout.core.scope.permits import Permit, read, sign
from rollout.services.support.clock import Clock
from rollout.store.access.permit_keys import PermitKey, PermitKeys
from rollout.store.database.session import Database

AGAIN = 1.0  # seconds after which unknown keys may be looked up anew: a replica turned them
READ_AGAIN = 60.0  # seconds after which the newest key is looked up anew: it signs from then on
SECRET = 32  # bytes


class Permitting:
    """One replica's permit keys, read when first needed, once a minute, and when one is unknown."""

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        """Read nothing yet."""
        self._database, self._clock, self._entropy = database, clock, entropy
        self._keys: tuple[PermitKey, ...] = ()
        self._read_at = 0.0
        self._lock = Lock()

    def sign(self, permit: Permit, *about: str) -> str:
        """Return a permit's text, signed with the newest key."""
        newest_key = self.newest()
        return sign(permit, newest_key.secret, newest_key.number, *about)

    def at_hand(self) -> PermitKey | None:
        """Return the key to sign with, without asking the database; None where it must be asked."""
        return self._keys[0] if self._keys and self._age() < READ_AGAIN else None

    def newest(self) -> PermitKey:
        """Return the key to sign with; the first of a database is made here.

        Raises:
            StoreError: the database can't be asked.
        """
        cached_key = self.at_hand()
        if cached_key is not None:
            return cached_key
        self._refresh()
        if not self._keys:
            self.turn()
        return self._keys[0]

    def read(self, text: str, *about: str) -> Permit | None:
        """Return what a permit says; None where no valid key signed it about this."""
        if not self._keys:
            self._refresh()
        permit = read(text, self._secrets(), *about)
        if permit is None and self._age() >= AGAIN:
            self._refresh()
            permit = read(text, self._secrets(), *about)
        return permit

    def turn(self) -> None:
        """Sign with a new key from now on; the one before stays valid until the next turn."""
        with self._database.writing() as transaction:
            PermitKeys(transaction).turn(self._entropy(SECRET), at=self._clock.now())
        self._refresh()

    def _age(self) -> float:
        """Return seconds since the keys were read; a boot clock that fell back makes them old."""
        age = self._clock.boot() - self._read_at
        return age if age >= 0 else READ_AGAIN

    def _secrets(self) -> dict[int, bytes]:
        return {key.number: key.secret for key in self._keys}

    def _refresh(self) -> None:
        with self._lock:
            started_at = self._clock.boot()
            with self._database.reading() as transaction:
                self._keys = tuple(PermitKeys(transaction).valid())
            self._read_at = started_at
