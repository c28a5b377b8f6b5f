"""Argon2 in a process of low priority, so that sign-ins never take the processors from a stop.

A thread of low priority would not do: it could be suspended while it holds the interpreter's lock.
The process reads requests from its input, a line of JSON each, and ends with its parent.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Final, TextIO

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

log = logging.getLogger("rollout.passwords")
NICENESS: Final = 10
"""A tenth of the share of a process of usual priority; alone it runs at full speed."""
COMMAND: Final = (sys.executable, "-P", "-m", "rollout.features.access.hashing_process")
"""`-P` keeps modules of the working directory out."""
ENDED: Final = "the process that hashes passwords failed: %s; this password is hashed here"


class HashingProcess:
    """The process of one replica, started at the first hash; for one thread at a time."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command, self._hasher = tuple(command), PasswordHasher()
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def hash(self, password: str) -> str:
        """Return the argon2 text of a password."""
        answer = self._ask({"password": password})
        return self._hasher.hash(password) if answer is None else str(answer)

    def verify(self, hash: str, password: str) -> bool:  # noqa: A002 - argon2's name
        """Return True.

        Raises:
            VerificationError: the password has another hash.
            InvalidHashError: the text is none of argon2.
        """
        answer = self._ask({"password": password, "hash": hash})
        if answer is None:
            return self._hasher.verify(hash, password)
        if not answer:
            raise VerifyMismatchError("the password has another hash")
        return True

    def check_needs_rehash(self, hash: str) -> bool:  # noqa: A002 - argon2's name
        """Return whether other parameters made the text."""
        return self._hasher.check_needs_rehash(hash)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, request: Mapping[str, str]) -> object:
        """Return the process's answer; None if it has none, so that sign-in still works."""
        with self._lock:
            try:
                answer = self._exchange(request)
            except (OSError, ValueError) as error:
                log.warning(ENDED, error)
                answer = None
            if answer is None:
                self._end()
            return answer

    def _exchange(self, request: Mapping[str, str]) -> object:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as asked
        assert self._process.stdout is not None  # noqa: S101 - a pipe, as asked
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            log.warning(ENDED, "it has ended")
            return None
        return json.loads(line)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError):  # a request that nobody read is still buffered
                process.__exit__(None, None, None)


def answer_request(hasher: PasswordHasher, request: Mapping[str, str]) -> str | bool:
    """Return a new hash, or whether the password has the given one."""
    if "hash" not in request:
        return hasher.hash(request["password"])
    try:
        return hasher.verify(request["hash"], request["password"])
    except (VerificationError, InvalidHashError):
        return False


def serve_requests(source: TextIO, target: TextIO) -> None:
    """Answer each line of a source, until it ends."""
    hasher = PasswordHasher()
    for line in source:
        target.write(json.dumps(answer_request(hasher, json.loads(line))) + "\n")
        target.flush()


def main() -> None:
    """Answer the parent's requests; Ctrl-C is the parent's matter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    serve_requests(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
