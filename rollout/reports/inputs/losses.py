"""Cases to look at again, with their records: `loss_kinds` says which these are.

Losses stay rows of a frame until they are shown. Only then are they joined with what was recorded
about their cases: of a million cases a list may have a hundred thousand, a page shows a hundred.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import polars as pl

from rollout.core.calendar.instants import from_micros
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import MAX_LISTED
from rollout.reports.inputs.divergence_columns import Loss
from rollout.reports.inputs.loss_kinds import (
    CONFIDENT_KINDS,
    KINDS,
    LOSS_SCHEMA,
    MIN_PROBABILITY,
    UNSURE,
    ConfidenceThreshold,
    classify_cases,
)
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES, build_case_frame, list_attributes
from rollout.tally.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames

NO_CONFIDENCES = "no confidences were sent"
WEIGHT = pl.col("cost") * pl.col("loss")


@dataclass(frozen=True, slots=True)
class LossFigures:
    """The losses of one version on one lever.

    Attributes:
        version, lever: whose answers.
        compared: cases with an answer of the version and an unassisted decision.
        without_confidence: those without a confidence.
        missing_data: what data is missing; empty if none is.
        confidence_thresholds: threshold by label; empty without confidences. For numbers one row,
            label `any`.
        counts: cases of each kind.
        top: at most 20 of each kind but the unsure ones, the largest cost times loss first.
    """

    version: str
    lever: str
    compared: int
    without_confidence: int
    missing_data: str
    confidence_thresholds: tuple[ConfidenceThreshold, ...]
    counts: dict[str, int]
    top: tuple[Loss, ...]


def compute_losses(
    records: RecordFrames, cases: pl.DataFrame, policy: Policy
) -> tuple[LossFigures, ...]:
    """Return the losses of every version and lever, sorted by version."""
    return tuple(
        _compute_version_losses(records, cases, version, lever)
        for version in _list_versions(records)
        for lever in policy.levers
    )


def rank_losses(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return the losses of all versions and levers: unsure ones last, then the costliest first.

    Those of equal cost times loss are ordered by version, lever and kind. The columns are those of
    `LOSS_SCHEMA`; `build_losses` adds what was recorded about their cases.
    """
    parts = [pl.DataFrame(schema=LOSS_SCHEMA)]
    parts += [
        classify_cases(records, version, lever).losses
        for version in _list_versions(records)
        for lever in policy.levers
    ]
    levers = pl.Enum([lever.id for lever in policy.levers])
    return sort_losses(
        pl.concat(parts),
        (pl.col("kind") == UNSURE, False),
        (_round_noise(WEIGHT.fill_null(0.0)), True),
        (pl.col("version"), False),
        (pl.col("lever").cast(levers), False),
        (pl.col("kind").cast(pl.Enum(KINDS)), False),
    )


def build_losses(
    loss_rows: pl.DataFrame, records: RecordFrames, cases: pl.DataFrame
) -> tuple[Loss, ...]:
    """Return losses with the records of their cases, in the same order.

    `loss_rows` has the columns of `LOSS_SCHEMA`, and others that are ignored.
    """
    keys = loss_rows.select(pl.col("case_key").unique())
    own_records = replace(
        records,
        cases=_select_cases(records.cases, keys),
        decisions=_select_cases(records.decisions, keys),
        outcomes=_select_cases(records.outcomes, keys),
    )
    levers = loss_rows["lever"].unique().to_list()
    outcomes = {
        lever: dict(own_records.outcomes.select("case_key", VALUE_PREFIX + lever).iter_rows())
        for lever in levers
    }
    votes = {lever: _collect_votes(own_records, lever) for lever in levers}
    facts = build_case_frame(own_records, _select_cases(cases, keys))
    joined = loss_rows.join(facts, on="case_key", how="left", maintain_order="left")
    names = [name for name in joined.columns if name.startswith(ATTRIBUTE_PREFIX)]
    return tuple(
        _build_loss(
            {**row, "outcome": outcomes[row["lever"]].get(row["case_key"])},
            votes[row["lever"]].get(row["case_key"], ()),
            names,
        )
        for row in joined.iter_rows(named=True)
    )


def compute_surprise(confidence: float) -> float:
    """Return −ln of the probability of all answers but the given one, in nats.

    >>> round(compute_surprise(0.9), 6), round(compute_surprise(1.0), 6)
    (2.302585, 13.815511)
    """
    return -log(max(1 - confidence, MIN_PROBABILITY))


def _list_versions(records: RecordFrames) -> Sequence[str]:
    return records.predictions["version"].unique().sort().to_list()


def _compute_version_losses(
    records: RecordFrames, cases: pl.DataFrame, version: str, lever: Lever
) -> LossFigures:
    classified = classify_cases(records, version, lever)
    losses, missing = classified.losses, classified.without_confidence
    counts = dict(losses.group_by("kind").len().iter_rows())
    ordered = sort_losses(losses)
    tops = [ordered.filter(pl.col("kind") == kind).head(MAX_LISTED) for kind in CONFIDENT_KINDS]
    return LossFigures(
        version=version,
        lever=lever.id,
        compared=classified.compared,
        without_confidence=missing,
        missing_data=NO_CONFIDENCES if 0 < classified.compared == missing else "",
        confidence_thresholds=classified.thresholds,
        counts={kind: counts.get(kind, 0) for kind in KINDS},
        top=build_losses(pl.concat(tops), records, cases),
    )


def sort_losses(losses: pl.DataFrame, *keys: tuple[pl.Expr, bool]) -> pl.DataFrame:
    """Return losses sorted by keys, each descending or not, then the largest cost times loss."""
    by, is_descending = zip(
        *keys,
        (_round_noise(WEIGHT), True),
        (_round_noise(pl.col("loss")), True),
        (pl.col("cost"), True),
        (pl.col("case_key"), False),
        strict=True,
    )
    return losses.sort(by, descending=is_descending, nulls_last=True)


def _round_noise(value: pl.Expr) -> pl.Expr:
    """Return values whose last digits don't order equal losses: their sums are in any order."""
    return value.round_sig_figs(12)


def _select_cases(frame: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    return frame.join(keys, on="case_key", how="semi", maintain_order="left")


def _collect_votes(records: RecordFrames, lever: str) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return the unassisted answers of each case, the most frequent first."""
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    labels = decisions.select("case_key", label=VALUE_PREFIX + lever).drop_nulls()
    counts = labels.group_by("case_key", "label").len()
    votes: dict[str, tuple[tuple[str, int], ...]] = {}
    for key, label, n in counts.sort("len", "label", descending=[True, False]).iter_rows():
        votes[key] = (*votes.get(key, ()), (label, n))
    return votes


def _build_loss(
    row: dict[str, object], votes: tuple[tuple[str, int], ...], attribute_names: Sequence[str]
) -> Loss:
    about = list_attributes({name: row[name] for name in attribute_names})
    names = ("case_key", "version", "lever", "site", "window", "human", "model", "confidence",
             "loss", "cost", "kind", "outcome")  # fmt: skip
    at = None if row["occurred_us"] is None else from_micros(int(str(row["occurred_us"])))
    values = {name: row[name] for name in names}
    return Loss(**values, occurred_at=at, votes=votes, attributes=about)  # type: ignore[arg-type]
