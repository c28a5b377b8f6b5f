"""Bulk statements: inserts and deletes of many rows, and lists of values as one parameter.

Rows are tuples in the order of the table's columns, or sequences by column name. Values have their
stored form: instants by `encode_instant`, JSON by `encode_json`.

A batch of records needs ten small statements, for which SQLAlchemy takes longer than SQLite itself.
So these are written with SQLAlchemy for both engines, compiled once and passed directly to the
driver. Select only integers and texts this way, because rows come back as the driver returns them.
Driver errors become SQLAlchemy's errors.

Lists go to PostgreSQL as arrays in its binary form: it reads them faster than text, and they are
made faster than by its driver, which only sends them.
"""

import json
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Executable,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.exc import DBAPIError

from rollout.data.database.session import Transaction

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import Compiled


class BinaryArray(bytes):
    """An array as PostgreSQL receives it; the driver sends it unchanged."""

    __slots__ = ()


class ElementType(NamedTuple):
    """A type of elements: its number in PostgreSQL, the types it is made of, and their writer."""

    number: int
    types: frozenset[type]
    write: Callable[[Sequence[Any]], bytes]


HEADER: Final = struct.Struct(">iiIii")
"""Dimensions, whether nulls are there, the elements' type, their number and the first index."""


LENGTH: Final = struct.Struct(">i")


NULL: Final = LENGTH.pack(-1)


NOT_WRITTEN: Final = (struct.error, OverflowError, UnicodeEncodeError)
"""The errors of values that a type can't hold."""


def encode_array(type_name: str, values: Collection[Any]) -> Any:
    r"""Return an array parameter for PostgreSQL; elements have a type, such as `BIGINT`.

    Values that the type can't hold are returned as a list: the driver or PostgreSQL refuses them.

    >>> encode_array("INTEGER", [1, 2])[-16:]
    b'\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x02'
    >>> encode_array("TEXT", ["é", None])[-10:]
    b'\x00\x00\x00\x02\xc3\xa9\xff\xff\xff\xff'
    >>> encode_array("INTEGER", [1, "a"])
    [1, 'a']
    """
    items = list(values)
    element_type, types = ELEMENT_TYPES.get(type_name), set(map(type, items))
    if element_type is None or not types - {NoneType} <= element_type.types:
        return items
    try:
        elements = _write_elements(element_type, items, types)
    except NOT_WRITTEN:
        return items
    return BinaryArray(HEADER.pack(1, 0, element_type.number, len(items), 1) + elements)


def _write_elements(element_type: ElementType, items: list[Any], types: set[type]) -> bytes:
    write, count = element_type.write, len(items)
    if NoneType in types:
        return b"".join([NULL if item is None else write([item]) for item in items])
    # not for floats: 0.0 == -0.0, but they differ
    if float not in types and items and items[0] is items[-1] and items.count(items[0]) == count:
        return write(items[:1]) * count
    return write(items)


def _write_numbers(code: str, numbers: Sequence[Any]) -> bytes:
    lengths_and_numbers = zip(repeat(struct.calcsize(f">{code}")), numbers)
    return struct.pack(f">{f'i{code}' * len(numbers)}", *chain.from_iterable(lengths_and_numbers))


def _write_texts(texts: Sequence[str]) -> bytes:
    pack, encoded = LENGTH.pack, {text: text.encode() for text in set(texts)}  # labels are few
    cells = {text: pack(len(content)) + content for text, content in encoded.items()}
    return b"".join(map(cells.__getitem__, texts))


def _write_bytes(values: Sequence[bytes]) -> bytes:
    lengths = set(map(len, values))
    if len(lengths) == 1:  # as of hashes
        length = LENGTH.pack(lengths.pop())
        return length + length.join(values)
    return b"".join([LENGTH.pack(len(value)) + value for value in values])


