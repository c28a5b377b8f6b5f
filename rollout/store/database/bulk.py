"""Many rows at once, the fastest way that each driver has.

Rows are tuples in the order of the table's columns, or come as columns by their names; both as
they are stored: instants by `stored`, JSON by `plain`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql, sqlite

from rollout.store.database.driver_statements import given, inserted
from rollout.store.database.session import Transaction
from rollout.store.database.value_lists import array

Insert = postgresql.Insert | sqlite.Insert


def inserting(engine: str, table: Table) -> Insert:
    """Return the engine's own insert, which knows `on conflict`."""
    if engine == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def insert_once(transaction: Transaction, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key is there; say whether it was inserted.

    Of several who try at once exactly one is told yes, and only once it is sure.
    """
    statement = inserting(transaction.engine, table).values(row).on_conflict_do_nothing()
    statement_returning_key = statement.returning(
        *table.primary_key
    )  # PostgreSQL's row count is no answer here
    return transaction.execute(statement_returning_key).first() is not None


Cells = tuple[Any, ...]
QUIETLY: Final = "on conflict do nothing"
"""What inserts the rows whose key is not there yet, and doesn't say which these were."""


def insert_columns(
    transaction: Transaction, table: Table, columns: Mapping[str, Sequence[Any]], then: str = ""
) -> None:
    """Insert rows, given column by column, each of the same length and not empty.

    Drivers take longer for a null than for a text: a column with nothing in it is left out.

    Args:
        transaction: where.
        table: into which.
        columns: by name.
        then: the end of the statement, as `QUIETLY`; without one all rows are known to be new.

    Raises:
        IntegrityError: a key is there already; nothing of the batch was inserted.
    """
    filled_columns = {
        name: cells for name, cells in columns.items() if cells.count(None) < len(cells)
    }
    statement = _inserting(transaction, table, tuple(filled_columns))
    if transaction.engine == "sqlite":
        rows = list(zip(*map(_quickly_bound, filled_columns.values()), strict=True))
        inserted(transaction, statement, rows, then)
    else:
        given(transaction, f"{statement} {then}", list(map(array, filled_columns.values())))


def _inserting(transaction: Transaction, table: Table, names: tuple[str, ...]) -> str:
    """Return what inserts these columns, made once."""
    key = (transaction.engine, table.name, names)
    if key not in _statements:
        columns = [table.c[name] for name in names]
        into = f"insert into {table.name} ({', '.join(_names(transaction, columns))})"
        if transaction.engine == "postgresql":
            into += f" select * from {_unnested(transaction, columns)}"  # noqa: S608 - names of ours
        _statements[key] = into
    return _statements[key]


_statements: dict[tuple[str, str, tuple[str, ...]], str] = {}


def _quickly_bound(cells: Sequence[Any]) -> Iterable[Any]:
    """Return a column as SQLite's driver binds it: of others it would ask first what they are."""
    converter = {bytes: bytearray, bool: int}.get(type(cells[0]))
    return cells if converter is None else map(converter, cells)


def insert_missing(transaction: Transaction, table: Table, rows: Sequence[Cells]) -> set[Cells]:
    """Insert the rows whose key is not there yet, and return the keys of these.

    Of several who try at once exactly one is given a key back, once it is sure.
    """
    if not rows:
        return set()
    if transaction.engine == "sqlite":
        return _insert_singly(transaction, table, rows, QUIETLY)
    key = ", ".join(_names(transaction, _key(table)))
    statement = _insert_lists(transaction, table, f"{QUIETLY} returning {key}")
    inserted_rows = transaction.connection.exec_driver_sql(statement, _lists(rows))
    return {tuple(row) for row in inserted_rows}


def insert_quietly(transaction: Transaction, table: Table, rows: Sequence[Cells]) -> None:
    """Insert the rows whose key is not there yet, all at once; which these were is not said."""
    if rows:
        names = (column.name for column in table.columns)
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        insert_columns(transaction, table, columns, QUIETLY)


def add_up(transaction: Transaction, table: Table, rows: Sequence[Cells], column: str) -> None:
    """Insert rows; where a key is there, add to one of its columns instead. Keys differ."""
    if not rows:
        return
    key = ", ".join(_names(transaction, _key(table)))
    increment = f"set {column} = {table.name}.{column} + excluded.{column}"
    on_conflict = f"on conflict ({key}) do update {increment}"
    if transaction.engine == "sqlite":
        statement = f"insert into {_target(transaction, table)} {_marks(table)} {on_conflict}"
        transaction.connection.exec_driver_sql(statement, list(rows))
    else:
        statement = _insert_lists(transaction, table, on_conflict)
        transaction.connection.exec_driver_sql(statement, _lists(rows))


def delete_keys(transaction: Transaction, table: Table, keys: Sequence[Cells]) -> None:
    """Delete the rows that have these keys."""
    if not keys:
        return
    names = _names(transaction, _key(table))
    if transaction.engine == "sqlite":
        condition = " and ".join(f"{name} = ?" for name in names)
    else:
        condition = f"({', '.join(names)}) in (select * from {_unnested(transaction, _key(table))})"  # noqa: S608 - names of ours
    statement = f"delete from {table.name} where {condition}"  # noqa: S608 - names of ours
    parameters = list(keys) if transaction.engine == "sqlite" else _lists(keys)
    transaction.connection.exec_driver_sql(statement, parameters)


def _insert_singly(
    transaction: Transaction, table: Table, rows: Sequence[Cells], otherwise: str
) -> set[Cells]:
    """Insert row by row and see of each whether it was: SQLite's driver says so only then."""
    statement = f"insert into {_target(transaction, table)} {_marks(table)} {otherwise}"
    key_positions = [list(table.columns).index(column) for column in _key(table)]
    driver: Any = transaction.connection.connection.driver_connection
    return {
        tuple(row[position] for position in key_positions)
        for row in rows
        if driver.execute(statement, row).rowcount
    }


def _insert_lists(transaction: Transaction, table: Table, otherwise: str) -> str:
    target, lists = _target(transaction, table), _unnested(transaction, list(table.columns))
    return f"insert into {target} select * from {lists} {otherwise}"  # noqa: S608 - names of ours


def _unnested(transaction: Transaction, columns: Sequence[Column[Any]]) -> str:
    type_names = [column.type.compile(transaction.connection.dialect) for column in columns]
    return f"unnest({', '.join(f'%s::{type_name}[]' for type_name in type_names)})"


def _lists(rows: Sequence[Cells]) -> tuple[Any, ...]:
    return tuple(map(array, zip(*rows, strict=True)))


def _target(transaction: Transaction, table: Table) -> str:
    """Return a table with its columns as SQL; made once, each batch needs several."""
    target = _targets.get((transaction.engine, table.name))
    if target is None:
        target = f"{table.name} ({', '.join(_names(transaction, list(table.columns)))})"
        _targets[transaction.engine, table.name] = target
    return target


_targets: dict[tuple[str, str], str] = {}


def _names(transaction: Transaction, columns: Sequence[Column[Any]]) -> list[str]:
    quote = transaction.connection.dialect.identifier_preparer.quote
    return [quote(column.name) for column in columns]


def _key(table: Table) -> list[Column[Any]]:
    return list(table.primary_key)


def _marks(table: Table) -> str:
    return f"values ({', '.join('?' * len(table.columns))})"
