"""The table of how a version's numbers agree with those of humans in a cell."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout.reports.figures.number_agreement import NumberAgreement
from rollout.reports.pages.number_charts import choose_differences
from rollout.reports.statistics.number_agreement import NumberEstimate
from rollout.reports.text.formatting import (
    format_count,
    format_decimal,
    format_interval,
    format_percent,
)
from rollout.reports.text.number_text import format_number_interval, format_number_value


@dataclass(frozen=True, slots=True)
class NumberRow:
    """A figure with its 95 % interval and the pairs behind it."""

    name: str
    value: str
    interval: str
    pairs: str


@dataclass(frozen=True, slots=True)
class NumberTable:
    """The figures of one lever."""

    lever: str
    rows: tuple[NumberRow, ...]


def build_number_tables(
    agreements: Mapping[str, Sequence[NumberAgreement]], versions: Iterable[str]
) -> tuple[tuple[NumberTable, ...], ...]:
    """Return the tables of each version, one a lever of numbers."""
    return tuple(
        tuple(
            NumberTable(agreement.lever, tuple(_build_rows(agreement)))
            for agreement in agreements.get(version, ())
        )
        for version in versions
    )


def _build_rows(agreement: NumberAgreement) -> Iterator[NumberRow]:
    within, differences = agreement.within, choose_differences(agreement)
    yield NumberRow(
        f"Within the tolerance of {agreement.tolerance}",
        format_percent(within.rate),
        format_interval(within),
        format_count(within.n),
    )
    for name, figure in (
        ("Bias (model − human)", differences.bias),
        ("Lower limit of agreement", differences.lower),
        ("Upper limit of agreement", differences.upper),
    ):
        value = format_number_value(figure.value, differences.unit)
        yield NumberRow(name, value, format_number_interval(figure), format_count(figure.n))
    concordance = agreement.concordance
    yield NumberRow(
        "Lin's concordance",
        format_decimal(concordance.value),
        _format_ends(concordance),
        format_count(concordance.n),
    )


def _format_ends(figure: NumberEstimate) -> str:
    if figure.low is None:
        return figure.method
    return f"{format_decimal(figure.low)} to {format_decimal(figure.high)}"
