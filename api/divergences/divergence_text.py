"""Text of the divergences page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from rollout.engine.words import formatting
from rollout.features.divergences.divergence_list import (
    MAX_COMPARED_UNITS,
    CostliestKind,
    DivergencePage,
)
from rollout.features.reports.figures.comparison import ConfusionMatrix
from rollout.features.reports.pages.page_templates import choose_cost_shade, choose_count_shade
from rollout.kernel.units import Lever
from rollout.live.versions import VersionStatus

MAX_LABELS: Final = 12
"""Most rows of a matrix; rarer labels are merged into the last one."""
OTHER_LABELS: Final = "all others"


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell: its figure, a smaller figure below it, and its shade class."""

    text: str
    small: str
    shade: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One row: label, cells and the total at its end."""

    label: str
    cells: tuple[MatrixCell, ...]
    end: MatrixCell


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """A matrix as a page shows it; `totals` is the last row, or empty."""

    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    totals: tuple[str, ...]


def build_label_table(matrix: ConfusionMatrix) -> MatrixTable:
    r"""Return a matrix of labels: counts, each with its share of the row.

    >>> build_label_table(ConfusionMatrix(("bear", "none"), ((9, 1), (0, 0)))).rows[0].cells[
    ...     1
    ... ].small
    '10.0\xa0%'
    """
    merged = merge_rare_labels(matrix)
    rows = [
        MatrixRow(
            label,
            tuple(
                _build_count_cell(count, sum(counts), is_agreement=row == column)
                for column, count in enumerate(counts)
            ),
            MatrixCell(formatting.format_count(sum(counts)), "", ""),
        )
        for row, (label, counts) in enumerate(zip(merged.labels, merged.counts, strict=True))
    ]
    sums = [sum(counts) for counts in zip(*merged.counts, strict=True)]
    totals = tuple(formatting.format_count(count) for count in (*sums, sum(sums)))
    return MatrixTable(merged.labels, tuple(rows), totals)


def build_action_table(matrix: ConfusionMatrix) -> MatrixTable:
    """Return a matrix of actions per 100 cases, with costs.

    >>> table = build_action_table(
    ...     ConfusionMatrix(("ring", "wait"), ((3, 1), (0, 6)), ((0, 20), (1, 0)))
    ... )
    >>> table.rows[0].end.text, table.rows[0].cells[1]
    ('200.0', MatrixCell(text='10.0', small='20 each', shade='lo-4'))
    """
    costs, total = matrix.costs or (), sum(map(sum, matrix.counts))
    losses = [
        [count * cost for count, cost in zip(counts, row_costs, strict=True)]
        for counts, row_costs in zip(matrix.counts, costs, strict=True)
    ]
    max_loss = max((cost for row in losses for cost in row), default=0.0)
    rows = [
        MatrixRow(
            label,
            tuple(
                _build_action_cell(
                    count, total, costs[row][column], max_loss, is_agreement=row == column
                )
                for column, count in enumerate(matrix.counts[row])
            ),
            MatrixCell(formatting.format_decimal(100 * sum(losses[row]) / total, 1), "", ""),
        )
        for row, label in enumerate(matrix.labels)
    ]
    return MatrixTable(matrix.labels, tuple(rows), ())


def merge_rare_labels(matrix: ConfusionMatrix, limit: int = MAX_LABELS) -> ConfusionMatrix:
    """Merge the rarest labels, so that at most `limit` rows remain.

    >>> merge_rare_labels(ConfusionMatrix(("a", "b", "c"), ((5, 0, 0), (0, 1, 1), (0, 0, 2))), 2)
    ConfusionMatrix(labels=('a', 'all others'), counts=((5, 0), (0, 4)), costs=None)
    """
    if len(matrix.labels) <= limit:
        return matrix
    sums = [
        sum(row) + sum(column)
        for row, column in zip(matrix.counts, zip(*matrix.counts, strict=True), strict=True)
    ]
    common = sorted(range(len(sums)), key=lambda index: -sums[index])[: limit - 1]
    selected = sorted(common)
    groups = [
        *([index] for index in selected),
        [index_item for index_item in range(len(sums)) if index_item not in common],
    ]
    counts = tuple(
        tuple(
            sum(matrix.counts[row][column] for row in rows for column in columns)
            for columns in groups
        )
        for rows in groups
    )
    return ConfusionMatrix((*(matrix.labels[index] for index in selected), OTHER_LABELS), counts)


def _build_count_cell(count: int, total: int, *, is_agreement: bool) -> MatrixCell:
    if not count:
        return MatrixCell("0", "", "")
    shade = choose_count_shade(count, total, is_agreement=is_agreement)
    return MatrixCell(
        formatting.format_count(count), formatting.format_percent(count / total), shade
    )


def _build_action_cell(
    count: int, total: int, unit_cost: float, max_loss: float, *, is_agreement: bool
) -> MatrixCell:
    text = formatting.format_decimal(100 * count / total, 1)
    if is_agreement:
        return MatrixCell(text, "", choose_count_shade(count, total, is_agreement=True))
    shade = choose_cost_shade(count * unit_cost, max_loss)
    return MatrixCell(text if count else "0", f"{unit_cost:g} each", shade)


CLEANING_PERMISSION_TEXT: Final = (
    "Only an operator at the case's site chooses what training does with it. An admin can grant "
    "that role."
)


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """A version in the form with its status: `v7, acting`."""

    version: str
    text: str


def build_version_choices(statuses: Sequence[VersionStatus], selected: str) -> list[VersionChoice]:
    """Return the selectable versions, newest first, and the selected one."""
    choices = [
        VersionChoice(
            status.version, f"{_format_names(status)}, {_describe_version_status(status)}"
        )
        for status in statuses
    ]
    listed_versions = {status.version for status in statuses}
    extra_choices = (
        [VersionChoice(selected, selected)] if selected and selected not in listed_versions else []
    )
    return [*extra_choices, *reversed(choices)]


def _format_names(version: VersionStatus) -> str:
    newest = (version.version, *version.other_names)[-1]
    return newest if not version.other_names else f"{newest} (was {version.version})"


def _describe_version_status(version: VersionStatus) -> str:
    if version.retired:
        return "retired"
    return "acting" if version.acting_cells else "in shadow"


def describe_divergences(divergences: DivergencePage) -> str:
    """Describe how many divergences there are and what they cost."""
    compared_text = (
        f"{formatting.format_quantity(divergences.compared, 'compared case')} from"
        f" {format_days(divergences)}"
    )
    if not divergences.compared:
        return f"No case from {format_days(divergences)} is compared."
    if not divergences.count:
        return f"None of {compared_text} differs."
    verb = "differs" if divergences.count == 1 else "differ"
    how = ", " + _describe_action_share(divergences)
    if divergences.sides is not None:  # a number is its own action
        how = " by more than the tolerance"
    sentence = f"{formatting.format_count(divergences.count)} of {compared_text} {verb}{how}."
    if divergences.costliest_kind is None:
        return f"{sentence} They would cost nothing."
    return f"{sentence} {_describe_costliest(divergences, divergences.costliest_kind)}"


def format_days(divergences: DivergencePage) -> str:
    """Format the period in days of the policy's timezone: `16 Sep 2027 to 15 Oct 2027`."""
    timezone = divergences.policy.timezone
    last_instant = divergences.until - timedelta(microseconds=1)
    return (
        f"{formatting.format_day(divergences.since, timezone)} to"
        f" {formatting.format_day(last_instant, timezone)}"
    )


