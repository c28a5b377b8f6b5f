"""Credentials of users: second factors, the rule for passwords, and the hashing of passwords.

Second factors are codes of an authenticator app (RFC 6238), and recovery codes. A code of the app
works once, and in its own half minute, the one before and the one after.

Passwords are hashed by argon2 with its default parameters, and again when these change. Hashes are
made one at a time and in a process of low priority (`hashing_process`), because stops need the same
processors. An attempt reserves its place in the line before it reads the database.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from threading import BoundedSemaphore
from typing import Final, Protocol, TypeVar

import pyotp

from rollout.data.access.tokens import AccessLedger, Sessions, hash_secret, hash_session_token
from rollout.data.access.users import SecondFactors, StoredFactor, StoredUser, Users
from rollout.data.database.session import Database, Transaction
from rollout.engine.decide.permissions import Caller
from rollout.engine.ledger.access_events import (
    RecoveryCodeUsed,
    SecondFactorAdded,
    SecondFactorRemoved,
)
from rollout.features.access.access_state import (
    AccessChange,
    open_access_change,
    open_admin_change,
)
from rollout.features.access.keys import SecretKey, SecretKeyError, read_token, write_token
from rollout.features.access.users import SECOND_FACTOR, record_reset
from rollout.kernel.errors import (
    InvalidAccountError,
    TooManyAttemptsError,
    UnauthenticatedError,
)

APP_CODE, RECOVERY_CODE, PROVIDER = "code", "recovery", "provider"
"""Kinds of second factors that a session or key can have."""
SECRET_BYTES: Final = 20
STEP_SECONDS: Final = 30
DIGITS: Final = 6
RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 15  # 120 bits: a plain hash can not be searched
CHALLENGE_LIFETIME: Final = timedelta(minutes=5)
ISSUER: Final = "rollout"
WRONG_CODE = "this code is wrong or was used already; wait for the next one, or use a recovery code"
STALE_CHALLENGE = "this sign-in took too long, or the password changed; begin again"
NO_FACTOR = "there is no second factor to confirm; start again under Settings"
FACTOR_EXISTS = "there is a second factor already; remove it first, with a code of it"


@dataclass(frozen=True, slots=True)
class FactorEnrolment:
    """A new second factor that waits for its first code; to be shown only to its user."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FactorSummary:
    """Whether and since when a user has a second factor."""

    confirmed_at: datetime | None
    recovery_codes_left: int


