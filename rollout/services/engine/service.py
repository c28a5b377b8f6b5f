"""What one replica of the service holds: database, clock, caches and keys."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final, Protocol

from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.incidents import is_over_limit
from rollout.core.scope.permissions import Caller
from rollout.services.access.authentication import MAX_CACHE_AGE
from rollout.services.access.authenticator_codes import AuthenticatorCodes
from rollout.services.access.secret_key import SecretKey
from rollout.services.access.sign_in import SignIn
from rollout.services.engine.autonomy import Autonomy
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.permit_signing import PermitSigner
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.state_cache import StateCache
from rollout.services.engine.stop_latches import StopLatches
from rollout.services.support.channels import NO_CHANNELS, Channels
from rollout.services.support.checkpoint_keys import NO_CHECKPOINTS, CheckpointTargets
from rollout.services.support.clock import Clock, SystemClock
from rollout.store.database.session import Database
from rollout.store.ledger.incidents import UnopenedIncidents

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


class CallerAuthenticator(Protocol):
    """Authentication of callers; tests use other implementations."""

    def find_cached_caller(
        self, key_text: str, at: datetime, *, max_age: float = MAX_CACHE_AGE
    ) -> Caller | None:
        """Return the key's caller, or None if the database is needed.

        Raises:
            UnauthenticatedError: the key is not valid now.
        """
        ...

    def find_cached_session_caller(
        self,
        token: str,
        at: datetime,
        *,
        csrf: str | None = None,
        max_age: float = MAX_CACHE_AGE,
        is_use: bool = True,
    ) -> Caller | None:
        """Return the session's caller, or None if the database is needed.

        Raises:
            CrossSiteRequestError: `csrf` is not the session's page token.
        """
        ...

    def refresh(self) -> None:
        """Read again who is known; forget sessions that ended."""
        ...

    def is_known(self, secret_text: str) -> bool:
        """Return whether a key or session token needs no look-up of something unknown."""
        ...

    def authenticate_key(self, key_text: str, at: datetime) -> Caller:
        """Return the key's caller.

        Raises:
            UnauthenticatedError: the key is not valid now.
        """
        ...

    def build_page_token(self, token: str) -> str:
        """Return the token that a session's pages send with changes.

        Raises:
            UnauthenticatedError: there is no such session.
        """
        ...

    def check_page_token(self, token: str, page_token: str) -> None:
        """Raise unless the page token belongs to the session.

        Raises:
            UnauthenticatedError: there is no such session.
            CrossSiteRequestError: the token belongs to another session.
        """
        ...

    def write_last_uses(self, at: datetime) -> bool:
        """Store when keys and sessions were last used; return whether written."""
        ...

    def authenticate_session(
        self, token: str, at: datetime, *, csrf: str | None = None, is_use: bool = True
    ) -> Caller:
        """Return the session's caller; a change also needs its page token.

        Raises:
            UnauthenticatedError: the session is not valid now.
            CrossSiteRequestError: `csrf` is not the session's page token.
        """
        ...


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
    authenticator: CallerAuthenticator
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


def build_service(
    database: Database,
    authenticator: CallerAuthenticator,
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
