"""Uploads of spooled records: tried again while the service can't answer, never after a refusal."""

import json
import time
from collections.abc import Callable
from http.client import HTTPException
from random import random
from threading import Lock
from typing import Any, Final, NamedTuple

from rollout_client.connection import ServiceReply
from rollout_client.spool import RecordSpool, SpooledBatch

STORED: Final = frozenset({"accepted", "duplicate"})
TO_SEND_AGAIN: Final = frozenset({"not_stored", "unknown"})
WORTH_A_RETRY: Final = frozenset({408, 425, 429})
"""Statuses of 4xx that a later request may not get."""
FIRST_DELAY, LONGEST_DELAY, LONGEST_RETRY_AFTER = 1.0, 300.0, 3_600.0
TOO_LARGE: Final = 413
MAX_REASON: Final = 200
"""Letters of a reason that are kept: the spool is bounded."""


class UploadCounts(NamedTuple):
    """Records by what became of them."""

    stored: int = 0
    refused: int = 0


class UnavailableError(Exception):
    """The service can't answer now; `retry_after` are the seconds that it asks to wait, or None."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RecordUploader:
    """Sends the records of a spool; one call at a time, others wait for it.

    Args:
        send_lines: sends NDJSON; `ServiceConnection.send_lines`.
        sleep, draw: waits, and draws from [0, 1); tests replace them.
    """

    def __init__(
        self,
        spool: RecordSpool,
        send_lines: Callable[[bytes], ServiceReply],
        max_records: int = 1_000,
        sleep: Callable[[float], Any] = time.sleep,
        draw: Callable[[], float] = random,
    ) -> None:
        self.spool, self.send_lines, self.max_records = spool, send_lines, max_records
        self.sleep, self.draw, self._lock = sleep, draw, Lock()

    def upload(self, max_attempts: int = 8) -> UploadCounts:
        """Send all records; wait longer after each failure in a row, and at least `Retry-After`.

        A refused record is kept aside with its reason: `RecordSpool.list_refused`.

        Raises:
            UnavailableError: so many attempts in a row have failed; the rest stays in the spool.
        """
        with self._lock:  # a cancelled task's thread goes on
            return self._upload(max_attempts)

    def _upload(self, max_attempts: int) -> UploadCounts:
        counts, failures, limit = UploadCounts(), 0, self.max_records
        while (batch := self.spool.read_batch(limit)).lines:
            try:
                done = self._send_batch(batch, limit)
                failures, limit = 0, self.max_records if done.refused else limit
                counts = UploadCounts(counts.stored + done.stored, counts.refused + done.refused)
            except _TooLargeError:
                limit = max(1, min(limit, len(batch.lines)) // 2)
            except UnavailableError as error:
                failures += 1
                if failures >= max_attempts:
                    raise
                self.sleep(self._compute_delay(failures, error.retry_after))
        return counts

    def _compute_delay(self, failures: int, retry_after: float | None) -> float:
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0**failures)
        wanted_delay = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
        return max(longest * (0.5 + self.draw() / 2), wanted_delay)

    def _send_batch(self, batch: SpooledBatch, limit: int) -> UploadCounts:
        """Send at most so many records of a batch; the others stay."""
        lines = batch.lines[:limit]
        rest = range(len(lines), len(batch.lines))
        try:
            reply = self.send_lines(b"".join(line + b"\n" for line in lines))
        except (OSError, HTTPException) as error:
            raise UnavailableError(f"no response: {error}") from error
        if 400 <= reply.status < 500 and reply.status not in WORTH_A_RETRY:
            if reply.status == TOO_LARGE and len(lines) > 1:
                raise _TooLargeError
            reason = f"{reply.status}: {reply.body[:MAX_REASON].decode(errors='replace')}"
            self.spool.settle(batch, dict.fromkeys(range(len(lines)), reason), rest)
            return UploadCounts(refused=len(lines))
        if reply.status != 200:
            raise UnavailableError(f"the service answered {reply.status}", reply.retry_after)
        results = _read_results(reply.body)
        if len(results) != len(lines):
            raise UnavailableError(f"{len(results)} results of {len(lines)} records came")
        unsent = [n for n, (status, _) in enumerate(results) if status in TO_SEND_AGAIN]
        refused = {
            n: f"{status}: {reason}"
            for n, (status, reason) in enumerate(results)
            if status not in STORED | TO_SEND_AGAIN
        }
        self.spool.settle(batch, refused, (*unsent, *rest))
        if unsent:
            raise UnavailableError(f"the service could not store {len(unsent)} records")
        return UploadCounts(len(results) - len(refused), len(refused))


class _TooLargeError(Exception):
    """The service takes only smaller requests."""


def _read_results(body: bytes) -> list[tuple[str, str]]:
    """Return the status and the reason of each record that was sent."""
    try:
        rows = [json.loads(line) for line in body.splitlines()]
        return [
            (str(row["status"])[:MAX_REASON], str(row.get("reason", ""))[:MAX_REASON])
            for row in rows
        ]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UnavailableError(f"the results can't be read: {error!r:.200}") from error
