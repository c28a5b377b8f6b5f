"""What grows with size: cells, stored cases, sites, replicas.

Cells: one tick in memory after all cells changed. Stored cases: batches of 1,000 pairs on SQLite,
posted when as many cases are stored, and what the database takes. Sites: the first question at each
site of a client. Replicas: as many processes serve one PostgreSQL, each with two
connections, and the client uses the same processors.

Each row states the seconds that it took and the disk. Ten million stored cases (`--stored
10000000`) take ten times those of a million.

Example:
    python benchmarks/curves.py --cells 10 100 --stored 10000 --sites 10 --replicas 1 2
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))  # `python -m` and tests find it too
from decisions import build_client
from ingest import bodies, find_postgresql, fresh_postgresql, ours, timed
from ingest_served import PATHS, RECORDS, Side, run_side
from run import describe_setting
from tick import tick_over

TURNS, BATCH = 5, 1_000
PAIRS_OF_A_REPLICA = 5_000
WINDOWS = 4


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was measured at one size, least, median and most.

    Attributes:
        seconds: that the point took, preparations included.
        disk_bytes: of the database, None if there is none.
    """

    curve: str
    size: int
    unit: str
    min: float
    median: float
    max: float
    seconds: float
    disk_bytes: int | None = None

    def __str__(self) -> str:
        """Return the point as a line."""
        spread = " / ".join(f"{value:,.1f}" for value in (self.min, self.median, self.max))
        disk = "" if self.disk_bytes is None else f", {self.disk_bytes / 2**20:,.0f} MiB of disk"
        return f"{self.curve:24}{self.size:>12,}  {spread} {self.unit}; {self.seconds:.0f} s{disk}"


def main() -> None:
    """Read the command line, measure the curves, print and write their points."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, nargs="*", default=[10, 100, 1_000, 10_000, 100_000])
    parser.add_argument("--stored", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--sites", type=int, nargs="*", default=[10, 100, 1_000, 2_500])
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--out", type=Path, help="folder for curves.json; without it none")
    arguments = parser.parse_args()
    setting, points = describe_setting(), []
    for point in measure_curves(
        arguments.cells, arguments.stored, arguments.sites, arguments.replicas
    ):
        print(point, flush=True)
        points.append(asdict(point))
    if arguments.out is None:
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", "benchmarks/curves.py", *sys.argv[1:]])
    document = {"setting": setting, "command": command, "points": points}
    path = arguments.out / "curves.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def measure_curves(
    cells: Sequence[int], stored: Sequence[int], sites: Sequence[int], replicas: Sequence[int]
) -> Iterator[CurvePoint]:
    """Yield the points of all curves, each curve from its smallest size."""
    for count in sorted(cells):
        yield _take_turns("tick, cells", count, "ms of CPU", partial(_measure_tick, count))
    yield from _measure_stored(sorted(stored))
    for count in sorted(sites):
        measure = partial(_measure_first_questions, count)
        yield _take_turns("first questions, sites", count, "ms of CPU", measure)
    server = find_postgresql() if replicas else None
    if server is None:
        print("replicas: none measured; no PostgreSQL" if replicas else "replicas: no size given")
        return
    for count in sorted(replicas):
        yield _measure_replicas(server, count)


def _take_turns(curve: str, size: int, unit: str, measure: Callable[[], float]) -> CurvePoint:
    started = time.perf_counter()
    values = [measure() for _ in range(TURNS)]
    return _build_point(curve, size, unit, values, started)


def _build_point(
    curve: str,
    size: int,
    unit: str,
    values: Sequence[float],
    started: float,
    disk_bytes: int | None = None,
) -> CurvePoint:
    spread = (min(values), median(values), max(values))
    return CurvePoint(curve, size, unit, *spread, time.perf_counter() - started, disk_bytes)


def _measure_tick(cells: int) -> float:
    """Return the CPU milliseconds of a tick after all cells changed."""
    run = tick_over(max(cells, WINDOWS))
    started = time.process_time()
    run()
    return (time.process_time() - started) * 1e3


def _measure_first_questions(sites: int) -> float:
    """Return the CPU milliseconds until a client answered at each site once."""
    client, at = build_client(sites, WINDOWS), datetime.now(UTC)
    started = time.process_time()
    for number in range(sites):
        client.decide(f"site-{number}", at, "v1", "k")
    return (time.process_time() - started) * 1e3


def _measure_stored(sizes: Sequence[int]) -> Iterator[CurvePoint]:
    """Yield what a pair costs once as many cases are stored in one SQLite database."""
    if not sizes:
        return
    with tempfile.TemporaryDirectory(prefix="rollout-curves-") as folder:
        file = Path(folder) / "rollout.db"
        with ours(f"sqlite:///{file}") as app:
            count = 0
            for size in sizes:
                started = time.perf_counter()
                while count < size:  # in parts, because the bodies are in memory
                    part = min(BATCH * 10, size - count)
                    timed(app, PATHS[RECORDS], bodies(part, BATCH, f"k{count}"), part)
                    count += part
                values = []
                for _ in range(TURNS):
                    sent = bodies(BATCH, BATCH, f"k{count}")
                    values.append(timed(app, PATHS[RECORDS], sent, BATCH)["cpu"])
                    count += BATCH
                disk = sum(path.stat().st_size for path in file.parent.iterdir())
                yield _build_point("a pair, stored cases", size, "µs of CPU", values, started, disk)


def _measure_replicas(server: str, count: int) -> CurvePoint:
    """Return the pairs a second that as many processes store together."""
    started = time.perf_counter()
    with fresh_postgresql(server) as url, ExitStack() as stack:
        sides = [stack.enter_context(run_side(RECORDS, url)) for _ in range(count)]
        values = []
        for turn in range(TURNS):
            sent = [bodies(PAIRS_OF_A_REPLICA, BATCH, f"t{turn}r{n}") for n in range(count)]
            before = time.perf_counter()
            with ThreadPoolExecutor(count) as threads:
                list(threads.map(Side.post, sides, sent))  # raises what a thread raised
            values.append(count * PAIRS_OF_A_REPLICA / (time.perf_counter() - before))
    return _build_point("all replicas", count, "pairs a second", values, started)


if __name__ == "__main__":
    main()
