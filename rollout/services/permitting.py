"""Permits, as the service signs and reads them: by keys that all replicas share."""

from collections.abc import Callable
from threading import Lock

from rollout.core.permits import Permit, read, sign
from rollout.services.clock import Clock
from rollout.store.permit_keys import PermitKey, PermitKeys
from rollout.store.session import Database

AGAIN = 1.0  # seconds after which unknown keys may be looked up anew: a replica turned them
SECRET = 32  # bytes


class Permitting:
    """One replica's permit keys, read when first needed and again when one is not known."""

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        """Read nothing yet."""
        self._database, self._clock, self._entropy = database, clock, entropy
        self._keys: tuple[PermitKey, ...] = ()
        self._read_at = 0.0
        self._lock = Lock()

    def sign(self, permit: Permit, *about: str) -> str:
        """Return a permit's text, signed with the newest key that is known here."""
        newest = self._known()[0]
        return sign(permit, newest.secret, newest.number, *about)

    def read(self, text: str, *about: str) -> Permit | None:
        """Return what a permit says; None where no valid key signed it about this."""
        found = read(text, self._secrets(), *about)
        if found is None and self._clock.boot() - self._read_at >= AGAIN:
            self._refresh()
            found = read(text, self._secrets(), *about)
        return found

    def turn(self) -> None:
        """Sign with a new key from now on; the one before stays valid until the next turn."""
        with self._database.writing() as transaction:
            PermitKeys(transaction).turn(self._entropy(SECRET), at=self._clock.now())
        self._refresh()

    def _secrets(self) -> dict[int, bytes]:
        return {key.number: key.secret for key in self._known()}

    def _known(self) -> tuple[PermitKey, ...]:
        if not self._keys:
            self._refresh()
        if not self._keys:
            self.turn()
        return self._keys

    def _refresh(self) -> None:
        with self._lock, self._database.reading() as transaction:
            self._keys = tuple(PermitKeys(transaction).valid())
            self._read_at = self._clock.boot()
