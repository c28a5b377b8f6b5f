"""Start of the commands, each a process of its own; and a stop on a ledger of 10,000 rows.

A command's start is the CPU of its whole process less that of its work. The work is what the same
command takes when it runs again in the same process, where all is imported. Each must end as it
should, and each run finds its own to stop, apply and erase; only `approve` is refused, as there is
no proposal. The database has three rollouts and few records; in `counted` a version has a counted
unit, so that its evidence is read and SciPy computes how much is missing. In turns with them runs a
Typer program with one command and its help, which is the least that such a program takes.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from assignments import NAME, fill
from reported_figures import report_figure

STOPS = 9
RUNS = 3
REFUSED_CODES: Final = {"approve": 2}
"""What commands end with that are refused; the others end with 0."""
MOST_COMMANDS = 99  # of each kind
FILE_GOAL, DATABASE_GOAL = 0.25, 0.6  # s
LIMIT: Final = "Typer with its help"
WITHOUT_DATABASE: Final = ("--help", "--version", "demo --list", "ledger verify ledger.jsonl")
WITH_DATABASE: Final = (
    "db current",
    "users list",
    "approve ramps P-1 --evidence-hash none --by ana",
    "incidents ramps",
    "proposals ramps",
    "ledger export ramps",
    "deliveries ramps",
    "stop ramps --site dock-RUN --by ana --reason benchmark",
    "status ramps",
    "status counted",
    "apply RUN.yaml --by ana",
    "tick ramps",
    "db backup RUN.backup",
    "doctor",
    "erase case RUN --rollout erasable --by ana --reason benchmark",
    "import ramps --predictions p.csv --decisions d.csv --by ana",
)
TYPER: Final = """
import typer
def main(name: str = "none", count: int = 1) -> None: "Print a name."
typer.run(main)
"""
AGAIN_RUNS: Final = ("again-1", "again-2")
AGAIN: Final = f"""
import sys, time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from rollout.cli.main import app
for run in {AGAIN_RUNS}:
    words = [word.replace("RUN", run) for word in sys.argv[1:]]
    begun, code = time.process_time(), 0
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            app(words, prog_name="rollout")
        except SystemExit as end:
            code = end.code or 0
print(time.process_time() - begun)
sys.exit(code)
"""
POLICY: Final = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound], answer_within: 2m, unanswered: damaged}]
sites: [SITES]
evidence: {unit: case, grace: 1h, verdicts: 1}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
PREDICTIONS: Final = """case_key,site,occurred_at,at,model_version,parcel
a,dock,2026-11-01T10:00:00Z,2026-11-01T10:00:00Z,v1,sound
"""
DECISIONS: Final = """case_key,at,reviewer,source,parcel
a,2026-11-01T10:01:00Z,bo,blind,sound
"""
COUNTED_AT: Final = datetime(2026, 10, 1, tzinfo=UTC)
SET_UP: Final = (
    "db upgrade",
    "users first-admin ana",
    "apply policy.yaml --by ana",
    "users grant-role ana operator --by ana",
    f"apply erasable.yaml --by ana --at {COUNTED_AT.isoformat()}",
    "import erasable --predictions ep.csv --decisions ed.csv --by ana",
    f"apply counted.yaml --by ana --at {COUNTED_AT.isoformat()}",
    "import counted --predictions p.csv --decisions d.csv --by ana",
    "tick counted",
)


def format_table() -> Iterator[str]:
    """Yield the lines of the tables."""
    yield from _format_starts()
    (cpu, wall), later = _stops()
    report_figure("first stop of a process", "ms of CPU", [cpu])
    report_figure("later stops", "ms of CPU", [spent for spent, _ in later])
    yield f"{'a stop on a ledger of 10,000 rows':40}{'CPU ms':>8}{'wall ms':>9}"
    yield f"{'first command of a process':40}{cpu:8.0f}{wall:9.0f}"
    cpu, wall = (median(figures[n] for figures in later) for n in (0, 1))
    yield f"{'later ones':40}{cpu:8.0f}{wall:9.0f}"


def _format_starts() -> Iterator[str]:
    """Yield the CPU of each command's start; the whole processes are run in turns."""
    with tempfile.TemporaryDirectory() as folder:
        starter = CommandStarter(Path(folder))
        commands = (*WITHOUT_DATABASE[:MOST_COMMANDS], *WITH_DATABASE[:MOST_COMMANDS])
        whole: dict[str, list[float]] = {command: [] for command in (LIMIT, *commands)}
        for run in range(RUNS):
            whole[LIMIT].append(starter.run([sys.executable, "-c", TYPER, "--help"])[0])
            for command in commands:
                whole[command].append(starter.start(command.replace("RUN", str(run))))
        yield f"{'CPU s, median':56}{'whole':>8}{'work':>8}{'start':>8}{'goal':>8}"
        yield f"{LIMIT:56}{median(whole[LIMIT]):8.2f}"
        for command in commands:
            work = starter.measure_again(command) if command in WITH_DATABASE else 0.0
            goal = DATABASE_GOAL if command in WITH_DATABASE else FILE_GOAL
            starts = [cpu - work for cpu in whole[command]]
            name = " ".join(command.split()[:2])
            report_figure(f"start of {name}", "s of CPU", starts, goal)
            spent = median(whole[command])
            yield f"{name:56}{spent:8.2f}{work:8.2f}{median(starts):8.2f}{goal:8.2f}"