ELEMENT_TYPES: Final[Mapping[str, ElementType]] = {
    "BIGINT": ElementType(20, frozenset({int}), partial(_write_numbers, "q")),
    "INTEGER": ElementType(23, frozenset({int}), partial(_write_numbers, "i")),
    "DOUBLE PRECISION": ElementType(701, frozenset({float, int}), partial(_write_numbers, "d")),
    "BOOLEAN": ElementType(16, frozenset({bool}), partial(_write_numbers, "?")),
    "TEXT": ElementType(25, frozenset({str}), _write_texts),
    "BYTEA": ElementType(17, frozenset({bytes}), _write_bytes),
}


RowValues = tuple[Any, ...]
IGNORE_CONFLICTS: Final = "on conflict do nothing"
"""Suffix that inserts only rows with new keys, without returning them."""
ROWS_PER_STATEMENT: Final = 25
"""Rows of one statement; longer ones are not faster."""
SHARED_TYPES: Final = frozenset({str, int, bytes, bool})
"""Types whose equal values of one column are stored alike."""
_compiled: dict[tuple[str, Executable], tuple[str, Mapping[str, Any], tuple[str, ...]]] = {}
"""By engine and statement: its SQL, its own values and their order on SQLite."""


def build_insert(engine: str, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """Return the engine's own insert statement, which supports `on conflict`."""
    # imported here: the dialect of the other engine would be a tenth of a command's start
    if engine == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)


def insert_once(
    transaction: Transaction,
    table: Table,
    row: Mapping[str, Any],
    *,
    unless: ColumnElement[bool] | None = None,
) -> bool:
    """Insert a row unless its key exists, or a condition holds; return whether it was inserted.

    Of concurrent calls exactly one returns True.
    """
    statement = build_insert(transaction.engine, table)
    if unless is None:
        statement = statement.values(row)
    else:
        values = (literal(value, table.c[name].type) for name, value in row.items())
        statement = statement.from_select(list(row), select(*values).where(~unless))
    statement = statement.on_conflict_do_nothing()
    # PostgreSQL's row count is unreliable here
    return transaction.execute(statement.returning(*table.primary_key)).first() is not None


