"""Agreement of each reviewer with the model, other reviewers and outcomes, and the human ceiling.

Reviewers of hard cells agree less often, so each reviewer is compared with the others in the same
cells, corrected for the number of reviewers.

The human ceiling is the agreement among reviewers, compared with the agreement of a model. A model
that agrees with humans as often as they agree with each other is at the ceiling. Only unassisted
decisions on cases with several reviewers count.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import narwhals as nw
import numpy as np
import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.picks import parse_number
from rollout.features.reports.figures.ratings import (
    RaterAgreement,
    compute_model_agreement,
    compute_number_agreement,
    compute_rater_agreement,
    compute_set_agreement,
)
from rollout.features.reports.inputs.pairs import UNASSISTED_EXPOSURES, Pairs, join_comparison
from rollout.kernel.arrays import Ints
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.agreement import AgreementCoefficient, compare_sets
from rollout.kernel.statistics.differences import build_strata_table, compute_tail_chance
from rollout.kernel.statistics.intervals import (
    CONFIDENCE_LEVEL,
    Share,
    compute_clustered_share,
    compute_share,
    compute_unit_share,
)
from rollout.kernel.units import FAILED, Lever

LABEL_SEPARATOR = "\x1f"  # between the labels of several levers


@dataclass(frozen=True, slots=True)
class HumanCeiling:
    """Agreement among reviewers and of the model, on the same cases.

    Attributes:
        lever: the lever; `*` for all of them together.
        reviewers: agreement of reviewers with each other.
        version: of the model.
        model: share of human decisions that the model agrees with.
        model_alpha: alpha of the model and one random reviewer of each case.
        with_model: all figures of the model and one random reviewer; None for numbers.
        majority: share of cases on which the model agrees with most reviewers, ties excluded; of
            numbers, with their lower median.
        majority_outcome: share of known outcomes that most reviewers, or their median, agree with.
    """

    lever: str
    reviewers: RaterAgreement
    version: str
    model: Share
    model_alpha: AgreementCoefficient | None
    with_model: RaterAgreement | None
    majority: Share
    majority_outcome: Share


@dataclass(frozen=True)
class MultiReviewedCases:
    """Decisions on cases with several reviewers, on one lever.

    Attributes:
        lever: None for all of them together.
        decisions: case_key, unit, label; of a number also x, without answers that are none.
        outcomes: case_key, outcome.
    """

    lever: Lever | None
    decisions: pl.DataFrame
    outcomes: pl.DataFrame

    @property
    def set_lever(self) -> Lever | None:
        """Return the lever if its answers are sets of labels."""
        return self.lever if self.lever and self.lever.many else None

    @property
    def number_lever(self) -> Lever | None:
        """Return the lever if it is numeric."""
        return self.lever if self.lever and self.lever.number else None


def compute_ceilings(
    decisions: pl.DataFrame, records: RecordFrames, policy: Policy
) -> tuple[HumanCeiling, ...]:
    """Return the ceiling of every version and lever; several levers of labels also combined.

    `decisions`: one row per unassisted decision and lever: case_key, reviewer, lever, label, unit.
    """
    parts = list(_build_multi_reviewed_cases(decisions, records, policy))
    agreements = [_compute_human_agreement(part) for part in parts]
    versions = records.predictions["version"].unique().sort().to_list()
    return tuple(
        _compute_ceiling(part, agreement, policy, records, version)
        for version in versions
        for part, agreement in zip(parts, agreements, strict=True)
    )


def _build_multi_reviewed_cases(
    decisions: pl.DataFrame, records: RecordFrames, policy: Policy
) -> Iterator[MultiReviewedCases]:
    labelled = decisions.drop_nulls("label")
    for lever in policy.levers:
        labels = labelled.filter(pl.col("lever") == lever.id).select("case_key", "unit", "label")
        if lever.number is not None:
            numbers = nw.from_native(labels).with_columns(x=parse_number(nw.col("label")))
            labels = numbers.to_native().drop_nulls("x")
        outcomes = records.outcomes.select("case_key", outcome=VALUE_PREFIX + lever.id).drop_nulls()
        yield MultiReviewedCases(lever, _select_multi_reviewed(labels), outcomes)
    if len(policy.levers) > 1 and all(lever.has_single_labels for lever in policy.levers):
        yield MultiReviewedCases(
            None,
            _select_multi_reviewed(_join_levers(labelled, policy)),
            _join_outcomes(records.outcomes, policy),
        )


def _select_multi_reviewed(decisions: pl.DataFrame) -> pl.DataFrame:
    return decisions.filter(pl.len().over("case_key") > 1).sort("case_key", "label")


def _join_levers(labelled: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return the joined answers of reviewers who answered on all levers."""
    order = [lever.id for lever in policy.levers]
    lever_index = pl.col("lever").replace_strict(
        order, list(range(len(order))), return_dtype=pl.Int64
    )
    return (
        labelled.sort(lever_index)
        .group_by("case_key", "unit", "reviewer", maintain_order=True)
        .agg(label=pl.col("label").str.join(LABEL_SEPARATOR), levers=pl.len())
        .filter(pl.col("levers") == len(order))
        .select("case_key", "unit", "label")
    )


