"""Spooled records are sent at least once, none is dropped in silence, and no refusal is retried."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from rollout_client.asynchronous import add_records, renew_scope, upload_records
from rollout_client.connection import ServiceConnection, ServiceReply, parse_retry_after
from rollout_client.spool import RecordSpool, SpoolFullError
from rollout_client.uploads import RecordUploader, UnavailableError, UploadCounts
from tests.client.edge_clients import BEFORE, create_client
from tests.docs.pages import ROOT
from tests.factories import HOUR, NOON


def build_records(*keys):
    return [{"kind": "case", "key": key, "site": "creek"} for key in keys]


def list_keys(lines):
    return [json.loads(line)["key"] for line in lines]


class FakeService:
    """Answers uploads as it is told, then stores everything once."""

    def __init__(self, *replies):
        self.replies, self.stored, self.batches = list(replies), {}, []

    def send_lines(self, body):
        lines = body.splitlines()
        self.batches.append(list_keys(lines))
        reply = self.replies.pop(0) if self.replies else None
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, ServiceReply):
            return reply
        statuses = reply or ["accepted"] * len(lines)
        for line, status in zip(lines, statuses, strict=True):
            if status == "accepted":
                self.stored[json.loads(line)["key"]] = line
        rows = [json.dumps({"status": s, "reason": f"it is {s}"}) for s in statuses]
        return ServiceReply(200, "\n".join(rows).encode())


def build_uploader(spool, service, **changes):
    waits = []
    return RecordUploader(
        spool, service.send_lines, sleep=waits.append, draw=lambda: 0.0, **changes
    ), waits


def test_records_are_sent_in_their_order_and_then_gone(tmp_path):
    spool, service = RecordSpool(tmp_path / "spool"), FakeService()
    for keys in (("a", "b"), ("c",), ("d",)):
        spool.add(build_records(*keys))
    uploader, waits = build_uploader(spool, service, max_records=3)
    assert uploader.upload() == UploadCounts(stored=4)
    assert (service.batches, waits) == ([["a", "b", "c"], ["d"]], [])
    assert (list((tmp_path / "spool").iterdir()), spool.size) == ([], 0)


def test_a_full_spool_says_so_and_keeps_what_it_has(tmp_path):
    spool = RecordSpool(tmp_path, max_bytes=120)
    spool.add(build_records("a", "b"))
    size = spool.size
    with pytest.raises(SpoolFullError, match="don't fit"):
        spool.add(build_records("c"))
    assert (spool.size, list_keys(spool.read_batch().lines)) == (size, ["a", "b"])
    build_uploader(spool, FakeService())[0].upload()
    spool.add(build_records("c"))
    spool.close()
    assert RecordSpool(tmp_path, max_bytes=120).size == spool.size > 0


KILLED = """
import os, signal, sys
from pathlib import Path
from rollout_client.spool import RecordSpool
spool = RecordSpool(Path(sys.argv[1]))
spool.add([{"kind": "case", "key": "first"}])
step = sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if step == "between write and rename":
    Path.replace = die
elif step == "in the write":
    os.fsync = die
elif step == "after the rename":
    import rollout_client.durable_files as module
    module.sync_folder = die
spool.add([{"kind": "case", "key": "second"}])
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["in the write", "between write and rename", "after the rename"])
def test_after_a_kill_each_record_is_sent(tmp_path, step):
    code = [sys.executable, "-c", KILLED, str(tmp_path), step]
    env = {"PYTHONPATH": str(ROOT / "clients/python"), "PATH": os.environ["PATH"]}
    assert subprocess.run(code, env=env, check=False).returncode == -signal.SIGKILL
    service = FakeService()
    build_uploader(RecordSpool(tmp_path), service)[0].upload()
    assert list(service.stored) == ["first", "second"]


