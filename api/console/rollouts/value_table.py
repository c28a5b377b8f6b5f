"""The table of attribute values that a version met in a cell."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import FAMILIAR, FEW, MISTAKEN, format_value
from rollout.core.policy.policy import Policy
from rollout.core.policy.slice_conditions import SliceCondition
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
HOLDING_NOTE: Final = (
    "A gate here tests each {0} by itself. Cases with an unfamiliar {0} no longer count for it, so"
    " that {0} can hold the gate."
)
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


def list_gate_slices(policy: Policy, cell: Cell) -> tuple[str, ...]:
    """Return the attributes of which a gate of the cell tests each value."""
    conditions = policy.list_conditions(len(policy.stages), cell)
    return tuple(c.slice for c in conditions if isinstance(c, SliceCondition))


def build_value_tables(
    summaries: Mapping[str, CellValuesSummary],
    versions: Iterable[str],
    *,
    is_blind: bool,
    sliced: Collection[str] = (),
) -> tuple[ValueTable | None, ...]:
    """Return the table of each version, None for one without units.

    Args:
        is_blind: whether the visitor may be asked for a blind review at the site.
        sliced: attributes of which a gate of the cell tests each value.
    """
    tables = (summaries.get(version) for version in versions)
    return tuple(
        None if summary is None else _build_table(summary, sliced, is_blind=is_blind)
        for summary in tables
    )


def _build_table(
    summary: CellValuesSummary, sliced: Collection[str], *, is_blind: bool
) -> ValueTable:
    more = len(summary.values) - MAX_VALUE_ROWS
    notes = [f"{format_quantity(more, 'more value')} met less often."] if more > 0 else []
    unfamiliar = {
        name
        for counts in summary.values
        if counts.reading.status != FAMILIAR
        for name in counts.value[0].split(" + ")
    }
    notes += [HOLDING_NOTE.format(name) for name in sorted(unfamiliar & {*sliced})]
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