class AuthenticatorCodes:
    """Second factors of users, with their secrets encrypted by a key outside the database."""

    def __init__(self, database: Database, key: SecretKey, entropy: Callable[[int], bytes]) -> None:
        self._database, self._key, self._entropy = database, key, entropy

    def load_summary(self, user_name: str) -> FactorSummary:
        """Return whether a user has a confirmed second factor."""
        with self._database.begin_read() as transaction:
            user = Users(transaction).find(user_name)
            factors = SecondFactors(transaction)
            factor = None if user is None else factors.find(user)
            if user is None or factor is None or factor.confirmed_at is None:
                return FactorSummary(None, 0)
            return FactorSummary(factor.confirmed_at, factors.count_recovery_codes(user))

    def begin_enrolment(self, caller: Caller, *, at: datetime) -> FactorEnrolment:
        """Store a new secret for the caller; it is asked for once a code of it was given.

        Raises:
            InvalidAccountError: the caller has a second factor, or is a service account.
            SecretKeyError: the key file can't be used.
        """
        secret = base64.b32encode(self._entropy(SECRET_BYTES)).decode()
        with open_access_change(self._database, caller) as change:
            user = _get_own_user(change)
            factors = SecondFactors(change.transaction)
            if _is_confirmed(factors.find(user)):
                raise InvalidAccountError(FACTOR_EXISTS)
            if not factors.has_any():
                self._key.create()
            factors.add(user, self._key.encrypt(secret.encode(), _build_purpose(user)), at=at)
        return FactorEnrolment(
            secret, pyotp.TOTP(secret).provisioning_uri(name=caller.name, issuer_name=ISSUER)
        )

    def load_enrolment(self, caller: Caller) -> FactorEnrolment | None:
        """Return the caller's unconfirmed enrolment, for a page shown again."""
        with self._database.begin_read() as transaction:
            user = Users(transaction).find(caller.name)
            factor = None if user is None else SecondFactors(transaction).find(user)
        if user is None or factor is None or factor.confirmed_at is not None:
            return None
        secret = self._key.decrypt(factor.secret, _build_purpose(user)).decode()
        return FactorEnrolment(
            secret, pyotp.TOTP(secret).provisioning_uri(name=caller.name, issuer_name=ISSUER)
        )

    def confirm_enrolment(
        self, caller: Caller, code: str, *, session_token: str, at: datetime
    ) -> tuple[str, ...]:
        """Confirm the new second factor by a code; return its recovery codes, shown once.

        The session has the second factor from then on; all others of the user end.

        Raises:
            UnauthenticatedError: the code is wrong.
            InvalidAccountError: nothing waits to be confirmed.
        """
        with open_access_change(self._database, caller) as change:
            user, factors = _get_own_user(change), SecondFactors(change.transaction)
            factor = factors.find(user)
            if factor is None or factor.confirmed_at is not None:
                raise InvalidAccountError(NO_FACTOR)
            if not self._use_app_code(factors, user, factor, code, at):
                raise UnauthenticatedError(WRONG_CODE)
            codes = tuple(
                _format_recovery_code(self._entropy(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)
            )
            code_hashes = [_hash_recovery_code(recovery_code) for recovery_code in codes]
            factors.confirm(user, at=at, code_hashes=code_hashes)
            token_hash = hash_session_token(read_token(session_token))
            sessions = Sessions(change.transaction)
            sessions.end_others(user, token_hash, at=at)
            sessions.set_second_factor(token_hash, APP_CODE)
            change.access_ledger.append(
                [SecondFactorAdded(at=at, by=caller.name, user=caller.name)]
            )
            return codes

    def remove_own(self, caller: Caller, code: str, *, at: datetime) -> None:
        """Remove the caller's second factor, by a code of it.

        Raises:
            UnauthenticatedError: the code is wrong.
            InvalidAccountError: there is none.
        """
        with open_access_change(self._database, caller) as change:
            user = _get_own_user(change)
            if not _is_confirmed(SecondFactors(change.transaction).find(user)):
                raise InvalidAccountError(NO_FACTOR)
            self.use_code(change.transaction, change.access_ledger, user, code, at=at)
            SecondFactors(change.transaction).remove(user)
            Sessions(change.transaction).end_all(user, at=at)
            change.access_ledger.append(
                [SecondFactorRemoved(at=at, by=caller.name, user=caller.name)]
            )

    def use_code(
        self,
        transaction: Transaction,
        access_ledger: AccessLedger,
        user: StoredUser,
        code: str,
        *,
        at: datetime,
    ) -> str:
        """Use a code of a user's second factor; return its kind.

        Raises:
            UnauthenticatedError: the code is wrong or was used.
        """
        factors = SecondFactors(transaction)
        factor = factors.find(user)
        if factor is not None and self._use_app_code(factors, user, factor, code, at):
            return APP_CODE
        if factors.use_recovery_code(user, _hash_recovery_code(code), at=at):
            access_ledger.append([RecoveryCodeUsed(at=at, by=user.name, user=user.name)])
            return RECOVERY_CODE
        raise UnauthenticatedError(WRONG_CODE)

    def build_challenge(self, user: StoredUser, password_hash: str, *, at: datetime) -> str:
        """Return a token that proves the password for some minutes, without a session."""
        expires_at = (at + CHALLENGE_LIFETIME).timestamp()
        content = [user.name, hash_secret(password_hash).hex(), expires_at]
        return write_token(self._key.encrypt(json.dumps(content).encode(), b"challenge"))

    def read_challenge(self, challenge: str, *, at: datetime) -> tuple[str, str]:
        """Return the user's name and the hash of the password hash of a challenge.

        Raises:
            UnauthenticatedError: it is invalid or too old.
        """
        try:
            content = self._key.decrypt(read_token(challenge), b"challenge")
            user_name, password_mark, expires_at = json.loads(content)
        except SecretKeyError as error:
            raise UnauthenticatedError(STALE_CHALLENGE) from error
        if at.timestamp() >= expires_at:
            raise UnauthenticatedError(STALE_CHALLENGE)
        return user_name, password_mark

    def _use_app_code(
        self,
        factors: SecondFactors,
        user: StoredUser,
        factor: StoredFactor,
        code: str,
        at: datetime,
    ) -> bool:
        secret = self._key.decrypt(factor.secret, _build_purpose(user)).decode()
        step = find_code_step(secret, code, at)
        return step is not None and factors.use_step(user, step)


def find_code_step(secret: str, code: str, at: datetime) -> int | None:
    """Return the time step of a code, at most one from now, or None if it is wrong.

    >>> from datetime import UTC
    >>> find_code_step(
    ...     "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "287 082", datetime.fromtimestamp(59, UTC)
    ... )
    1
    """
    digits = "".join(code.split())
    if len(digits) != DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    codes = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_SECONDS)
    now = int(at.timestamp()) // STEP_SECONDS
    steps = [step for step in (now - 1, now, now + 1) if step > 0]
    matches = [step for step in steps if compare_digest(codes.generate_otp(step), digits)]
    return max(matches, default=None)


