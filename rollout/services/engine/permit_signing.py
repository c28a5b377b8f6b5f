"""Sign and read permits with keys that all replicas share.

This module chooses the key; `rollout.core.scope.permits` computes the signature.

A rotated key stays valid until the next rotation. Before rotating again, wait until every replica
has read the new key (`KEY_REFRESH_INTERVAL`) and the leases of the old one have ended.
"""

from collections.abc import Callable
from threading import Lock

from rollout.core.scope.head_codes import read_head_era
from rollout.core.scope.permits import Permit, sign_permit, verify_permit
from rollout.services.support.clock import Clock
from rollout.store.access.permit_keys import PermitKey, PermitKeys
from rollout.store.database.session import Database

UNKNOWN_KEY_RETRY = 1.0
"""Seconds after which keys are read again for an unknown key, which a replica may have made."""
KEY_REFRESH_INTERVAL = 60.0
"""Seconds after which keys are read again to sign with the newest one."""
SECRET_BYTES = 32


class PermitSigner:
    """One replica's permit keys.

    They are read at first use, once a minute, and if a permit names an unknown key.
    """

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database, self.clock, self._entropy = database, clock, entropy
        self._keys: tuple[PermitKey, ...] = ()
        self._loaded_at = 0.0
        self._lock = Lock()

    def sign(self, permit: Permit, *subject: str) -> str:
        """Return a permit's text, signed with the newest key."""
        newest_key = self.load_signing_key()
        return sign_permit(permit, newest_key.secret, newest_key.number, *subject)

    def find_cached_key(self) -> PermitKey | None:
        """Return the signing key, or None if the database is needed."""
        return self._keys[0] if self._keys and self._compute_age() < KEY_REFRESH_INTERVAL else None

    def load_signing_key(self) -> PermitKey:
        """Return the signing key; create it if the database has none.

        Raises:
            StoreError: the database is unavailable.
        """
        cached_key = self.find_cached_key()
        if cached_key is not None:
            return cached_key
        self._load_keys()
        if not self._keys:
            self.rotate_key()
        return self._keys[0]

    def read_permit(self, text: str, *subject: str) -> Permit | None:
        """Return the permit, or None without a valid signature for this subject."""
        if not self._keys:
            self._load_keys()
        permit = verify_permit(text, self._map_secrets(), *subject)
        if permit is None and self._compute_age() >= UNKNOWN_KEY_RETRY:
            self._load_keys()
            permit = verify_permit(text, self._map_secrets(), *subject)
        return permit

    def read_head_era(
        self, code: str, rollout_name: str, revision: int, row_hash: str
    ) -> int | None:
        """Return the era of a head that this service gave out, else None.

        Raises:
            StoreError: the database is unavailable.
        """
        if not self._keys:
            self._load_keys()
        era = read_head_era(code, self._map_secrets(), rollout_name, revision, row_hash)
        if era is None and code and self._compute_age() >= UNKNOWN_KEY_RETRY:
            self._load_keys()
            era = read_head_era(code, self._map_secrets(), rollout_name, revision, row_hash)
        return era

    def rotate_key(self) -> None:
        """Create a signing key; the last one stays valid until next time."""
        with self._database.begin_write() as transaction:
            PermitKeys(transaction).rotate(self._entropy(SECRET_BYTES), at=self.clock.now())
        self._load_keys()

    def _compute_age(self) -> float:
        """Return seconds since the keys were read; the maximum after a reset."""
        age = self.clock.read_boot_clock() - self._loaded_at
        return age if age >= 0 else KEY_REFRESH_INTERVAL

    def _map_secrets(self) -> dict[int, bytes]:
        return {key.number: key.secret for key in self._keys}

    def _load_keys(self) -> None:
        with self._lock:
            started_at = self.clock.read_boot_clock()
            with self._database.begin_read() as transaction:
                self._keys = tuple(PermitKeys(transaction).list_valid())
            self._loaded_at = started_at
