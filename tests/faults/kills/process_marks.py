"""What a process is doing at this instant, in memory that outlives its SIGKILL.

A process counts each action when it begins and when it ends. The counts lie in shared memory, so
that the one who kills it can prove afterwards that it died inside an action.
"""

import mmap
import os
import struct
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

ACTIONS = ("ingest", "tick", "approve", "stop", "resume", "report", "migrate", "backup")
COUNTS = struct.Struct("=QQd")  # begun, ended, seconds of those that ended
POINT = struct.Struct("=32s")
REGION = len(ACTIONS) * COUNTS.size + POINT.size


class MarkBoard:
    """Shared memory with a region for each process that may be killed."""

    def __init__(self, processes):
        """Allocate it; forks that come later share it, other processes by its path."""
        file, self.path = tempfile.mkstemp(prefix="rollout-marks-")
        os.truncate(file, processes * REGION)
        self._memory = mmap.mmap(file, 0)
        os.close(file)

    def region(self, number):
        """Return the marks of one process."""
        return ProcessMarks(self._memory, number * REGION)

    def close(self):
        """Delete its file."""
        Path(self.path).unlink()


def open_region(path, number):
    """Return the marks of one process on a board that another one allocated."""
    with Path(path).open("r+b") as file:
        return ProcessMarks(mmap.mmap(file.fileno(), 0), number * REGION)


class ProcessMarks:
    """The marks of one process: written by it, read by others."""

    def __init__(self, memory, start):
        self._memory, self._start, self._lock = memory, start, Lock()

    def clear(self):
        """Forget everything, before another process uses the region."""
        self._memory[self._start : self._start + REGION] = bytes(REGION)

    def begin(self, action):
        """Note that an action has begun."""
        with self._lock:
            begun, ended, seconds = self.read(action)
            self._write(action, begun + 1, ended, seconds)

    def end(self, action, seconds):
        """Note that an action has ended, which took some seconds."""
        with self._lock:
            begun, ended, before = self.read(action)
            self._write(action, begun, ended + 1, before + seconds)

    @contextmanager
    def inside(self, action):
        """Mark a block as part of an action."""
        self.begin(action)
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.end(action, time.monotonic() - started_at)

    def read(self, action):
        """Return how often an action has begun and ended, and the seconds of those that ended."""
        return COUNTS.unpack_from(self._memory, self._find_place(action))

    def is_inside(self, action):
        """Return whether the process is, or died, inside an action."""
        begun, ended, _ = self.read(action)
        return begun > ended

    def set_point(self, name):
        """Note the last fault point that was reached."""
        POINT.pack_into(self._memory, self._start + REGION - POINT.size, name.encode()[:32])

    def read_point(self):
        """Return the last fault point that was reached, or ""."""
        (name,) = POINT.unpack_from(self._memory, self._start + REGION - POINT.size)
        return name.rstrip(b"\0").decode()

    def _write(self, action, *counts):
        COUNTS.pack_into(self._memory, self._find_place(action), *counts)

    def _find_place(self, action):
        return self._start + ACTIONS.index(action) * COUNTS.size
