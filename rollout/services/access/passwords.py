"""The rule for passwords, and the threads that hash and judge them.

Passwords are hashed by argon2 with its default parameters, and again when these change. Hashes are
made one at a time and in a process of low priority (`hashing_process`), because stops need the same
processors. An attempt reserves its place in the line before it reads the database.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Final, Protocol, TypeVar

from rollout.core.errors import InvalidAccountError, TooManyAttemptsError

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
        ...

    def verify(self, hash: str, password: str) -> bool:  # noqa: A002 - argon2's name
        """Return True, or raise `VerificationError`."""
        ...

    def check_needs_rehash(self, hash: str) -> bool:  # noqa: A002 - argon2's name
        """Return whether other parameters made the text."""
        ...


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
