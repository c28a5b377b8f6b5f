"""Uploads of spooled records: tried again while the service can't answer, never after a refusal."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from random import random
from typing import Any, Final, NamedTuple

from rollout_client.connection import ServiceReply
from rollout_client.spool import RecordSpool, SpooledBatch

STORED: Final = frozenset({"accepted", "duplicate"})
TO_SEND_AGAIN: Final = frozenset({"not_stored", "unknown"})
WORTH_A_RETRY: Final = frozenset({408, 425, 429})
"""Statuses of 4xx that a later request may not get."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0


class UploadCounts(NamedTuple):
    """Records by what became of them."""

    stored: int = 0
    refused: int = 0


class UnavailableError(Exception):
    """The service can't answer now; `retry_after` are the seconds that it asks to wait, or None."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(slots=True)
class RecordUploader:
    """Sends the records of a spool.

    Attributes:
        send_lines: sends NDJSON; `ServiceConnection.send_lines`.
        sleep, draw: waits, and draws from [0, 1); tests replace them.
    """

    spool: RecordSpool
    send_lines: Callable[[bytes], ServiceReply]
    max_records: int = 1_000
    sleep: Callable[[float], Any] = time.sleep
    draw: Callable[[], float] = random

    def upload(self, max_attempts: int = 8) -> UploadCounts:
        """Send all records; wait longer after each failure in a row, and at least `Retry-After`.

        A refused record is kept aside with its reason: `RecordSpool.list_refused`.

        Raises:
            UnavailableError: so many attempts in a row have failed; the rest stays in the spool.
        """
        counts, failures = UploadCounts(), 0
        while (batch := self.spool.read_batch(self.max_records)).lines:
            try:
                done = self._send_batch(batch)
                failures = 0
                counts = UploadCounts(counts.stored + done.stored, counts.refused + done.refused)
            except UnavailableError as error:
                failures += 1
                if failures >= max_attempts:
                    raise
                self.sleep(self._compute_delay(failures, error.retry_after))
        return counts

    def _compute_delay(self, failures: int, retry_after: float | None) -> float:
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0**failures)
        return max(longest * (0.5 + self.draw() / 2), retry_after or 0.0)

    def _send_batch(self, batch: SpooledBatch) -> UploadCounts:
        try:
            reply = self.send_lines(b"".join(line + b"\n" for line in batch.lines))
        except (OSError, HTTPException) as error:
            raise UnavailableError(f"no response: {error}") from error
        if 400 <= reply.status < 500 and reply.status not in WORTH_A_RETRY:
            reason = f"{reply.status}: {reply.body[:500].decode(errors='replace')}"
            self.spool.settle(batch, dict.fromkeys(range(len(batch.lines)), reason))
            return UploadCounts(refused=len(batch.lines))
        if reply.status != 200:
            raise UnavailableError(f"the service answered {reply.status}", reply.retry_after)
        return self._settle_results(batch, reply)

    def _settle_results(self, batch: SpooledBatch, reply: ServiceReply) -> UploadCounts:
        """Keep what each line's result says is not stored."""
        try:
            results = [json.loads(line) for line in reply.body.splitlines()]
            statuses = [result["status"] for result in results]
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"the results can't be read: {error!r}") from error
        if len(results) != len(batch.lines):
            raise UnavailableError(f"{len(results)} results of {len(batch.lines)} records came")
        unsent = [n for n, status in enumerate(statuses) if status in TO_SEND_AGAIN]
        refused = {
            n: f"{status}: {results[n].get('reason', '')}"
            for n, status in enumerate(statuses)
            if status not in STORED | TO_SEND_AGAIN
        }
        self.spool.settle(batch, refused, unsent)
        if unsent:
            raise UnavailableError(f"the service could not store {len(unsent)} records")
        return UploadCounts(len(statuses) - len(refused), len(refused))
