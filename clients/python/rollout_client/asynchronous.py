"""What waits for network or disk, for programs with an event loop: it runs in a thread.

`EdgeClient.decide` and `decide_all` wait for nothing. `hand_over` writes two small files, and holds
as it returns.
"""

from asyncio import to_thread
from collections.abc import Iterable, Mapping
from typing import Any

from rollout_client.client import EdgeClient
from rollout_client.spool import RecordSpool
from rollout_client.uploads import RecordUploader, UploadCounts


async def renew_scope(client: EdgeClient) -> None:
    """Fetch the scope; see `EdgeClient.renew`."""
    await to_thread(client.renew)


async def add_records(spool: RecordSpool, records: Iterable[Mapping[str, Any]]) -> None:
    """Store records durably; see `RecordSpool.add`."""
    await to_thread(spool.add, records)


async def upload_records(uploader: RecordUploader, max_attempts: int = 8) -> UploadCounts:
    """Send all spooled records; see `RecordUploader.upload`."""
    return await to_thread(uploader.upload, max_attempts)
