"""How far each version agrees with people, over all cases and slice by slice."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.reports.figures.confusion import (
    ConfusionMatrix,
    LabelFigures,
    action_matrix,
    counted_matrix,
    label_figures,
    matrix_of,
)
from rollout.reports.figures.ratings import alpha_of_pairs
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.chance_agreement import (
    AgreementCoefficient,
    ac1_with_interval,
    kappa,
    kappa_with_interval,
)
from rollout.reports.statistics.intervals import Share, clustered_share
from rollout.tally.frames import ATTRIBUTE, VALUE, Records

BASIS = "cases with exactly one distinct label by people who did not see the model's answer"
DAY_FIRST, DAY_LAST = 6, 17  # hours of the day as written, inclusive


@dataclass(frozen=True, slots=True)
class Slice:
    """Agreement in one part of the cases: a site, a window, day or night, a value."""

    name: str
    agreement: Share
    kappa: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The record-level figures of one version on one lever (`*`: all of them together).

    Attributes:
        version, lever: whose answers.
        basis: which cases are counted, in words.
        predicted: cases that the version was asked about.
        unjudged: of these, the ones on which people gave no label, or several.
        agreement: pairs that agree; for numbers within the tolerance.
        bounds: agreement if all unjudged cases disagreed, and if all agreed.
        kappa, ac1, alpha: corrected for chance; None for numbers.
        cost: mean cost of doing what the model said, in the policy's unit.
        labels: figures of each label; empty for numbers.
        label_matrix, action_matrix: people in rows, the model in columns.
        by_site, by_window: slices by place and by the policy's windows.
        by_day_night: by the hour as written (06:00 to 17:59 is day), whatever the zone.
        by_attribute: slices that the policy asks for, by attribute.
        assisted: agreement of verdicts given with the model's answer in sight: no evidence.
    """

    version: str
    lever: str
    basis: str
    predicted: int
    unjudged: int
    agreement: Share
    bounds: tuple[float, float] | None
    kappa: AgreementCoefficient | None
    ac1: AgreementCoefficient | None
    alpha: AgreementCoefficient | None
    cost: float | None
    labels: tuple[LabelFigures, ...]
    label_matrix: ConfusionMatrix | None
    action_matrix: ConfusionMatrix | None
    by_site: tuple[Slice, ...]
    by_window: tuple[Slice, ...]
    by_day_night: tuple[Slice, ...]
    by_attribute: dict[str, tuple[Slice, ...]]
    assisted: Share


def agreement_figures(
    pairs: Pairs, seen: pl.DataFrame, records: Records, policy: Policy
) -> tuple[Agreement, ...]:
    """Return the figures of every version and lever, versions in order.

    Args:
        pairs: verdicts of people who did not see the model's answer, beside it.
        seen: verdicts of those who did, as `seen.seen_pairs` gives them.
        records: for what stands in no pair.
        policy: for levers, places and slices.
    """
    levers: list[Lever | None] = [*policy.levers]
    if len(levers) > 1:
        levers.append(None)
    return tuple(
        _figures(pairs, seen, records, policy, version, lever)
        for version in pairs.predicted
        for lever in levers
    )


def _figures(
    pairs: Pairs,
    seen: pl.DataFrame,
    records: Records,
    policy: Policy,
    version: str,
    lever: Lever | None,
) -> Agreement:
    lever_id = policy.whole if lever is None else lever.id
    version_pairs = pairs.of(version, lever_id)
    has_labels = lever is not None and lever.number is None
    matrix = (
        matrix_of(version_pairs, "human", "model", lever.labels) if lever and has_labels else None
    )
    agreement = share_of(version_pairs)
    unreviewed = pairs.predicted[version] - version_pairs.height
    effective = 1.0 if not agreement.effective else min(1.0, agreement.effective / agreement.n)
    return Agreement(
        version=version,
        lever=lever_id,
        basis=BASIS,
        predicted=pairs.predicted[version],
        unjudged=unreviewed,
        agreement=agreement,
        bounds=missing_bounds(agreement.count, agreement.n, unreviewed),
        kappa=kappa_with_interval(matrix.table, effective) if matrix else None,
        ac1=ac1_with_interval(matrix.table, effective) if matrix else None,
        alpha=pairs_alpha(version_pairs, matrix.labels) if matrix else None,
        cost=mean_cost(version_pairs),
        labels=_labels(version_pairs, matrix, records, version, lever),
        label_matrix=matrix,
        action_matrix=action_matrix(version_pairs, lever) if lever and has_labels else None,
        by_site=slices(version_pairs, "site", (site.id for site in policy.sites)),
        by_window=slices(version_pairs, "window", (window.id for window in policy.windows)),
        by_day_night=slices(_day_or_night(version_pairs), "part", ("day", "night")),
        by_attribute={
            name: slices(version_pairs, ATTRIBUTE + name)
            for name in policy.slices
            if ATTRIBUTE + name in version_pairs.columns
        },
        assisted=share_of(seen.filter(_of(version, lever_id))),
    )


