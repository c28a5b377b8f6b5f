"""The records of a history as typed frames, with an account of all rows; attribute values of units.

Files, imports and the store produce these frames, and counting reads them. A frame holds only used
rows; `rejected` holds the other rows with their reasons; used rows with a remark are also in
`notes`. For each kind of record: rows read = rows used + rows rejected.

Units are stored with the values of all recorded attributes. Conditions get the values that they
need alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.version_uses import DRAWS
from rollout.engine.records.reviews import fold_name
from rollout.kernel.policy.cell_evidence import (
    list_recorded_attributes,
    list_slice_attributes,
    select_values,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rollout.kernel.policy.policy import Policy


VALUE_PREFIX = "value:"
"""Prefix of a lever's answer in predictions, decisions and outcomes: `value:alarm`."""
OUTCOME_PREFIX = "outcome:"
"""Prefix of a value in outcomes: `outcome:profit`."""
ATTRIBUTE_PREFIX = "attribute:"
"""Prefix of a case's attribute in cases: `attribute:camera`."""
MEDIA_COLUMN = f"{ATTRIBUTE_PREFIX}media"
"""Column of recorded files with the path or address of a case's picture."""

GOLD_PREFIX = "right:"
"""Prefix of a lever's right answer in gold cases: `right:alarm`."""

INSTANT = pl.Datetime("us", "UTC")
EXPOSURES = ("blind", "assisted", "revealed", "unknown")
SAMPLED_ARM, SAMPLED_ARMS = "sampled_arm", ("model", "human")
"""Column of predictions in files that have it: the arm to which chance gave the case."""
CONTENT = "content"
"""The same: the SHA-256 of the version's weights and pre-processing."""

Schema = dict[str, pl.DataType]


class RecordKind(StrEnum):
    """The kind of records in a file.

    Files may describe a case in this order.
    """

    CASES = "cases"
    PREDICTIONS = "predictions"
    DECISIONS = "decisions"
    OUTCOMES = "outcomes"


REMARK_SCHEMA: Schema = {
    "records": pl.String(),  # a RecordKind
    "file": pl.String(),  # its name, without folders
    "line": pl.Int64(),  # physical line from 1 (Parquet: row); null for a whole column
    "column": pl.String(),  # its name in the file; null for the whole row
    "reason": pl.String(),  # a RemarkReason
    "detail": pl.String(),  # the text in the file, or a sentence
    "case_key": pl.String(),  # null if unreadable
}
"""Schema of `RecordFrames.rejected` and `RecordFrames.notes`."""


def build_cases_schema(attributes: Sequence[str] = ()) -> Schema:
    """Return the schema of cases: one row a case, by first mention.

    `occurred_at` is null if the time is missing, impossible or unreadable; `occurred_text` is the
    time as written; `hour_written` is its hour as written (0 to 23, no zone applied), also of an
    impossible date. Cases without `occurred_at` count in figures of records, never in evidence.
    `known_at` is earlier than `received_at` where somebody vouches for the sender; null: the same.
    `draws` is JSON that names each version with a sample, and whether it runs on the case.
    """
    return {
        "case_key": pl.String(),
        "site": pl.String(),
        "occurred_at": INSTANT,
        "occurred_text": pl.String(),
        "hour_written": pl.Int8(),
        "episode": pl.String(),
        "received_at": INSTANT,
        "known_at": INSTANT,
        DRAWS: pl.String(),
        **{ATTRIBUTE_PREFIX + name: pl.String() for name in attributes},
    }


def build_predictions_schema(levers: Sequence[str]) -> Schema:
    """Return the schema of predictions: one row a case and version.

    A null value is a failed prediction; `confidence` is in [0, 1]; `at` is null if the record has
    no time of its own, and then the case's time counts; `latency_ms` is at least 0. `received_at`
    is null if nobody knows when the record came; then its own time counts. `known_at` is as for
    cases.
    """
    return {
        "case_key": pl.String(),
        "version": pl.String(),
        **{VALUE_PREFIX + lever: pl.String() for lever in levers},
        "confidence": pl.Float64(),
        "at": INSTANT,
        "latency_ms": pl.Float64(),
        "error": pl.String(),
        "received_at": INSTANT,
        "known_at": INSTANT,
    }


