"""The probability that a version gave to a label.

It is the stored one where the version sent `probabilities`. A label that these leave out has at
most what they leave. Without them the answer has its confidence, and any other label at most the
rest.

Of sets the stored probabilities are those of each label by itself. A set has the product of those
of its labels and of the rest of the others, as if labels were independent, so that its surprise is
the sum over the labels. If one of the lever's labels has none, the confidence is used.
"""

from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import mul

import polars as pl

from rollout.core.policy.label_sets import SEPARATOR, is_label_set
from rollout.core.policy.levers import Lever
from rollout.tally.frames import PROBABILITY_SCHEMA, RecordFrames

NAME, LEFT = "probability of ", "left by all labels"  # columns of `by_case`
EMPTY_SCHEMA = {name: PROBABILITY_SCHEMA[name] for name in ("case_key", "label", "probability")}


@dataclass(frozen=True)
class StoredProbabilities:
    """Stored probabilities of a version: case_key, label, probability.

    `set_labels` are those of a lever with sets; empty for single labels.
    """

    frame: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EMPTY_SCHEMA))
    set_labels: tuple[str, ...] = ()

    @cached_property
    def by_case(self) -> pl.DataFrame:
        """Return a row a case with a column for each label, and what they leave, `LEFT`.

        A report asks for the probabilities of four columns of labels: joined with a row for each
        label, a million cases of ten labels took four times as long.
        """
        rest = (1 - pl.col("probability").sum()).clip(0).alias(LEFT)
        labels = self.frame["label"].unique().sort()
        own = (
            pl.col("probability").filter(pl.col("label") == label).first().alias(NAME + label)
            for label in labels
        )
        return self.frame.group_by("case_key").agg(rest, *own)


NO_PROBABILITIES = StoredProbabilities()


def select_probabilities(records: RecordFrames, version: str, lever: Lever) -> StoredProbabilities:
    """Return a version's stored probabilities.

    Empty with several levers: the record doesn't say whose labels they are.
    """
    if len(records.levers) > 1:
        return NO_PROBABILITIES
    frame = records.probabilities.filter(pl.col("version") == version).drop("version")
    return StoredProbabilities(frame, lever.labels if lever.many else ())


def add_probability(
    frame: pl.DataFrame, probabilities: StoredProbabilities, column: str, agrees: str | pl.Expr
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
    if probabilities.frame.is_empty():
        return frame.with_columns(probability=bound)
    if probabilities.set_labels:
        return _add_set_probability(frame, probabilities, column, bound)
    by_case = probabilities.by_case
    joined = frame.join(by_case, on="case_key", how="left", maintain_order="left")
    own = [
        pl.when(pl.col(column) == name.removeprefix(NAME)).then(pl.col(name))
        for name in by_case.columns
        if name.startswith(NAME)
    ]
    return joined.with_columns(probability=pl.coalesce(*own, LEFT, bound)).select(
        *frame.columns, "probability"
    )


def _add_set_probability(
    frame: pl.DataFrame, probabilities: StoredProbabilities, column: str, bound: pl.Expr
) -> pl.DataFrame:
    """Return a frame with the probability of each set; `bound` where a label has none."""
    labels = probabilities.set_labels
    names = [NAME + label for label in labels]
    joined = frame
    for label, name in zip(labels, names, strict=True):
        own = probabilities.frame.filter(pl.col("label") == label)
        own = own.select("case_key", pl.col("probability").alias(name))
        joined = joined.join(own, on="case_key", how="left", maintain_order="left")
    parts = pl.col(column).str.split(SEPARATOR)
    factors = [
        pl.when(parts.list.contains(label)).then(pl.col(name)).otherwise(1 - pl.col(name))
        for label, name in zip(labels, names, strict=True)
    ]
    texts = frame[column].drop_nulls().unique()
    sets = [text for text in texts if is_label_set(text, labels)]
    product = pl.when(pl.col(column).is_in(sets)).then(reduce(mul, factors))
    return joined.with_columns(probability=pl.coalesce(product, bound)).drop(names)
