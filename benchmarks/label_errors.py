"""What the list of label issues costs, beside confident learning in NumPy and cleanlab.

A million made-up cases with ten labels; 5 % of the human labels are planted errors. Each side
begins with what it takes, in memory, so no file is read: here records, with a row for each label of
a case; there a matrix of probabilities and the number of each label. Each answers its ranked list:
here the keys of all cases in which model and human differ, their kinds and costs, and the first
hundred with what was recorded about them, as on a first page; there the places of the cases. Each
side has worked on a thousand cases before, so no imports are counted.
`cleaning.py` compares precision and recall on real labels.

Example:
    PYTHONPATH=. python benchmarks/label_errors.py --cleanlab /tmp/cleanlab/bin/python
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from cleaning import (
    Ints,
    LabelData,
    build_placement,
    build_policy,
    build_records,
    compute_precision_recall,
    find_confident_issues,
    plant_errors,
)
from reported_figures import report_figure

from rollout.features.reports.figures.label_issues import build_work_list

GOALS = {"cleanlab": 2.0}
LABELS, WARM_UP, TURNS, PAGE = "abcdefghij", 1_000, 3, 100
CLEANLAB = """
import json, sys, time
import numpy as np
from cleanlab.filter import find_label_issues
runs, spent = np.load(sys.argv[1]), []
for _ in range(int(sys.argv[2]) + 1):
    started = time.process_time()
    found = find_label_issues(
        runs["labels"], runs["probabilities"], filter_by="confident_learning",
        return_indices_ranked_by="self_confidence", n_jobs=1,
    )
    spent.append(time.process_time() - started)
print(json.dumps([spent[1:], found.tolist()]))
"""


def make_data(cases: int, seed: int = 7) -> LabelData:
    """Return cases of which the model is surer or less sure, mostly of the true label."""
    draws = np.random.default_rng(seed)
    truth = draws.integers(0, len(LABELS), cases)
    scores = draws.normal(0, 1, (cases, len(LABELS)))
    scores[np.arange(cases), truth] += draws.gamma(4, 1.2, cases)
    weights = np.exp(scores)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    keys = tuple(f"case-{number:08}" for number in range(cases))
    return LabelData(tuple(LABELS), keys, probabilities, np.zeros_like(scores, np.int64), truth)


def measure_list(
    data: LabelData, labels: Ints, *, is_shuffled: bool = False, turns: int = TURNS
) -> tuple[list[float], list[str]]:
    """Return the CPU seconds of our list, and its cases.

    `is_shuffled`: decisions come in another order than predictions.
    """
    records, policy = build_records(data, labels), build_policy(data.labels)
    if is_shuffled:
        decisions = records.decisions.sample(fraction=1, shuffle=True, seed=1)
        records = replace(records, decisions=decisions)
    placement = build_placement()

    def list_issues() -> list[str]:
        issues = build_work_list(records, placement, policy, {})
        page_keys = [issue.loss.case_key for issue in issues[:PAGE]]
        return page_keys + issues.case_keys[len(page_keys) :]

    runs = [_measure(list_issues) for _ in range(turns)]
    return [spent for spent, _ in runs], runs[0][1]


def run_cleanlab(python: str, data: LabelData, labels: Ints) -> tuple[list[float], Ints]:
    """Return the CPU seconds of cleanlab's turns, and its list."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.npz"
        np.savez(path, probabilities=data.probabilities, labels=labels)
        done = subprocess.run(  # noqa: S603 - the interpreter is named by who runs this
            [python, "-c", CLEANLAB, str(path), str(TURNS)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    spent, listed = json.loads(done.stdout)
    return spent, np.array(listed, np.int64)


def _measure(work: Callable[[], Any]) -> tuple[float, Any]:
    started = process_time()
    result = work()
    return process_time() - started, result


def main() -> None:
    """Print CPU, precision and recall of each side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cleanlab", help="interpreter of an environment with cleanlab")
    options = parser.parse_args()
    small = make_data(WARM_UP)
    measure_list(small, plant_errors(small, 1))
    data = make_data(options.rows)
    labels = plant_errors(data, 1)
    turns = [
        _measure(lambda: find_confident_issues(data.probabilities, labels)) for _ in range(TURNS)
    ]
    issues, best = turns[0][1], "NumPy"
    print(report_figure("NumPy", "s of CPU", [spent for spent, _ in turns]))
    peer = sum(spent for spent, _ in turns) / len(turns)
    if options.cleanlab:
        seconds, issues = run_cleanlab(options.cleanlab, data, labels)
        print(report_figure("cleanlab", "s of CPU", seconds))
        peer, best = sum(seconds) / len(seconds), "cleanlab"
    else:
        print("cleanlab not installed, left out: --cleanlab names no interpreter that has it")
    spent_seconds, keys = measure_list(data, labels)
    print(report_figure("here", "s of CPU", spent_seconds))
    shuffled, _ = measure_list(data, labels, is_shuffled=True)
    print(report_figure("here, decisions in another order", "s of CPU", shuffled))
    ratios = [spent / peer for spent in spent_seconds]
    print(report_figure(f"here / {best}", "ratio", ratios, GOALS.get(best)))
    places = {key: place for place, key in enumerate(data.keys)}
    listed = np.array([places[key] for key in keys[: len(issues)]], np.int64)
    for name, case_places in (("here", listed), (best, issues)):
        precision, recall = compute_precision_recall(case_places, labels != data.truth)
        scores = f"precision {precision:.3f}, recall {recall:.3f}"
        print(f"{name}: the first {len(case_places):,} have {scores}")


if __name__ == "__main__":
    main()