def test_half_a_line_of_a_killed_write_is_left_out(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    spool.close()
    (tmp_path / "000000000002.ndjson.new").write_bytes(b'{"key": "b"}\n{"key": "c')
    (tmp_path / "000000000003.ndjson.new").write_bytes(b'{"ke')
    spool = RecordSpool(tmp_path)
    assert list_keys(spool.read_batch().lines) == ["a", "b"]
    spool.add(build_records("d"))
    assert list_keys(spool.read_batch().lines) == ["a", "b", "d"]


def test_a_batch_that_is_killed_before_it_is_settled_is_sent_again(tmp_path):
    spool, service = RecordSpool(tmp_path), FakeService()
    spool.add(build_records("a", "b"))
    service.send_lines(b"".join(line + b"\n" for line in spool.read_batch().lines))
    spool.close()
    build_uploader(RecordSpool(tmp_path), service)[0].upload()
    assert service.batches == [["a", "b"], ["a", "b"]]


def test_it_waits_longer_after_each_failure_and_as_long_as_it_is_asked_to(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    busy = ServiceReply(429, b"", 90.0)
    broken = (ServiceReply(503, b""), OSError("no network"), busy, ServiceReply(200, b"not json"))
    uploader, waits = build_uploader(spool, FakeService(*broken))
    assert uploader.upload() == UploadCounts(stored=1)
    assert waits == [1.0, 2.0, 90.0, 8.0]
    uploader.draw = lambda: 1.0
    assert uploader._compute_delay(1, None) == 2.0
    assert uploader._compute_delay(30, None) == 300.0


def test_after_so_many_failures_the_rest_stays(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    uploader, waits = build_uploader(spool, FakeService(*[OSError("no network")] * 3))
    with pytest.raises(UnavailableError, match="no network"):
        uploader.upload(max_attempts=3)
    assert (len(waits), list_keys(spool.read_batch().lines)) == (2, ["a"])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_kept_with_its_reason_and_not_sent_again(tmp_path, status):
    spool, service = RecordSpool(tmp_path), FakeService(ServiceReply(status, b'{"detail": "no"}'))
    spool.add(build_records("a", "b"))
    uploader, waits = build_uploader(spool, service)
    assert uploader.upload() == UploadCounts(refused=2)
    assert (len(service.batches), waits) == (1, [])
    reason = f'{status}: {{"detail": "no"}}'
    assert [(row["record"]["key"], row["reason"]) for row in spool.list_refused()] == [
        ("a", reason),
        ("b", reason),
    ]
    assert spool.size > 0
    assert spool.requeue_refused() == 2
    assert uploader.upload() == UploadCounts(stored=2)
    assert (spool.list_refused(), spool.size) == ([], 0)


def test_each_records_own_status_decides_over_it(tmp_path):
    spool = RecordSpool(tmp_path)
    statuses = ["accepted", "duplicate", "conflict", "rejected", "not_stored", "unknown"]
    service = FakeService(statuses)
    spool.add(build_records("a", "b", "c"))
    spool.add(build_records("d", "e", "f"))
    uploader, waits = build_uploader(spool, service)
    uploader.upload()
    assert service.batches == [["a", "b", "c", "d", "e", "f"], ["e", "f"]]
    assert len(waits) == 1
    refused = [(row["record"]["key"], row["reason"]) for row in spool.list_refused()]
    assert refused == [("c", "conflict: it is conflict"), ("d", "rejected: it is rejected")]
    spool.clear_refused()
    assert (spool.size, list(tmp_path.iterdir())) == (0, [])


def test_too_few_results_settle_nothing(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a", "b"))
    service = FakeService(ServiceReply(200, b'{"status": "accepted"}'))
    uploader, _ = build_uploader(spool, service)
    assert uploader.upload() == UploadCounts(stored=2)
    assert service.batches == [["a", "b"]] * 2


def test_a_date_to_ask_again_is_read_as_seconds():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < parse_retry_after(soon) <= 60
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0


def test_only_web_addresses_are_asked():
    with pytest.raises(ValueError, match="no http"):
        ServiceConnection("file:///etc", "ro_key", "bears")


def test_an_event_loop_renews_decides_and_uploads(tmp_path):
    spool, service = RecordSpool(tmp_path), FakeService()

    async def work():
        client = create_client(BEFORE)
        await renew_scope(client)
        answer = client.decide("creek", NOON + HOUR, "v1", "k9")
        await add_records(spool, build_records("k9"))
        counts = await upload_records(build_uploader(spool, service)[0])
        client.hand_over()
        return answer.decider, counts, client.decide("creek", NOON + HOUR, "v1", "k9").decider

    assert asyncio.run(work()) == ("model", UploadCounts(stored=1), "human")
