"""Sign-in by password, one-time link or identity provider.

Each starts a session. An unknown name costs the same work as a known one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from argon2 import PasswordHasher

from rollout.core.access.access_events import IdentityLinked, PasswordSet
from rollout.core.errors import (
    InvalidAccountError,
    NotAllowedError,
    UnauthenticatedError,
)
from rollout.core.scope.permissions import Caller
from rollout.services.access.access_state import (
    AccessChange,
    open_access_change,
    require_self_or_admin,
)
from rollout.services.access.keys import TOKEN_BYTES, read_token, write_token
from rollout.services.access.login_throttle import LoginThrottle
from rollout.services.access.passwords import PasswordWorkers
from rollout.services.access.users import initialize_access
from rollout.services.support.clock import Clock
from rollout.store.access.access_ledger import AccessLedger
from rollout.store.access.one_time_links import OneTimeLinks
from rollout.store.access.sessions import Sessions, hash_session_token
from rollout.store.access.users import StoredUser, Users
from rollout.store.database.session import Database, Transaction

SESSION_LIFETIME = timedelta(hours=12)
"""Time after which a session ends, used or not."""
SIGN_IN_REFUSED = (
    "the name or the password is wrong, or they may not sign in; ask an admin for a link"
)
INVALID_LINK = "this link is not valid: it works once, for a day; ask an admin for another"
NO_SESSION = "there is no session; start one with `POST /v1/session`"
UNKNOWN_IDENTITY = "no user has the identity provider's account; ask an admin to add you"


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A new session with its cookie token and page token."""

    name: str
    token: str = field(repr=False)
    csrf: str = field(repr=False)
    expires_at: datetime


