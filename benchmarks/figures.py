"""What the four core parts of a report cost beside the tools that people would take for them.

Confusion, figures of labels, agreement of every cell and the 20 largest losses, from one Parquet
file of pairs (10 labels, 200 cells, seeded). `rollout compare`'s function stands beside DuckDB,
Polars, NumPy (with pyarrow) and, where it is installed, 15 lines of pandas. Each runs in a process
of its own; all must find the same. CPU and wall are of the work, peak memory is what was added to
it by the work. Interpreter and imports are not counted, and their memory is said: each tool has
worked on a hundred pairs before, since many import more at their first use.

From a store: the same of units that were counted, by the sums that counting keeps. Of the whole
engineer's view (all facts of a report) the multiple is said.

Example:
    PYTHONPATH=. python benchmarks/figures.py --turns 3
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from reported_figures import report_figure

HERE = Path(__file__).parent
SIZES = (100_000, 1_000_000, 10_000_000)
RIVALS = ("duckdb", "polars", "numpy", "pandas")
LABELS, SITES, WINDOWS = 10, 50, ("night", "morning", "afternoon", "evening")
OFTEN = np.array([30, 20, 15, 10, 8, 6, 5, 3, 2, 1]) / 100  # how often people give each label
AT_ONCE = 1_000_000
MIB = 1024
FEW = "few.parquet"  # a hundred pairs, for each tool's first use
KEY = ("site", "window", "human", "model")
Figures = dict[str, Any]


def main() -> None:
    """Run one part, or all of them in processes of their own, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pairs in a file")
    parser.add_argument("--turns", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--facts", type=int, default=100_000, help="pairs of the whole view")
    parser.add_argument("--part", help="run one part and print its figures as JSON")
    parser.add_argument("--file", type=Path, help="the pairs")
    parser.add_argument("--pairs", type=int, help="how many to make, or there are")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measure_part(arguments.part, arguments.file, arguments.pairs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for line in tables(Path(folder), arguments.sizes, arguments.turns, arguments.facts):
            print(line, flush=True)


def tables(folder: Path, sizes: list[int], turns: int, facts: int) -> Iterator[str]:
    """Yield the lines of all tables."""
    files = {size: folder / f"{size}.parquet" for size in sizes}
    in_process("make", folder / FEW, 100)
    for size, file in files.items():
        in_process("make", file, size)
        yield from compare_libraries(file, size, turns)
    for size, file in files.items():
        yield from_store(in_process("store", file, size), size)
    if facts:
        yield from whole_view(folder, facts)


def compare_libraries(file: Path, size: int, turns: int) -> Iterator[str]:
    """Yield one size's table; who comes first in a turn changes from turn to turn."""
    names = ["rollout", *(name for name in RIVALS if find_spec(name))]
    runs: dict[str, list[Figures]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            runs[name].append(in_process(name, file, size))
    same = runs["rollout"][0]["found"]
    assert all(run["found"] == same for own in runs.values() for run in own)  # noqa: S101 - it is what we measure
    cpu = {name: median(run["cpu"] for run in own) for name, own in runs.items()}
    fastest = min((name for name in names if name != "rollout"), key=lambda name: cpu[name])
    yield f"\n{size:,} pairs: CPU s, wall s, MiB added, MiB of imports; all found the same"
    for name, own in runs.items():
        report_figure(f"{size:,} pairs, {name}", "s of CPU", [run["cpu"] for run in own])
        wall, added, base = (median(run[of] for run in own) for of in ("wall", "added", "base"))
        yield f"{name:10}{cpu[name]:8.3f}{wall:8.3f}{added:8.0f}{base:8.0f}"
    intervals = median(in_process("intervals", file, size)["cpu"] for _ in range(turns))
    whole, parts = (each / cpu[fastest] for each in (cpu["rollout"], cpu["rollout"] - intervals))
    yield f"rollout / {fastest}: CPU {whole:.1f}, without intervals {parts:.1f}"


def from_store(figures: Figures, size: int) -> str:
    """Say what reading the kept sums and losses took; `note` is how many sums there are."""
    sums, losses = (part * 1000 for part in figures["parts"])
    spent = f"CPU {sums:.0f} ms, the 20 largest losses {losses:.0f} ms"
    return f"store, {size:,} units counted, {figures['note']} sums: {spent}"


def whole_view(folder: Path, pairs: int) -> Iterator[str]:
    """Yield how much longer all facts of a report take than the four parts of as many pairs."""
    file = folder / "whole.parquet"
    in_process("make", file, pairs)
    parts, whole = in_process("rollout", file, pairs), in_process("facts", file, pairs)
    spent = f"CPU {whole['cpu']:.1f} s, {whole['added']:.0f} MiB added"
    times = f"{whole['cpu'] / parts['cpu']:.0f} times the four parts"
    yield f"all facts of a report on {pairs:,} pairs: {spent}, {times}"


def in_process(part: str, file: Path, pairs: int) -> Figures:
    """Run a part in a process of its own and return its figures."""
    command = [sys.executable, str(HERE / "figures.py"), "--part", part]
    command += ["--file", str(file), "--pairs", str(pairs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figures: Figures = json.loads(done.stdout)
    return figures


def measure_part(part: str, file: Path, pairs: int) -> Figures:
    """Run a part; its imports and set-up are not counted."""
    makers: dict[str, Callable[[Path, int], Callable[[], Figures]]] = {
        "make": making,
        "rollout": by_rollout,
        "intervals": by_intervals,
        "duckdb": by_duckdb,
        "polars": by_polars,
        "numpy": by_numpy,
        "pandas": by_pandas,
        "store": of_store,
        "facts": by_facts,
    }
    if part in {"rollout", *RIVALS}:
        makers[part](file.with_name(FEW), 100)()
    work = makers[part](file, pairs)
    base = read_peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    figures = work()
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return {**spent, "added": read_peak_memory() - base, "base": base, **figures}


def read_peak_memory() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def making(file: Path, pairs: int) -> Callable[[], Figures]:
    """Write seeded pairs as any tool would: plain text columns, packed, in row groups."""
    import polars as pl
    import pyarrow.parquet as pq

    def work() -> Figures:
        generator, writer = np.random.default_rng(7), None
        for start in range(0, pairs, AT_ONCE):
            frame = pl.DataFrame(draw_pairs(generator, start, min(AT_ONCE, pairs - start)))
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=250_000)
        writer.close()
        return {}

    return work


def draw_pairs(generator: np.random.Generator, start: int, n: int) -> Figures:
    """Return pairs as columns: the model errs in 8 of 100, and is less sure when it does."""
    human = generator.choice(LABELS, n, p=OFTEN)
    wrong = generator.random(n) < 0.08
    model = np.where(wrong, generator.integers(0, LABELS, n), human)
    sure = np.where(wrong, generator.beta(4, 3, n), generator.beta(9, 1.5, n))
    labels = np.array([f"label-{number}" for number in range(LABELS)])
    sites = np.array([f"site-{number:02}" for number in range(SITES)])
    return {
        "case_key": [f"case-{number:08}" for number in range(start, start + n)],
        "site": sites[generator.integers(0, SITES, n)],
        "window": np.array(WINDOWS)[generator.integers(0, len(WINDOWS), n)],
        "human": labels[human],
        "model": labels[model],
        "confidence": np.clip(sure, 0.05, 0.999999).round(6),
    }


def by_rollout(file: Path, _pairs: int) -> Callable[[], Figures]:
    """Compare as `rollout compare` does: with intervals, kappas and AC1 besides."""
    from rollout.features.replay.compare import compare

    def work() -> Figures:
        done = compare(file)
        (comparison,) = done.comparisons
        matrix = comparison.label_matrix
        cells = {
            (cell.site, cell.window): (cell.agreement.n, cell.agreement.count)
            for cell in comparison.cells
        }
        counts = {
            (human, model): n
            for human, row in zip(matrix.labels, matrix.counts, strict=True)
            for model, n in zip(matrix.labels, row, strict=True)
        }
        return build_figures(counts, cells, [loss.case_key for loss in done.top_losses])

    return work


def by_intervals(file: Path, _pairs: int) -> Callable[[], Figures]:
    """Work out again the intervals of a comparison, which the others don't."""
    from rollout.features.replay.compare import compare
    from rollout.kernel.statistics.agreement import compute_kappa_and_ac1
    from rollout.kernel.statistics.intervals import compute_share

    (comparison,) = compare(file).comparisons
    shares = [comparison.agreement, *(cell.agreement for cell in comparison.cells)]
    shares += [own for label in comparison.labels for own in (label.precision, label.recall)]

    def work() -> Figures:
        compute_kappa_and_ac1(comparison.label_matrix.table)
        for own in shares:
            compute_share(own.count, own.n)
        return {}

    return work


def build_figures(
    counts: dict[tuple[str, str], int],
    cells: dict[tuple[str, str], tuple[int, int]],
    top: list[str],
) -> Figures:
    """Return the four parts in one form, per class worked out from the confusion."""
    labels = sorted({label for pair in counts for label in pair})
    table = np.array([[counts.get((human, model), 0) for model in labels] for human in labels])
    recall, precision = (table.diagonal() / table.sum(axis) for axis in (1, 0))
    per_class = zip(labels, recall.round(9), precision.round(9), strict=True)
    by_cell = sorted((*cell, int(n), int(agreed)) for cell, (n, agreed) in cells.items())
    confusion = table.tolist()
    return {"found": [confusion, [list(each) for each in per_class], by_cell, top]}


def by_duckdb(file: Path, _pairs: int) -> Callable[[], Figures]:
    """Group once in SQL, sum that up, and sort what differs."""
    import duckdb

    def work() -> Figures:
        base = duckdb.connect()
        rows = f"from read_parquet('{file}')"
        base.execute(f"create table g as select {KEY_SQL}, count(*) n {rows} group by all")
        counts = base.execute("select human, model, sum(n) from g group by all").fetchall()
        agreed = "sum(n), coalesce(sum(n) filter (human = model), 0)"
        by_cell = f'select site, "window", {agreed} from g group by all'  # noqa: S608 - ours
        cells = base.execute(by_cell).fetchall()
        differ = f"{rows} where human <> model order by confidence desc, case_key limit 20"
        top = base.execute(f"select case_key {differ}").fetchall()
        return build_figures(
            {(human, model): int(n) for human, model, n in counts},
            {(site, window): (n, agreed) for site, window, n, agreed in cells},
            [key for (key,) in top],
        )

    return work


KEY_SQL = ", ".join(f'"{name}"' for name in KEY)


def by_polars(file: Path, _pairs: int) -> Callable[[], Figures]:
    """Group once, lazily and streaming, beside the top of what differs."""
    import polars as pl

    def work() -> Figures:
        rows = pl.scan_parquet(file)
        differ = rows.filter(pl.col("human") != pl.col("model"))
        by = {"by": ["confidence", "case_key"]}
        top = differ.select("case_key", "confidence").top_k(20, **by, reverse=[False, True])
        groups = rows.group_by(KEY).agg(n=pl.len())
        g, first = pl.collect_all([groups, top], engine="streaming")
        counts = g.group_by("human", "model").agg(pl.col("n").sum())
        agreed = pl.col("n").filter(pl.col("human") == pl.col("model")).sum().alias("agreed")
        cells = g.group_by("site", "window").agg(pl.col("n").sum(), agreed)
        return build_figures(
            {(human, model): n for human, model, n in counts.iter_rows()},
            {(site, window): (n, agreed) for site, window, n, agreed in cells.iter_rows()},
            first.sort(**by, descending=[True, False])["case_key"].to_list(),
        )

    return work


def by_numpy(file: Path, _pairs: int) -> Callable[[], Figures]:
    """Read batches whose texts are numbers already, and count with `bincount`."""
    import pyarrow.parquet as pq

    def work() -> Figures:
        read = pq.ParquetFile(file, read_dictionary=list(KEY))
        names: dict[str, dict[str, int]] = {"site": {}, "window": {}, "label": {}}
        counts = np.zeros((SITES, len(WINDOWS), LABELS, LABELS), dtype=np.int64)
        top: list[tuple[float, str]] = []
        for batch in read.iter_batches(batch_size=250_000, use_threads=False):
            site, window, human, model = (number_labels(batch, name, names) for name in KEY)
            at = ((site * len(WINDOWS) + window) * LABELS + human) * LABELS + model
            counts += np.bincount(at, minlength=counts.size).reshape(counts.shape)
            sure = np.where(human != model, batch["confidence"].to_numpy(), -1)
            least = np.partition(sure, -20)[-20] if len(sure) > 20 else -1
            places = np.flatnonzero((sure >= least) & (sure >= 0))
            keys = batch["case_key"].take(places).to_pylist()
            top = sorted([*top, *zip(-sure[places], keys, strict=True)])[:20]
        return from_array(
            counts, {of: list(names_by_column) for of, names_by_column in names.items()}, top
        )

    return work


def number_labels(batch: Any, name: str, names: dict[str, dict[str, int]]) -> Any:
    """Return a column as numbers that are the same in every batch."""
    numbers_by_name = names["label" if name in {"human", "model"} else name]
    column = batch[name]
    texts = column.dictionary.to_pylist()
    return np.array([numbers_by_name.setdefault(t, len(numbers_by_name)) for t in texts])[
        column.indices.to_numpy()
    ]


def from_array(counts: Any, names: dict[str, list[str]], top: list[tuple[float, str]]) -> Figures:
    """Return the four parts of an array of counts: site, window, human, model."""
    pairs, agreed = counts.sum((0, 1)), np.trace(counts, axis1=2, axis2=3)
    label, here = names["label"], counts.sum((2, 3))
    return build_figures(
        {(a, b): int(pairs[i, j]) for i, a in enumerate(label) for j, b in enumerate(label)},
        {
            (site, window): (int(here[i, j]), int(agreed[i, j]))
            for i, site in enumerate(names["site"])
            for j, window in enumerate(names["window"])
        },
        [key for _, key in top],
    )


def by_pandas(file: Path, _pairs: int) -> Callable[[], Figures]:
    """Do what most people would: read it all and group."""
    import pandas as pd

    def work() -> Figures:
        rows = pd.read_parquet(file)
        g = rows.groupby(list(KEY)).size().rename("n").reset_index()
        g["agreed"] = g["n"].where(g["human"] == g["model"], 0)
        counts = g.groupby(["human", "model"])["n"].sum()
        cells = g.groupby(["site", "window"])[["n", "agreed"]].sum()
        differ = rows[rows["human"] != rows["model"]]
        first = differ.sort_values(["confidence", "case_key"], ascending=[False, True]).head(20)
        return build_figures(
            counts.to_dict(),
            {cell: (n, agreed) for cell, n, agreed in cells.itertuples()},
            first["case_key"].tolist(),
        )

    return work


def of_store(file: Path, pairs: int) -> Callable[[], Figures]:
    """Read the sums and losses that counting keeps: `stored_figures`."""
    sys.path.insert(0, str(HERE))
    from stored_figures import by_store

    return by_store(file, pairs)


def by_facts(file: Path, pairs: int) -> Callable[[], Figures]:
    """Make all facts of a report of a replay; replaying itself is not counted."""
    sys.path.insert(0, str(HERE))
    from history import write_history
    from replay import POLICY as WHOLE

    from rollout.engine.files.files import RecordPaths
    from rollout.features.replay.replay import build_replay_inputs, replay_files
    from rollout.features.replay.requests import ReplayRequest
    from rollout.features.reports.figures.facts import compute_report_facts

    folder = file.parent
    write_history(folder, pairs)
    policy = folder / "policy.yaml"
    policy.write_text(WHOLE.format(sites=", ".join(f"site-{n}" for n in range(50))))
    sources = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")
    inputs = build_replay_inputs(replay_files(ReplayRequest(policy=policy, sources=sources)))

    def work() -> Figures:
        compute_report_facts(inputs)
        return {}

    return work


if __name__ == "__main__":
    main()
