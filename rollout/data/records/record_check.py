"""Recompute the hash of each stored record from its content, and check what decisions rest on.

A range of cases is read at a time, so memory is bounded, and a damaged page costs the records of
one range.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    case,
    func,
    select,
    type_coerce,
)

from rollout.data.database.rollouts import Rollout, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.decision_bases import find_basis_faults
from rollout.data.records.record_rows import (
    COLUMN_OF,
    ErasedHashes,
    RecordSchema,
    compute_record_hashes,
)
from rollout.data.tables.columns import InstantType, JsonType
from rollout.data.tables.tables import cases, decisions, external_keys

FIELD_OF: Final = {column: name for name, column in COLUMN_OF.items()}
NOT_READ: Final = frozenset({"rollout", "case_id", "episode"})
RowValues = Mapping[str, Any]


def find_last_case(transaction: Transaction, rollout: Rollout, schema: RecordSchema) -> int:
    """Return the highest number of a case with records of a kind; 0 without any."""
    query = select(func.max(schema.table.c.case_id)).where(schema.table.c.rollout == rollout.number)
    return transaction.execute(query).scalar() or 0


def find_changed_records(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, case_ids: Collection[int]
) -> tuple[int, list[str]]:
    """Return how many records of one kind were recomputed, and a sentence for each changed one."""
    query = _select_records(transaction, rollout, schema, case_ids)
    rows = [row._asdict() for row in transaction.execute(query)]
    return len(rows), list(_find_faults(transaction, rollout, schema, rows))


def _find_faults(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, rows: Sequence[RowValues]
) -> Iterator[str]:
    salted_rows = [row for row in rows if row["salt"] is not None]
    expected = _compute_hashes(schema, salted_rows)
    contents = _compute_content_hashes(schema, salted_rows)
    for row, record_hash, content_hash in zip(salted_rows, expected, contents, strict=True):
        if bytes(row["record_hash"]) != record_hash:
            yield f"{_name_record(schema, row)} is not what its hash says"
        elif bytes(row["hash"]) != content_hash:
            yield f"{_name_record(schema, row)} has not its content's hash, which finds repeats"
    if schema.table is decisions:
        for row, fault in find_basis_faults(transaction, rollout, rows):
            yield f"{_name_record(schema, row)} {fault}"
    unsalted_rows = [row for row in rows if row["salt"] is None]
    for row in _filter_not_erased(transaction, rollout, unsalted_rows):
        yield f"{_name_record(schema, row)} lost its random bytes without an erasure"


def _filter_not_erased(
    transaction: Transaction, rollout: Rollout, rows: Sequence[RowValues]
) -> Iterator[RowValues]:
    """Yield the rows whose hash no event erased; an erasure of a name leaves the row."""
    case_ids = {row["case_id"] for row in rows}
    erased_hashes = ErasedHashes(transaction, rollout).load_by_case(case_ids)
    for row in rows:
        if bytes(row["record_hash"]) not in erased_hashes:
            yield row


def _compute_hashes(schema: RecordSchema, rows: Sequence[RowValues]) -> list[bytes]:
    if not rows:
        return []
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return compute_record_hashes(schema.name, columns, columns["salt"])


def _compute_content_hashes(schema: RecordSchema, rows: Sequence[RowValues]) -> list[bytes]:
    """Return what finds repeats of records."""
    if not rows:
        return []
    columns = {FIELD_OF.get(name, name): [row[name] for row in rows] for name in rows[0]}
    return schema.compute_hashes(columns)


def _select_records(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, case_ids: Collection[int]
) -> Select[Any]:
    table, case_keys = schema.table, external_keys.alias("case_keys")
    episodes = external_keys.alias("episodes")
    columns = [_select_stored(column) for column in table.c if column.name not in NOT_READ]
    source = table.outerjoin(case_keys, case_keys.c.id == table.c.case_id)
    if table is cases:
        unknown = func.coalesce(episodes.c.key, "")  # unlike null, no case has it
        columns.append(case((table.c.episode.is_not(None), unknown)).label("episode"))
        source = source.outerjoin(episodes, episodes.c.id == table.c.episode)
    return (
        select(table.c.case_id, case_keys.c.key.label("key"), *columns)
        .select_from(source)
        .where(*_match_numbers(transaction, rollout, table, case_ids))
        .order_by(table.c.case_id)
    )


def _match_numbers(
    transaction: Transaction, rollout: Rollout, table: Table, case_ids: Collection[int]
) -> tuple[ColumnElement[bool], ...]:
    if not isinstance(case_ids, range):
        return match_cases(transaction, rollout, table, case_ids)
    is_inside = (table.c.case_id >= case_ids.start, table.c.case_id < case_ids.stop)
    return (table.c.rollout == rollout.number, *is_inside)


def _select_stored(column: Column[Any]) -> Any:
    """Return a column whose values come in their stored form."""
    if isinstance(column.type, InstantType):
        return type_coerce(column, BigInteger).label(column.name)
    if isinstance(column.type, JsonType):
        return type_coerce(column, Text).label(column.name)
    return column


def _name_record(schema: RecordSchema, row: RowValues) -> str:
    own_key = ", ".join(f"{FIELD_OF.get(name, name)} {row[name]}" for name in schema.key)
    return f"the {schema.name} of case {row['key']} ({own_key})"
