"""Sign-in by password, one-time link or identity provider, and waiting times after failures.

Each way starts a session. An unknown name costs the same work as a known one.

Failures are counted in memory; each replica counts for itself. A wait is at most half a minute.
Failures from elsewhere never slow a user at an address from which they signed in before, so that
nobody can lock them out.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

from rollout.data.access.tokens import (
    AccessLedger,
    OneTimeLinks,
    Sessions,
    SignInAddresses,
    hash_secret,
    hash_session_token,
)
from rollout.data.access.users import SecondFactors, StoredUser, Users
from rollout.data.database.session import Database, Transaction
from rollout.engine.decide.permissions import Caller
from rollout.engine.ledger.access_events import IdentityLinked, PasswordRehashed, PasswordSet
from rollout.features.access.access_state import (
    open_access_change,
    require_self_or_admin,
)
from rollout.features.access.credentials import (
    PROVIDER,
    STALE_CHALLENGE,
    Argon2Hasher,
    AuthenticatorCodes,
    PasswordWork,
    PasswordWorkers,
)
from rollout.features.access.keys import TOKEN_BYTES, SecretKey, read_token, write_token
from rollout.features.access.users import PASSWORD, initialize_access, record_reset
from rollout.kernel.errors import (
    CodeRequiredError,
    NotAllowedError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from rollout.live.clock import Clock

MAX_WAIT = 30.0  # seconds
RESET_AFTER = 900.0  # seconds without a failure
MAX_KEYS = 10_000  # names and addresses in memory
IPV6_NETWORK_BITS = 64  # one customer has all addresses of such a network


@dataclass(frozen=True, slots=True)
class LoginFailures:
    """Number of failures, and the last one in seconds since boot."""

    count: int
    last_at: float

    def compute_wait(self, free_attempts: int, now: float) -> float:
        """Return the seconds until the next attempt; at most 0 means now.

        >>> (
        ...     LoginFailures(count=5, last_at=0.0).compute_wait(5, 0.25),
        ...     LoginFailures(count=9, last_at=0.0).compute_wait(5, 0.0),
        ... )
        (0.75, 16.0)
        """
        if self.count < free_attempts:
            return 0.0
        return float(self.last_at + min(MAX_WAIT, 2.0 ** min(self.count - free_attempts, 10)) - now)


class LoginThrottle:
    """Recent failures by name or address; `free_attempts` may fail without wait."""

    def __init__(self, free_attempts: int) -> None:
        self._free_attempts = free_attempts
        self._failures: OrderedDict[str, LoginFailures] = OrderedDict()
        self._lock = Lock()

    def check_allowed(self, key: str, *, now: float) -> None:
        """Raise if this name or address must wait.

        Raises:
            TooManyAttemptsError: says how long to wait.
        """
        with self._lock:
            wait = (
                self._failures[key].compute_wait(self._free_attempts, now)
                if key in self._failures
                else 0.0
            )
        if wait > 0:
            raise TooManyAttemptsError(
                f"too many failed attempts; wait {int(wait) + 1} s and try again"
            )

    def record_failure(self, key: str, *, now: float) -> None:
        """Count a failure."""
        with self._lock:
            failures = self._failures.pop(key, LoginFailures(0, now))
            count = 0 if now - failures.last_at > RESET_AFTER else failures.count
            self._failures[key] = LoginFailures(count + 1, now)
            if len(self._failures) > MAX_KEYS:
                self._failures.popitem(last=False)

    def reset(self, key: str) -> None:
        """Forget the failures after a success."""
        with self._lock:
            self._failures.pop(key, None)


class SignInLimits:
    """Limits per account and address, per address, and per account over all addresses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pairs = LoginThrottle(free_attempts=5)
        self._addresses = LoginThrottle(free_attempts=20)
        self._accounts = LoginThrottle(free_attempts=10)

    @contextmanager
    def count_attempt(
        self, user_name: str, address: str, *, is_known_address: bool
    ) -> Iterator[None]:
        """Raise if the attempt must wait; count it if it fails.

        Args:
            user_name: the account, "" if the attempt names none.
            address: where the attempt comes from, "" for a command on this machine.
            is_known_address: whether the account signed in from there before.

        Raises:
            TooManyAttemptsError: says how long to wait.
        """
        now, network = self._clock.read_boot_clock(), find_network(address)
        pair = f"{user_name} {network}"
        checks = [(self._pairs, pair)] if user_name else []
        checks += [(self._addresses, network)] if network else []
        checks += [] if is_known_address or not user_name else [(self._accounts, user_name)]
        for throttle, key in checks:
            throttle.check_allowed(key, now=now)
        try:
            yield
        except CodeRequiredError:
            raise  # neither a failure nor a success: guessed codes stay counted
        except (UnauthenticatedError, NotAllowedError):
            for throttle, key in checks:
                throttle.record_failure(key, now=now)
            raise
        self._pairs.reset(pair)


