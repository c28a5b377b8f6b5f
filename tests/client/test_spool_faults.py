"""Bad disks, damaged files, second processes and odd answers lose no record and stop no upload."""

import json
import multiprocessing
import os
import threading

import pytest

from rollout_client import durable_files
from rollout_client.connection import ServiceReply, parse_retry_after
from rollout_client.folder_claims import SpoolInUseError
from rollout_client.spool import RecordSpool
from rollout_client.uploads import RecordUploader, UnavailableError, UploadCounts
from tests.client.test_uploads import FakeService, build_records, build_uploader, list_keys


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill_disk(monkeypatch):
    """Let each write stop after a few bytes, as on a full disk."""
    write = os.write

    def write_some(descriptor, content):
        write(descriptor, bytes(content)[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable_files.os, "write", write_some)


def test_a_full_disk_adds_nothing_and_leaves_nothing_behind(tmp_path, monkeypatch):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    names, size = list_names(tmp_path), spool.size
    with monkeypatch.context() as patch:
        fill_disk(patch)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                spool.add(build_records("b"))
    assert (list_names(tmp_path), spool.size) == (names, size)
    spool.add(build_records("c"))
    assert list_keys(spool.read_batch().lines) == ["a", "c"]


def test_a_full_disk_while_refused_records_are_kept_leaves_no_half_line(tmp_path, monkeypatch):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    uploader, _ = build_uploader(spool, FakeService(["rejected"], ["rejected"], ["conflict"]))
    uploader.upload()
    spool.add(build_records("b"))
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(OSError, match="No space"):
            uploader.upload()
    assert uploader.upload() == UploadCounts(refused=1)
    assert [row["record"]["key"] for row in spool.list_refused()] == ["a", "b"]
    assert spool.size == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_failed_shortening_keeps_the_count_of_bytes(tmp_path, monkeypatch):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a", "b"))
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(OSError, match="No space"):
            build_uploader(spool, FakeService(["accepted", "not_stored"]))[0].upload()
    assert spool.size == sum(path.stat().st_size for path in tmp_path.iterdir()) > 0
    assert list_keys(spool.read_batch().lines) == ["a", "b"]


def test_half_a_refused_line_of_a_killed_append_is_cut_off(tmp_path):
    whole = b'{"reason": "no", "record": {"key": "a"}}\n'
    (tmp_path / "refused.ndjson").write_bytes(whole + b'{"reason": "no", "rec')
    spool = RecordSpool(tmp_path)
    spool.add(build_records("b"))
    build_uploader(spool, FakeService(["rejected"]))[0].upload()
    assert [row["record"]["key"] for row in spool.list_refused()] == ["a", "b"]
    assert spool.requeue_refused() == 2


@pytest.mark.parametrize("damage", [b'{"key": "d', b"\xff\xfe\x00", b"\x00\x00\x00"])
def test_a_damaged_record_is_kept_aside_and_the_others_are_sent(tmp_path, damage):
    (tmp_path / "000000000001.ndjson").write_bytes(b'{"key": "a"}\n\n' + damage + b"\n")
    spool, service = RecordSpool(tmp_path), FakeService()
    service.send_lines = lambda body: ServiceReply(
        200,
        b"".join(
            b'{"status": "accepted"}\n' if line.endswith(b"}") else b'{"status": "rejected"}\n'
            for line in body.splitlines()
        ),
    )
    spool.add(build_records("b"))
    assert build_uploader(spool, service)[0].upload() == UploadCounts(stored=2, refused=1)
    assert [row["reason"] for row in spool.list_refused()] == ["rejected: "]


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    for name in ("notes.ndjson", "copy.new", "000000000001 (copy).ndjson"):
        (tmp_path / name).write_bytes(b"mine\n")
    (tmp_path / "lost+found").mkdir()
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    build_uploader(spool, FakeService())[0].upload()
    assert list_names(tmp_path) == [
        "000000000001 (copy).ndjson",
        "copy.new",
        "lost+found",
        "notes.ndjson",
    ]


def test_a_second_spool_of_a_folder_is_refused_until_the_first_is_closed(tmp_path):
    spool = RecordSpool(tmp_path)
    with pytest.raises(SpoolInUseError, match="another spool"):
        RecordSpool(tmp_path)
    spool.close()
    RecordSpool(tmp_path).add(build_records("a"))


def use_in_child(spool, told):
    for use in (
        lambda: spool.add(build_records("b")),
        lambda: spool.settle(spool.read_batch(), {0: "no"}),
        lambda: spool.settle(spool.read_batch(), {}),
    ):
        try:
            use()
        except SpoolInUseError:
            told.put("in use")
    told.put("done")


@pytest.mark.slow
def test_a_forked_process_does_not_overwrite_its_parents_files(tmp_path):
    spool, forks = RecordSpool(tmp_path), multiprocessing.get_context("fork")
    told = forks.SimpleQueue()
    spool.add(build_records("a"))
    child = forks.Process(target=use_in_child, args=(spool, told))
    child.start()
    child.join(20)
    assert [told.get() for _ in range(4)] == ["in use", "in use", "in use", "done"]
    with pytest.raises(SpoolInUseError):
        RecordSpool(tmp_path)  # the child's end released nothing
    assert list_keys(spool.read_batch().lines) == ["a"]
    assert spool.list_refused() == []


def test_nan_is_refused_as_it_is_added(tmp_path):
    spool = RecordSpool(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        spool.add([{"kind": "prediction", "confidence": float("nan")}])
    assert list_names(tmp_path) == []


@pytest.mark.parametrize("record", [{"kind": "case", "key": "a"}, '{"kind": "case"}'])
def test_one_record_instead_of_a_list_is_refused(tmp_path, record):
    """Seen: its names were spooled as records, and the service refused each."""
    with pytest.raises(TypeError, match=r"write add\(\[record\]\)"):
        RecordSpool(tmp_path).add(record)
    assert list_names(tmp_path) == []


class SmallService(FakeService):
    """Takes at most so many records in a request."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def send_lines(self, body):
        if len(body.splitlines()) > self.limit:
            self.batches.append(len(body.splitlines()))
            return ServiceReply(413, b"too large")
        return super().send_lines(body)


def test_a_request_that_is_too_large_is_sent_in_parts_in_order(tmp_path):
    spool, service = RecordSpool(tmp_path), SmallService(3)
    spool.add(build_records(*"abcdefg"))
    spool.add(build_records("h"))
    uploader, waits = build_uploader(spool, service)
    assert uploader.upload() == UploadCounts(stored=8)
    assert (list(service.stored), waits, spool.list_refused()) == (list("abcdefgh"), [], [])
    assert spool.size == 0


def test_one_record_that_is_too_large_is_kept_aside(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    uploader, _ = build_uploader(spool, SmallService(0))
    assert uploader.upload() == UploadCounts(refused=1)
    assert spool.list_refused()[0]["reason"] == "413: too large"


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[1]", b"null", b'"accepted"', b"[" * 100_000, b'{"status": [1]}'],
    ids=["a page", "a list", "null", "a text", "deep", "an odd status"],
)
def test_odd_results_are_tried_again_or_kept_aside(tmp_path, body):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    uploader, _ = build_uploader(spool, FakeService(ServiceReply(200, body)))
    counts = uploader.upload()
    assert counts.stored + counts.refused == 1


def test_long_reasons_dont_burst_the_folder(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    row = json.dumps({"status": "rejected", "reason": "x" * 100_000}).encode()
    build_uploader(spool, FakeService(ServiceReply(200, row)))[0].upload()
    assert spool.size < 500


@pytest.mark.parametrize(
    "text",
    [
        "9" * 400,
        "-5",
        "1.5",
        "soon",
        "",
        " ",
        ",",
        "1 Jan",
        "Sun, 06 Nov 1994 08:49:37 +" + "9" * 30,
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Sun, 99 Nov 1994 99:99:99 GMT",
        "\u0663",
    ],
)
def test_any_retry_after_is_a_finite_wait(tmp_path, text):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    wait = parse_retry_after(text)
    uploader, waits = build_uploader(spool, FakeService(ServiceReply(503, b"", wait)))
    uploader.upload()
    assert 1 <= waits[0] <= 3_600


def test_two_uploads_at_once_send_each_record_once(tmp_path):
    spool, service = RecordSpool(tmp_path), FakeService()
    asked, may_go = threading.Event(), threading.Event()

    def send_slowly(body):
        asked.set()
        assert may_go.wait(10)
        return service.send_lines(body)

    spool.add(build_records("a", "b"))
    uploader = RecordUploader(spool, send_slowly)
    threads = [threading.Thread(target=uploader.upload) for _ in range(2)]
    threads[0].start()
    assert asked.wait(10)
    threads[1].start()  # as after a cancelled task, whose thread goes on
    may_go.set()
    for thread in threads:
        thread.join()
    assert service.batches == [["a", "b"]]


def test_a_service_that_is_away_keeps_all(tmp_path):
    spool = RecordSpool(tmp_path)
    spool.add(build_records("a"))
    uploader, _ = build_uploader(spool, FakeService(*[ServiceReply(302, b"")] * 2))
    with pytest.raises(UnavailableError, match="302"):
        uploader.upload(max_attempts=2)
    assert list_keys(spool.read_batch().lines) == ["a"]
