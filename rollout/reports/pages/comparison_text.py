"""A comparison as text for a terminal: confusion, labels, cells, the largest losses."""

from collections.abc import Iterable, Iterator, Sequence

from rollout.reports.figures.comparison import CellAgreement, Comparison
from rollout.reports.figures.confusion import ConfusionMatrix, LabelFigures
from rollout.reports.text.formatting import THIN, between, decimal, number, of, per_cent, several

MOST = 20  # labels and cells that are listed; JSON has all
Row = Sequence[str]


def comparison_text(one: Comparison) -> str:
    """Write one version's figures; what is not known says "no data"."""
    return "\n".join(_lines(one)).replace(THIN, " ")


def table_text(rows: Sequence[Row], left: int) -> Iterator[str]:
    """Yield rows as lines, in columns as wide as their widest text.

    Args:
        rows: texts, as many in each row; the first row is the header.
        left: how many of the first columns stand to the left, the others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = (
            text.ljust(width) if index < left else text.rjust(width)
            for index, (text, width) in enumerate(cells)
        )
        yield f"  {'  '.join(aligned)}".rstrip()


def _lines(one: Comparison) -> Iterator[str]:
    agreement = f"{of(one.agreement)} pairs agree"
    name = " · ".join(part for part in (one.version, one.lever) if part)
    yield f"{name}: {agreement}" if name else agreement
    yield f"  agreement {per_cent(one.agreement.rate)}, 95 % interval {between(one.agreement)}"
    if one.unjudged and one.bounds:
        low, high = map(per_cent, one.bounds)
        unreviewed = several(one.unjudged, "case")
        yield f"  {unreviewed} without an answer by people: with them {low} to {high}"
    for title, coefficient in (("kappa", one.kappa), ("AC1", one.ac1)):
        if coefficient is not None:
            interval = f"{decimal(coefficient.low)} to {decimal(coefficient.high)}"
            yield f"  {title} {decimal(coefficient.value)}, 95 % interval {interval}"
    if one.cost is not None:
        yield f"  mean cost of doing what the model said: {decimal(one.cost, 4)}"
    if one.label_matrix is not None and one.label_matrix.labels:
        yield from _confusion(one.label_matrix)
        yield from _labels(one.labels)
    if one.cells:
        yield from _cells(one.cells)


def _confusion(matrix: ConfusionMatrix) -> Iterator[str]:
    """Yield the table; of more labels than fit the pairs most often taken for each other."""
    yield ""
    if len(matrix.labels) <= MOST // 2:
        yield "Confusion: people in rows, the model in columns"
        names = [f"{index} {label}" for index, label in enumerate(matrix.labels, 1)]
        rows = [[name, *map(number, row)] for name, row in zip(names, matrix.counts, strict=True)]
        yield from table_text([["", *map(str, range(1, len(names) + 1))], *rows], left=1)
        return
    yield "Confusion: the pairs most often taken for each other (the table is in --json)"
    pairs = sorted(_confused(matrix), key=lambda pair: (-pair[2], pair[0], pair[1]))
    rows = [[human, model, number(n)] for human, model, n in pairs[:MOST]]
    yield from table_text([["people", "model", "n"], *rows], left=2)


def _confused(matrix: ConfusionMatrix) -> Iterator[tuple[str, str, int]]:
    for human, row in zip(matrix.labels, matrix.counts, strict=True):
        for model, n in zip(matrix.labels, row, strict=True):
            if n and human != model:
                yield human, model, n


def _labels(labels: Sequence[LabelFigures]) -> Iterator[str]:
    yield from ("", "Labels, the one that people gave most first")
    rows = [
        [
            figures.label,
            *map(number, (figures.human, figures.model, figures.both)),
            *(per_cent(figures.recall.rate), between(figures.recall)),
            *(per_cent(figures.precision.rate), between(figures.precision)),
        ]
        for figures in labels[:MOST]
    ]
    header = ["", "people", "model", "both", "recall", "95 %", "precision", "95 %"]
    yield from table_text([header, *rows], left=1)
    yield from _further(len(labels))


def _cells(cells: Sequence[CellAgreement]) -> Iterator[str]:
    note = " (of many, the lowest are partly bad luck)" if len(cells) > MOST else ""
    yield from ("", f"Cells, the lowest agreement first{note}")
    ordered = sorted(cells, key=lambda cell: cell.agreement.rate or 0.0)
    rows = [
        [
            " · ".join(part for part in (cell.site, cell.window) if part),
            *(number(cell.agreement.n), per_cent(cell.agreement.rate), between(cell.agreement)),
            decimal(cell.kappa),
        ]
        for cell in ordered[:MOST]
    ]
    yield from table_text([["", "pairs", "agreement", "95 %", "kappa"], *rows], left=1)
    yield from _further(len(cells))


def _further(count: int) -> Iterable[str]:
    return () if count <= MOST else (f"  and {count - MOST} more in --json",)