class SignIn:
    """Sign-in in one replica; failures are counted in memory."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Callable[[int], bytes],
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._database, self._clock, self._entropy = database, clock, entropy
        self._passwords = PasswordWorkers(PasswordHasher() if hasher is None else hasher)
        self._name_throttle = LoginThrottle(free_attempts=5)
        self._address_throttle = LoginThrottle(free_attempts=20)

    def sign_in_with_password(
        self, user_name: str, password: str, *, address: str, at: datetime
    ) -> StartedSession:
        """Start a session by password.

        Raises:
            UnauthenticatedError: the name or password is wrong, or the user may not sign in; the
                error is the same.
            TooManyAttemptsError: this name or address failed too often; says how long to wait.
        """
        with self._count_attempt(user_name, address):
            user, stored_hash = self._load_user_and_hash(user_name)
            if not self._is_right_password(stored_hash, password) or user is None:
                raise UnauthenticatedError(SIGN_IN_REFUSED)
        new_hash = None
        if stored_hash is not None and self._passwords.needs_rehash(stored_hash):
            new_hash = self._passwords.hash(password)
        with self._database.begin_write() as transaction:
            AccessLedger(transaction)
            if self._load_password_hash(transaction, user_name) != stored_hash:
                raise UnauthenticatedError(SIGN_IN_REFUSED)
            if new_hash is not None:
                Users(transaction).set_password(user, new_hash)
            return self._start_session(transaction, user, at)

    def sign_in_with_link(
        self, token: str, password: str, *, at: datetime, address: str, user_name: str = ""
    ) -> StartedSession:
        """Set a password by a one-time link, and start a session.

        `user_name` names the first admin; other links ignore it.

        Raises:
            UnauthenticatedError: the link is unknown, used or expired.
            InvalidAccountError: the password or the first admin's name is invalid; the link stays
                valid.
            TooManyAttemptsError: this address failed too often.
        """
        with self._count_attempt("", address):
            own_words = self._list_link_words(token, user_name, at)
            self._passwords.check_strength(password, own_words)
            password_hash = self._passwords.hash(password)
            return self._use_link(token, user_name, password_hash, at)

    def _list_link_words(self, token: str, user_name: str, at: datetime) -> tuple[str, ...]:
        """Return the words of a link's account; an invalid link costs no work."""
        with self._database.begin_read() as transaction:
            is_valid, user = OneTimeLinks(transaction).find_valid(token, at=at)
        if not is_valid:
            raise UnauthenticatedError(INVALID_LINK)
        return (user_name,) if user is None else (user.name, user.email)

    def _use_link(
        self, token: str, user_name: str, password_hash: str, at: datetime
    ) -> StartedSession:
        with self._database.begin_write() as transaction:
            access_ledger = AccessLedger(transaction)
            is_valid, user = OneTimeLinks(transaction).redeem(token, at=at)
            if not is_valid:
                raise UnauthenticatedError(INVALID_LINK)
            users = Users(transaction)
            if user is None:
                access_ledger.append(initialize_access(transaction, user_name, at))
                user = users.find(user_name)
                assert user is not None  # noqa: S101 - added just before
            _store_password(transaction, access_ledger, user, user.name, password_hash, at)
            return self._start_session(transaction, user, at)

    def sign_in_with_identity(
        self, issuer: str, subject: str, email: str, *, at: datetime
    ) -> StartedSession:
        """Start a session for an identity provider's subject.

        The first time, a verified e-mail address links the subject to a user; later the subject
        alone identifies them. No user is added and no role granted. `email` is "" if not verified.

        Raises:
            UnauthenticatedError: no user who may sign in has this identity.
        """
        with self._database.begin_write() as transaction:
            access_ledger, users = AccessLedger(transaction), Users(transaction)
            user = users.find_by_identity(issuer, subject)
            if user is None and email:
                user = users.find_by_email(email)
                if user is None or not users.link_identity(user, issuer, subject, at=at):
                    raise UnauthenticatedError(UNKNOWN_IDENTITY)
                link_event = IdentityLinked(at=at, by=user.name, user=user.name, issuer=issuer)
                access_ledger.append([link_event])
            if user is None or user.is_service_account or user.disabled_at is not None:
                raise UnauthenticatedError(UNKNOWN_IDENTITY)
            return self._start_session(transaction, user, at)

    def start_demo_session(self, user_name: str, *, at: datetime) -> StartedSession:
        """Start a session of a user whom the live demo's own link has identified.

        Raises:
            UnauthenticatedError: there is no such user, or they may not sign in.
        """
        with self._database.begin_write() as transaction:
            AccessLedger(transaction)
            user = Users(transaction).find(user_name)
            if user is None or user.is_service_account or user.disabled_at is not None:
                raise UnauthenticatedError(SIGN_IN_REFUSED)
            return self._start_session(transaction, user, at)

    def set_password(
        self,
        caller: Caller,
        user_name: str,
        password: str,
        *,
        at: datetime,
        current_password: str | None = None,
        skips_current: bool = False,
    ) -> None:
        """Set a password; all sessions and links of the user end.

        Users with a password must give `current_password` for their own; a command on the database
        itself sets `skips_current`.

        Raises:
            NotAllowedError: the caller is another user and no admin, or the current password is
                wrong.
            UnknownUserError: there is no such user.
            InvalidAccountError: the password is invalid, or the user can't sign in.
            TooManyAttemptsError: the current password was wrong too often.
        """
        require_self_or_admin(caller, user_name, "set the password")
        if caller.name == user_name and not skips_current:
            self._check_current_password(user_name, current_password or "")
        user = self._load_user_and_hash(user_name)[0]
        own_words = (user_name,) if user is None else (user_name, user.email)
        self._passwords.check_strength(password, own_words)
        password_hash = self._passwords.hash(password)
        with open_access_change(self._database, caller) as change:
            require_self_or_admin(change.caller, user_name, "set the password")
            user = _get_sign_in_user(change, user_name)
            _store_password(
                change.transaction, change.access_ledger, user, caller.name, password_hash, at
            )

    def load_current_session(self, token: str) -> StartedSession:
        """Return the session of a token, for a reloaded page.

        Authentication checks its expiry.

        Raises:
            UnauthenticatedError: there is no such session, or it ended.
        """
        with self._database.begin_read() as transaction:
            session = Sessions(transaction).find(hash_session_token(read_token(token)))
            if session is None:
                raise UnauthenticatedError(NO_SESSION)
            user_name = Users(transaction).get_by_id(session.user_id).name
        return StartedSession(user_name, token, write_token(session.csrf), session.expires_at)

    def sign_out(self, token: str, *, at: datetime) -> None:
        """End a session; repeating it is safe."""
        with self._database.begin_write() as transaction:
            Sessions(transaction).end(hash_session_token(read_token(token)), at=at)

    def sign_out_everywhere(self, caller: Caller, user_name: str, *, at: datetime) -> None:
        """End one's own sessions, or any user's as admin.

        Raises:
            NotAllowedError: the caller is another user and no admin.
            UnknownUserError: there is no such user.
        """
        require_self_or_admin(caller, user_name, "end the sessions")
        with open_access_change(self._database, caller) as change:
            require_self_or_admin(change.caller, user_name, "end the sessions")
            Sessions(change.transaction).end_all(change.get_user(user_name), at=at)

    @contextmanager
    def _count_attempt(self, user_name: str, address: str) -> Iterator[None]:
        """Raise if the name or address must wait; count a failed attempt."""
        now = self._clock.read_boot_clock()
        throttles = [
            (throttle, key)
            for throttle, key in (
                (self._name_throttle, user_name),
                (self._address_throttle, address),
            )
            if key
        ]
        for throttle, throttle_key in throttles:
            throttle.check_allowed(throttle_key, now=now)
        try:
            yield
        except (UnauthenticatedError, NotAllowedError):
            for throttle, throttle_key in throttles:
                throttle.record_failure(throttle_key, now=now)
            raise
        self._name_throttle.reset(user_name)

    def _check_current_password(self, user_name: str, current_password: str) -> None:
        stored_hash = self._load_user_and_hash(user_name)[1]
        with self._count_attempt(user_name, ""):
            if stored_hash is not None and not self._is_right_password(
                stored_hash, current_password
            ):
                raise NotAllowedError("the current password is wrong; an admin can create a link")

    def _load_user_and_hash(self, user_name: str) -> tuple[StoredUser | None, str | None]:
        with self._database.begin_read() as transaction:
            return Users(transaction).find(user_name), self._load_password_hash(
                transaction, user_name
            )

    def _load_password_hash(self, transaction: Transaction, user_name: str) -> str | None:
        users = Users(transaction)
        user = users.find(user_name)
        return None if user is None or user.is_service_account else users.load_password_hash(user)

    def _is_right_password(self, stored_hash: str | None, password: str) -> bool:
        """Compare, with the same work if there is no password."""
        dummy_hash = self._dummy_hash  # computed at the first attempt
        is_match = self._passwords.is_match(stored_hash or dummy_hash, password)
        return is_match and stored_hash is not None

    @cached_property
    def _dummy_hash(self) -> str:
        return self._passwords.hash(write_token(self._entropy(TOKEN_BYTES)))

    def _start_session(
        self, transaction: Transaction, user: StoredUser, at: datetime
    ) -> StartedSession:
        token, csrf = self._entropy(TOKEN_BYTES), self._entropy(TOKEN_BYTES)
        expires_at = at + SESSION_LIFETIME
        Sessions(transaction).start(user, token, csrf, at=at, expires_at=expires_at)
        return StartedSession(user.name, write_token(token), write_token(csrf), expires_at)


def _get_sign_in_user(change: AccessChange, user_name: str) -> StoredUser:
    user = change.get_user(user_name)
    if user.is_service_account or user.disabled_at is not None:
        raise InvalidAccountError(
            f"{user_name} is a service account or disabled, and can't sign in"
        )
    return user


def _store_password(
    transaction: Transaction,
    access_ledger: AccessLedger,
    user: StoredUser,
    by: str,
    password_hash: str,
    at: datetime,
) -> None:
    Users(transaction).set_password(user, password_hash)
    Sessions(transaction).end_all(user, at=at)
    OneTimeLinks(transaction).end_links(user, at=at)
    access_ledger.append([PasswordSet(at=at, by=by, user=user.name)])
