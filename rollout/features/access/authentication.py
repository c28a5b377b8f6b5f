"""Authentication: find the caller of a key or of a browser session.

A replica caches all users with their roles and keys, and confirms the cache against the head of the
access ledger: at most one short read every half second. So a request costs microseconds, and every
revocation, disabled account and sign-out holds here within half a second. Unknown keys are looked
up again, so that a new key works at once.

While the database does not respond, only stops and narrowings are identified, by what this replica
read within the last hour.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hmac import compare_digest
from threading import Lock
from typing import TypeVar

from rollout.data.access.tokens import (
    AccessLedgerHead,
    ApiKeys,
    Session,
    Sessions,
    StoredKey,
    hash_secret,
    hash_session_token,
    load_access_head,
)
from rollout.data.access.users import StoredUser, Users
from rollout.data.database.rollouts import ACCESS_CHAIN
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import NO_LIMITS
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.access.access_state import build_caller
from rollout.features.access.keys import parse_key, read_token, write_token
from rollout.features.access.users import load_approval_limits
from rollout.kernel.errors import CrossSiteRequestError, UnauthenticatedError
from rollout.live.clock import Clock

MAX_CACHE_AGE = 0.5
"""Maximum age in seconds of cached users, keys and sessions."""
MAX_OUTAGE_AGE = 3600.0
"""The same for who stops while the database does not respond."""
USE_WRITE_INTERVAL = timedelta(minutes=1)
"""Time between two writes of last uses."""
SESSION_IDLE_TIMEOUT = timedelta(hours=2)
"""Unused time after which a session ends."""
MAX_CACHED_SESSIONS = 1_000
MAX_CHANGED_USERS = 200  # above it, reading all users again is faster
UseKey = TypeVar("UseKey")
INVALID_KEY = (
    "this key is not valid; `rollout keys list` shows the valid ones, an admin can create another"
)
NO_SESSION = "you are signed out; sign in again"
STALE_PAGE = "the page's token is missing or of another session; load the page again"


@dataclass(frozen=True, slots=True)
class AccessRegister:
    """All callers and keys, as of one revision of the access ledger."""

    head: AccessLedgerHead
    callers: Mapping[int, Caller]
    keys: Mapping[str, StoredKey] = field(repr=False)
    confirmed_at: float


@dataclass(frozen=True, slots=True)
class CachedSession:
    """A session and when it was read, in seconds since boot."""

    session: Session
    read_at: float


class Authenticator:
    """Authentication in one replica."""

    def __init__(
        self, database: Database, clock: Clock, *, requires_second_factor: bool = False
    ) -> None:
        """Read nothing yet.

        With `requires_second_factor`, users who approve or administer must have given one.
        """
        self._database, self._clock = database, clock
        self._requires_second_factor = requires_second_factor
        self._register: AccessRegister | None = None
        self._sessions: OrderedDict[bytes, CachedSession] = OrderedDict()
        self._lock = Lock()
        self._key_uses: dict[str, datetime] = {}
        self._session_uses: dict[bytes, datetime] = {}
        self._uses_written_at: datetime | None = None

    def find_cached_caller(
        self, key_text: str, at: datetime, *, max_age: float = MAX_CACHE_AGE
    ) -> Caller | None:
        """Return the key's caller, or None if the database is needed.

        `max_age` is in seconds; only stops and narrowings may give `MAX_OUTAGE_AGE`.
        """
        register = self._register
        return (
            self._find_key_owner(register, key_text, at)
            if register is not None and self._is_recent(register.confirmed_at, max_age)
            else None
        )

    def is_known(self, secret_text: str) -> bool:
        """Return whether this replica has seen the key's prefix, or the session, before.

        Without a register it can't be told, and the answer is yes.
        """
        register = self._register
        return (
            register is None
            or parse_key(secret_text)[0] in register.keys
            or hash_session_token(read_token(secret_text)) in self._sessions
        )

    def authenticate_key(self, key_text: str, at: datetime) -> Caller:
        """Return the key's caller.

        Raises:
            UnauthenticatedError: the key is unknown, expired or revoked, or its user disabled; the
                error is the same.
            StoreError: the database is unavailable; no older state is used.
        """
        started_at = self._clock.read_boot_clock()
        register = self._load_register()
        caller = self._find_key_owner(register, key_text, at)
        if caller is None and parse_key(key_text)[0] not in register.keys:  # perhaps a new key
            register = self._load_register(since=started_at)
            caller = self._find_key_owner(register, key_text, at)
        if caller is None:
            raise UnauthenticatedError(INVALID_KEY)
        return caller

    def authenticate_session(
        self, token: str, at: datetime, *, csrf: str | None = None, is_use: bool = True
    ) -> Caller:
        """Return the session's caller; a change also needs its page token, `csrf`.

        Without `is_use`, as for an open page that polls, the idle time runs on.

        Raises:
            UnauthenticatedError: the session is unknown, expired or ended, or its user disabled;
                the error is the same.
            CrossSiteRequestError: `csrf` is not the session's page token.
        """
        token_hash = hash_session_token(read_token(token))
        started_at = self._clock.read_boot_clock()
        session = self._load_session(token_hash)
        if session is None or self._is_expired(token_hash, session, at):
            raise UnauthenticatedError(NO_SESSION)
        caller = self._load_register().callers.get(session.user_id)
        caller = caller or self._load_register(since=started_at).callers.get(session.user_id)
        if caller is None:
            raise UnauthenticatedError(NO_SESSION)
        return self._admit_session(token_hash, session, caller, at, csrf, is_use=is_use)

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

        `max_age` is in seconds; only stops and narrowings may give `MAX_OUTAGE_AGE`. `is_use` is
        that of `authenticate_session`.

        Raises:
            CrossSiteRequestError: `csrf` is not the session's page token.
        """
        token_hash, register = hash_session_token(read_token(token)), self._register
        cached_session = self._sessions.get(token_hash)
        if register is None or cached_session is None:
            return None
        session = cached_session.session
        caller = register.callers.get(session.user_id)
        if (
            caller is None
            or not self._is_recent(register.confirmed_at, max_age)
            or not self._is_recent(cached_session.read_at, max_age)
            or self._is_expired(token_hash, session, at)
        ):
            return None
        return self._admit_session(token_hash, session, caller, at, csrf, is_use=is_use)

    def build_page_token(self, token: str) -> str:
        """Return the token that a session's pages send with changes.

        It never changes; `authenticate_session` checks the session itself.

        Raises:
            UnauthenticatedError: there is no such session.
        """
        token_hash = hash_session_token(read_token(token))
        cached_session = self._sessions.get(token_hash)
        session = (
            self._load_session(token_hash) if cached_session is None else cached_session.session
        )
        if session is None:
            raise UnauthenticatedError(NO_SESSION)
        return write_token(session.csrf)

    def check_page_token(self, token: str, page_token: str) -> None:
        """Raise unless the page token belongs to the session.

        Raises:
            UnauthenticatedError: there is no such session.
            CrossSiteRequestError: the token belongs to another session.
        """
        if not compare_digest(read_token(page_token), read_token(self.build_page_token(token))):
            raise CrossSiteRequestError(STALE_PAGE)

    def refresh(self) -> None:
        """Read again who is known, so that an outage finds it recent.

        Sessions that ended, here or on other replicas, are forgotten.
        """
        with self._lock:
            self._register = self._confirm_register(self._register)
            with self._database.begin_read() as transaction:
                self._forget_ended_sessions(transaction)

    def write_last_uses(self, at: datetime) -> bool:
        """Store last uses of keys and sessions, at most once a minute.

        The result says whether they were written. No request waits for it.
        """
        if self._uses_written_at is not None and at - self._uses_written_at < USE_WRITE_INTERVAL:
            return False
        keys, sessions = dict(self._key_uses), dict(self._session_uses)
        if keys or sessions:
            with self._database.begin_write() as transaction:
                ApiKeys(transaction).record_uses(keys)
                Sessions(transaction).record_uses(sessions)
        self._uses_written_at = at
        _remove_written_uses(self._key_uses, keys)
        _remove_written_uses(self._session_uses, sessions)
        return True

    def _find_key_owner(
        self, register: AccessRegister, key_text: str, at: datetime
    ) -> Caller | None:
        prefix, secret = parse_key(key_text)
        key = register.keys.get(prefix)
        is_same_hash = compare_digest(hash_secret(secret), b"" if key is None else key.hash)
        if key is None or not is_same_hash or (key.expires_at is not None and key.expires_at <= at):
            return None
        caller = register.callers[key.user_id]
        self._key_uses[prefix] = at
        return self._add_factor(caller, key.second_factor)

    def _admit_session(
        self,
        token_hash: bytes,
        session: Session,
        caller: Caller,
        at: datetime,
        csrf: str | None,
        *,
        is_use: bool,
    ) -> Caller:
        """Return the caller of a valid session, after its page token was compared."""
        if csrf is not None and not compare_digest(read_token(csrf), session.csrf):
            raise CrossSiteRequestError(STALE_PAGE)
        if is_use:
            self._session_uses[token_hash] = at
        return self._add_factor(caller, session.second_factor)

    def _add_factor(self, caller: Caller, second_factor: str) -> Caller:
        """Return the caller with the second factor of its session or key."""
        lacks_factor = self._requires_second_factor and not second_factor and caller.has_factor_role
        if not second_factor and not lacks_factor:
            return caller
        return replace(caller, second_factor=second_factor, lacks_second_factor=lacks_factor)

    def _is_fresh(self, register: AccessRegister, since: float | None = None) -> bool:
        if since is not None:
            return register.confirmed_at > since
        return self._is_recent(register.confirmed_at, MAX_CACHE_AGE)

    def _is_recent(self, read_at: float, max_age: float) -> bool:
        return 0 <= self._clock.read_boot_clock() - read_at < max_age

    def _load_register(self, since: float | None = None) -> AccessRegister:
        """Return a fresh register, or one confirmed after `since` (boot clock)."""
        register = self._register
        if register is not None and self._is_fresh(register, since):
            return register
        with self._lock:
            register = self._register
            if register is not None and self._is_fresh(register, since):
                return register
            self._register = self._confirm_register(register)
            return self._register

    def _confirm_register(self, register: AccessRegister | None) -> AccessRegister:
        started_at = self._clock.read_boot_clock()  # before the read, which is at least as new
        with self._database.begin_read() as transaction:
            head = load_access_head(transaction)
            if register is not None and head == register.head:
                return replace(register, confirmed_at=started_at)
            self._forget_ended_sessions(transaction)  # as a reset of a password ends them
            updated_register = (
                None
                if register is None
                else _update_register(transaction, register, head, started_at)
            )
            return updated_register or _load_full_register(transaction, head, started_at)

    def _load_session(self, token_hash: bytes) -> Session | None:
        cached_session = self._sessions.get(token_hash)
        started_at = self._clock.read_boot_clock()
        if cached_session is not None and self._is_recent(cached_session.read_at, MAX_CACHE_AGE):
            return cached_session.session
        with self._database.begin_read() as transaction:
            session = Sessions(transaction).find(token_hash)
        if session is None:  # not cached: invented tokens must not displace real ones
            if cached_session is not None:
                with self._lock:
                    self._sessions.pop(token_hash, None)
            return None
        with self._lock:
            self._sessions[token_hash] = CachedSession(session, started_at)
            self._sessions.move_to_end(token_hash)
            while len(self._sessions) > MAX_CACHED_SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def _forget_ended_sessions(self, transaction: Transaction) -> None:
        """Forget cached sessions that the database no longer has; the lock is held."""
        if token_hashes := set(self._sessions):
            for token_hash in token_hashes - Sessions(transaction).list_open(token_hashes):
                self._sessions.pop(token_hash, None)

    def _is_expired(self, token_hash: bytes, session: Session, at: datetime) -> bool:
        last_used_at = max(session.seen_at, self._session_uses.get(token_hash, session.seen_at))
        return at >= session.expires_at or at - last_used_at >= SESSION_IDLE_TIMEOUT


