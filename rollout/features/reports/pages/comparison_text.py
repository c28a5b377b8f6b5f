"""A comparison as text for a terminal: confusion, labels, cells, the largest losses."""

from collections.abc import Iterable, Iterator, Sequence

from rollout.engine.words.formatting import (
    NO_BREAK_SPACE,
    format_count,
    format_decimal,
    format_decimal_interval,
    format_interval,
    format_number_interval,
    format_number_value,
    format_percent,
    format_quantity,
    format_ratio,
)
from rollout.features.reports.figures.agreement import NumberAgreement, SetAgreement
from rollout.features.reports.figures.comparison import (
    CellAgreement,
    Comparison,
    ConfusionMatrix,
    LabelFigures,
)
from rollout.kernel.statistics.chance_agreement import AgreementCoefficient
from rollout.kernel.units import FULL_OVERLAP

MAX_ROWS = 20  # labels and cells that are listed; JSON has all
TextRow = Sequence[str]


def render_comparison(
    comparison: Comparison,
    numbers: NumberAgreement | None = None,
    sets: SetAgreement | None = None,
) -> str:
    """Return one version's figures as text.

    `numbers` are those of a lever with a number, `sets` those of one with sets of labels.
    """
    return "\n".join(_render_lines(comparison, numbers, sets)).replace(NO_BREAK_SPACE, " ")


