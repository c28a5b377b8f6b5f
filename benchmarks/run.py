"""`make bench`: what replay and a tick cost, beside the least that the same machine could do.

Figures are ratios within one run, each in a process of its own; machines are noisy.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Make the history, run each part in its own process, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs to replay")
    parser.add_argument("--cells", type=int, default=10_000, help="cells of the tick")
    parser.add_argument("--part", help="run one part and print its figures as JSON")
    parser.add_argument("--folder", type=Path, help="where the history lies")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measure_part(arguments.part, arguments.folder, arguments.cells)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print_table(Path(folder), arguments.pairs, arguments.cells)


def print_table(folder: Path, pairs: int, cells: int) -> None:
    """Print the table."""
    from history import write_history

    write_history(folder, pairs)
    names = ("polars", "replay", "tick", "live-tick", "ingest", "assignments", "decisions")
    names += ("commands", "memory")
    parts = {name: _in_process(name, folder, cells) for name in names}
    print(f"{'':34}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}")
    for name, figures in parts.items():
        print(f"{name:34}{figures['wall']:9.2f}{figures['cpu']:9.2f}{figures['peak']:9.0f}")
    polars, replay, tick = parts["polars"], parts["replay"], parts["tick"]
    print(f"\nreplay of {pairs:,} pairs / Polars reading and grouping the same files")
    print(f"  wall {replay['wall'] / polars['wall']:.1f}, CPU {replay['cpu'] / polars['cpu']:.1f}")
    print(f"  {replay['note']}")
    print(f"one tick over {cells:,} cells with 4 measures each: {tick['note']}")
    print(f"live ticks over {cells:,} cells on SQLite: {parts['live-tick']['note']}")
    print(f"records over HTTP:\n{parts['ingest']['note']}")
    print(parts["assignments"]["note"])
    print(parts["decisions"]["note"])
    print(parts["commands"]["note"])
    print(parts["memory"]["note"])


def _in_process(part: str, folder: Path, cells: int) -> dict[str, float]:
    command = [sys.executable, str(HERE / "run.py"), "--part", part]
    command += ["--folder", str(folder), "--cells", str(cells)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure_part(part: str, folder: Path, cells: int) -> dict[str, object]:
    """Run one part; imports and set-up are not counted."""
    work: dict[str, Callable[[], Callable[[], str]]] = {
        "polars": lambda: polars_part(folder),
        "replay": lambda: replay_part(folder),
        "tick": lambda: tick_part(cells),
        "live-tick": lambda: live_tick_part(folder, cells),
        "ingest": ingest_part,
        "assignments": assignments_part,
        "decisions": decisions_part,
        "commands": commands_part,
        "memory": memory_part,
    }
    run = work[part]()
    wall, cpu = time.perf_counter(), time.process_time()
    note = run()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "note": note,
    }


def polars_part(folder: Path) -> Callable[[], str]:
    """Read both files and group by slot, cell (hour block) and labels: the least there is to do."""
    import polars as pl

    def run() -> str:
        predictions = pl.scan_csv(folder / "predictions.csv", try_parse_dates=True)
        judged = pl.scan_csv(folder / "decisions.csv", try_parse_dates=True)
        slot = pl.col("decided_at").dt.truncate("1h")
        window = pl.col("occurred_at").dt.hour() // 6
        pairs = predictions.join(judged, on="case_key", suffix="_person")
        key = [slot.alias("slot"), "site", window.alias("window"), "label", "label_person"]
        return f"{pairs.group_by(key).agg(pl.len()).collect().height:,} groups"

    return run


def replay_part(folder: Path) -> Callable[[], str]:
    """Replay the same files under a policy with four windows and hourly slots."""
    from rollout.formats.records.files import RecordPaths
    from rollout.services.replay.replay import ReplayRequest, replay_files

    policy = folder / "policy.yaml"
    policy.write_text(POLICY.format(sites=", ".join(f"site-{n}" for n in range(50))))
    sources = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")

    def run() -> str:
        done = replay_files(ReplayRequest(policy=policy, sources=sources)).result
        return f"{len(done.events):,} events, {done.ticks:,} of {_slots(done):,} slots decided"

    return run


def _slots(done: object) -> int:
    return done.last_slot - done.first_slot + 1  # type: ignore[attr-defined]


def tick_part(cells: int) -> Callable[[], str]:
    """Decide one tick over cells in which everything has changed and nothing follows."""
    from tick import tick_over

    return tick_over(cells)


def live_tick_part(folder: Path, cells: int) -> Callable[[], str]:
    """Tick a live rollout of many cells: at first, with nothing new, with a little."""
    from live_tick import live_ticks

    return live_ticks(folder, cells)


def ingest_part() -> Callable[[], str]:
    """Take records over HTTP, beside a bare handler and COPY; the note is the table."""
    from ingest import compared

    return compared


def assignments_part() -> Callable[[], str]:
    """Ask who decides over HTTP, beside a bare FastAPI handler; see the note, not the seconds."""
    from assignments import format_table

    return lambda: "\n".join(format_table())


def decisions_part() -> Callable[[], str]:
    """Ask who decides in a client's process, beside a look-up; see the note, not the seconds."""
    from decisions import format_table

    return lambda: "\n".join(format_table())


def commands_part() -> Callable[[], str]:
    """Stop one site after another on a long ledger; see the note, not the seconds."""
    from commands import format_table

    return lambda: "\n".join(format_table())


def memory_part() -> Callable[[], str]:
    """Start `rollout serve` and see what it holds at rest; see the note, not the seconds."""
    from memory import format_table

    return lambda: "\n".join(format_table())


POLICY = """
rollout: bench
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound, empty]}}]
sites: [{sites}]
windows:
  - {{id: night, hours: "00:00-06:00"}}
  - {{id: morning, hours: "06:00-12:00"}}
  - {{id: afternoon, hours: "12:00-18:00"}}
  - {{id: evening, hours: 24/7}}
evidence: {{unit: case, grace: 24h}}
gates:
  - to: supervised
    require:
      - {{measure: agreement, at_least: 95%}}
      - {{measure: recall, label: damaged, at_least: 85%}}
  - to: autonomous
    require:
      - {{measure: cost, at_most: 0.05}}
tick: 1h
"""

if __name__ == "__main__":
    main()
