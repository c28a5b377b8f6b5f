"""The client for programs with an event loop: what waits for network or disk runs in a thread."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rollout_client.assignments import LocalAssignment
from rollout_client.client import EdgeClient
from rollout_client.questions import LocalQuestion
from rollout_client.spool import RecordSpool
from rollout_client.uploads import RecordUploader, UploadCounts


class AsyncEdgeClient:
    """An edge client whose renewals and uploads are awaited; decisions never wait for them.

    `decide` and `decide_all` compute for microseconds. `hand_over` holds as it returns: it writes
    two small files.
    """

    def __init__(self, client: EdgeClient) -> None:
        self.client = client

    def decide(
        self,
        site: str,
        at: datetime | None,
        version: str,
        key: str,
        episode: str = "",
        confidence: float | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> LocalAssignment:
        """Return who decides a case; in doubt the human."""
        return self.client.decide(site, at, version, key, episode, confidence, attributes)

    def decide_all(self, questions: Iterable[LocalQuestion]) -> list[LocalAssignment]:
        """Return who decides each of many cases."""
        return self.client.decide_all(questions)

    def hand_over(self) -> None:
        """Let a human decide every case until a snapshot has a newer ledger head."""
        self.client.hand_over()

    async def renew(self) -> None:
        """Fetch the scope; see `EdgeClient.renew`."""
        await asyncio.to_thread(self.client.renew)


async def add_records(spool: RecordSpool, records: Iterable[Mapping[str, Any]]) -> None:
    """Store records durably; see `RecordSpool.add`."""
    await asyncio.to_thread(spool.add, records)


async def upload_records(uploader: RecordUploader, max_attempts: int = 8) -> UploadCounts:
    """Send all spooled records; see `RecordUploader.upload`."""
    return await asyncio.to_thread(uploader.upload, max_attempts)
