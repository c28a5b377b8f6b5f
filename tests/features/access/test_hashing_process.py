"""Passwords are hashed in a process that yields to others, and here if it fails."""

import io
import json
import os
import sys

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from rollout.features.access.hashing_process import (
    COMMAND,
    NICENESS,
    HashingProcess,
    serve_requests,
)

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
TEXT = "a quiet brown otter \u00e4\n"


@pytest.fixture
def process():
    made = HashingProcess()
    yield made
    made.close()


@pytest.mark.slow
def test_another_process_of_low_priority_hashes_and_compares(process):
    stored_hash = process.hash(TEXT)
    child = process._process
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.nice(0) + NICENESS
    assert process.verify(stored_hash, TEXT)
    with pytest.raises(VerifyMismatchError):
        process.verify(QUICK.hash(TEXT), TEXT + "x")
    assert process._process is child  # one process for all
    assert not process.check_needs_rehash(stored_hash)
    assert process.check_needs_rehash(QUICK.hash(TEXT))
    process.close()
    assert child.returncode is not None


@pytest.mark.parametrize(
    "command",
    [("/nowhere/at-all",), (sys.executable, "-c", ""), (sys.executable, "-c", "print('no JSON')")],
    ids=["does not start", "ends", "babbles"],
)
def test_a_process_that_fails_keeps_nobody_out(command, caplog):
    process = HashingProcess(command)
    stored_hash = QUICK.hash(TEXT)
    assert process.verify(stored_hash, TEXT)
    with pytest.raises(VerifyMismatchError):
        process.verify(stored_hash, "another")
    assert "hashed here" in caplog.text
    assert TEXT not in caplog.text
    process._command = COMMAND  # the next request starts it anew
    assert process.verify(stored_hash, TEXT)
    assert process._process.poll() is None
    process.close()


def test_the_process_answers_each_line_until_its_parent_ends():
    stored_hash = QUICK.hash(TEXT)
    requests = [
        {"password": TEXT, "hash": stored_hash},
        {"password": "another", "hash": stored_hash},
        {"password": TEXT, "hash": "no hash"},
    ]
    target = io.StringIO()
    serve_requests(io.StringIO("".join(json.dumps(one) + "\n" for one in requests)), target)
    assert [json.loads(line) for line in target.getvalue().splitlines()] == [True, False, False]
