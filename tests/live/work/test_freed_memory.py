"""Large blocks go back to the system when they are free, in a process that asks for it."""

import platform
import subprocess
import sys

import pytest

from api import serve

USE = """
import sys
from pathlib import Path
if sys.argv[1:]:
    from rollout.live.work.user_runs import return_freed_memory
    return_freed_memory()
def measure():
    text = Path("/proc/self/status").read_text().partition("RssAnon:")[2]
    return int(text.split()[0]) // 1024
first = bytearray(30 * 2**20)  # once it is freed, glibc keeps blocks of up to its size
del first
before, blocks = measure(), []
for _ in range(40):
    blocks.append((bytearray(b"x") * 2**20, bytearray(1_000)))  # the small one keeps the heap long
kept = [small for _, small in blocks]
blocks.clear()
print(measure() - before)
"""


def measure_kept(*words):
    command = [sys.executable, "-c", USE, *words]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps them")
def test_freed_blocks_are_given_back():
    kept, given_back = measure_kept(), measure_kept("return")
    assert kept > 30
    assert given_back < 5


def test_the_service_asks_for_it_before_anything_else(monkeypatch):
    class AskedError(Exception):
        """It was called."""

    def ask():
        raise AskedError

    monkeypatch.setattr(serve, "return_freed_memory", ask)
    with pytest.raises(AskedError):
        serve.serve("127.0.0.1", 0)