def _of(version: str, lever: str) -> pl.Expr:
    return (pl.col("version") == version) & (pl.col("lever") == lever)


def _labels(
    pairs: pl.DataFrame,
    matrix: ConfusionMatrix | None,
    records: Records,
    version: str,
    lever: Lever | None,
) -> tuple[LabelFigures, ...]:
    if matrix is None:
        return ()
    return label_figures(pairs, matrix, _unjudged(pairs, records, version, lever))


def missing_bounds(agreed: int, n: int, missing: int) -> tuple[float, float] | None:
    """Return agreement if all missing verdicts disagreed, and if all agreed; None without cases.

    >>> missing_bounds(90, 100, 100)
    (0.45, 0.95)
    """
    total = n + missing
    return (agreed / total, (agreed + missing) / total) if total else None


def share_of(pairs: pl.DataFrame) -> Share:
    """Return the share of pairs that agree, with an interval over units."""
    units = pairs.group_by("unit").agg(pl.col("agrees").sum(), size=pl.len()).sort("unit")
    return clustered_share(units["agrees"].to_numpy(), units["size"].to_numpy())


def pairs_alpha(pairs: pl.DataFrame, labels: Iterable[str]) -> AgreementCoefficient:
    """Return alpha of people and the model, over units."""
    codes = {label: code for code, label in enumerate(labels)}
    human, model = (
        pairs[side].replace_strict(codes, return_dtype=pl.Int64).to_numpy().astype(np.int64)
        for side in ("human", "model")
    )
    units = pairs["unit"].rank("dense").cast(pl.Int64).to_numpy()
    return alpha_of_pairs(human, model, units, len(codes))


def mean_cost(pairs: pl.DataFrame) -> float | None:
    """Return the mean cost of a case, None without cases."""
    return None if pairs.is_empty() else float(np.mean(pairs["cost"].to_numpy()))


def slices(pairs: pl.DataFrame, column: str, order: Iterable[str] = ()) -> tuple[Slice, ...]:
    """Return agreement by the values of a column: in `order`, those not in it behind."""
    parts = {
        str(value): part
        for (value,), part in pairs.filter(pl.col(column).is_not_null())
        .partition_by(column, as_dict=True)
        .items()
    }
    names = dict.fromkeys(order)
    ordered = [*(name for name in names if name in parts), *sorted(set(parts) - set(names))]
    return tuple(
        Slice(name, share_of(parts[name]), slice_kappa(parts[name]), mean_cost(parts[name]))
        for name in ordered
    )


def slice_kappa(pairs: pl.DataFrame) -> float | None:
    """Return kappa of labels; None for numbers and for all levers together."""
    labels = pairs.select("human", "model").drop_nulls()
    return counted_kappa(labels.group_by("human", "model").len())


def counted_kappa(counts: pl.DataFrame) -> float | None:
    """Return kappa of pairs that were counted, as `counted_matrix` takes them; None of none."""
    return kappa(counted_matrix(counts, ()).table) if counts.height else None


def _day_or_night(pairs: pl.DataFrame) -> pl.DataFrame:
    day = pl.col("hour_written").is_between(DAY_FIRST, DAY_LAST)
    part = pl.when(day).then(pl.lit("day")).when(~day).then(pl.lit("night"))
    return pairs.with_columns(part=part)


def _unjudged(
    pairs: pl.DataFrame, records: Records, version: str, lever: Lever | None
) -> dict[str, int]:
    """Return per label of the model the cases that are in no pair."""
    if lever is None:
        return {}
    predictions = records.predictions.filter(pl.col("version") == version)
    unpaired = predictions.join(pairs, on="case_key", how="anti")
    counts = unpaired.drop_nulls(VALUE + lever.id).group_by(VALUE + lever.id).len()
    failed = unpaired.height - int(counts["len"].sum())
    return {**dict(counts.iter_rows()), **({"": failed} if failed else {})}