def reset_second_factor(
    database: Database, caller: Caller, user_name: str, *, at: datetime
) -> None:
    """Remove a user's second factor as admin; their sessions end.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
        UnknownUserError: there is no such user.
        InvalidAccountError: the user has no second factor.
    """
    with open_admin_change(database, caller) as change:
        user = change.get_user(user_name)
        if not SecondFactors(change.transaction).remove(user):
            raise InvalidAccountError(f"{user_name} has no second factor; nothing was changed")
        Sessions(change.transaction).end_all(user, at=at)
        record_reset(
            change.transaction, change.access_ledger, user, caller.name, SECOND_FACTOR, at=at
        )


def _get_own_user(change: AccessChange) -> StoredUser:
    user = change.get_user(change.caller.name)
    if user.is_service_account:
        raise InvalidAccountError(f"{user.name} is a service account, and can't sign in")
    return user


def _is_confirmed(factor: StoredFactor | None) -> bool:
    return factor is not None and factor.confirmed_at is not None


def _build_purpose(user: StoredUser) -> bytes:
    """Return what ties a secret to its user: copied to another row it can't be decrypted."""
    return f"second factor of {user.number}".encode()


def _format_recovery_code(random_bytes: bytes) -> str:
    text = base64.b32encode(random_bytes).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _hash_recovery_code(code: str) -> bytes:
    return hash_secret("".join(code.replace("-", "").split()).lower())


MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH = 12, 128  # letters
MIN_STRENGTH: Final = 3
"""Lowest accepted score of zxcvbn, 0 to 4: at least 10^8 guesses."""
JUDGED_LETTERS: Final = 72
"""Letters that zxcvbn judges; its time grows with the square of the length."""
MAX_CONCURRENT_HASHES = 1
"""Concurrent password hashes. Each takes 64 MiB and all processors for some 50 ms.

The thread only waits for them. It has the usual priority: one of low priority could be suspended
while it holds the interpreter's lock, which would hold up a stop.
"""
MAX_WAITING_HASHES = 6
"""Attempts in the line, the running one included; more are refused, as each holds a thread."""
LINE_FULL: Final = "too many sign in at once; try again in a few seconds"
PRODUCT_WORDS: Final = ("rollout", "shadow", "approver", "operator")
T = TypeVar("T")


