"""What one replica of the service holds: database, clock, caches and keys of permits.

All replicas share the keys that sign and read permits. The key is chosen here;
`rollout.engine.decide.assignment` computes the signature. A rotated key stays valid until the next
rotation. Before rotating again, wait until every replica has read the new key
(`KEY_REFRESH_INTERVAL`) and the leases of the old one have ended.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final

from rollout.data.access.tokens import PermitKey, PermitKeys
from rollout.data.database.session import Database
from rollout.data.ledger.projections import UnopenedIncidents
from rollout.engine.decide.assignment import Permit, sign_permit, verify_permit
from rollout.engine.decide.assignment_table import read_head_era
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incidents import is_over_limit
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.features.access.authentication import Authenticator
from rollout.features.access.credentials import AuthenticatorCodes
from rollout.features.access.keys import SecretKey
from rollout.features.access.sign_in import SignIn
from rollout.kernel.channels import NO_CHANNELS, Channels
from rollout.live.autonomy import Autonomy
from rollout.live.checkpoint_keys import NO_CHECKPOINTS, CheckpointTargets
from rollout.live.clock import Clock, SystemClock
from rollout.live.rollout_state import RolloutState, execute_command, load_rollout_state
from rollout.live.state_cache import StateCache
from rollout.live.stop_latches import StopLatches

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


MAX_COUNTED: Final = 10_000  # repeats that are told apart; then they are told apart anew


class IncidentOpener:
    """Opens incidents, or counts each one that is over the limit.

    Clients and heartbeats repeat themselves each second. A repeat is counted once by this process;
    another replica, and this one after a restart, count it again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: set[tuple[str, str, str]] = set()
        self._lock = Lock()

    def open_or_count(self, rollout_name: str, command: OpenIncident, repeat_key: str) -> None:
        """Open an incident, unless it is open; count it if too many others are.

        `repeat_key` is the same in all repeats of an incident of this kind.

        Raises:
            RefusalError: there is no such rollout.
            StoreError: it could not be stored.
        """
        key = (rollout_name, command.kind, repeat_key)
        is_opened = bool(execute_command(self._database, rollout_name, lambda _: command))
        with self._lock:
            if is_opened:
                self._counted.discard(key)
            elif key not in self._counted and self._count(rollout_name, command):
                if len(self._counted) >= MAX_COUNTED:
                    self._counted.clear()
                self._counted.add(key)

    def _count(self, rollout_name: str, command: OpenIncident) -> bool:
        """Count the incident if it is over the limit; return whether it is."""
        with self._database.begin_read() as transaction:
            state = load_rollout_state(transaction, rollout_name)
        if not is_over_limit(command, state.scope):
            return False
        with self._database.begin_write() as transaction:
            UnopenedIncidents(transaction, state.rollout).add(command.kind, {command.cell: 1})
        return True


Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Service:
    """One replica.

    Attributes:
        database: where everything is stored.
        clock: time of records, ticks, proposals, leases and permits.
        wall_clock: time of sessions, keys, rate limits and review claims; only the live demo has
            another one than `clock`.
        state_cache: rollout states, at most `MAX_STALENESS` old.
        authenticator: finds the caller of a key or session.
        sign_in: starts sessions.
        permit_signer: signs permits and reads those of actions.
        entropy: returns random bytes for salts, keys and sessions.
        autonomy: whether the model may decide, by this replica's own writes.
        incident_opener: opens incidents, or counts them.
        channels: where reports are sent.
        requires_second_factor: whether users who approve or administer must have given one.
    """

    database: Database
    clock: Clock
    wall_clock: Clock
    state_cache: StateCache
    authenticator: Authenticator
    sign_in: SignIn
    permit_signer: PermitSigner
    entropy: Entropy
    autonomy: Autonomy
    incident_opener: IncidentOpener
    channels: Channels = NO_CHANNELS
    checkpoints: CheckpointTargets = NO_CHECKPOINTS
    requires_second_factor: bool = False

    def find_wall_time(self, at: datetime) -> datetime:
        """Return the wall time of a request at `at`; `at` itself unless the clocks differ."""
        return at if self.wall_clock is self.clock else self.wall_clock.now()

    def load_permitted_state(
        self,
        caller: Caller,
        permission: Permission,
        rollout_name: str,
        sites: tuple[str, ...] = (),
    ) -> RolloutState:
        """Return a rollout's newest state, for a caller who has the permission.

        Raises as `require_permission` does, before anything is read.
        """
        require_permission(caller, permission, rollout_name, sites)
        return self.state_cache.reload_rollout(rollout_name).state


def build_service(
    database: Database,
    authenticator: Authenticator,
    clock: Clock | None = None,
    entropy: Entropy = secrets.token_bytes,
    channels: Channels = NO_CHANNELS,
    wall_clock: Clock | None = None,
    secret_key_file: str = "",
) -> Service:
    """Return a replica on a migrated database; nothing is read yet."""
    service_clock = SystemClock() if clock is None else clock
    users_clock = service_clock if wall_clock is None else wall_clock
    latches = StopLatches()
    codes = AuthenticatorCodes(database, SecretKey(secret_key_file, entropy), entropy)
    return Service(
        database=database,
        clock=service_clock,
        wall_clock=users_clock,
        state_cache=StateCache(database, users_clock, latches),
        authenticator=authenticator,
        sign_in=SignIn(database, users_clock, entropy, codes=codes),
        permit_signer=PermitSigner(database, service_clock, entropy),
        entropy=entropy,
        autonomy=Autonomy(database, users_clock, latches),
        incident_opener=IncidentOpener(database),
        channels=channels,
    )
