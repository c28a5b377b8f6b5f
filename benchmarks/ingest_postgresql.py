"""Ingest of paired records on a fresh PostgreSQL database, by size of the batch.

A batch is two requests, as in `ingest.py`.

Nobody analyzes the tables, so plans are made without statistics. CPU is that of both processes: the
service's (the application is called without a socket, bodies are made before) and its server's. The
first and the last fifth of the batches are compared, and of 400 batches of 100 the first 20 and
the last 20: a plan that compares all stored keys with a batch makes the last ones dearer.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.ingest import _post, _warm, bodies, find_postgresql, fresh_postgresql, ours
from benchmarks.reported_figures import report_figure

BATCHES = (1, 10, 100, 400, 1_000)
PATH = "/v1/rollouts/bench/records"
PARTS = 5
REQUESTS, WINDOW = 400, 20
MOST_GROWTH = 1.3
"""The most that the last batches may take, as a multiple of the first."""
Costs = tuple[float, float]


def measure_batches(pairs: int = 20_000, max_requests: int = 1_500) -> str:
    """Return a table with a line for each size of a batch."""
    url = find_postgresql()
    if url is None:
        return "no PostgreSQL"
    names = "".join(f"{name:>16}" for name in ("first fifth", "last fifth", "sent again"))
    lines = [f"{'CPU us a pair: service + server':34}{names}"]
    for batch in BATCHES:
        count = max(min(pairs, batch * max_requests), batch * PARTS)
        parts = [_format(part) for part in measure_batch(url, count, batch)]
        lines.append(f"{f'batches of {batch}, {count} pairs':34}{''.join(parts)}")
    return "\n".join(lines)


def compare_windows(batch: int = 100) -> str:
    """Return lines: CPU a pair in the first batches and in the last of 400."""
    url = find_postgresql()
    if url is None:
        return "no PostgreSQL"
    with fresh_postgresql(url) as made, ours(made) as app:
        process_ids = _prepare(made, app)
        sent = bodies(REQUESTS * batch, batch, "w")
        batches = zip(sent[::2], sent[1::2], strict=True)
        costs = [sum(_measure(app, process_ids, requests, batch)) for requests in batches]
    first, last, unit = costs[:WINDOW], costs[-WINDOW:], "µs of CPU a pair"
    growth = median(last) / median(first)
    figures = (
        report_figure(f"no statistics, batches 1 to {WINDOW}", unit, first),
        report_figure(f"no statistics, batches to {REQUESTS}", unit, last),
        report_figure("no statistics, last / first", "ratio", [growth], MOST_GROWTH),
    )
    return "\n".join(map(str, figures))


def measure_batch(url: str, pairs: int, batch: int) -> tuple[Costs, Costs, Costs]:
    """Return the costs of the first and the last fifth of the pairs, and of the first again."""
    with fresh_postgresql(url) as made, ours(made) as app:
        process_ids = _prepare(made, app)
        sent = bodies(pairs, batch, "k")
        size = len(sent) // 2 // PARTS * 2
        parts = [sent[start : start + size] for start in range(0, size * PARTS, size)]
        costs = [_measure(app, process_ids, part, batch) for part in parts]
        again = _measure(app, process_ids, parts[0], batch)
    return costs[0], costs[-1], again


def _prepare(url: str, app: Any) -> list[int]:
    """Keep the tables without statistics; return the server's processes for the service."""
    import psycopg

    plain = url.replace("postgresql+psycopg", "postgresql")
    tables = "select tablename from pg_tables where schemaname = 'public'"
    own = "datname = current_database() and pid <> pg_backend_pid()"
    with psycopg.connect(plain, autocommit=True) as admin:
        for (table,) in admin.execute(tables).fetchall():
            admin.execute(f"alter table {table} set (autovacuum_enabled = off)")
        _warm(app)
        query = f"select pid from pg_stat_activity where {own} and backend_type = 'client backend'"  # noqa: S608
        return [number for (number,) in admin.execute(query).fetchall()]


def _measure(
    app: Any, process_ids: Sequence[int], part: Sequence[bytes], batch: int
) -> tuple[float, float]:
    async def run() -> None:
        for body in part:
            await _post(app, PATH, body)

    server, own = _read_cpu(process_ids), time.process_time()
    asyncio.run(run())
    own, server = time.process_time() - own, _read_cpu(process_ids) - server
    pairs = len(part) / 2 * batch
    return own / pairs * 1e6, server / pairs * 1e6


def _read_cpu(process_ids: Sequence[int]) -> float:
    """Return the CPU seconds of processes on Linux."""
    texts = [Path(f"/proc/{number}/schedstat").read_text() for number in process_ids]
    return sum(int(text.split()[0]) for text in texts) / 1e9


def _format(costs: Costs) -> str:
    own, server = costs
    return f"{f'{own:.0f} + {server:.0f}':>16}"


if __name__ == "__main__":
    print(compare_windows())
    print(measure_batches(*map(int, sys.argv[1:])))
