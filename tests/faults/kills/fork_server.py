"""A warm process that forks others: each starts with everything imported, and may be killed.

The campaign itself has threads, so it can't fork. This process has none: it imports the program,
waits for orders, and ends with all of its children when the campaign ends, however it does.
"""

import gc
import os
import signal
import socket
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock

import psutil


class ForkServer:
    """The process that forks, as the campaign talks to it."""

    def __init__(self, warm_up, run):
        """Fork it: it calls `warm_up` once, and `run` with the order in each child."""
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve_orders(Connection(theirs.detach()), warm_up, run)
        theirs.close()
        self._connection, self._lock = Connection(ours.detach()), Lock()

    def start(self, order):
        """Fork a child with an order; return its process id."""
        return self._ask("start", order)

    def kill(self, pid):
        """End a child by SIGKILL, and wait until it is gone; return how it ended."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def wait(self, pid):
        """Wait for the end of a child; return its exit code, negative for a signal."""
        return self._ask("wait", pid)

    def close(self):
        """End it and all of its children."""
        with self._lock:
            self._connection.close()
        os.waitpid(self.pid, 0)

    def _ask(self, *order):
        with self._lock:
            self._connection.send(order)
            return self._connection.recv()


def _serve_orders(connection, warm_up, run):
    code = 1
    children = set()
    try:
        os.setsid()  # Ctrl-C is for the campaign
        warm_up()
        _check_threads()
        gc.freeze()
        while True:
            kind, order = connection.recv()
            connection.send(_obey(kind, order, children, run, connection))
    except EOFError:
        code = 0
    except BaseException:  # noqa: BLE001 - nobody else can report it
        traceback.print_exc()
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(code)


def _obey(kind, order, children, run, connection):
    if kind == "wait":
        _, status = os.waitpid(order, 0)
        children.discard(order)
        return os.waitstatus_to_exitcode(status)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run_child(run, order)
    children.add(pid)
    return pid


def _run_child(run, order):
    code = 1
    try:
        code = run(order) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - it goes to the child's log
        traceback.print_exc()
    finally:
        os._exit(code)


def _check_threads():
    """Refuse to fork with threads: they would not exist in the child, but their locks would."""
    number = psutil.Process().num_threads()
    if number > 1:
        raise RuntimeError(f"the fork server has {number} threads: import less before it forks")
