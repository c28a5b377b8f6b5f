"""The table of attribute values that a version met in a cell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rollout.core.policy.familiarity import FAMILIAR, FEW, MISTAKEN, format_value
from rollout.reports.text.familiar_text import describe_unfamiliar_share
from rollout.reports.text.formatting import format_count, format_quantity
from rollout.services.cells.cell_values import RECENT_DAYS, CellValuesSummary
from rollout.tally.value_counts import ValueCounts

MAX_VALUE_ROWS: Final = 20
STATUS_TEXTS: Final = {
    FAMILIAR: "familiar",
    MISTAKEN: "mistaken too often",
    FEW: "judged too rarely",
}
HIDDEN_STATUS: Final = "not familiar"
HIDDEN_COUNT: Final = "–"
HIDDEN_NOTE: Final = "Mistakes are not shown, because you may be asked for a blind review here."


@dataclass(frozen=True, slots=True)
class ValueRow:
    """A row of the table: a value and its counts, formatted."""

    value: str
    met: str
    mistaken: str
    to_humans: str
    status: str


@dataclass(frozen=True, slots=True)
class ValueTable:
    """The values of a version; `notes` are sentences below it."""

    share: str
    rows: tuple[ValueRow, ...]
    notes: tuple[str, ...]


def build_value_tables(
    summaries: Mapping[str, CellValuesSummary], versions: Iterable[str], *, is_blind: bool
) -> tuple[ValueTable | None, ...]:
    """Return the table of each version, None for one without units.

    Args:
        is_blind: whether the visitor may be asked for a blind review at the site.
    """
    tables = (summaries.get(version) for version in versions)
    return tuple(
        None if summary is None else _build_table(summary, is_blind=is_blind) for summary in tables
    )


def _build_table(summary: CellValuesSummary, *, is_blind: bool) -> ValueTable:
    more = len(summary.values) - MAX_VALUE_ROWS
    notes = [f"{format_quantity(more, 'more value')} met less often."] if more > 0 else []
    return ValueTable(
        share=describe_unfamiliar_share(summary.recent, RECENT_DAYS),
        rows=tuple(_build_row(c, is_blind=is_blind) for c in summary.values[:MAX_VALUE_ROWS]),
        notes=(*notes, *([HIDDEN_NOTE] if is_blind else [])),
    )


def _build_row(counts: ValueCounts, *, is_blind: bool) -> ValueRow:
    reading = counts.reading
    is_hidden = is_blind and reading.status != FAMILIAR
    return ValueRow(
        value=format_value(counts.value),
        met=format_count(counts.met),
        mistaken=HIDDEN_COUNT
        if is_blind
        else f"{format_count(counts.mistaken)} of {format_count(reading.judged)}",
        to_humans=format_count(counts.to_humans),
        status=HIDDEN_STATUS if is_hidden else STATUS_TEXTS[reading.status],
    )
