"""The columns of records that a history reads.

Parsing JSON and instants took most of the time of a read: each column left out is saved.
"""

from json import loads
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, Text, type_coerce

from rollout.store.tables.columns import JsonType
from rollout.store.tables.tables import cases, decisions, outcomes, predictions


def parse_json(text: str | None) -> Any:
    """Return the value of stored JSON; None for null."""
    return None if text is None else loads(text)


def _select_columns(table: Table) -> tuple[ColumnElement[Any], ...]:
    """Return a table's columns, JSON as stored, without media, which no history reads."""
    return tuple(
        type_coerce(column, Text).label(column.name)
        if isinstance(column.type, JsonType)
        else column
        for column in table.columns
        if column is not cases.c.media
    )


HISTORY_COLUMNS: Final = {
    table.name: _select_columns(table) for table in (cases, predictions, decisions, outcomes)
}
"""The columns by table. JSON is text, so that a reader can parse equal texts once."""