def render_table(rows: Sequence[TextRow], left_aligned: int) -> Iterator[str]:
    """Yield rows as aligned lines.

    `left_aligned` is the number of left-aligned columns; the others are right-aligned.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = (
            text.ljust(width) if index < left_aligned else text.rjust(width)
            for index, (text, width) in enumerate(cells)
        )
        yield f"  {'  '.join(aligned)}".rstrip()


def _render_lines(
    comparison: Comparison, numbers: NumberAgreement | None, sets: SetAgreement | None
) -> Iterator[str]:
    yield from _render_agreement(comparison)
    for title, coefficient in (("kappa", comparison.kappa), ("Gwet's AC1", comparison.ac1)):
        if coefficient is not None:
            yield _format_coefficient(title, coefficient)
    if comparison.cost is not None:
        yield f"  mean cost a case of following the model: {format_decimal(comparison.cost, 4)}"
    if numbers is not None:
        yield from _render_numbers(numbers)
    if sets is not None:
        yield from _render_sets(sets)
        yield from _render_labels(comparison.labels)
    if comparison.label_matrix is not None and comparison.label_matrix.labels:
        yield from _render_confusion(comparison.label_matrix)
        yield from _render_labels(comparison.labels)
    if comparison.cells:
        yield from _render_cells(comparison.cells, has_kappa=comparison.label_matrix is not None)


def _render_agreement(comparison: Comparison) -> Iterator[str]:
    """Yield agreement with its interval, and its bounds where answers are missing."""
    agreement = f"{format_ratio(comparison.agreement)} pairs agree"
    name = " · ".join(part for part in (comparison.version, comparison.lever) if part)
    yield f"{name}: {agreement}" if name else agreement
    yield (
        f"  agreement {format_percent(comparison.agreement.rate)}, 95 % interval"
        f" {format_interval(comparison.agreement)}"
    )
    if comparison.unjudged and comparison.bounds:
        low, high = map(format_percent, comparison.bounds)
        unreviewed = format_quantity(comparison.unjudged, "case")
        yield (
            f"  {unreviewed} without one human answer: agreement of all cases is {low[:-2]} to"
            f" {high}, 95 % interval, whatever the missing answers"
        )


def _format_coefficient(title: str, coefficient: AgreementCoefficient) -> str:
    if coefficient.low is None:
        return f"  {title}: {coefficient.method}"
    interval = f"{format_decimal(coefficient.low)} to {format_decimal(coefficient.high)}"
    return f"  {title} {format_decimal(coefficient.value)}, 95 % interval {interval}"


def _render_sets(sets: SetAgreement) -> Iterator[str]:
    """Yield how many sets are equal, alpha, and how many answers are no sets."""
    if sets.overlap < FULL_OVERLAP:
        yield f"  sets agree from {format_percent(sets.overlap)} of their labels in common on"
        yield f"  equal sets: {format_ratio(sets.equal)}, {format_percent(sets.equal.rate)}"
    yield _format_coefficient("Krippendorff's alpha by MASI distance", sets.alpha)
    for count, side in ((sets.wrong_human, "humans"), (sets.wrong_model, "the model")):
        if count:
            answers = format_quantity(count, "answer")
            yield f"  no set of the labels: {answers} of {side}; only the same text agrees"


def _render_numbers(numbers: NumberAgreement) -> Iterator[str]:
    """Yield the differences, the concordance, and the cost by band."""
    rows = [
        [name, format_number_value(figure.value, scale.unit), format_number_interval(figure)]
        for scale in (numbers.differences, numbers.relative)
        for name, figure in (
            ("bias (model − human)", scale.bias),
            ("lower limit of agreement", scale.lower),
            ("upper limit of agreement", scale.upper),
        )
    ]
    for name, figure in (
        ("Lin's concordance", numbers.concordance),
        ("mean cost a case", numbers.cost),
    ):
        rows.append([name, format_decimal(figure.value), format_decimal_interval(figure)])
    yield from ("", f"Numbers, tolerance {numbers.tolerance}")
    yield from render_table([["", "value", "95 %"], *rows], left_aligned=1)
    bands = [
        [
            band.name,
            f"{band.cost:g}",
            format_count(band.share.count),
            format_percent(band.share.rate),
        ]
        for band in numbers.bands
    ]
    header = ["error of the model", "cost", "pairs", "share"]
    yield ""
    yield from render_table([header, *bands], left_aligned=1)


def _render_confusion(matrix: ConfusionMatrix) -> Iterator[str]:
    """Yield the matrix, or the most frequent confusions if there are too many labels."""
    yield ""
    if len(matrix.labels) <= MAX_ROWS // 2:
        yield "Confusion matrix: humans in rows, the model in columns"
        names = [f"{index} {label}" for index, label in enumerate(matrix.labels, 1)]
        rows = [
            [name, *map(format_count, row)] for name, row in zip(names, matrix.counts, strict=True)
        ]
        yield from render_table([["", *map(str, range(1, len(names) + 1))], *rows], left_aligned=1)
        return
    yield "Confusion matrix: most frequent pairs (--json has all)"
    pairs = sorted(_list_confusions(matrix), key=lambda pair: (-pair[2], pair[0], pair[1]))
    rows = [[human, model, format_count(n)] for human, model, n in pairs[:MAX_ROWS]]
    yield from render_table([["human", "model", "n"], *rows], left_aligned=2)


def _list_confusions(matrix: ConfusionMatrix) -> Iterator[tuple[str, str, int]]:
    for human, row in zip(matrix.labels, matrix.counts, strict=True):
        for model, n in zip(matrix.labels, row, strict=True):
            if n and human != model:
                yield human, model, n


def _render_labels(labels: Sequence[LabelFigures]) -> Iterator[str]:
    yield from ("", "Labels, most frequent human label first")
    rows = [
        [
            figures.label,
            *map(format_count, (figures.human, figures.model, figures.both)),
            *(format_percent(figures.recall.rate), format_interval(figures.recall)),
            *(format_percent(figures.precision.rate), format_interval(figures.precision)),
        ]
        for figures in labels[:MAX_ROWS]
    ]
    header = ["", "human", "model", "both", "recall", "95 %", "precision", "95 %"]
    yield from render_table([header, *rows], left_aligned=1)
    yield from _render_more(len(labels))


def _render_cells(cells: Sequence[CellAgreement], *, has_kappa: bool) -> Iterator[str]:
    note = (
        " (with many cells, the lowest are low partly by chance)" if len(cells) > MAX_ROWS else ""
    )
    yield from ("", f"Cells, lowest agreement first{note}")
    ordered = sorted(cells, key=lambda cell: cell.agreement.rate or 0.0)
    rows = [
        [
            " · ".join(part for part in (cell.site, cell.window) if part),
            *(
                format_count(cell.agreement.n),
                format_percent(cell.agreement.rate),
                format_interval(cell.agreement),
            ),
            *(["too few" if cell.kappa is None else format_decimal(cell.kappa)] * has_kappa),
        ]
        for cell in ordered[:MAX_ROWS]
    ]
    header = ["", "pairs", "agreement", "95 %", *(["kappa"] * has_kappa)]
    yield from render_table([header, *rows], left_aligned=1)
    yield from _render_more(len(cells))


def _render_more(count: int) -> Iterable[str]:
    return () if count <= MAX_ROWS else (f"  and {count - MAX_ROWS} more (--json has all)",)
