"""Plays ten seeds of each example: `python -m tests.examples.seeds`, or `make demos`.

The results stand in docs/examples/seeds.toml with the command, its date and its commit; the page of
each example has a table of them. TOLERANCES say what every seed has to keep.
"""

import json
import tomllib
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rollout.engine.events import Narrowed, TakenOver, Widened
from rollout.features.demo.catalog import find_example, list_examples
from rollout.kernel.calendar.instants import Cell
from tests.docs.pages import ROOT
from tests.examples.plays import play_seed
from tests.faults.outcomes import current_commit

RESULTS = ROOT / "docs/examples/seeds.toml"
SEEDS = range(10)
TABLE_HEAD = """\
| held | cells widened | days to the first | narrowings | takeovers | plain rules that open the \
held cell, of 4 | counted by the worst |
|---|---|---|---|---|---|---|"""
COMMAND = "python -m tests.examples.seeds"
LEAST_RULES = 2
"""Tolerances: in every seed the held cell stays closed, some cell opens, and so many of the four
plain rules would have opened the held cell; dates and numbers of cells may differ."""


@dataclass(frozen=True)
class SeedResult:
    """What one seed of an example gave.

    Attributes:
        opened_held: whether the held cell was widened above its stage, which none may be.
        widened: cells above shadow at any time; first_day: days until the first of them.
        narrowed: narrowings; takeovers: of all cells.
        rules: plain rules that would have opened the held cell; wrong: most wrong actions by one.
    """

    example: str
    seed: int
    opened_held: bool
    widened: int
    first_day: float
    narrowed: int
    takeovers: int
    rules: int
    wrong: int

    def list_faults(self):
        """Return what goes beyond the tolerances."""
        faults = []
        if self.opened_held:
            faults.append("the held cell was widened")
        if not self.widened:
            faults.append("no cell was widened")
        if self.rules < LEAST_RULES:
            faults.append(f"only {self.rules} plain rules would have opened the held cell")
        return faults


def play_result(task):
    """Return the result of an example's name and a seed."""
    name, seed = task
    with TemporaryDirectory(prefix=f"rollout-{name}-") as folder:
        story = play_seed(find_example(name), seed, Path(folder) / name)
        return build_result(story, seed)


def build_result(story, seed):
    """Return what a story gave."""
    events = story.replayed_files.result.events
    rises = [event for event in events if isinstance(event, Widened)]
    rules = {}
    for version in story.held_versions:
        for result in story.compute_plain_rules(version):
            wrong = result.model_cost.wrong_action.count
            if result.opened_at is not None and wrong:
                rules[result.rule] = max(wrong, rules.get(result.rule, 0))
    first = events[0].at
    days = [(event.at - first).total_seconds() / 86_400 for event in rises]
    return SeedResult(
        example=story.example.name,
        seed=seed,
        opened_held=bool(list_held_openings(story)),
        widened=len({event.cell for event in rises}),
        first_day=round(min(days, default=0.0), 1),
        narrowed=sum(isinstance(event, Narrowed) for event in events),
        takeovers=sum(isinstance(event, TakenOver) for event in events),
        rules=len(rules),
        wrong=max(rules.values(), default=0),
    )


def list_held_openings(story):
    """Return the events that widened the held cell above the stage that it may have."""
    held_cell, stages = story.example.held, story.replayed_files.policy.stage_ids
    cell, highest = Cell(held_cell.site, held_cell.window), stages.index(held_cell.at_most)
    return [
        event
        for event in story.replayed_files.result.events
        if isinstance(event, Widened | TakenOver)
        and event.cell == cell
        and event.version in story.held_versions
        and stages.index(event.to_stage) > highest
    ]


def load_results():
    """Return the recorded results."""
    if not RESULTS.is_file():
        return [], {}
    content = tomllib.loads(RESULTS.read_text(encoding="utf-8"))
    return [SeedResult(**row) for row in content["result"]], content["run"]


def format_seed_table(name):
    """Return the table of an example's seeds, or why there is none."""
    results, runs = load_results()
    rows = [row for row in results if row.example == name]
    if not rows:
        return "Not played yet: `make demos` plays ten seeds."
    run = runs[name]
    played = f"`{COMMAND}` of {run['date']} on `{run['commit']}`, {len(rows)} seeds"
    lines = [
        f"{played}: median (least to most).\n",
        TABLE_HEAD,
        f"| {sum(not row.opened_held for row in rows)} of {len(rows)} |"
        + " |".join(
            f" {_format_spread([getattr(row, key) for row in rows])}"
            for key in ("widened", "first_day", "narrowed", "takeovers", "rules", "wrong")
        )
        + " |",
    ]
    return "\n".join(lines)


def _format_spread(values):
    return f"{median(values):,g} ({min(values):,g} to {max(values):,g})"


def write_results(results, runs):
    """Write all results, one line each."""
    lines = ["# What each seed of each example gave; tests/examples/seeds.py writes it.\n"]
    for name, run in sorted(runs.items()):
        lines.append(f'[run.{name}]\ndate = {run["date"]}\ncommit = "{run["commit"]}"\n')
    for row in sorted(results, key=lambda row: (row.example, row.seed)):
        values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in asdict(row).items())
        lines.append(f"[[result]]\n{values}\n")
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


def main():
    """Play seeds and record them; the exit code says whether all kept the tolerances."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="examples; all without any")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.names or [example.name for example in list_examples()]
    failed = 0
    results, runs = load_results()
    with ProcessPoolExecutor(arguments.workers) as pool:
        plays = {name: pool.map(play_result, [(name, seed) for seed in SEEDS]) for name in names}
        for name in names:
            played = list(plays[name])
            results = [row for row in results if row.example != name] + played
            runs[name] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": current_commit()}
            write_results(results, runs)
            faults = [f"seed {row.seed}: {fault}" for row in played for fault in row.list_faults()]
            failed += bool(faults)
            print(name, "; ".join(faults) or "ok", flush=True)  # noqa: T201 - progress
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