def build_decisions_schema(levers: Sequence[str]) -> Schema:
    """Return the schema of decisions: one row a case and reviewer.

    `unsure` is true if any lever has no answer. `exposure` is one of `EXPOSURES`, `unknown` if the
    file has none; the policy decides what that means for evidence. `started_at` is when the
    reviewer began, null if unknown or if `at` is not the record's own time; the decision took `at`
    − `started_at`. `source` is `reviews`, `imports` or the id of the account that sent it, in
    files the text of their column `source`; null without it, and for records without one.
    `received_at` is as for predictions.
    """
    return {
        "case_key": pl.String(),
        "reviewer": pl.String(),
        **{VALUE_PREFIX + lever: pl.String() for lever in levers},
        "unsure": pl.Boolean(),
        "exposure": pl.String(),
        "seat": pl.Int16(),
        "at": INSTANT,
        "started_at": INSTANT,
        "source": pl.String(),
        "received_at": INSTANT,
    }


UNSOURCED_SCHEMA: Schema = {
    "case_key": pl.String(),
    "reviewer": pl.String(),
    "sender": pl.String(),  # id of an account, or a file
    "reason": pl.String(),
}
"""Schema of `RecordFrames.unsourced_decisions`."""

OUTCOME_SOURCE, OUTCOME_FAULT = "source", "source_fault"
"""Columns of stored outcomes: where each came from, and why it is no evidence to widen, or null."""
OUTCOME_SOURCE_SCHEMA: Schema = {
    OUTCOME_SOURCE: pl.String(),
    OUTCOME_FAULT: pl.String(),
    "received_at": INSTANT,
}

OWN_PREDICTION_SCHEMA: Schema = {"case_key": pl.String(), OUTCOME_SOURCE: pl.String()}
"""Schema of `RecordFrames.own_predictions`: a predicted case, and the account that predicted it."""

FIRST_DECISION_SCHEMA: Schema = {
    "case_key": pl.String(),
    **dict.fromkeys(("at", "received_at", "sourced_at"), INSTANT),
}
"""Schema of `RecordFrames.first_decisions`: when a case was decided first, when that was received,
and when a source of evidence first decided it, null for never."""

NAMED_PLACE_SCHEMA: Schema = {
    "case_key": pl.String(),
    "site": pl.String(),
    "occurred_at": INSTANT,  # the decision's time if it names none
    "received_at": INSTANT,
    "has_time": pl.Boolean(),
    "may_move": pl.Boolean(),  # false: who named it sent the case itself, or a prediction of it
    DRAWS: pl.String(),
}
"""Schema of `RecordFrames.named_places`: what the first decision to name its place says of it."""

PROBABILITY_SCHEMA: Schema = {
    "case_key": pl.String(),
    "version": pl.String(),
    "label": pl.String(),
    "probability": pl.Float64(),
}
"""Schema of `RecordFrames.probabilities`: one row a label that a prediction lists."""


def build_gold_schema(levers: Sequence[str]) -> Schema:
    """Return the schema of decisions on gold cases, one a reviewer.

    `right:<lever>` is the known answer, null on a lever without one.
    """
    return {
        "case_key": pl.String(),
        "reviewer": pl.String(),
        **{VALUE_PREFIX + lever: pl.String() for lever in levers},
        **{GOLD_PREFIX + lever: pl.String() for lever in levers},
        "unsure": pl.Boolean(),
        "at": INSTANT,
        "started_at": INSTANT,
    }


def build_outcomes_schema(levers: Sequence[str], outcomes: Sequence[str] = ()) -> Schema:
    """Return the schema of outcomes: answers, values, a harm, or several of them for a case.

    A service's outcomes have the columns of `OUTCOME_SOURCE_SCHEMA` too.
    """
    return {
        "case_key": pl.String(),
        **{VALUE_PREFIX + lever: pl.String() for lever in levers},
        **{OUTCOME_PREFIX + outcome: pl.Float64() for outcome in outcomes},
        "harm": pl.String(),
        "at": INSTANT,
    }


