"""A folder that one process uses at a time: two would overwrite each other's files."""

import os
from pathlib import Path
from typing import Any

locks: Any
try:
    import fcntl as locks
except ImportError:  # Windows: nothing is claimed there
    locks = None


class SpoolInUseError(Exception):
    """Another spool, here or in another process, uses the folder."""


class FolderClaim:
    """The claim on a folder, until it is released or the process ends, however it ends.

    Raises:
        SpoolInUseError: it is claimed.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        self._folder, self._process = folder, os.getpid()
        if locks is None:
            return
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            locks.flock(self._descriptor, locks.LOCK_EX | locks.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise SpoolInUseError(f"{folder} is used by another spool") from None
        except OSError:  # a file system without locks
            self.release()

    def check(self) -> None:
        """Raise `SpoolInUseError` in a process that was forked from the one with the claim."""
        if os.getpid() != self._process:
            raise SpoolInUseError(f"{self._folder} is used by the process that this one is of")

    def release(self) -> None:
        """Let others claim the folder."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        """Release it with the spool."""
        self.release()