def _join_outcomes(answers: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    return answers.select(
        "case_key", outcome=pl.concat_str(columns, separator=LABEL_SEPARATOR)
    ).drop_nulls()


def _compute_human_agreement(part: MultiReviewedCases) -> RaterAgreement:
    if part.number_lever:
        return _compute_number_agreement(part.number_lever, part.decisions)
    values, units, _ = _count_labels(part.decisions)
    if part.set_lever:
        texts = part.decisions["label"].unique().sort()
        return compute_set_agreement(
            values, *compare_sets(texts.to_list(), part.set_lever.overlap), units
        )
    return compute_rater_agreement(values, units)


def _compute_number_agreement(lever: Lever, numbers: pl.DataFrame) -> RaterAgreement:
    pairs = numbers.with_row_index("one").join(
        numbers.with_row_index("other").select("case_key", "other", model="label"), on="case_key"
    )
    pairs = pairs.filter(pl.col("one") < pl.col("other"))
    agreeing = (
        join_comparison(lever, pairs, "label", agrees="agrees")
        .group_by("case_key")
        .agg(agreeing=pl.col("agrees").sum())
    )
    x = pl.col("x") - (numbers["x"].mean() or 0.0)  # gaps stay, and squares cancel nothing
    sums = numbers.group_by("case_key", "unit").agg(m=pl.len(), sum=x.sum(), square=(x**2).sum())
    cases = sums.join(agreeing, on="case_key").sort("case_key")
    return compute_number_agreement(
        _to_int_array(cases["m"]),
        cases["sum"].to_numpy(),
        cases["square"].to_numpy(),
        _to_int_array(cases["agreeing"]),
        _encode_values(cases["unit"]),
    )


def _compute_ceiling(
    part: MultiReviewedCases,
    human_agreement: RaterAgreement,
    policy: Policy,
    records: RecordFrames,
    version: str,
) -> HumanCeiling:
    answers = _select_answers(part, policy, records, version)
    joined = part.decisions.join(answers, on="case_key")
    model_agreement = None if part.number_lever else _compute_model_agreement(part, joined)
    majority = _find_majority_answers(part)
    return HumanCeiling(
        lever=part.lever.id if part.lever else policy.whole_unit_lever,
        reviewers=human_agreement,
        version=version,
        model=compute_unit_share(_mark_agreement(part, joined)),
        model_alpha=model_agreement.alpha if model_agreement else None,
        with_model=model_agreement,
        majority=compute_unit_share(_mark_agreement(part, majority.join(answers, on="case_key"))),
        majority_outcome=compute_unit_share(
            _mark_agreement(
                part, majority.join(part.outcomes.rename({"outcome": "model"}), on="case_key")
            )
        ),
    )


def _select_answers(
    part: MultiReviewedCases, policy: Policy, records: RecordFrames, version: str
) -> pl.DataFrame:
    """Return the answers of a version: case_key, model."""
    predictions = records.predictions.filter(pl.col("version") == version)
    if part.lever:
        return predictions.select(
            "case_key", model=pl.col(VALUE_PREFIX + part.lever.id).fill_null(FAILED)
        )
    columns = [pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED) for lever in policy.levers]
    return predictions.select("case_key", model=pl.concat_str(columns, separator=LABEL_SEPARATOR))