def _load_full_register(
    transaction: Transaction, head: AccessLedgerHead, started_at: float
) -> AccessRegister:
    users = Users(transaction)
    callers = _build_callers(users.list_all(), users.list_all_role_assignments(), head)
    callers = _limit_approvals(transaction, callers)
    keys = {key.prefix: key for key in ApiKeys(transaction).list_open()}
    return AccessRegister(head, callers, keys, started_at)


def _update_register(
    transaction: Transaction, register: AccessRegister, head: AccessLedgerHead, started_at: float
) -> AccessRegister | None:
    """Return the register with changed users read again.

    None if they are many, or the ledger does not continue the known one.
    """
    rows = list(Ledger(transaction, ACCESS_CHAIN).list_rows(after=register.head.revision or 0))
    names = {str(row.fields["user"]) for row in rows}
    if not rows or rows[0].previous != register.head.hash or len(names) > MAX_CHANGED_USERS:
        return None
    users = Users(transaction)
    changed_users = users.list_by_names(names)
    changed_ids = {user.number for user in changed_users}
    callers = {
        number: replace(caller, access_head=head.revision)
        for number, caller in register.callers.items()
        if number not in changed_ids
    }
    keys = {prefix: key for prefix, key in register.keys.items() if key.user_id not in changed_ids}
    changed_callers = _build_callers(
        changed_users, users.list_all_role_assignments(changed_ids), head
    )
    open_keys = {key.prefix: key for key in ApiKeys(transaction).list_open(changed_ids)}
    # a reset also concerns the admin who made it, whom no event names as its user
    all_callers = _limit_approvals(transaction, callers | changed_callers)
    return AccessRegister(head, all_callers, keys | open_keys, started_at)


def _limit_approvals(transaction: Transaction, callers: Mapping[int, Caller]) -> dict[int, Caller]:
    """Return the callers with what resets of passwords mean for their approvals."""
    limits = load_approval_limits(transaction)
    return {
        number: replace(caller, limits=limits.get(number, NO_LIMITS))
        for number, caller in callers.items()
    }


def _build_callers(
    users: Iterable[StoredUser],
    roles_by_user: Mapping[int, Sequence[AssignedRole]],
    head: AccessLedgerHead,
) -> dict[int, Caller]:
    return {
        user.number: build_caller(user, tuple(roles_by_user.get(user.number, ())), head.revision)
        for user in users
        if user.disabled_at is None
    }


def _remove_written_uses(
    uses: dict[UseKey, datetime], written_uses: Mapping[UseKey, datetime]
) -> None:
    for use_key, at in written_uses.items():
        if uses.get(use_key) == at:
            del uses[use_key]