class Argon2Hasher(Protocol):
    """What hashes: `argon2.PasswordHasher`, here or in another process."""

    def hash(self, password: str) -> str:
        """Return the argon2 text of a password."""

    def verify(self, hash: str, password: str) -> bool:  # noqa: A002 - argon2's name
        """Return True, or raise `VerificationError`."""

    def check_needs_rehash(self, hash: str) -> bool:  # noqa: A002 - argon2's name
        """Return whether other parameters made the text."""


def create_hasher() -> Argon2Hasher:
    """Return argon2's hasher with its default parameters."""
    from argon2 import PasswordHasher

    return PasswordHasher()


def check_password(password: str, own_words: Iterable[str]) -> None:
    """Raise an error unless the password is long and hard to guess.

    `own_words` are the account's name and e-mail address, which an attacker tries first.

    Raises:
        InvalidAccountError: the text says what to change.
    """
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise InvalidAccountError(
            f"a password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} letters; a sentence is"
            " fine"
        )
    from zxcvbn import zxcvbn

    words = [word for text in own_words for word in (text, *re.split(r"[\W_]+", text)) if word]
    result = zxcvbn(password[:JUDGED_LETTERS], user_inputs=[*words, *PRODUCT_WORDS])
    if result["score"] < MIN_STRENGTH:
        raise InvalidAccountError(
            "this password is too easy to guess; use four or more unusual words, without your name,"
            " years or rows of keys"
        )


@dataclass(frozen=True, slots=True)
class PasswordWork:
    """A reserved place in the line of password hashes."""

    hasher: Argon2Hasher
    threads: ThreadPoolExecutor

    def check_strength(self, password: str, own_words: Iterable[str]) -> None:
        """Raise an error unless the password meets the rule.

        Raises:
            InvalidAccountError: the text says what to change.
        """
        self._run(lambda: check_password(password, own_words))

    def hash(self, password: str) -> str:
        """Return the argon2 text of a password."""
        return self._run(lambda: self.hasher.hash(password))

    def is_match(self, stored_hash: str, password: str) -> bool:
        """Return whether a password has this argon2 text."""
        return self._run(lambda: self._verify(stored_hash, password))

    def _verify(self, stored_hash: str, password: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        with suppress(VerificationError, InvalidHashError):
            return self.hasher.verify(stored_hash, password[: MAX_PASSWORD_LENGTH + 1])
        return False

    def _run(self, work: Callable[[], T]) -> T:
        return self.threads.submit(work).result()


class PasswordWorkers:
    """Hashes and judges passwords, one at a time."""

    def __init__(self, hasher: Argon2Hasher | None = None) -> None:
        """Start no thread yet; without a hasher the first password imports argon2."""
        self._given_hasher = hasher
        self._waiting_slots = BoundedSemaphore(MAX_WAITING_HASHES)
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT_HASHES, thread_name_prefix="passwords")

    @contextmanager
    def reserve(self) -> Iterator[PasswordWork]:
        """Reserve a place in the line for a whole attempt; a full line costs nothing else.

        Raises:
            TooManyAttemptsError: too many wait already; try again in a few seconds.
        """
        if not self._waiting_slots.acquire(blocking=False):
            raise TooManyAttemptsError(LINE_FULL)
        try:
            yield PasswordWork(self._hasher, self._threads)
        finally:
            self._waiting_slots.release()

    @property
    def _hasher(self) -> Argon2Hasher:
        if self._given_hasher is None:
            self._given_hasher = create_hasher()
        return self._given_hasher

    def needs_rehash(self, stored_hash: str) -> bool:
        """Return whether the parameters changed since it was made."""
        return self._hasher.check_needs_rehash(stored_hash)
