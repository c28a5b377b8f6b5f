"""How long stops take while a tick counts 100,000 due cases, on SQLite and PostgreSQL.

The tick counts two versions of each case in a process of its own, as a replica does. Meanwhile a
user stops one site after the other, each stop in a transaction of its own: the time is that of the
stored stop, with all waiting for the tick's writes. A stop over HTTP holds even before, by its
latch. With 100,000 cases each engine takes a few minutes, of which the tick is a half: the rest
fills the database.

Example:
    PYTHONPATH=. python benchmarks/stops_while_counting.py --cases 100000 --engines SQLite
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from counting import VERSIONS, build_history, count_units
from ingest import find_postgresql, fresh_postgresql
from live_tick import DAY, START, WINDOWS, policy_text
from reported_figures import report_figure

PAUSE = 0.2  # seconds between stops, each of another site, so that each is stored
SITES = 600
ENGINES = ("SQLite", "PostgreSQL")
SLOWEST = 0.99
GOAL = 0.3  # seconds that this share of all stops may take


def measure(url: str, cases: int) -> tuple[list[float], float]:
    """Return the seconds of each stop during a tick, and those of the tick."""
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.commands import Actor
    from rollout.features.records.record_import import import_records
    from rollout.live.policy_application import apply_policy

    upgrade(url)
    database = Database(url)
    apply_policy(database, policy_text(WINDOWS * SITES), Actor("bench"), START, salt=bytes(32))
    frames = build_history(cases, 0)
    import_records(database, "bench", frames, START)
    _stop(database, "site-0")
    started = time.perf_counter()
    tick = _start_process(url)
    spent: list[float] = []  # the first stop of a process loads more
    while not tick.done() and len(spent) + 1 < SITES:
        spent.append(_stop(database, f"site-{len(spent) + 1}"))
        time.sleep(PAUSE)
    tick.result()
    seconds = time.perf_counter() - started
    if not count_units(database) == 2 * len(VERSIONS) * frames.cases.height > 0:
        raise RuntimeError("the tick has not counted all cases, by gates and by guards")
    database.close()
    return spent, seconds


def _start_process(url: str) -> Future[None]:
    command = [sys.executable, __file__, "--tick", url]
    run = partial(subprocess.run, command, check=True)
    return ThreadPoolExecutor(1).submit(run)  # type: ignore[arg-type]


def _stop(database: Any, site: str) -> float:
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.engine.decide.stops import StopTarget
    from rollout.features.stops.stops import stop_cells

    ana = Caller("ana", role_assignments=(AssignedRole("operator"),))
    started = time.perf_counter()
    stop_cells(database, ana, "bench", StopTarget(sites=(site,)), at=datetime.now(UTC))
    return time.perf_counter() - started


def tick_once(database: Any) -> None:
    """Count all due cases."""
    from rollout.live.tick_passes import Ticker

    Ticker(database, "bench", "counting").tick(DAY + timedelta(days=1))


@contextmanager
def _create_sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'stops.db'}"


def format_figures(cases: int, engines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of some engines."""
    server = find_postgresql()
    creators = {"SQLite": _create_sqlite, "PostgreSQL": lambda: fresh_postgresql(str(server))}
    for name in engines:
        create = creators[name]
        if name == "PostgreSQL" and server is None:
            yield "no PostgreSQL"
            continue
        with create() as url:
            spent, seconds = measure(url, cases)
        slowest = sorted(spent)[min(int(SLOWEST * len(spent)), len(spent) - 1)]
        yield f"{name}: {len(spent)} stops while {cases:,} cases are counted in {seconds:.0f} s"
        yield str(report_figure(f"{name}: a stop", "s", spent))
        yield str(report_figure(f"{name}: 99 of 100 stops within", "s", [slowest], GOAL))


def main() -> None:
    """Read the command line, print a line for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000, help="due at the tick")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--tick", metavar="URL", help="count what is due and end")
    options = parser.parse_args()
    if options.tick:
        from rollout.data.database.session import Database

        tick_once(Database(options.tick, gives_way=True))
        return
    for line in format_figures(options.cases, options.engines):
        print(line, flush=True)


if __name__ == "__main__":
    main()
