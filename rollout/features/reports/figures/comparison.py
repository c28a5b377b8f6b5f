"""Figures of a version from counted pairs: confusion, labels, agreement of every cell.

The figures are those of `agreement`, for independent pairs: counts don't contain units.

Confusion matrices of labels and actions have humans in rows, the model in columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rollout.features.reports.inputs.divergence_columns import COUNT_COLUMN, KEY_COLUMNS
from rollout.kernel.arrays import Floats, np, pl
from rollout.kernel.statistics.agreement import (
    MIN_RARE_CASES,
    AgreementCoefficient,
    compute_kappa_and_ac1,
)
from rollout.kernel.statistics.intervals import (
    Share,
    compute_missing_bounds,
    compute_share,
    compute_unit_share,
)
from rollout.kernel.units import AGREE, FAILED, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rollout.kernel.units import Lever


class LabelConfusion(NamedTuple):
    """A human label with a different model label: its count, and the total of the former."""

    human: str
    model: str
    times: int
    human_total: int


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Counts of pairs: rows are human answers, columns answers of the model.

    `labels` are those of either side; `costs` has the cost of one case of each pair, None for
    labels (their actions have the costs).
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[float, ...], ...] | None = None

    @property
    def table(self) -> Floats:
        """Return the counts as an array, shape (labels, labels)."""
        return np.array(self.counts, float).reshape(len(self.labels), len(self.labels))

    def list_confusions(self) -> Iterator[LabelConfusion]:
        """Yield the pairs of different answers with cases."""
        for human, counts in zip(self.labels, self.counts, strict=True):
            for model, times in zip(self.labels, counts, strict=True):
                if human != model and times:
                    yield LabelConfusion(human, model, times, sum(counts))


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How often humans and the model gave one label, and how often both did.

    `recall` is over cases with this human label, `precision` over cases with this model label.
    The bounds are 95 % intervals whatever cases without a decision would have said:
    `recall_bounds` if all others had this label and were missed, and if all with this model label
    were right; `precision_bounds` if those were all wrong, and all right.
    """

    label: str
    human: int
    model: int
    both: int
    precision: Share
    recall: Share
    recall_bounds: tuple[float, float] | None
    precision_bounds: tuple[float, float] | None


def build_matrix(pairs: pl.DataFrame, order: tuple[str, ...]) -> ConfusionMatrix:
    """Return the matrix of the answers of pairs: labels in `order`, then the others sorted.

    Labels without a case are excluded.
    """
    return build_matrix_from_counts(pairs.group_by("human", "model").len(), order)


def build_matrix_from_counts(counts: pl.DataFrame, order: tuple[str, ...]) -> ConfusionMatrix:
    """Return the matrix of counted pairs; labels as in `build_matrix`.

    Args:
        counts: three columns without nulls: human answer, answer of the model, count. A pair may
            have several rows.
        order: labels that come first.

    >>> import polars as pl
    >>> rows = {"human": ["elk", "bear"], "model": ["bear", "bear"], "n": [2, 7]}
    >>> build_matrix_from_counts(pl.DataFrame(rows), ("bear",)).counts
    ((7, 0), (2, 0))
    """
    human, model, _ = counts.columns
    used = set(counts[human]) | set(counts[model])
    rest = sorted(used - set(order))
    labels = tuple(label for label in (*dict.fromkeys(order), *rest) if label in used)
    positions = {label: index for index, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), dtype=int)
    for row, column, count in counts.iter_rows():
        table[positions[row], positions[column]] += count
    return ConfusionMatrix(labels, tuple(tuple(int(n) for n in row) for row in table))


def build_action_matrix(counts: pl.DataFrame, lever: Lever) -> ConfusionMatrix:
    """Return the matrix of counted pairs of actions with the cost of each pair."""
    matrix, actions = build_matrix_from_counts(counts, lever.actions), set(lever.actions)

    def find_cost(model_action: str, human_action: str) -> float:
        return (
            lever.compute_cost(model_action, human_action)
            if {model_action, human_action} <= actions
            else lever.largest_cost
        )

    costs = tuple(
        tuple(find_cost(model_action, human_action) for model_action in matrix.labels)
        for human_action in matrix.labels
    )
    return ConfusionMatrix(matrix.labels, matrix.counts, costs)