def _mark_agreement(part: MultiReviewedCases, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return rows of unit and agrees."""
    lever = part.number_lever or part.set_lever
    if lever is None:
        return pairs.select("unit", agrees=pl.col("label") == pl.col("model"))
    return join_comparison(lever, pairs, "label", agrees="agrees").select("unit", "agrees")


def _find_majority_answers(part: MultiReviewedCases) -> pl.DataFrame:
    """Return the majority label of each case without ties, or the lower median of its numbers."""
    if part.number_lever is None:
        return (
            part.decisions.group_by("case_key", "unit", "label")
            .len(name="votes")
            .filter(pl.col("votes") == pl.col("votes").max().over("case_key"))
            .filter(pl.len().over("case_key") == 1)
            .sort("case_key")
        )
    return (
        part.decisions.sort("case_key", "x", "label")
        .group_by("case_key", maintain_order=True)
        .agg(pl.col("unit").first(), pl.col("label").get((pl.len() - 1) // 2))
    )


def _compute_model_agreement(part: MultiReviewedCases, joined: pl.DataFrame) -> RaterAgreement:
    """Return agreement of the model with a random reviewer of each case."""
    labels = pl.concat([joined["label"], joined["model"]]).unique().sort()
    values, units, cases = _count_labels(joined, labels)
    answers = joined.unique("case_key", keep="first").sort("case_key")
    codes = _to_int_array(answers.select(_encode_labels("model", labels)).to_series())
    assert cases.to_list() == answers["case_key"].to_list()  # noqa: S101 - one order for both
    lever = part.set_lever
    comparison = compare_sets(labels.to_list(), lever.overlap) if lever else None
    return compute_model_agreement(values, codes, units, comparison)


def _count_labels(
    decisions: pl.DataFrame, label_order: pl.Series | None = None
) -> tuple[Ints, Ints, pl.Series]:
    """Return how often each label was given to each case, the cases' units, and the cases."""
    labels = decisions["label"].unique().sort() if label_order is None else label_order
    cases = decisions.select("case_key", "unit").unique().sort("case_key")
    votes = (
        decisions.select(
            case=pl.col("case_key").rank("dense").cast(pl.Int64) - 1,
            value=_encode_labels("label", labels),
        )
        .group_by("case", "value")
        .len()
    )
    values = np.zeros((cases.height, len(labels)), dtype=np.int64)
    values[_to_int_array(votes["case"]), _to_int_array(votes["value"])] = _to_int_array(
        votes["len"]
    )
    return values, _encode_values(cases["unit"]), cases["case_key"]


def _encode_labels(column: str, labels: pl.Series) -> pl.Expr:
    codes = {label: code for code, label in enumerate(labels)}
    return pl.col(column).replace_strict(codes, return_dtype=pl.Int64).cast(pl.Int64)


def _encode_values(column: pl.Series) -> Ints:
    """Return a code for each distinct text."""
    return _to_int_array(column.rank("dense").cast(pl.Int64) - 1)


def _to_int_array(column: pl.Series) -> Ints:
    """Return integers as an array, also for an empty column without a type."""
    return column.to_numpy().astype(np.int64)


ROW_COLUMNS = ("reviewer", "unit", "site", "window", "agrees")
STRATA_COLUMNS = ("n", "differ", "all_n", "all_differ")


@dataclass(frozen=True, slots=True)
class Reviewer:
    """One reviewer's unassisted decisions, and their agreement.

    Attributes:
        reviewer: as in the records.
        answers, unsure: answers, and decisions without an answer.
        with_model: agreement with `model_version`.
        with_others: agreement with every other reviewer of the same case.
        with_outcome: agreement with outcomes.
        clearly_below_in: comparisons in which the reviewer is clearly below the others in the same
        cells: `outcome`, `others`, `model`; usually empty.
    """

    reviewer: str
    answers: int
    unsure: int
    with_model: Share
    with_others: Share
    with_outcome: Share
    clearly_below_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewerAgreement:
    """All reviewers, outliers first, and the human ceiling by lever."""

    model_version: str | None
    reviewers: tuple[Reviewer, ...]
    ceilings: tuple[HumanCeiling, ...]


def compute_reviewer_agreement(
    pairs: Pairs, records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> ReviewerAgreement:
    """Return the agreement of all reviewers.

    The model's version is the one with most predictions, the same for all reviewers.
    """
    version = max(
        pairs.predicted, key=lambda candidate: (pairs.predicted[candidate], candidate), default=None
    )
    decisions = _build_decision_frame(records, facts, policy)
    reviewers = _compute_reviewers(decisions, records, policy, version)
    return ReviewerAgreement(version, reviewers, compute_ceilings(decisions, records, policy))


def _select_share(reviewer: Reviewer, comparison: str) -> Share:
    """Return a reviewer's agreement with `outcome`, `others` or `model`."""
    shares = {
        "outcome": reviewer.with_outcome,
        "others": reviewer.with_others,
        "model": reviewer.with_model,
    }
    return shares[comparison]


def list_visible_standouts(
    reviewers: tuple[Reviewer, ...],
) -> list[tuple[Reviewer, str, Share, float]]:
    """Return outliers with a comparison in which they are below the others in all cells too.

    It comes with their share in all cells, and the rate of all others together.

    A reviewer of easy cells can be below the others in the same cells, and above all others
    together. The pages show the shares over all cells, which would then say the opposite.
    """
    standouts = []
    for reviewer in reviewers:
        for comparison in reviewer.clearly_below_in:
            share = _select_share(reviewer, comparison)
            others = [_select_share(row, comparison) for row in reviewers if row is not reviewer]
            rate = sum(other.count for other in others) / max(sum(other.n for other in others), 1)
            if share.rate is not None and share.rate < rate:
                standouts.append((reviewer, comparison, share, rate))
                break
    return standouts


def _build_decision_frame(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> pl.DataFrame:
    """Return a row per unassisted decision and lever: case_key, reviewer, lever, label, unit."""
    places = facts.select("case_key", "unit", "site", "window")
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    parts = [
        unassisted.select(
            "case_key",
            "reviewer",
            "at",
            "seat",
            lever=pl.lit(lever.id),
            label=VALUE_PREFIX + lever.id,
        )
        for lever in policy.levers
    ]
    return pl.concat(parts).join(places, on="case_key", how="left")


def _compute_reviewers(
    decisions: pl.DataFrame, records: RecordFrames, policy: Policy, version: str | None
) -> tuple[Reviewer, ...]:
    comparisons = {
        "outcome": _compare_with(decisions, records.outcomes, policy),
        "others": _compare_with_others(decisions, policy),
        "model": _compare_with(
            decisions,
            records.predictions.filter(pl.col("version") == pl.lit(version, pl.String)),
            policy,
        ),
    }
    shares = {name: _compute_shares(frame) for name, frame in comparisons.items()}
    counts = decisions.group_by("reviewer").agg(
        verdicts=pl.col("label").is_not_null().sum(), unsure=pl.col("label").is_null().sum()
    )
    standouts = {kind: _find_standouts(comparisons[kind], shares[kind]) for kind in comparisons}
    rows = [
        Reviewer(
            reviewer=str(name),
            answers=int(decision_count),
            unsure=int(unsure),
            with_model=shares["model"].get(name, compute_share(0, 0)),
            with_others=shares["others"].get(name, compute_share(0, 0)),
            with_outcome=shares["outcome"].get(name, compute_share(0, 0)),
            clearly_below_in=tuple(kind for kind in shares if name in standouts[kind]),
        )
        for name, decision_count, unsure in counts.sort("reviewer").iter_rows()
    ]
    return tuple(sorted(rows, key=_build_sort_key))


def _build_sort_key(reviewer: Reviewer) -> tuple[bool, float, str]:
    """Return the sort key: outliers first, then by outcome, other reviewers or model."""
    figures = (reviewer.with_outcome, reviewer.with_others, reviewer.with_model)
    rate = next((figure.rate for figure in figures if figure.rate is not None), 2.0)
    return (not reviewer.clearly_below_in, rate, reviewer.reviewer)


def _compare_with(decisions: pl.DataFrame, other: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each decision with whether it agrees with the other side's answer."""
    parts = [
        decisions.filter(pl.col("lever") == lever.id).join(
            other.select("case_key", model=VALUE_PREFIX + lever.id).drop_nulls(), on="case_key"
        )
        for lever in policy.levers
    ]
    return mark_agreement(parts, policy)


def _compare_with_others(decisions: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each decision with whether it agrees, once per other reviewer of the case."""
    multi_reviewed = decisions.drop_nulls("label").filter(pl.len().over("case_key", "lever") > 1)
    pairs = multi_reviewed.join(
        multi_reviewed.select("case_key", "lever", other="reviewer", model="label"),
        on=["case_key", "lever"],
    ).filter(pl.col("reviewer") != pl.col("other"))
    parts = [pairs.filter(pl.col("lever") == lever.id) for lever in policy.levers]
    return mark_agreement(parts, policy)


def mark_agreement(
    parts: list[pl.DataFrame], policy: Policy, columns: tuple[str, ...] = ROW_COLUMNS[:-1]
) -> pl.DataFrame:
    """Return decisions with whether each agrees: `columns` and `agrees`.

    `parts` has a frame for each lever of the policy, in order, with label (of the reviewer), model
    (the other side's answer) and `columns`.
    """
    return pl.concat(
        join_comparison(lever, part.drop_nulls("label"), "label", agrees="agrees").select(
            *columns, "agrees"
        )
        for lever, part in zip(policy.levers, parts, strict=True)
    )


def _compute_shares(decisions: pl.DataFrame) -> dict[str, Share]:
    units = decisions.group_by("reviewer", "unit").agg(pl.col("agrees").sum(), size=pl.len())
    return {
        str(name): compute_clustered_share(part["agrees"].to_numpy(), part["size"].to_numpy())
        for (name,), part in units.sort("unit").partition_by("reviewer", as_dict=True).items()
    }


def _find_standouts(decisions: pl.DataFrame, shares: dict[str, Share]) -> set[str]:
    """Return the reviewers who are clearly below the others in the same cells.

    Two reasons for a difference are excluded: bursts, by the interval of the reviewer's share, and
    the chance that the few errors of a cell are all one reviewer's, by the exact test of strata.
    """
    counts = _count_with_others(decisions)
    tables = counts.partition_by("reviewer", as_dict=True, maintain_order=True)
    level = 1 - (1 - CONFIDENCE_LEVEL) / max(len(tables), 1)
    strata_by_name = {
        str(name): build_strata_table(*(table[column].to_numpy() for column in STRATA_COLUMNS))
        for (name,), table in tables.items()
    }
    return {
        name
        for name, strata in strata_by_name.items()
        if shares[name].compute_ends(level)[1] < 1 - strata.expected_share
        and compute_tail_chance(strata) < (1 - level) / 2
    }


def _count_with_others(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return decisions and disagreements by reviewer and cell, beside those of all reviewers.

    Cells with a single reviewer are excluded, and so are reviewers without a shared cell.
    """
    cell = ["site", "window"]
    counts = decisions.group_by("reviewer", *cell).agg(n=pl.len(), differ=(~pl.col("agrees")).sum())
    return (
        counts.with_columns(
            all_n=pl.col("n").sum().over(cell), all_differ=pl.col("differ").sum().over(cell)
        )
        .filter(pl.col("all_n") > pl.col("n"))
        .sort("reviewer", *cell)
        .with_columns(pl.col(STRATA_COLUMNS).cast(pl.Int64))
    )
