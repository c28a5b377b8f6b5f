"""What `rollout serve` holds at rest: a process of its own, started, ready, after its first tick.

*Resident* is what the system counts, with the code of libraries, which all processes share and
which can be read again from disk; *own* is what it made itself and nobody else could use.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as a script finds it, `python -m` does then too
from assignments import NAME, SITES, fill
from reported_figures import report_figure

PATIENCE = 120.0  # seconds for a first tick on a busy machine
SETTLING = 3.0
COMMAND = "from rollout.cli.main import app; app()"
MemoryUse = tuple[float, float]


def format_table() -> Iterator[str]:
    """Yield the lines of the table, MiB: a small rollout, and one of 10,000 cells."""
    yield f"{'rollout serve at rest, MiB':40}{'resident':>10}{'own':>8}"
    for sites in (2, SITES):
        for when, (resident, own) in measure_memory(sites).items():
            report_figure(f"{4 * sites:,} cells, {when}, resident", "MiB", [resident])
            yield f"{f'{4 * sites:,} cells, {when}':40}{resident:10.0f}{own:8.0f}"


def measure_memory(sites: int) -> dict[str, MemoryUse]:
    """Return what a replica holds when it is up, and after the first tick of its one rollout."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        fill(url, sites)
        with run_server(url) as (number, port):
            _until(lambda: _answers(port))
            up = read_memory(number)
            _until(lambda: _ticked(url))
            time.sleep(SETTLING)
            return {"before its first tick": up, "after it": read_memory(number)}


@contextmanager
def run_server(url: str) -> Iterator[tuple[int, int]]:
    """Run `rollout serve`; give the process' number and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", COMMAND, "serve", "--port", str(port)],
        env={**os.environ, "ROLLOUT_DATABASE_URL": url},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def read_memory(process: int) -> MemoryUse:
    """Return what a process holds, and what of it is its own, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    resident, own = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return resident, own


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _ticked(url: str) -> bool:
    from rollout.store.database.rollouts import Rollouts
    from rollout.store.database.session import Database
    from rollout.store.ledger.tick_slots import TickSlots

    database = Database(url)
    try:
        with database.begin_read() as transaction:
            rollout = Rollouts(transaction).find(NAME)
            return (
                rollout is not None and TickSlots(transaction, rollout).load_last_done() is not None
            )
    finally:
        database.close()


def _until(holds: Callable[[], bool]) -> None:
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > PATIENCE:
            raise TimeoutError(f"it took more than {PATIENCE:.0f} s")
        time.sleep(0.2)


if __name__ == "__main__":
    print("\n".join(format_table()))