class CommandStarter:
    """Starts commands in a folder with a database of one rollout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        url = f"sqlite:///{folder}/rollout.db"
        self._environment = {**os.environ, "ROLLOUT_DATABASE_URL": url}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed modules have bytecode
        runs = (*map(str, range(RUNS)), *AGAIN_RUNS)
        policy = POLICY.replace("SITES", ", ".join(["dock", *(f"dock-{run}" for run in runs)]))
        files = {
            "policy.yaml": policy,
            "counted.yaml": policy.replace("ramps", "counted"),
            "erasable.yaml": policy.replace("ramps", "erasable"),
            "p.csv": PREDICTIONS,
            "d.csv": DECISIONS,
            "ep.csv": _repeat_row(PREDICTIONS, runs),
            "ed.csv": _repeat_row(DECISIONS, runs),
        }
        for number, run in enumerate(runs):
            files[f"{run}.yaml"] = policy.replace(
                "answer_within: 2m", f"answer_within: {number + 3}m"
            )
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for command in SET_UP:
            self.start(command)
        export = [sys.executable, "-m", "rollout", "ledger", "export", "ramps"]
        (folder / "ledger.jsonl").write_text(self.run(export)[1], encoding="utf-8")

    def start(self, command: str) -> float:
        """Return the CPU seconds of a whole process."""
        words = command.split()
        return self.run([sys.executable, "-m", "rollout", *words], _find_code(command))[0]

    def measure_again(self, command: str) -> float:
        """Return the CPU seconds that a command takes where all is imported."""
        words = [sys.executable, "-c", AGAIN, *command.split()]
        return float(self.run(words, _find_code(command))[1])

    def run(self, words: Sequence[str], code: int = 0) -> tuple[float, str]:
        """Return the CPU seconds of a process, and what it printed.

        Raises:
            RuntimeError: it ended with another code, so it did something else.
        """
        with (self._folder / "printed.txt").open("w+", encoding="utf-8") as printed:
            process = subprocess.Popen(  # noqa: S603
                words,
                stdout=printed,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                env=self._environment,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != code:
                raise RuntimeError(f"{' '.join(words[1:])} ended with {process.returncode}")
            printed.seek(0)
            return usage.ru_utime + usage.ru_stime, printed.read()


def _repeat_row(table: str, keys: Sequence[str]) -> str:
    head, row = table.splitlines(keepends=True)
    return head + "".join(key + row[row.index(",") :] for key in keys)


def _find_code(command: str) -> int:
    return REFUSED_CODES.get(command.split(maxsplit=1)[0], 0)


def _stops() -> tuple[tuple[float, float], list[tuple[float, float]]]:
    from rollout.data.database.session import Database

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        fill(url)
        database = Database(url)
        first, *later = [_stop(database, f"site-{number}") for number in range(STOPS)]
        database.close()
    return first, later


def _stop(database: Any, site: str) -> tuple[float, float]:
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.engine.decide.stops import StopTarget
    from rollout.features.stops.stops import stop_cells

    ana = Caller("ana", role_assignments=(AssignedRole("operator"),))
    cpu, wall = time.process_time(), time.perf_counter()
    stop_cells(database, ana, NAME, StopTarget(sites=(site,)), at=datetime.now(UTC))
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


if __name__ == "__main__":
    print("\n".join(format_table()))
