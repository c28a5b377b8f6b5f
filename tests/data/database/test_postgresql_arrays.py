"""Arrays are stored and read back on PostgreSQL as the values that were sent."""

from datetime import date

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from rollout.data.database.bulk import BinaryArray, encode_array, insert_columns, insert_tables
from rollout.data.tables.tables import external_keys, heartbeats
from tests.data.databases import on_postgresql
from tests.data.new_rollouts import rollout

__all__ = ["rollout"]

kinds = Table(
    "kinds_of_values",
    MetaData(),
    *(
        Column(name, kind)
        for name, kind in {
            "number": Integer,
            "long": BigInteger,
            "share": Double,
            "word": Text,
            "hash": LargeBinary,
            "marked": Boolean,
        }.items()
    ),
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
special_texts = st.text("\\\n\r\tN.,{}\"'u0 ")
rows = st.tuples(
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | texts | special_texts,
    st.none() | st.binary(max_size=4),
    st.none() | st.booleans(),
)


@on_postgresql
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sent=st.lists(rows, min_size=1, max_size=8))
def test_rows_are_stored_as_they_were_sent(database, sent):
    columns = dict(zip(kinds.columns.keys(), map(list, zip(*sent, strict=True)), strict=True))
    assume(any(cell is not None for row in sent for cell in row))  # else there is no column
    with database.begin_write() as transaction:
        kinds.create(transaction.connection)
        insert_columns(transaction, kinds, columns)
        stored = [tuple(row) for row in transaction.execute(select(kinds))]
        kinds.drop(transaction.connection)
    assert str(stored) == str(sent)  # 0.0 == -0.0


ODD = ["a", 'q"', "\\", "\\x", ",", "{", "}", "null", "NULL", "", " a ", "é\n\t"]
LISTS = [
    ("TEXT", ODD),
    ("TEXT", [*ODD, None]),
    ("TEXT", ["same"] * 3),
    ("BYTEA", [b"", b"\\\x00\xff", bytes(32)]),
    ("DOUBLE PRECISION", [1.5, -0.0, 0.0, 1e300, 5e-324, None]),
    ("DOUBLE PRECISION", [0.0, -0.0, 0.0]),
    ("DOUBLE PRECISION", [1, 2.5]),
    ("BIGINT", [1, -(2**63), None]),
    ("BIGINT", [7] * 3),
    ("BOOLEAN", [True, None, False]),
    ("BIGINT", []),
    ("TEXT", [None]),
]
OTHERS = [
    ("TEXT", ["a", 1]),
    ("TEXT", ["\ud800"]),
    ("BIGINT", ["a"]),
    ("BIGINT", [True]),
    ("INTEGER", [2**31]),
    ("DOUBLE PRECISION", [10**400]),
    ("DATE", [date(2027, 1, 1)]),
]


@on_postgresql
@pytest.mark.parametrize(("kind", "values"), LISTS)
def test_an_array_is_read_back_as_its_values(database, kind, values):
    written = encode_array(kind, values)
    assert isinstance(written, BinaryArray)
    query = text(f"select * from unnest(cast(:given as {kind}[]))")  # noqa: S608 - kinds of ours
    with database.begin_read() as transaction:
        found = [row[0] for row in transaction.execute(query, {"given": written})]
    assert str(found) == str(
        [float(v) if v == 1 else v for v in values] if 2.5 in values else values
    )


@pytest.mark.parametrize(("kind", "values"), OTHERS)
def test_an_array_of_other_values_is_left_to_the_driver(kind, values):
    assert encode_array(kind, values) == values


@on_postgresql
def test_a_number_that_the_column_can_not_hold_is_refused(database):
    columns = {"rollout": [2**31, 1], "site": ["a", "b"], "at": [1, 1], "received_at": [1, 1]}
    with pytest.raises(DBAPIError, match="out of range"), database.begin_write() as transaction:
        insert_columns(transaction, heartbeats, columns)


@on_postgresql
def test_tables_are_inserted_together_or_not_at_all(database, rollout):
    number = rollout.number
    keys = {"rollout": [number] * 2, "kind": ["case"] * 2, "key": ["a", "b"]}
    beats = {"rollout": [number], "site": ["creek"], "at": [1], "received_at": [1]}
    with database.begin_write() as transaction:
        insert_tables(transaction, {external_keys: keys, heartbeats: beats})
    with pytest.raises(IntegrityError), database.begin_write() as transaction:
        insert_tables(transaction, {heartbeats: {**beats, "at": [2]}, external_keys: keys})
    with database.begin_read() as transaction:
        for table, count in ((external_keys, 2), (heartbeats, 1)):
            query = select(func.count()).select_from(table)
            assert transaction.execute(query).scalar_one() == count
