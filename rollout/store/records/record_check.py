"""Recompute the hash of each stored record from its content.

A range of cases is read at a time, so memory is bounded, and a damaged page costs the records of
one range.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    func,
    select,
    type_coerce,
)

from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.records.record_hashes import (
    CONTENT_FORM,
    FLOAT_COLUMNS,
    NEWEST_FORM,
    OUTCOME_SOURCE_FORM,
    OUTCOME_VALUES,
    PLANTED,
    PLANTED_FORM,
    SOURCE_KIND,
    VALUES_FORM,
    ErasedHashes,
    compute_record_hashes,
    list_covered,
)
from rollout.store.records.record_rows import COLUMN_OF, RecordSchema
from rollout.store.tables.columns import InstantType, JsonType
from rollout.store.tables.tables import cases, external_keys

FIELD_OF: Final = {column: name for name, column in COLUMN_OF.items()}
HASH_COLUMNS: Final = ("hash", "hash_form", "salt", "record_hash")
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
    faults: list[str] = []
    for form in sorted({row["hash_form"] for row in rows}):
        form_rows = [row for row in rows if row["hash_form"] == form]
        faults += _find_faults(transaction, rollout, schema, form, form_rows)
    return len(rows), faults


def _find_faults(
    transaction: Transaction,
    rollout: Rollout,
    schema: RecordSchema,
    form: int,
    rows: Sequence[RowValues],
) -> Iterator[str]:
    if form == CONTENT_FORM:
        changed_rows = list(_filter_changed_content(schema, rows))
        for row in _filter_not_erased(transaction, rollout, changed_rows, "hash"):
            yield f"{_name_record(schema, row)} is not what its hash says"
    elif CONTENT_FORM < form <= NEWEST_FORM:
        for row in rows:
            if form < PLANTED_FORM and row.get(PLANTED) is not None:
                yield f"{_name_record(schema, row)} is marked as planted, and its hash is not"
        yield from _find_faults_of_full_form(transaction, rollout, schema, form, rows)
    else:
        for row in rows:
            yield f"{_name_record(schema, row)} has hash form {form}, which does not exist"


def _find_faults_of_full_form(
    transaction: Transaction,
    rollout: Rollout,
    schema: RecordSchema,
    form: int,
    rows: Sequence[RowValues],
) -> Iterator[str]:
    salted_rows = [row for row in rows if row["salt"] is not None]
    expected = _compute_hashes(schema, form, salted_rows)
    for row, record_hash in zip(salted_rows, expected, strict=True):
        if row["record_hash"] is None or bytes(row["record_hash"]) != record_hash:
            yield f"{_name_record(schema, row)} is not what its hash says"
        elif form < VALUES_FORM and row.get(OUTCOME_VALUES) is not None:
            yield f"{_name_record(schema, row)} has values that its hash does not cover"
        elif form < OUTCOME_SOURCE_FORM and row.get(SOURCE_KIND) is not None:
            yield f"{_name_record(schema, row)} has a source that its hash does not cover"
    unsalted_rows = [row for row in rows if row["salt"] is None]
    for row in _filter_not_erased(transaction, rollout, unsalted_rows, "record_hash"):
        yield f"{_name_record(schema, row)} lost its random bytes without an erasure"


def _filter_not_erased(
    transaction: Transaction, rollout: Rollout, rows: Sequence[RowValues], column: str
) -> Iterator[RowValues]:
    """Yield the rows whose hash no event erased; an erasure of a name leaves the row."""
    case_ids = {row["case_id"] for row in rows}
    erased_hashes = ErasedHashes(transaction, rollout).load_by_case(case_ids)
    for row in rows:
        if bytes(row[column] or b"") not in erased_hashes:
            yield row


def _compute_hashes(schema: RecordSchema, form: int, rows: Sequence[RowValues]) -> list[bytes]:
    if not rows:
        return []
    columns = {name: [row.get(name) for row in rows] for name in list_covered(schema.name, form)}
    return compute_record_hashes(schema.name, form, columns, [bytes(row["salt"]) for row in rows])


def _filter_changed_content(schema: RecordSchema, rows: Sequence[RowValues]) -> Iterable[RowValues]:
    """Yield the rows of form 1 whose content does not match."""
    names = (*schema.content_columns, *schema.later_columns)
    columns = {name: _get_content(rows, name) for name in names}
    for row, content_hash in zip(rows, schema.compute_hashes(columns), strict=True):
        stored_hash = bytes(row["hash"])
        if content_hash != stored_hash and not _matches_otherwise(schema, row, stored_hash):
            yield row


def _matches_otherwise(schema: RecordSchema, row: RowValues, stored_hash: bytes) -> bool:
    """Return whether numbers sent as whole ones, or as a negative zero, explain the hash.

    Databases return floats for both, and form 1 is the hash of what was sent.
    """
    names = (*schema.content_columns, *schema.later_columns)
    columns = {name: _get_content([row], name) for name in names}
    for name in FLOAT_COLUMNS & columns.keys():
        (value,) = columns[name]
        for variant in (int(value), -0.0) if value is not None and value == int(value) else ():
            if value == variant and schema.compute_hashes({**columns, name: [variant]}) == [
                stored_hash
            ]:
                return True
    return False


def _get_content(rows: Sequence[RowValues], name: str) -> list[Any]:
    return [row[COLUMN_OF.get(name, name)] for row in rows]


def _select_records(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, case_ids: Collection[int]
) -> Select[Any]:
    table, case_keys = schema.table, external_keys.alias("case_keys")
    episodes = external_keys.alias("episodes")
    names = {*schema.key, *list_covered(schema.name, NEWEST_FORM), *HASH_COLUMNS} - {"episode"}
    columns = [_select_stored(table.c[name]) for name in sorted(names & set(table.c.keys()))]
    source = table.outerjoin(case_keys, case_keys.c.id == table.c.case_id)
    if table is cases:
        columns.append(episodes.c.key.label("episode"))
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
