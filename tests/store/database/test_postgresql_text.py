"""On PostgreSQL rows that are copied are stored as rows that are inserted."""

import math

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text, select
from sqlalchemy.exc import IntegrityError

from rollout.store.database import bulk
from rollout.store.database.bulk import COPIED_ROWS, insert_columns
from rollout.store.tables.tables import external_keys
from tests.store.databases import on_postgresql
from tests.store.new_rollouts import rollout

__all__ = ["rollout"]

kinds = Table(
    "copied_kinds",
    MetaData(),
    *(
        Column(name, kind)
        for name, kind in {
            "number": Integer,
            "share": Float,
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
    st.none() | st.floats(allow_nan=False),
    st.none() | texts | special_texts,
    st.none() | st.binary(max_size=4),
    st.none() | st.booleans(),
)


def store_rows(database, columns, copied_rows):
    """Return what is stored of columns if so many rows are copied."""
    with pytest.MonkeyPatch.context() as patch, database.begin_write() as transaction:
        patch.setattr(bulk, "COPIED_ROWS", copied_rows)
        kinds.create(transaction.connection)
        insert_columns(transaction, kinds, columns)
        stored = transaction.execute(select(kinds)).all()
        kinds.drop(transaction.connection)
    return [tuple(row) for row in stored]


@on_postgresql
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sent=st.lists(rows, min_size=1, max_size=8))
def test_copied_rows_are_stored_as_they_were_sent(database, sent):
    columns = dict(zip(kinds.columns.keys(), map(list, zip(*sent, strict=True)), strict=True))
    assume(any(cell is not None for row in sent for cell in row))  # else there is no column
    assert store_rows(database, columns, 1) == sent
    assert store_rows(database, columns, math.inf) == sent


@on_postgresql
def test_a_key_that_exists_is_an_integrity_error_and_nothing_is_stored(database, rollout):
    keys = [{"rollout": rollout.number, "kind": "case", "key": f"k{n}"} for n in range(COPIED_ROWS)]
    columns = {name: [key[name] for key in keys] for name in keys[0]}
    with database.begin_write() as transaction:
        insert_columns(transaction, external_keys, columns)
    with pytest.raises(IntegrityError), database.begin_write() as transaction:
        insert_columns(transaction, external_keys, columns)
    with database.begin_read() as transaction:
        assert len(transaction.execute(select(external_keys)).all()) == COPIED_ROWS