def describe_coverage(divergences: DivergencePage) -> str:
    """Describe which cases the list excludes and how far back it reaches."""
    text = (
        "A case is listed after it has closed and was counted. Reviewers may still decide open "
        "cases blind."
    )
    if not divergences.is_truncated:
        return text
    first_day = formatting.format_day(divergences.since, divergences.policy.timezone)
    return (
        f"{text} Only the newest {formatting.format_count(MAX_COMPARED_UNITS)} cases are searched,"
        f" here back to {first_day}; {formatting.format_count(divergences.compared)} of them have a"
        " blind decision and are compared. To see older cases, choose earlier days."
    )


def _describe_costliest(divergences: DivergencePage, costliest: CostliestKind) -> str:
    cost_unit = divergences.policy.charter.cost_in
    if divergences.count == 1:
        return (
            f"Its answers: {_describe_kind(divergences, costliest)}; it would cost"
            f" {formatting.format_value(costliest.cost)} {cost_unit} if the human is right."
        )
    return (
        f"They would cost {formatting.format_value(divergences.cost)} {cost_unit} if the humans"
        " are right in all of them. The costliest kind:"
        f" {_describe_kind(divergences, costliest)}"
        f" ({formatting.format_quantity(costliest.count, 'case')},"
        f" {formatting.format_value(costliest.cost)} {cost_unit})."
    )


def _describe_kind(divergences: DivergencePage, costliest: CostliestKind) -> str:
    if divergences.sides is not None:
        return f"numbers of {divergences.version} {costliest.model}"
    return f"human {costliest.human}, {divergences.version} {costliest.model}"


def _describe_action_share(divergences: DivergencePage) -> str:
    if divergences.action_count == divergences.count:
        return "also in the action" if divergences.count == 1 else "all of them also in the action"
    return f"{formatting.format_count(divergences.action_count)} of them also in the action"


def format_unit(lever: Lever) -> str:
    """Return the unit of a number lever, with a space; "" for labels."""
    return "" if lever.number is None else f" {lever.number.unit}".rstrip()


def explain_empty_list(divergences: DivergencePage, *, is_narrowed: bool) -> str:
    """Explain why the list is empty and what to do next."""
    if not divergences.version:
        return (
            "No model version has sent predictions yet. Send cases, predictions and decisions; "
            "docs/how-to/records.md shows how."
        )
    if not divergences.compared:
        return (
            f"No case of {divergences.version} could be compared here. A case is compared once it"
            " has closed with a blind decision and the model's answer: choose earlier days or"
            " another site, or check Review for pending cases."
        )
    if is_narrowed:
        return f"No divergence of {divergences.version} matches. Remove a part of the filter."
    return (
        f"{divergences.version} and the reviewers gave the same answer to all "
        f"{formatting.format_quantity(divergences.compared, 'compared case')} of these days. "
        "Earlier days may differ."
    )