def compute_label_figures(
    pairs: pl.DataFrame, matrix: ConfusionMatrix, unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label, the most frequent human label first.

    Args:
        pairs: columns human, model, agrees, unit; intervals are over units.
        matrix: the matrix of these pairs.
        unreviewed: by label of the model, the cases without a single human label.
    """
    recalls, precisions = _compute_shares(pairs, "human"), _compute_shares(pairs, "model")
    nothing = compute_share(0, 0)
    shares = {
        label: (precisions.get(label, nothing), recalls.get(label, nothing))
        for label in matrix.labels
    }
    return _build_label_figures(shares, unreviewed, sum(unreviewed.values()))


def compute_lever_label_figures(
    pairs: pl.DataFrame,
    matrix: ConfusionMatrix | None,
    lever: Lever | None,
    unreviewed: dict[str, int],
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label or label of sets; () without a matrix, as for numbers."""
    if lever is not None and lever.many:
        return compute_set_label_figures(pairs, lever.labels, unreviewed)
    return () if matrix is None else compute_label_figures(pairs, matrix, unreviewed)


def compute_label_figures_from_counts(
    matrix: ConfusionMatrix, unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of independent pairs.

    `unreviewed` is as for `compute_label_figures`.
    """
    both, rows, columns = matrix.table.diagonal(), matrix.table.sum(1), matrix.table.sum(0)
    shares = {
        label: (compute_share(int(n), int(columns[index])), compute_share(int(n), int(rows[index])))
        for index, (label, n) in enumerate(zip(matrix.labels, both, strict=True))
    }
    return _build_label_figures(shares, unreviewed, sum(unreviewed.values()))


def compute_set_label_figures(
    pairs: pl.DataFrame, order: tuple[str, ...], unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of sets, the most frequent human label first.

    Args:
        pairs: columns human and model, each the text of a set, and unit.
        order: the lever's labels; those without a case are excluded.
        unreviewed: by label of the model, the cases without a single human answer; "" has all.
    """
    sides = pairs.select(
        "unit", *(pl.col(name).str.split(SEPARATOR).alias(name) for name in ("human", "model"))
    )
    shares = {label: _compute_set_shares(sides, label) for label in order}
    return _build_label_figures(shares, unreviewed, unreviewed.get("", 0))


def compute_set_label_figures_from_counts(
    counts: pl.DataFrame, order: tuple[str, ...], unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of independent pairs of sets.

    Args:
        counts: columns human and model, each the text of a set, and n.
        order, unreviewed: as for `compute_set_label_figures`.
    """
    sides = [counts[name].str.split(SEPARATOR) for name in ("human", "model")]
    times, shares = counts["n"].to_numpy().astype(np.int64), {}
    for label in order:
        has_human, has_model = (side.list.contains(label).to_numpy() for side in sides)
        human, model = (int(times[has_label].sum()) for has_label in (has_human, has_model))
        both = int(times[has_human & has_model].sum())
        shares[label] = (compute_share(both, model), compute_share(both, human))
    return _build_label_figures(shares, unreviewed, unreviewed.get("", 0))


def _compute_set_shares(sides: pl.DataFrame, label: str) -> tuple[Share, Share]:
    """Return precision and recall of a label of sets."""
    has_human, has_model = (pl.col(side).list.contains(label) for side in ("human", "model"))
    precision, recall = (
        compute_unit_share(sides.filter(basis).select("unit", agrees=other))
        for basis, other in ((has_model, has_human), (has_human, has_model))
    )
    return precision, recall


def _compute_shares(pairs: pl.DataFrame, side: str) -> dict[str, Share]:
    """Return the share that agrees, by label of one side."""
    parts = pairs.select(side, "unit", "agrees").partition_by(side, as_dict=True)
    return {str(label): compute_unit_share(part) for (label,), part in parts.items()}


def _build_label_figures(
    shares: Mapping[str, tuple[Share, Share]], unreviewed: Mapping[str, int], missing: int
) -> tuple[LabelFigures, ...]:
    """Return the figures of labels in use, the most frequent human label first.

    Args:
        shares: precision and recall by label.
        unreviewed: the cases without one human answer that the model gave each label.
        missing: all cases without one human answer.
    """
    figures = [
        LabelFigures(
            label=label,
            human=recall.n,
            model=precision.n,
            both=recall.count,
            precision=precision,
            recall=recall,
            recall_bounds=compute_missing_bounds(recall, missing - missing_as, missing_as),
            precision_bounds=compute_missing_bounds(precision, missing_as),
        )
        for label, (precision, recall) in shares.items()
        for missing_as in [unreviewed.get(label, 0)]
        if recall.n or precision.n
    ]
    return tuple(sorted(figures, key=lambda row: (-row.human, -row.model, row.label)))


UNDER, OVER = "under", "over"  # as units are counted


@dataclass(frozen=True, slots=True)
class NumberSides:
    """Where the model's numbers lie, of all compared ones, as independent cases.

    Attributes:
        within: within the tolerance of the human's number.
        below, above: farther off, on that side.
        unusable: failed, late, or a number out of range on either side.
    """

    within: Share
    below: Share
    above: Share
    unusable: Share


def compute_number_sides(counts: Iterable[tuple[str, str, int]]) -> NumberSides:
    """Return the sides of counted pairs: human side, model side, count.

    >>> sides = compute_number_sides([(AGREE, AGREE, 6), (AGREE, UNDER, 3), (AGREE, "(failed)", 1)])
    >>> sides.within.count, sides.below.count, sides.above.count, sides.unusable.count
    (6, 3, 0, 1)
    """
    totals = {AGREE: 0, UNDER: 0, OVER: 0, "": 0}
    for human, model, count in counts:
        totals[model if human == AGREE and model in totals else ""] += count
    n = sum(totals.values())
    within, below, above, unusable = (compute_share(count, n) for count in totals.values())
    return NumberSides(within, below, above, unusable)


CELL_COLUMNS = ("site", "window")


@dataclass(frozen=True, slots=True)
class CellAgreement:
    """Agreement in one cell; site or window are None if the pairs have none."""

    site: str | None
    window: str | None
    agreement: Share
    kappa: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class PairFigures:
    """The figures of one version on one lever.

    Attributes:
        version, lever: None if the pairs have no such column.
        unjudged: cases with a prediction and no human answer, or several.
        agreement: pairs that agree; for numbers within the tolerance.
        bounds: 95 % interval whatever the unjudged cases would have said.
        kappa, ac1: corrected for chance; None for numbers and sets.
        cost: mean cost of following the model, in the policy's unit; None without a policy.
        labels: figures of each label; empty for numbers.
        label_matrix: humans in rows, the model in columns; None for numbers.
        action_matrix: the same for actions; None without a policy.
    """

    version: str | None
    lever: str | None
    unjudged: int
    agreement: Share
    bounds: tuple[float, float] | None
    kappa: AgreementCoefficient | None
    ac1: AgreementCoefficient | None
    cost: float | None
    labels: tuple[LabelFigures, ...]
    label_matrix: ConfusionMatrix | None
    action_matrix: ConfusionMatrix | None


@dataclass(frozen=True, slots=True)
class Comparison(PairFigures):
    """The figures of one version on one lever, from counted pairs.

    Attributes:
        version, lever: None if the pairs have no such column.
        unjudged: cases with a prediction and no human answer.
        agreement: pairs that agree, as independent cases.
        bounds: agreement if all unjudged cases disagreed, and if all agreed.
        kappa, ac1: corrected for chance; None for numbers.
        cost: mean cost of following the model; None without a policy.
        labels: figures of each label; empty for numbers.
        label_matrix: humans in rows, the model in columns; None for numbers.
        action_matrix: the same for actions; None without a policy.
        cells: agreement of every cell with a pair; empty without sites and windows.
        sides: of numbers, how many lie below and above the tolerance; None for labels.
    """

    cells: tuple[CellAgreement, ...]
    sides: NumberSides | None = None


@dataclass(frozen=True, slots=True)
class VersionMatrix:
    """Comparisons of a version's answers with human decisions.

    Attributes:
        basis: description of the counted units.
        items: one comparison per lever, and one for all (`*`) if there are several; empty before
            the first unit closes. Levers with numbers or sets, and `*`, have no labels, matrix or
            kappa.
    """

    version: str
    basis: str
    items: tuple[Comparison, ...]


def compute_comparisons(
    table: pl.DataFrame,
    lever: Lever | None = None,
    *,
    has_labels: bool = True,
    has_numbers: bool = False,
) -> tuple[Comparison, ...]:
    """Return the figures of every version and lever in a table, sorted.

    Args:
        table: the table of `count_pairs`. A null human answer means a case without one, a null
            answer of the model a failed prediction.
        lever: gives labels, actions and costs; without it labels are sorted.
        has_labels: False if the answers say only whether the two agree.
        has_numbers: whether the answers are the sides of numbers.
    """
    parts = table.partition_by("version", "lever", as_dict=True)
    ordered = sorted(parts, key=lambda key: [(name is None, name or "") for name in key])
    return tuple(
        _compute_comparison(parts[key], lever, has_labels=has_labels, has_numbers=has_numbers)
        for key in ordered
    )


def _compute_comparison(
    part: pl.DataFrame, lever: Lever | None, *, has_labels: bool, has_numbers: bool
) -> Comparison:
    answered = part.with_columns(pl.col("model").fill_null(FAILED))
    unreviewed = answered.filter(pl.col("human").is_null())
    reviewed = _add_costs(answered.filter(pl.col("human").is_not_null()), lever)
    n = int(reviewed[COUNT_COLUMN].sum())
    agreement = compute_share(
        int(reviewed.filter(pl.col("human") == pl.col("model"))[COUNT_COLUMN].sum()), n
    )
    unreviewed_count = int(unreviewed[COUNT_COLUMN].sum())
    matrix = (
        build_matrix_from_counts(
            reviewed.group_by("human", "model").agg(pl.col(COUNT_COLUMN).sum()),
            lever.labels if lever else (),
        )
        if has_labels
        else None
    )
    kappa, ac1 = (
        compute_kappa_and_ac1(matrix.table, labels=matrix.labels) if matrix else (None, None)
    )
    return Comparison(
        version=part["version"][0],
        lever=part["lever"][0],
        unjudged=unreviewed_count,
        agreement=agreement,
        bounds=compute_missing_bounds(agreement, unreviewed_count),
        kappa=kappa,
        ac1=ac1,
        cost=float((reviewed["cost"] * reviewed[COUNT_COLUMN]).sum()) / n
        if n and "cost" in reviewed.columns
        else None,
        labels=compute_label_figures_from_counts(
            matrix,
            dict(
                unreviewed.group_by("model")
                .agg(pl.col(COUNT_COLUMN).sum())
                .sort("model")
                .iter_rows()
            ),
        )
        if matrix
        else (),
        label_matrix=matrix,
        action_matrix=build_action_matrix(
            reviewed.select("human_action", "model_action", COUNT_COLUMN), lever
        )
        if lever and has_labels
        else None,
        cells=tuple(_compute_cells(reviewed, has_labels=has_labels)),
        sides=compute_number_sides(reviewed.select("human", "model", COUNT_COLUMN).iter_rows())
        if has_numbers
        else None,
    )


def _add_costs(reviewed: pl.DataFrame, lever: Lever | None) -> pl.DataFrame:
    """Add cost and actions to each pair; unchanged without a lever of labels."""
    from rollout.features.reports.inputs.pairs import compare_pairs

    if lever is None or lever.number is not None:
        return reviewed
    costs = compare_pairs(lever, reviewed).drop("agrees")
    return reviewed.join(costs, on=["human", "model"], how="left").sort(
        KEY_COLUMNS, nulls_last=True
    )  # a fixed order makes sums of costs reproducible to the last digit


def _compute_cells(reviewed: pl.DataFrame, *, has_labels: bool) -> Iterator[CellAgreement]:
    label_counts = _count_labels_by_cell(reviewed)
    sums = pl.col(name for name in label_counts.columns if name in {"said", "agreed", "cost"}).sum()
    chance = (pl.col("said") * pl.col("given")).sum().alias("chance")
    most = (pl.col("said").max().alias("most_said"), pl.col("given").max().alias("most_given"))
    by_cell = label_counts.group_by(
        CELL_COLUMNS, maintain_order="cost" in label_counts.columns
    ).agg(sums, chance, *most)
    for row in by_cell.sort(CELL_COLUMNS, nulls_last=True).iter_rows(named=True):
        if (row["site"], row["window"]) != (None, None):
            yield _build_cell(row, has_labels=has_labels)


def _count_labels_by_cell(reviewed: pl.DataFrame) -> pl.DataFrame:
    """Return how often humans and the model gave each label in each cell.

    Columns: `CELL_COLUMNS`, label, said (by humans), agreed (of these), cost if known, given (by
    the model).
    """
    n = pl.col(COUNT_COLUMN).cast(pl.Int64)
    human_columns = {"said": n, "agreed": pl.when(pl.col("human") == pl.col("model")).then(n)}
    if "cost" in reviewed.columns:
        human_columns["cost"] = pl.col("cost") * n
    human = reviewed.select(*CELL_COLUMNS, label="human", **human_columns)
    return (
        pl.concat([human, reviewed.select(*CELL_COLUMNS, label="model", given=n)], how="diagonal")
        .group_by(*CELL_COLUMNS, "label", maintain_order="cost" in human_columns)
        .sum()
    )  # keeping the order takes half as long again


def _build_cell(row: dict[str, Any], *, has_labels: bool) -> CellAgreement:
    """Return a cell's figures; `chance` is n² times the agreement expected by chance.

    Kappa is None if either side has fewer than ten cases of other labels than its commonest.
    """
    n, agreeing, chance = row["said"], row["agreed"], row["chance"]
    rare = n - max(row["most_said"], row["most_given"])
    return CellAgreement(
        site=row["site"],
        window=row["window"],
        agreement=compute_share(agreeing, n),
        kappa=(n * agreeing - chance) / (n * n - chance)
        if has_labels and rare >= MIN_RARE_CASES
        else None,
        cost=row["cost"] / n if "cost" in row else None,
    )