def share_constants(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with columns of one value, or of nulls, stored once."""
    constants = [
        pl.lit(column.first(), column.dtype).alias(column.name)
        for column in frame
        if is_constant(column)
    ]
    return frame.with_columns(constants)


def is_constant(column: pl.Series) -> bool:
    """Return whether all values of a column are equal, or null; false without any."""
    if column.is_empty():
        return False
    first, last = column.first(), column.last()
    return first == last and bool(column.eq_missing(first).all())


def select_rows(frame: pl.DataFrame, condition: pl.Expr) -> pl.DataFrame:
    """Return the rows with a condition; the frame itself, not a copy, if all have it."""
    has_condition = frame.select(condition.fill_null(value=False)).to_series()
    return frame if has_condition.all() else frame.filter(has_condition)


@dataclass(frozen=True, slots=True)
class RowCount:
    """The row counts of one file.

    `rows` is `used` + the sum of `rejected`. Notes are counted separately: a row with two notes
    counts twice, and a rejected row may have one.
    """

    file: str
    rows: int
    used: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelCoverage:
    """How many predicted cases of files have a decision.

    Attributes:
        missing: predicted cases without a row of decisions; those of rejected rows are none.
        is_sample: whether only those with one are in the population; else the others are missing.
    """

    predicted: int
    labelled: int
    missing: int
    is_sample: bool = False

    @property
    def missing_share(self) -> float:
        """Share of the predicted cases without a row of decisions."""
        return self.missing / self.predicted if self.predicted else 0.0


@dataclass(frozen=True, slots=True)
class RecordFrames:
    """A history: its cases, their records, and an account of all rows.

    `row_counts` has one entry a file, by `RecordKind`. Without an outcomes file the frame is empty.
    `gold_decisions` has the decisions on gold cases, which are no records: only a service has them.
    `unsourced_decisions` are stored decisions from no source of evidence, with the reason; they are
    not among `decisions`. `probabilities` are those that predictions list by label; counting needs
    none, so they are there only if asked for. `earlier_outcomes` are the revisions before the
    newest one, oldest first: a value that a later revision does not name stays, as does a harm of a
    source.
    `earlier_decisions` are answers that their reviewer replaced by none, or having seen more:
    guards count them.
    `own_predictions` are the cases predicted by accounts that also sent outcomes.
    `first_decisions` has when each case was decided first by any decision or outcome, also by a
    revision or a source that is in no other frame; files have none such.
    `named_places` are those that decisions name whose case was not stored, or at another place.
    `guard_cases` are cases as guards count them where that is by a sender that registers none: for
    all else such a case is as if not stored, and the registered one, if any, is in `cases`.
    `planted` are the records of planted cases, which are in no other frame: what reads the other
    frames is about the cases that occur. `labels` is how many predicted cases of files have a
    decision; None for a service's records. `backtest` is how many predictions of files count though
    they were made after the decisions.
    """

    cases: pl.DataFrame
    predictions: pl.DataFrame
    decisions: pl.DataFrame
    outcomes: pl.DataFrame
    rejected: pl.DataFrame
    notes: pl.DataFrame
    row_counts: Mapping[RecordKind, RowCount]
    gold_decisions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=build_gold_schema(()))
    )
    unsourced_decisions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=UNSOURCED_SCHEMA)
    )
    probabilities: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=PROBABILITY_SCHEMA)
    )
    planted: RecordFrames | None = None
    labels: LabelCoverage | None = None
    backtest: int = 0
    earlier_outcomes: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=build_outcomes_schema(()))
    )
    earlier_decisions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=build_decisions_schema(()))
    )
    own_predictions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=OWN_PREDICTION_SCHEMA)
    )
    first_decisions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=FIRST_DECISION_SCHEMA)
    )
    named_places: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=NAMED_PLACE_SCHEMA)
    )
    guard_cases: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=build_cases_schema())
    )

    def select_cases(self, keys: pl.Series) -> RecordFrames:
        """Return the frames with the cases of these keys and their records; others as they are."""
        is_selected = pl.col("case_key").is_in(keys.implode())
        return replace(
            self,
            cases=self.cases.filter(is_selected),
            predictions=self.predictions.filter(is_selected),
            decisions=self.decisions.filter(is_selected),
            unsourced_decisions=self.unsourced_decisions.filter(is_selected),
            outcomes=self.outcomes.filter(is_selected),
        )

    @property
    def levers(self) -> tuple[str, ...]:
        """Return the ids of the levers, in the order of the policy."""
        return _strip_prefix(VALUE_PREFIX, self.predictions)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Return the names of the cases' attributes, without prefix."""
        return _strip_prefix(ATTRIBUTE_PREFIX, self.cases)


def _strip_prefix(prefix: str, frame: pl.DataFrame) -> tuple[str, ...]:
    return tuple(name.removeprefix(prefix) for name in frame.columns if name.startswith(prefix))


def merge_renamed_predictions(
    records: RecordFrames, first_names: Mapping[str, str]
) -> RecordFrames:
    """Return records with one prediction a case and version, under the version's first name.

    Of several answers to a case the first by its time counts, one without a time before all. Of
    answers at the same time it is that of the version's first name, then of its older one. A
    service counts the one received first: files have no times of receipt of predictions.
    """
    places = {name: place for place, name in enumerate(first_names, start=1)}
    ranked = records.predictions.with_row_index("row").with_columns(
        place=pl.col("version").replace_strict(places, default=0, return_dtype=pl.Int64),
        version=pl.col("version").replace(dict(first_names)),
    )
    counted = (
        ranked.sort("at", "place")
        .unique(["case_key", "version"], keep="first", maintain_order=True)
        .sort("row")
    )
    return replace(records, predictions=counted.select(records.predictions.columns))


def unify_reviewers(records: RecordFrames) -> RecordFrames:
    """Return records with one spelling of each reviewer's name, for tables of reviewers."""
    sent, gold = records.decisions, records.gold_decisions
    names = unify_spellings(pl.concat([sent["reviewer"], gold["reviewer"]]))
    return replace(
        records,
        decisions=sent.with_columns(names.head(sent.height)),
        gold_decisions=gold.with_columns(names.tail(gold.height)),
    )


def unify_spellings(names: pl.Series) -> pl.Series:
    """Return people's names, the first in order of those that `fold_name` makes equal.

    >>> unify_spellings(pl.Series(["ana", "bo", "Ana"])).to_list()
    ['Ana', 'bo', 'Ana']
    """
    texts = names.unique().cast(pl.String).drop_nulls().sort(descending=True).to_list()
    first_by_name = {fold_name(text): text for text in texts}
    if len(first_by_name) == len(texts):
        return names
    return names.cast(pl.String).replace({t: first_by_name[fold_name(t)] for t in texts})


SLICES = "slices"


def add_slices(cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add each case's values of the recorded attributes as JSON; null for an absent one."""
    attributes = list_recorded_attributes(policy)
    if not attributes:
        return cases.with_columns(pl.lit("").alias(SLICES))
    columns = [
        (pl.col(name) if (name := ATTRIBUTE_PREFIX + a) in cases.columns else pl.lit(None)).alias(a)
        for a in attributes
    ]
    return cases.with_columns(pl.struct(columns).struct.json_encode().alias(SLICES))


def select_slices(units: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return units with the values that conditions need alone, so that classes are few."""
    attributes = list_slice_attributes(policy)
    if not attributes or SLICES not in units.columns:
        return units.with_columns(pl.lit("").alias(SLICES))
    texts = units[SLICES].fill_null("").unique().to_list()
    values = {text: select_values(text, attributes) for text in texts}
    column = pl.col(SLICES).fill_null("").replace_strict(values, return_dtype=pl.String)
    return units.with_columns(column)
