"""The scope at a past instant, of a ledger of 100,000 rows: the first of a process, and others.

The ledger's rows widen and narrow the cells of 50 sites in turn, and scopes are stored as ticks
store them. Instants are spread over the whole ledger, so each is read from another stored scope.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from assignments import NAME, START, fill
from reported_figures import report_figure

ROWS, SITES, INSTANTS = 100_000, 50, 25
BATCH = 200  # rows of a tick


def extend_ledger(database: Any, rows: int) -> None:
    """Append rows that narrow and widen each cell in turn, a minute after the other."""
    from rollout.data.ledger.ledger import Ledger
    from rollout.data.ledger.scopes import StoredScopes
    from rollout.engine.decide.projection import apply_events
    from rollout.live.rollout_state import load_rollout_state

    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, NAME)
    scope, cells = state.scope, tuple(state.policy.cells)
    while scope.revision < rows:
        numbers = range(scope.revision, min(scope.revision + BATCH, rows))
        events = [_build_event(number, cells) for number in numbers]
        with database.begin_write() as transaction:
            Ledger(transaction, state.rollout).append(events, after=scope.revision)
            scope = apply_events(events, scope)
            StoredScopes(transaction, state.rollout).store_if_due(scope)


def _build_event(number: int, cells: Any) -> Any:
    from rollout.engine.events import Narrowed, Widened

    turn, position = divmod(number, len(cells))
    row = {
        "at": find_instant(number),
        "by": "policy",
        "cell": cells[position],
        "version": "v1",
    }
    if turn % 2:
        return Narrowed(**row, from_stage="autonomous", to_stage="shadow", guard="cost")
    until = find_instant(number) + timedelta(days=90)
    return Widened(**row, to_stage="autonomous", until=until, proposal=f"P-{number}")


def find_instant(number: int) -> datetime:
    """Return when a row was written."""
    return START + timedelta(seconds=number / 4)


def measure(url: str, rows: int) -> list[tuple[float, float]]:
    """Return the CPU and wall milliseconds of each instant, the first of the process first."""
    from rollout.data.database.session import Database
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.features.access.authentication import Authenticator
    from rollout.features.assignments.assignments import load_snapshot_at
    from rollout.live.clock import SystemClock
    from rollout.live.service import build_service

    database, clock = Database(url), SystemClock()
    service = build_service(database, Authenticator(database, clock), clock)
    gc.collect()
    gc.freeze()  # as `rollout serve` does: a collection took 95 ms of the slowest answers
    service.state_cache.load_rollout(NAME)
    ada = Caller("ada", role_assignments=(AssignedRole("viewer"),))
    spent, first = [], rows // INSTANTS
    for number in range(first // 2, rows, first):
        cpu, wall = time.process_time(), time.perf_counter()
        snapshot = load_snapshot_at(service, ada, NAME, (), find_instant(number))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert snapshot.revision >= number  # noqa: S101
        spent.append((cpu * 1e3, wall * 1e3))
    database.close()
    return spent


def format_table(rows: int) -> Iterator[str]:
    """Yield the lines of the table."""
    from rollout.data.database.session import Database

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        fill(url, SITES)
        database = Database(url)
        extend_ledger(database, rows)
        database.close()
        first, *others = measure(url, rows)
    yield f"the scope at an instant of {rows:,} rows: min / median / max"
    for number, clock in enumerate(("CPU", "wall")):
        yield str(report_figure(f"first of a process, {clock}", "ms", [first[number]]))
        spent = [row[number] for row in others]
        yield str(report_figure(f"later ones, {clock}", "ms", spent, 50))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the ledger")
    for line in format_table(parser.parse_args().rows):
        print(line)


if __name__ == "__main__":
    main()
