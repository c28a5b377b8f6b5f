"""A process that is killed at any step of adding, sending and settling loses no record."""

import json
import multiprocessing
import os
from itertools import count
from pathlib import Path

import pytest

from rollout_client import durable_files
from rollout_client.connection import ServiceReply
from rollout_client.spool import RecordSpool
from rollout_client.uploads import RecordUploader

KILLED = 9
STEPS = ((os, "write"), (os, "fsync"), (Path, "replace"), (Path, "unlink"))


def note(path, keys):
    with path.open("a") as file:
        file.write(keys)


def work_until(killed_at, folder):
    """Add and upload records, and end without any clean-up before a step."""
    steps = count(1)

    def count_steps(function):
        def step(*arguments, **options):
            if next(steps) == killed_at:
                os._exit(KILLED)
            return function(*arguments, **options)

        return step

    for owner, name in STEPS:
        setattr(owner, name, count_steps(getattr(owner, name)))
    spool, first = RecordSpool(folder / "spool"), []

    def send(body):
        statuses = []
        for line in body.splitlines():
            key = json.loads(line)["key"]
            status = {"b": "rejected", "d": "accepted" if first else "not_stored"}.get(key)
            statuses.append({"status": status or "accepted"})
            if status in {None, "accepted"}:
                note(folder / "stored", key)
        first.append(True)
        return ServiceReply(200, "\n".join(map(json.dumps, statuses)).encode())

    for keys in ("ab", "cde", "f"):
        spool.add([{"key": key} for key in keys])
        note(folder / "added", keys)
    RecordUploader(spool, send, sleep=lambda _: None).upload()
    os._exit(0)


def read_notes(path):
    return set(path.read_text()) if path.exists() else set()


@pytest.mark.slow
def test_no_record_is_lost_whatever_step_a_process_is_killed_at(tmp_path):
    assert durable_files.os is os
    for killed_at in range(1, 100):
        folder = tmp_path / str(killed_at)
        folder.mkdir()
        process = multiprocessing.get_context("fork").Process(
            target=work_until, args=(killed_at, folder)
        )
        process.start()
        process.join(20)
        spool = RecordSpool(folder / "spool")
        waiting = {json.loads(line)["key"] for line in spool.read_batch().lines}
        refused = {row["record"]["key"] for row in spool.list_refused()}
        known = waiting | refused | read_notes(folder / "stored")
        assert read_notes(folder / "added") <= known
        files = (folder / "spool").iterdir()
        assert spool.size == sum(path.stat().st_size for path in files)
        if process.exitcode == 0:
            break
        assert process.exitcode == KILLED
    assert killed_at > 20
    assert (waiting, refused) == (set(), {"b"})
