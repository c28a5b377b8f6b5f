"""A stop of one site on a ledger of 10,000 rows: the first command of a process, and later ones."""

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median
from typing import Any

from assignments import NAME, fill
from reported_figures import report_figure

STOPS = 9


def format_table() -> Iterator[str]:
    """Yield the lines of the table."""
    (cpu, wall), later = _stops()
    report_figure("first stop of a process", "ms of CPU", [cpu])
    report_figure("later stops", "ms of CPU", [spent for spent, _ in later])
    yield f"{'a stop on a ledger of 10,000 rows':40}{'CPU ms':>8}{'wall ms':>9}"
    yield f"{'first command of a process':40}{cpu:8.0f}{wall:9.0f}"
    cpu, wall = (median(figures[n] for figures in later) for n in (0, 1))
    yield f"{'later ones':40}{cpu:8.0f}{wall:9.0f}"


def _stops() -> tuple[tuple[float, float], list[tuple[float, float]]]:
    from rollout.store.database.session import Database

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        fill(url)
        database = Database(url)
        first, *later = [_stop(database, f"site-{number}") for number in range(STOPS)]
        database.close()
    return first, later


def _stop(database: Any, site: str) -> tuple[float, float]:
    from rollout.core.scope.permissions import AssignedRole, Caller
    from rollout.core.scope.stop_targets import StopTarget
    from rollout.services.stops.stops import stop_cells

    ana = Caller("ana", role_assignments=(AssignedRole("operator"),))
    cpu, wall = time.process_time(), time.perf_counter()
    stop_cells(database, ana, NAME, StopTarget(sites=(site,)), at=datetime.now(UTC))
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


if __name__ == "__main__":
    print("\n".join(format_table()))
