"""What a report on numbers costs beside one on as many labels.

The same cases, sites, times and confidences, once with four labels and once with prices that hardly
ever repeat, each replayed and reported in a process of its own. The report is all facts and its
four files; reading and replay are counted apart.

Example:
    PYTHONPATH=. python benchmarks/number_reports.py --pairs 1000000
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from reported_figures import report_figure

HERE = Path(__file__).parent
KINDS = ("labels", "numbers")
SITES, DAYS, OUTCOMES = 20, 60, 0.03
LABELS, OFTEN = np.array(["none", "fox", "deer", "bear"]), (0.6, 0.2, 0.15, 0.05)
LEVERS = {
    "labels": "labels: [none, fox, deer, bear]",
    "numbers": "number: {in: EUR, from: 0, to: 5000, tolerance: 5%}\n"
    "    costs: [{under: 20%, cost: 5}, {off: 10%, cost: 2}, {cost: 1}]",
}
POLICY = """rollout: prices
timezone: UTC
levers:
  - id: answer
    {lever}
sites: [{sites}]
evidence: {{unit: case, grace: 1d}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 90%}}]}}]
"""


def main() -> None:
    """Make both histories, report each in its own process, print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs to report on")
    parser.add_argument("--folder", type=Path, help="report on this history, print its figures")
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(measure_report(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print_table(Path(folder), arguments.pairs)


def print_table(folder: Path, pairs: int) -> None:
    """Print CPU seconds and peak memory of both, and the ratio of the reports."""
    figures = {}
    print(f"{pairs:,} pairs: CPU s of reading and replay, of the report, peak MiB")
    for kind in KINDS:
        write_history(folder / kind, kind, pairs)
        figures[kind] = in_process(folder / kind)
        parts = figures[kind]
        report_figure(f"{kind}, report", "s of CPU", [parts["report"]])
        report_figure(f"{kind}, peak", "MiB", [parts["peak"]])
        print(
            f"{kind:10}{parts['replay']:9.1f}{parts['report']:9.1f}{parts['peak']:9.0f}", flush=True
        )
    ratios = {part: figures["numbers"][part] / figures["labels"][part] for part in parts}
    text = ", ".join(f"{part} {ratio:.2f}" for part, ratio in ratios.items())
    print(f"numbers / labels: {text}")


def in_process(folder: Path) -> dict[str, float]:
    """Report on a history in a process of its own."""
    command = [sys.executable, str(HERE / "number_reports.py"), "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def write_history(folder: Path, kind: str, pairs: int) -> None:
    """Write predictions, decisions and outcomes of seeded cases, and their policy."""
    folder.mkdir()
    generator = np.random.default_rng(7)
    answers = draw_labels(generator, pairs) if kind == "labels" else draw_prices(generator, pairs)
    step = DAYS * 86_400 / pairs
    times = pl.from_epoch(pl.Series((1_767_225_600 + np.arange(pairs) * step).astype("int64")))
    sites = [f"site-{n:02}" for n in range(SITES)]
    cases = pl.DataFrame(
        {
            "case_key": pl.Series(range(pairs)).cast(pl.String).str.zfill(8),
            "site": np.array(sites)[np.arange(pairs) % SITES],
            "occurred_at": times.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    confidence = generator.uniform(0.5, 1, pairs).round(3)
    model = cases.with_columns(
        label=pl.Series(answers["model"]), model_version=pl.lit("v1"), confidence=confidence
    )
    model.write_csv(folder / "predictions.csv")
    human = cases.select("case_key").with_columns(
        label=pl.Series(answers["human"]),
        reviewer=pl.lit("ana"),
        exposure=pl.lit("blind"),
        decided_at=times.dt.offset_by("10m").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    human.write_csv(folder / "decisions.csv")
    has_outcome = pl.Series(generator.random(pairs) < OUTCOMES)
    truth = cases.select("case_key").with_columns(label=pl.Series(answers["truth"]))
    truth.filter(has_outcome).write_csv(folder / "outcomes.csv")
    policy = POLICY.format(lever=LEVERS[kind], sites=", ".join(sites))
    (folder / "policy.yaml").write_text(policy)


def draw_labels(generator: np.random.Generator, pairs: int) -> dict[str, list[str]]:
    """Return labels on which the model errs in 5 of 100."""
    human = generator.choice(LABELS, pairs, p=OFTEN)
    others = generator.choice(LABELS, (2, pairs))
    model = np.where(generator.random(pairs) < 0.94, human, others[0])
    truth = np.where(generator.random(pairs) < 0.97, human, others[1])
    sides = {"human": human, "model": model, "truth": truth}
    return {side: answers.tolist() for side, answers in sides.items()}


def draw_prices(generator: np.random.Generator, pairs: int) -> dict[str, list[str]]:
    """Return prices with cents, of which the model has 5 of 100 beyond 5 %."""
    human = generator.lognormal(4, 0.6, pairs).round(2)
    model = human * generator.normal(1.005, 0.025, pairs)
    truth = human * generator.normal(1, 0.01, pairs)
    sides = {"human": human, "model": model, "truth": truth}
    return {side: [f"{price:.2f}" for price in prices.tolist()] for side, prices in sides.items()}


def measure_report(folder: Path) -> dict[str, float]:
    """Return CPU seconds of replay and report, and the peak memory."""
    from rollout.engine.files.files import RecordPaths
    from rollout.features.replay.replay import build_replay_inputs, build_report_files, replay_files
    from rollout.features.replay.requests import ReplayRequest
    from rollout.features.reports.figures.facts import compute_report_facts

    names = ("predictions.csv", "decisions.csv")
    sources = RecordPaths(*(folder / name for name in names), None, folder / "outcomes.csv")
    start = time.process_time()
    replayed = replay_files(ReplayRequest(policy=folder / "policy.yaml", sources=sources))
    replay_end = time.process_time()
    inputs = build_replay_inputs(replayed)
    build_report_files(replayed, inputs, compute_report_facts(inputs))
    return {
        "replay": replay_end - start,
        "report": time.process_time() - replay_end,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
