"""Train again on the labels to which the rollout leads, and print what that brings.

Replays the policy on the shipped records. Each label is then as its decider left it: the model
where it decided, the checker elsewhere and on audits. A small classifier learns from these labels
and reads images that nobody annotated.

Example:
    python examples/cleaner/train_again.py
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from digit_readings import AnnotatedBatch, Integers, load_digit_set, measure_accuracy
from label_story import CleaningStory, make_story

from rollout.engine.files.files import RecordPaths
from rollout.features.replay.replay import ReplayedFiles, build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.label_sources import (
    ASSIGNMENT_SCHEMA,
    HUMAN_SOURCES,
    build_labelled_rows,
    select_training_rows,
)
from rollout.features.reports.inputs.inputs import MODEL, assign_deciders

FOLDER: Final = Path(__file__).parent
SEED: Final = 5  # of the shipped records
TRAINED_UNTIL: Final = {"v1": datetime(2025, 10, 5, 18, tzinfo=UTC)}
AUDIT_SHARE: Final = 0.2  # as the policy says
KEEP: Final = "keep"


def replay_cleaner() -> ReplayedFiles:
    """Return the replay of the shipped records."""
    names = ("predictions", "decisions", "cases", "outcomes")
    paths = {name: FOLDER / f"records/{name}.csv.gz" for name in names}
    return replay_files(
        ReplayRequest(FOLDER / "policy.yaml", RecordPaths(**paths), trained_until=TRAINED_UNTIL)
    )


def find_deciders(replayed: ReplayedFiles) -> pl.DataFrame:
    """Return each case with `by_model`, and whether it was `audited`."""
    cases = assign_deciders(build_replay_inputs(replayed))
    return cases.select("case_key", "version", "audited", by_model=pl.col("decider") == MODEL)


def build_label_sets(story: CleaningStory, replayed: ReplayedFiles) -> dict[str, Integers]:
    """Return the labels of all batches by the way in which they were cleaned."""
    batches = story.batches.values()
    offsets = dict(
        zip(story.batches, np.cumsum([0, *(len(b.given) for b in batches)]), strict=False)
    )
    given, corrected, right = (
        np.concatenate([pick(batch) for batch in batches])
        for pick in (lambda b: b.given, correct_all, lambda b: b.digits)
    )
    by_model = read_flags(find_deciders(replayed), pl.col("by_model") & ~pl.col("audited"))
    kept = read_flags(replayed.records.decisions, pl.col("value:label") == KEEP)
    labels = given.copy()
    for check in story.checks:
        index = offsets[check.batch] + check.number
        if by_model[check.key]:
            labels[index] = corrected[index]
        elif not kept.get(check.key, True):  # without a decision the label stays
            labels[index] = right[index]
    return {
        "as annotated": given,
        "corrected by the model everywhere": corrected,
        "as the rollout left them": labels,
        "all right": right,
    }


def correct_all(batch: AnnotatedBatch) -> Integers:
    """Return the labels of a batch if each correction of the model were made."""
    return np.where(batch.corrects, batch.readings, batch.given)


def read_flags(frame: pl.DataFrame, flag: pl.Expr) -> dict[str, bool]:
    """Return a flag by case key."""
    return dict(frame.select("case_key", flag.alias("flag")).iter_rows())


def count_training_rows(replayed: ReplayedFiles) -> dict[tuple[str, str], tuple[int, float]]:
    """Return rows and total weight by batch and source, as a live rollout exports them.

    Live, people answer only what they are asked: the model's cases without audit have no decision.
    """
    deciders = find_deciders(replayed)
    alone = deciders.filter(pl.col("by_model") & ~pl.col("audited"))
    records = replayed.records
    asked = replace(
        records,
        decisions=records.decisions.join(alone, on="case_key", how="anti"),
        outcomes=records.outcomes.clear(),
    )
    share = pl.when(pl.col("by_model") & pl.col("audited")).then(AUDIT_SHARE)
    decider = pl.when("by_model").then(pl.lit(MODEL)).otherwise(pl.lit("human"))
    assignments = deciders.filter(pl.col("version").is_not_null()).with_columns(
        share=share, decider=decider
    )
    rows = build_labelled_rows(
        asked, replayed.policy, replayed.history.cases, assignments.select(*ASSIGNMENT_SCHEMA)
    )
    totals = (
        select_training_rows(rows, HUMAN_SOURCES)
        .group_by("site", "source")
        .agg(pl.len(), pl.col("weight").sum())
    )
    return {
        (batch, source): (count, weight)
        for batch, source, count, weight in totals.sort("site", "source").iter_rows()
    }


if __name__ == "__main__":
    story, replayed = make_story(SEED), replay_cleaner()
    batches = list(story.batches.values())
    print("Accuracy on images that nobody annotated, after training on labels")
    for name, labels in build_label_sets(story, replayed).items():
        accuracy = measure_accuracy(load_digit_set(SEED), batches, labels, SEED)
        print(f"  {name}: {accuracy:.1%}")
    print("Training rows by batch and source, with their total weight")
    for (batch, source), (count, weight) in count_training_rows(replayed).items():
        print(f"  {batch}, {source}: {count:,} rows, weight {weight:,.0f}")
