"""Write which labels cleanlab would look at first: `cleanlab.csv`, shipped for comparison.

Needs `pip install cleanlab`, which the product does not. The shipped file was made with cleanlab
2.9.0 from seed 5; like the work list, it sees labels and votes, never what is right.
"""

import argparse
import csv
from pathlib import Path
from typing import Final

import numpy as np
from cleanlab.filter import find_label_issues
from label_story import make_story

LISTED: Final = 100

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    story = make_story(options.seed)
    rows = [(story.batches[check.batch], check.number) for check in story.checks]
    votes = np.array([batch.votes[number] for batch, number in rows])
    order = find_label_issues(
        np.array([batch.given[number] for batch, number in rows]),
        votes / votes.sum(axis=1, keepdims=True),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    with options.out.open("w", encoding="utf-8", newline="") as text:
        keys = [[story.checks[index].key] for index in order[:LISTED]]
        csv.writer(text, lineterminator="\n").writerows([["case_key"], *keys])
