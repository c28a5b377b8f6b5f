"""The columns of records that a history reads.

Parsing JSON and instants took most of the time of a read: each column left out is saved.
"""

from json import loads
from typing import Any, Final

from sqlalchemy import BigInteger, Column, ColumnElement, Table, Text, type_coerce

from rollout.store.tables.columns import InstantType, JsonType
from rollout.store.tables.tables import cases, decisions, outcomes, predictions

STORED_TYPES: Final = ((JsonType, Text), (InstantType, BigInteger))
UNREAD_COLUMNS: Final = frozenset({"rollout", "media", "hash_form", "salt", "window"})


def parse_json(text: str | None) -> Any:
    """Return the value of stored JSON; None for null."""
    return None if text is None else loads(text)


def _select_columns(table: Table) -> tuple[ColumnElement[Any], ...]:
    """Return a table's columns as stored, without those that no history reads."""
    return tuple(
        _select_as_stored(column) for column in table.columns if column.name not in UNREAD_COLUMNS
    )


def _select_as_stored(column: Column[Any]) -> ColumnElement[Any]:
    for column_type, stored_type in STORED_TYPES:
        if isinstance(column.type, column_type):
            return type_coerce(column, stored_type).label(column.name)
    return column


HISTORY_COLUMNS: Final = {
    table.name: _select_columns(table) for table in (cases, predictions, decisions, outcomes)
}
"""The columns by table. JSON is text, so that a reader can parse equal texts once; instants are
microseconds since 1970."""