@lru_cache(maxsize=1_024)  # each request asks
def find_network(address: str) -> str:
    """Return what one attacker has of addresses: an IPv4 address, or an IPv6 network.

    >>> find_network("10.0.0.1"), find_network("2001:db8::7"), find_network("testclient")
    ('10.0.0.1', '2001:db8::/64', 'testclient')
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), IPV6_NETWORK_BITS), strict=False))


SESSION_LIFETIME = timedelta(hours=12)
"""Time after which a session ends, used or not."""
SIGN_IN_REFUSED = (
    "the name or the password is wrong, or they may not sign in; ask an admin for a link"
)
INVALID_LINK = "this link is not valid: it works once, for a day; ask an admin for another"
CODE_REQUIRED = "enter the code of your authenticator app, or a recovery code"
PROVIDER_ONLY = "you sign in through your organisation, which asks for its own second factor"
CODE_AFTER_LINK = "the password is set; sign in with it and a code of your authenticator app"
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
        hasher: Argon2Hasher | None = None,
        codes: AuthenticatorCodes | None = None,
    ) -> None:
        self._database, self._entropy = database, entropy
        self._passwords = PasswordWorkers(hasher)
        self.codes = codes or AuthenticatorCodes(database, SecretKey("", entropy), entropy)
        self._limits, self._dummy_hash = SignInLimits(clock), ""

    def sign_in_with_password(
        self, user_name: str, password: str, *, address: str, at: datetime, code: str = ""
    ) -> StartedSession:
        """Start a session by password, and by a code if the user has a second factor.

        Raises:
            UnauthenticatedError: the name, password or code is wrong, or the user may not sign in;
                the error is the same for name and password.
            CodeRequiredError: the password is right and `code` is missing; its challenge stands
                for the password.
            TooManyAttemptsError: there were too many failures; says how long to wait.
        """
        with self._passwords.reserve() as work, self._count_attempt(user_name, address):
            user, stored_hash = self._load_user_and_hash(user_name)
            is_right = self._is_right_password(work, stored_hash, password)
            if not is_right or user is None or stored_hash is None:
                raise UnauthenticatedError(SIGN_IN_REFUSED)
            if not code and self._has_second_factor(user):
                challenge = self.codes.build_challenge(user, stored_hash, at=at)
                raise CodeRequiredError(CODE_REQUIRED, challenge)
            new_hash = None
            if self._passwords.needs_rehash(stored_hash):
                new_hash = work.hash(password)
            return self._finish_sign_in(user, stored_hash, code, address, at, new_hash)

    def sign_in_with_challenge(
        self, challenge: str, code: str, *, address: str, at: datetime
    ) -> StartedSession:
        """Start a session by a code, after `CodeRequiredError`.

        Raises:
            UnauthenticatedError: the code is wrong, or the challenge is no longer valid.
            TooManyAttemptsError: there were too many failures; says how long to wait.
        """
        user_name, password_mark = self.codes.read_challenge(challenge, at=at)
        with self._count_attempt(user_name, address):
            user, stored_hash = self._load_user_and_hash(user_name)
            if (
                user is None
                or stored_hash is None
                or hash_secret(stored_hash).hex() != password_mark
            ):
                raise UnauthenticatedError(STALE_CHALLENGE)
            return self._finish_sign_in(user, stored_hash, code, address, at)

    def _finish_sign_in(
        self,
        user: StoredUser,
        stored_hash: str,
        code: str,
        address: str,
        at: datetime,
        new_hash: str | None = None,
    ) -> StartedSession:
        """Start the session, unless the password changed or the code is wrong."""
        with self._database.begin_write() as transaction:
            access_ledger = AccessLedger(transaction)
            if self._load_password_hash(transaction, user.name) != stored_hash:
                raise UnauthenticatedError(SIGN_IN_REFUSED)
            second_factor = ""
            if user.number in SecondFactors(transaction).list_confirmed():
                second_factor = self.codes.use_code(transaction, access_ledger, user, code, at=at)
            if new_hash is not None:
                Users(transaction).set_password(user, new_hash)
                access_ledger.append([PasswordRehashed(at=at, by=user.name, user=user.name)])
            SignInAddresses(transaction).add(user, find_network(address), at=at)
            return self._start_session(transaction, user, at, second_factor)

    def sign_in_with_link(
        self, token: str, password: str, *, at: datetime, address: str, user_name: str = ""
    ) -> StartedSession:
        """Set a password by a one-time link, and start a session.

        `user_name` names the first admin; other links ignore it.

        Raises:
            UnauthenticatedError: the link is unknown, used or expired.
            CodeRequiredError: the password is set, but the account also needs a code to sign in.
            InvalidAccountError: the password or the first admin's name is invalid; the link stays
                valid.
            TooManyAttemptsError: this address failed too often.
        """
        with self._passwords.reserve() as work, self._count_attempt("", address):
            work.check_strength(password, self._list_link_words(token, user_name, at))
            started_session = self._use_link(token, user_name, work.hash(password), address, at)
        if started_session is None:
            raise CodeRequiredError(CODE_AFTER_LINK, "")
        return started_session

    def _list_link_words(self, token: str, user_name: str, at: datetime) -> tuple[str, ...]:
        """Return the words of a link's account; an invalid link costs no work."""
        with self._database.begin_read() as transaction:
            is_valid, user = OneTimeLinks(transaction).find_valid(token, at=at)
        if not is_valid:
            raise UnauthenticatedError(INVALID_LINK)
        return (user_name,) if user is None else (user.name, user.email)

    def _use_link(
        self, token: str, user_name: str, password_hash: str, address: str, at: datetime
    ) -> StartedSession | None:
        """Set the password; return None if the account also needs a code."""
        with self._database.begin_write() as transaction:
            access_ledger = AccessLedger(transaction)
            is_valid, user = OneTimeLinks(transaction).redeem(token, at=at)
            if not is_valid:
                raise UnauthenticatedError(INVALID_LINK)
            users = Users(transaction)
            admin = OneTimeLinks(transaction).find_creator(token)
            if user is None:
                access_ledger.append(initialize_access(transaction, user_name, at))
                user = users.find(user_name)
                assert user is not None  # noqa: S101 - added just before
            by = user.name if admin is None else admin.name
            _store_password(
                transaction, access_ledger, user, user.name, password_hash, at, reset_by=by
            )
            if user.number in SecondFactors(transaction).list_confirmed():
                return None  # the transaction is committed, and the code is asked at sign-in
            SignInAddresses(transaction).add(user, find_network(address), at=at)
            return self._start_session(transaction, user, at)

    def sign_in_with_identity(
        self,
        issuer: str,
        subject: str,
        email: str,
        *,
        at: datetime,
        has_second_factor: bool = False,
    ) -> StartedSession:
        """Start a session for an identity provider's subject.

        The first time, a verified e-mail address links the subject to a user; later the subject
        alone identifies them. No user is added and no role granted. `email` is "" if not verified.
        `has_second_factor` says whether the provider asked for a second factor.

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
                users.record_credential(user, at=at)
                access_ledger.append(
                    [IdentityLinked(at=at, by=user.name, user=user.name, issuer=issuer)]
                )
            if user is None or user.is_service_account or user.disabled_at is not None:
                raise UnauthenticatedError(UNKNOWN_IDENTITY)
            return self._start_session(transaction, user, at, PROVIDER if has_second_factor else "")

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
        is_own = caller.name == user_name and not skips_current
        with self._passwords.reserve() as work:
            if is_own:
                self._check_current_password(work, user_name, current_password or "")
            user = self._load_user_and_hash(user_name)[0]
            work.check_strength(password, (user_name,) if user is None else (user_name, user.email))
            password_hash = work.hash(password)
        with open_access_change(self._database, caller) as change:
            require_self_or_admin(change.caller, user_name, "set the password")
            user = change.get_sign_in_user(user_name)
            _store_password(
                change.transaction,
                change.access_ledger,
                user,
                caller.name,
                password_hash,
                at,
                reset_by="" if is_own else caller.name,
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

    def check_own_password(self, caller: Caller, password: str, *, address: str) -> None:
        """Raise unless this is the caller's password, before a change of their sign-in.

        Raises:
            NotAllowedError: it is wrong, or the caller has none.
            TooManyAttemptsError: it was wrong too often.
        """
        with self._passwords.reserve() as work:
            if self._load_user_and_hash(caller.name)[1] is None:
                raise NotAllowedError(PROVIDER_ONLY)
            self._check_current_password(work, caller.name, password, address)

    def remove_second_factor(
        self, caller: Caller, code: str, *, address: str, at: datetime
    ) -> None:
        """Remove the caller's second factor, by a code of it; guesses are counted.

        Raises:
            UnauthenticatedError: the code is wrong.
            InvalidAccountError: there is none.
            TooManyAttemptsError: codes or passwords were wrong too often.
        """
        # a session stands behind this attempt, so failures elsewhere must not slow it
        with self._limits.count_attempt(caller.name, address, is_known_address=True):
            self.codes.remove_own(caller, code, at=at)

    def _count_attempt(self, user_name: str, address: str) -> AbstractContextManager[None]:
        """Raise if the name or address must wait; count a failed attempt."""
        with self._database.begin_read() as transaction:
            user = Users(transaction).find(user_name) if user_name else None
            is_known_address = user is not None and SignInAddresses(transaction).has(
                user, find_network(address)
            )
        return self._limits.count_attempt(user_name, address, is_known_address=is_known_address)

    def _check_current_password(
        self, work: PasswordWork, user_name: str, current_password: str, address: str = ""
    ) -> None:
        stored_hash = self._load_user_and_hash(user_name)[1]
        # a session stands behind this attempt, so failures elsewhere must not slow it
        with self._limits.count_attempt(user_name, address, is_known_address=True):
            if stored_hash is not None and not self._is_right_password(
                work, stored_hash, current_password
            ):
                raise NotAllowedError("the current password is wrong; an admin can create a link")

    def _has_second_factor(self, user: StoredUser) -> bool:
        with self._database.begin_read() as transaction:
            return user.number in SecondFactors(transaction).list_confirmed()

    def _load_user_and_hash(self, user_name: str) -> tuple[StoredUser | None, str | None]:
        with self._database.begin_read() as transaction:
            return Users(transaction).find(user_name), self._load_password_hash(
                transaction, user_name
            )

    def _load_password_hash(self, transaction: Transaction, user_name: str) -> str | None:
        users = Users(transaction)
        user = users.find(user_name)
        return None if user is None or user.is_service_account else users.load_password_hash(user)

    def _is_right_password(
        self, work: PasswordWork, stored_hash: str | None, password: str
    ) -> bool:
        """Compare, with the same work if there is no password."""
        if not self._dummy_hash:  # computed at the first attempt
            self._dummy_hash = work.hash(write_token(self._entropy(TOKEN_BYTES)))
        is_match = work.is_match(stored_hash or self._dummy_hash, password)
        return is_match and stored_hash is not None

    def _start_session(
        self, transaction: Transaction, user: StoredUser, at: datetime, second_factor: str = ""
    ) -> StartedSession:
        token, csrf = self._entropy(TOKEN_BYTES), self._entropy(TOKEN_BYTES)
        expires_at = at + SESSION_LIFETIME
        Sessions(transaction).start(
            user, token, csrf, at=at, expires_at=expires_at, second_factor=second_factor
        )
        return StartedSession(user.name, write_token(token), write_token(csrf), expires_at)


def _store_password(
    transaction: Transaction,
    access_ledger: AccessLedger,
    user: StoredUser,
    by: str,
    password_hash: str,
    at: datetime,
    *,
    reset_by: str,
) -> None:
    """Store a password; `reset_by` is "" if the user gave the current one."""
    users = Users(transaction)
    is_reset = bool(reset_by) and users.has_had_credential(user)
    users.set_password(user, password_hash)
    users.record_credential(user, at=at)
    Sessions(transaction).end_all(user, at=at)
    OneTimeLinks(transaction).end_links(user, at=at)
    access_ledger.append([PasswordSet(at=at, by=by, user=user.name)])
    if is_reset:
        record_reset(transaction, access_ledger, user, reset_by, PASSWORD, at=at)
