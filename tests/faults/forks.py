"""Work in forked processes: each starts warm, with everything imported, and dies without a trace.

A process that forks must not have used Polars: its threads do not survive a fork, and the
child would wait for them for ever. Importing it is harmless, and is what makes a fork warm.
"""

import os
import pickle
import selectors
import signal
import time
import traceback
from dataclasses import dataclass
from typing import Any

PATIENCE = 90  # seconds of one trial: more means that it hangs


@dataclass(frozen=True)
class Died:
    """A process ended without an answer, by a signal (negative) or with a code."""

    by: int
    said: tuple[Any, ...] = ()


class Fork:
    """A process that does one thing and answers by a pipe.

    `work` is given a function by which it may say something before it has its answer.
    """

    def __init__(self, work):
        reads, writes = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reads)
            _child(work, writes)
        os.close(writes)
        self.pipe, self.since, self._read = reads, time.monotonic(), bytearray()

    def more(self):
        """Read what has come; say whether more may come."""
        chunk = os.read(self.pipe, 1 << 16)
        self._read += chunk
        return bool(chunk)

    def answer(self):
        """Wait for its end and return the answer, or `Died`."""
        while self.more():
            pass
        return self.end()

    def end(self):
        """Return the answer of a process whose pipe is closed."""
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        messages = _messages(self._read)
        if messages and messages[-1][0] == "answer":
            return messages[-1][1]
        return Died(os.waitstatus_to_exitcode(status), tuple(what for _, what in messages))

    def kill(self):
        """End it."""
        os.kill(self.pid, signal.SIGKILL)


def _child(work, writes):
    code = 1
    try:
        with os.fdopen(writes, "wb") as pipe:

            def say(kind, what):
                pipe.write(_packed(kind, what))
                pipe.flush()

            try:
                say("answer", work(lambda message: say("said", message)))
                code = 0
            except BaseException:  # noqa: BLE001 - the parent reports it; nobody else can
                say("said", traceback.format_exc())
    finally:
        os._exit(code)


def _packed(kind, what):
    body = pickle.dumps((kind, what))
    return len(body).to_bytes(8, "big") + body


def _messages(read):
    messages, start = [], 0
    while start + 8 <= len(read):
        end = start + 8 + int.from_bytes(read[start : start + 8], "big")
        if end > len(read):
            break  # it died while writing
        messages.append(pickle.loads(read[start + 8 : end]))  # noqa: S301 - of our own child
        start = end
    return messages


def each(works, at_once):
    """Do works in forked processes, `at_once` at a time; yield (work's number, answer)."""
    waiting, running = list(enumerate(works)), {}
    with selectors.DefaultSelector() as selector:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, work = waiting.pop(0)
                fork = Fork(work)
                running[fork.pipe] = (number, fork)
                selector.register(fork.pipe, selectors.EVENT_READ)
            for key, _ in selector.select(timeout=1):
                number, fork = running[key.fd]
                if not fork.more():
                    selector.unregister(key.fd)
                    del running[key.fd]
                    yield number, fork.end()
            for _, fork in running.values():
                if time.monotonic() - fork.since > PATIENCE:
                    fork.kill()