def insert_new_rows(
    transaction: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the rows with new keys, possibly none."""
    if rows:
        transaction.execute(build_insert(transaction.engine, table).on_conflict_do_nothing(), rows)


class Repeated(tuple[Any, ...]):
    """A column in which all rows have one value: PostgreSQL receives it once."""

    __slots__ = ()

    @classmethod
    def build(cls, value: Any, count: int) -> "Repeated":
        """Return a column of `count` rows."""
        return cls((value,) * count)


def insert_columns(
    transaction: Transaction, table: Table, columns: Mapping[str, Sequence[Any]], suffix: str = ""
) -> None:
    """Insert rows given as columns of equal length, not empty.

    Columns with only nulls are omitted: drivers take longer for a null than for a text. The suffix
    ends the statement, such as `IGNORE_CONFLICTS`.

    Raises:
        IntegrityError: a key exists already; nothing of the batch was inserted.
    """
    insert_tables(transaction, {table: columns}, suffix)


def insert_tables(
    transaction: Transaction,
    columns_by_table: Mapping[Table, Mapping[str, Sequence[Any]]],
    suffix: str = "",
) -> None:
    """Insert rows of several tables as `insert_columns` does; on PostgreSQL by one statement.

    Raises:
        IntegrityError: a key exists already; nothing of the batch was inserted.
    """
    statements: list[str] = []
    parameters: list[Any] = []
    for table, columns in columns_by_table.items():
        transaction.tally.count_rows(next(iter(columns.values())))
        filled_columns = _drop_empty(columns)
        if transaction.engine == "sqlite":
            _insert_into_sqlite(transaction, table, filled_columns, suffix)
            continue
        repeated_names = tuple(
            name for name, cells in filled_columns.items() if type(cells) is Repeated
        )
        own_names = tuple(name for name in filled_columns if name not in repeated_names)
        prefix, type_names = _build_array_insert(transaction, table, own_names, repeated_names)
        statements.append(f"{prefix} {suffix}")
        parameters += [filled_columns[name][0] for name in repeated_names]
        parameters += map(encode_array, type_names, map(filled_columns.__getitem__, own_names))
    if statements:
        *others, last = statements
        parts = ", ".join(f"part_{number} as ({text})" for number, text in enumerate(others))
        run_statement(transaction, f"with {parts} {last}" if parts else last, parameters)


def _drop_empty(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return the columns that have any value: drivers take longer for a null than for a text."""
    return {
        name: cells
        for name, cells in columns.items()
        if cells[0] is not None or cells.count(None) < len(cells)  # comparing all cells is slow
    }


def _insert_into_sqlite(
    transaction: Transaction, table: Table, columns: Mapping[str, Sequence[Any]], suffix: str
) -> None:
    """Insert rows, several a statement; values that all rows share are bound once in each."""
    row_count = len(next(iter(columns.values())))
    shared_names = [
        name
        for name, cells in columns.items()
        if row_count >= ROWS_PER_STATEMENT
        and cells[0] is cells[-1]  # comparing all cells is slow
        and type(cells[0]) in SHARED_TYPES
        and cells.count(cells[0]) == row_count
    ]
    own_names = [name for name in columns if name not in shared_names]
    prefix = _get_insert_prefix(transaction, table, (*shared_names, *own_names))
    shared = tuple(next(iter(_convert_for_sqlite(columns[name][:1]))) for name in shared_names)
    own_columns = [_convert_for_sqlite(columns[name]) for name in own_names]
    rows: list[RowValues] = list(zip(*own_columns, strict=True)) or [()] * row_count
    run_insert(transaction, prefix, shared, rows, suffix)


def _get_insert_prefix(transaction: Transaction, table: Table, names: tuple[str, ...]) -> str:
    """Return the start of an insert of these columns, built once."""
    key = (transaction.engine, table.name, names)
    if key not in _insert_prefixes:
        quoted_names = _quote_names(transaction, [table.c[name] for name in names])
        _insert_prefixes[key] = f"insert into {table.name} ({', '.join(quoted_names)})"
    return _insert_prefixes[key]


_insert_prefixes: dict[tuple[str, str, tuple[str, ...]], str] = {}


def _build_array_insert(
    transaction: Transaction,
    table: Table,
    names: tuple[str, ...],
    repeated_names: tuple[str, ...],
) -> tuple[str, Sequence[str]]:
    """Return an insert of repeated values and arrays, and the arrays' types; built once.

    At least one column is an array.
    """
    key = (table.name, names, repeated_names)
    if key not in _array_inserts:
        columns = [table.c[name] for name in names]
        repeated_types = _list_type_names(transaction, [table.c[name] for name in repeated_names])
        values = ", ".join([*(f"%s::{type_name}" for type_name in repeated_types), "*"])
        prefix = _get_insert_prefix(transaction, table, (*repeated_names, *names))
        statement = f"{prefix} select {values} from {_build_unnest(transaction, columns)}"  # noqa: S608 - constant names
        _array_inserts[key] = statement, _list_type_names(transaction, columns)
    return _array_inserts[key]


_array_inserts: dict[tuple[Any, ...], tuple[str, Sequence[str]]] = {}


def _convert_for_sqlite(cells: Sequence[Any]) -> Iterable[Any]:
    """Return a column in types that SQLite's driver binds without adapters."""
    converter = {bytes: bytearray, bool: int}.get(type(cells[0]))
    if converter is None:
        return cells
    if None in cells:
        return [None if cell is None else converter(cell) for cell in cells]
    return map(converter, cells)


def insert_missing(
    transaction: Transaction, table: Table, rows: Sequence[RowValues]
) -> set[RowValues]:
    """Insert the rows with new keys and return these keys.

    Of concurrent calls exactly one returns a key.
    """
    if not rows:
        return set()
    names = (column.name for column in table.columns)
    return insert_missing_columns(
        transaction, table, dict(zip(names, zip(*rows, strict=True), strict=True))
    )


def insert_missing_columns(
    transaction: Transaction, table: Table, columns: Mapping[str, Sequence[Any]]
) -> set[RowValues]:
    """Insert the rows with new keys and return these keys.

    All columns are given, in the table's order and not empty. Of concurrent calls exactly one
    returns a key.
    """
    transaction.tally.count_rows(next(iter(columns.values())))
    if transaction.engine == "sqlite":
        return _insert_missing_into_sqlite(transaction, table, columns)
    key = ", ".join(_quote_names(transaction, _list_key_columns(table)))
    statement = _build_list_insert(transaction, table, f"{IGNORE_CONFLICTS} returning {key}")
    arrays = _encode_lists(transaction, list(table.columns), columns.values())
    return {tuple(row) for row in transaction.connection.exec_driver_sql(statement, arrays)}


def insert_ignoring_conflicts(
    transaction: Transaction, table: Table, rows: Sequence[RowValues]
) -> None:
    """Insert the rows with new keys in one statement."""
    if rows:
        names = (column.name for column in table.columns)
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        insert_columns(transaction, table, columns, IGNORE_CONFLICTS)


def upsert_sums(
    transaction: Transaction, table: Table, rows: Sequence[RowValues], column: str
) -> None:
    """Insert rows; where a key exists, add to one column.

    Keys within `rows` are unique.
    """
    if not rows:
        return
    transaction.tally.count_rows(rows)
    key = ", ".join(_quote_names(transaction, _list_key_columns(table)))
    increment = f"set {column} = {table.name}.{column} + excluded.{column}"
    on_conflict = f"on conflict ({key}) do update {increment}"
    if transaction.engine == "sqlite":
        statement = (
            f"insert into {_get_target(transaction, table)} {_build_placeholders(table)}"
            f" {on_conflict}"
        )
        transaction.connection.exec_driver_sql(statement, list(rows))
    else:
        statement = _build_list_insert(transaction, table, on_conflict)
        arrays = _encode_lists(transaction, list(table.columns), zip(*rows, strict=True))
        transaction.connection.exec_driver_sql(statement, arrays)


def delete_keys(transaction: Transaction, table: Table, keys: Sequence[RowValues]) -> None:
    """Delete the rows with these keys."""
    if not keys:
        return
    transaction.tally.count_rows(keys)
    key_columns = _list_key_columns(table)
    names = _quote_names(transaction, key_columns)
    if transaction.engine == "sqlite":
        condition = " and ".join(f"{name} = ?" for name in names)
    else:
        key_rows = _build_unnest(transaction, key_columns)
        condition = f"({', '.join(names)}) in (select * from {key_rows})"  # noqa: S608 - constant names
    statement = f"delete from {table.name} where {condition}"  # noqa: S608 - constant names
    parameters: Any = list(keys)
    if transaction.engine == "postgresql":
        parameters = _encode_lists(transaction, key_columns, zip(*keys, strict=True))
    transaction.connection.exec_driver_sql(statement, parameters)


def lock_keys(transaction: Transaction, table: Table, keys: Sequence[RowValues]) -> None:
    """Lock the existing rows with these keys in their order; wait for who deletes them."""
    if not keys or transaction.engine == "sqlite":
        return
    key_columns = _list_key_columns(table)
    names = ", ".join(_quote_names(transaction, key_columns))
    key_rows = _build_unnest(transaction, key_columns)
    statement = (
        f"select 1 from {table.name} where ({names}) in (select * from {key_rows})"  # noqa: S608 - names of the schema
        f" order by {names} for update"
    )
    arrays = _encode_lists(transaction, key_columns, zip(*keys, strict=True))
    transaction.connection.exec_driver_sql(statement, arrays)


def _insert_missing_into_sqlite(
    transaction: Transaction, table: Table, columns: Mapping[str, Sequence[Any]]
) -> set[RowValues]:
    """Insert the rows with new keys and return these keys.

    SQLite's driver reports only for a single row whether it was inserted, but of several their
    number. Where any exists, those just inserted are taken back and come one by one.
    """
    keys = list(zip(*(columns[column.name] for column in _list_key_columns(table)), strict=True))
    driver = _get_driver(transaction)
    driver.execute("savepoint missing_rows")
    changes_before = driver.total_changes
    _insert_into_sqlite(transaction, table, _drop_empty(columns), IGNORE_CONFLICTS)
    if driver.total_changes - changes_before == len(keys):
        driver.execute("release missing_rows")
        return set(keys)
    driver.execute("rollback to missing_rows")
    driver.execute("release missing_rows")
    target = _get_target(transaction, table)
    statement = f"insert into {target} {_build_placeholders(table)} {IGNORE_CONFLICTS}"
    rows = zip(*columns.values(), strict=True)
    return {
        key for key, row in zip(keys, rows, strict=True) if driver.execute(statement, row).rowcount
    }


def _build_list_insert(transaction: Transaction, table: Table, on_conflict: str) -> str:
    target, lists = _get_target(transaction, table), _build_unnest(transaction, list(table.columns))
    return f"insert into {target} select * from {lists} {on_conflict}"  # noqa: S608 - constant names


def _build_unnest(transaction: Transaction, columns: Sequence[Column[Any]]) -> str:
    type_names = _list_type_names(transaction, columns)
    return f"unnest({', '.join(f'%s::{type_name}[]' for type_name in type_names)})"


def _list_type_names(transaction: Transaction, columns: Sequence[Column[Any]]) -> list[str]:
    return [column.type.compile(transaction.connection.dialect) for column in columns]


def _encode_lists(
    transaction: Transaction, columns: Sequence[Column[Any]], lists: Iterable[Sequence[Any]]
) -> tuple[Any, ...]:
    """Return lists of columns' values as parameters of PostgreSQL."""
    return tuple(map(encode_array, _list_type_names(transaction, columns), lists))


def _get_target(transaction: Transaction, table: Table) -> str:
    """Return a table with its columns as SQL, built once."""
    target = _targets.get((transaction.engine, table.name))
    if target is None:
        target = f"{table.name} ({', '.join(_quote_names(transaction, list(table.columns)))})"
        _targets[transaction.engine, table.name] = target
    return target


_targets: dict[tuple[str, str], str] = {}


def _quote_names(transaction: Transaction, columns: Sequence[Column[Any]]) -> list[str]:
    quote = transaction.connection.dialect.identifier_preparer.quote
    return [quote(column.name) for column in columns]


def _list_key_columns(table: Table) -> list[Column[Any]]:
    return list(table.primary_key)


def _build_placeholders(table: Table) -> str:
    return f"values ({', '.join('?' * len(table.columns))})"


def fetch_rows(
    transaction: Transaction, statement: Executable, parameters: Mapping[str, Any]
) -> list[RowValues]:
    """Return the rows of a statement that is built once or cached.

    Parameter values have their stored form.
    """
    text, own_values, order = _compile_statement(transaction, statement)
    values: Any = {**own_values, **parameters}
    if order:
        values = [values[name] for name in order]
    driver = _get_driver(transaction)
    try:
        return driver.execute(text, values).fetchall()  # type: ignore[no-any-return]
    except _get_driver_error(transaction) as error:
        raise _wrap_error(transaction, text, error) from error


def run_insert(
    transaction: Transaction,
    prefix: str,
    shared: RowValues,
    rows: Sequence[RowValues],
    suffix: str,
) -> None:
    """Run an insert on SQLite, several rows a statement.

    The prefix ends before `values`; the suffix follows the values. Each row begins with the values
    that all share.
    """
    numbers = [f"?{number}" for number in range(1, len(shared) + 1)]
    placeholders = f"({', '.join([*numbers, *'?' * len(rows[0])])})"
    single_statement, batch_statement = (
        f"{prefix} values {', '.join([placeholders] * n)} {suffix}" for n in (1, ROWS_PER_STATEMENT)
    )
    batched_count = len(rows) - len(rows) % ROWS_PER_STATEMENT
    flat = tuple(chain.from_iterable(rows[:batched_count]))
    width = len(rows[0])
    starts = range(0, batched_count, ROWS_PER_STATEMENT)
    driver = _get_driver(transaction)
    try:
        driver.executemany(
            batch_statement,
            (shared + flat[n * width : (n + ROWS_PER_STATEMENT) * width] for n in starts),
        )
        driver.executemany(single_statement, (shared + row for row in rows[batched_count:]))
    except _get_driver_error(transaction) as error:
        raise _wrap_error(transaction, single_statement, error) from error


def run_statement(transaction: Transaction, text: str, values: Sequence[Any]) -> None:
    """Run a statement in the driver's own SQL, without a result."""
    try:
        _get_driver(transaction).execute(text, values)
    except _get_driver_error(transaction) as error:
        raise _wrap_error(transaction, text, error) from error


def _compile_statement(
    transaction: Transaction, statement: Executable
) -> tuple[str, Mapping[str, Any], tuple[str, ...]]:
    key = (transaction.engine, statement)
    compiled = _compiled.get(key)
    if compiled is None:
        compilation: Compiled = statement.compile(dialect=transaction.connection.dialect)  # type: ignore[attr-defined]
        order = tuple(getattr(compilation, "positiontup", None) or ())
        compiled = _compiled[key] = (str(compilation), compilation.params, order)
    return compiled


def _get_driver(transaction: Transaction) -> Any:
    return transaction.connection.connection.driver_connection


def _get_driver_error(transaction: Transaction) -> type[Exception]:
    error_type: type[Exception] = transaction.connection.dialect.loaded_dbapi.Error
    return error_type


def _wrap_error(transaction: Transaction, text: str, error: Any) -> BaseException:
    wrapped: BaseException = DBAPIError.instance(text, None, error, _get_driver_error(transaction))
    return wrapped


def select_texts(engine: str, parameter: str) -> Select[Any]:
    """Return a query whose rows are a parameter's values.

    The parameter is made by `encode_values`, or by `encode_driver_values`.
    """
    return _select_rows(engine, bindparam(parameter), Text)


def select_integers(engine: str, parameter: str) -> Select[Any]:
    """Return a query whose rows are a parameter's integers, made as for `select_texts`."""
    return _select_rows(engine, bindparam(parameter), BigInteger)


def select_numbers(transaction: Transaction, values: Collection[int]) -> Select[Any]:
    """Return a query whose rows are the values."""
    parameter: BindParameter[Any] = bindparam(
        None, encode_values(transaction.engine, values), unique=True
    )
    return _select_rows(transaction.engine, parameter, BigInteger)


def encode_values(engine: str, values: Collection[Any]) -> Any:
    """Return values as one parameter."""
    return json.dumps(list(values)) if engine == "sqlite" else list(values)


def encode_driver_values(engine: str, values: Collection[Any]) -> Any:
    """Return values as one parameter of a statement that `fetch_rows` passes to the driver."""
    if engine == "sqlite":
        return encode_values(engine, values)
    return encode_array("TEXT" if isinstance(next(iter(values), None), str) else "BIGINT", values)


def _select_rows(
    engine: str, values: BindParameter[Any], kind: type[Text | BigInteger]
) -> Select[Any]:
    if engine == "sqlite":
        return select(func.json_each(values).table_valued("value", joins_implicitly=True).c.value)
    return select(func.unnest(cast(values, ARRAY(kind))).column_valued("value"))
