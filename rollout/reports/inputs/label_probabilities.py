"""The probability that a version gave to a label.

It is the stored one where the version sent `probabilities`. A label that these leave out has at
most what they leave. Without them the answer has its confidence, and any other label at most the
rest.
"""

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.tally.frames import PROBABILITY_SCHEMA, RecordFrames


def select_probabilities(records: RecordFrames, version: str, lever: Lever) -> pl.DataFrame:
    """Return a version's stored probabilities: case_key, label, probability.

    Empty with several levers: the record doesn't say whose labels they are. Empty with sets: the
    probability of a label is not that of a set with it.
    """
    if len(records.levers) > 1 or lever.many:
        return pl.DataFrame(schema=PROBABILITY_SCHEMA).drop("version")
    return records.probabilities.filter(pl.col("version") == version).drop("version")


def add_probability(
    frame: pl.DataFrame, probabilities: pl.DataFrame, column: str, agrees: str | pl.Expr
) -> pl.DataFrame:
    """Return a frame with the column `probability`, in the same order.

    Args:
        frame: case_key, confidence and the labels in `column`.
        probabilities: the result of `select_probabilities`.
        column: the column of labels.
        agrees: whether the label is the version's answer.
    """
    is_answer = pl.col(agrees) if isinstance(agrees, str) else agrees
    rest = 1 - pl.col("confidence")
    bound = pl.when(is_answer).then(pl.col("confidence")).otherwise(rest)
    if probabilities.is_empty():
        return frame.with_columns(probability=bound)
    left = probabilities.group_by("case_key").agg(left=(1 - pl.col("probability").sum()).clip(0))
    stored = probabilities.rename({"label": column})
    joined = frame.join(stored, on=["case_key", column], how="left", maintain_order="left")
    joined = joined.join(left, on="case_key", how="left", maintain_order="left")
    return joined.with_columns(probability=pl.coalesce("probability", "left", bound)).drop("left")
