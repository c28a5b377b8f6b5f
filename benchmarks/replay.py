"""What a replay costs, beside the least that the same machine could do with its files.

A history of a year is made (50 sites with four windows, hourly slots, seeded). Each side reads it
in a process of its own; imports and set-up are not counted.

Example:
    python benchmarks/replay.py --pairs 100000
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

from history import write_history
from reported_figures import report_figure

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


def main() -> None:
    """Make the history, run each side in its own process, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs to replay")
    parser.add_argument("--side", choices=SIDES, help="run one side and print its figures as JSON")
    parser.add_argument("--folder", type=Path, help="where the history lies")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure_side(arguments.side, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print_table(Path(folder), arguments.pairs)


def print_table(folder: Path, pairs: int) -> None:
    """Print the table of both sides."""
    write_history(folder, pairs)
    sides = {side: _measure_in_process(side, folder) for side in SIDES}
    print(f"{f'{pairs:,} pairs':34}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}")
    for side, figures in sides.items():
        report_figure(side, "s of CPU", [figures["cpu"]])
        report_figure(f"{side}, peak", "MB", [figures["peak"]])
        print(f"{side:34}{figures['wall']:9.2f}{figures['cpu']:9.2f}{figures['peak']:9.0f}")
    polars, replay = sides["polars"], sides["replay"]
    wall, cpu = (replay[unit] / polars[unit] for unit in ("wall", "cpu"))
    report_figure("replay / Polars", "ratio", [cpu], 5)
    print(f"replay / Polars: wall {wall:.1f}, CPU {cpu:.1f}; {replay['note']}")


def _measure_in_process(side: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure_side(side: str, folder: Path) -> dict[str, object]:
    """Run one side; imports and set-up are not counted."""
    run = SIDES[side](folder)
    wall, cpu = time.perf_counter(), time.process_time()
    note = run()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "note": note,
    }


def group_by_polars(folder: Path) -> Callable[[], str]:
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


def replay_history(folder: Path) -> Callable[[], str]:
    """Replay the same files under a policy with four windows and hourly slots."""
    from rollout.engine.files.files import RecordPaths
    from rollout.features.replay.replay import replay_files
    from rollout.features.replay.requests import ReplayRequest

    policy = folder / "policy.yaml"
    policy.write_text(POLICY.format(sites=", ".join(f"site-{n}" for n in range(50))))

    def replay(records: Path) -> str:
        sources = RecordPaths(records / "predictions.csv", records / "decisions.csv")
        done = replay_files(ReplayRequest(policy=policy, sources=sources)).result
        return f"{len(done.events):,} events, {done.ticks:,} of {_slots(done):,} slots decided"

    with tempfile.TemporaryDirectory() as few:  # packages are imported where they are first needed
        write_history(Path(few), 1_000)
        replay(Path(few))
    return lambda: replay(folder)


def _slots(done: object) -> int:
    return done.last_slot - done.first_slot + 1  # type: ignore[attr-defined]


SIDES: dict[str, Callable[[Path], Callable[[], str]]] = {
    "polars": group_by_polars,
    "replay": replay_history,
}

if __name__ == "__main__":
    main()
