"""The triggers of append-only tables, table by table on both engines."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    Integer,
    LargeBinary,
    Text,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from rollout.data.counting import purge
from rollout.data.database.bulk import build_insert
from rollout.data.tables.record_tables import (
    APPEND_ONLY,
    ERASABLE,
    OPEN_PURGE,
    InstantType,
    JsonType,
)
from rollout.data.tables.tables import metadata
from tests.data.databases import on_postgresql, on_sqlite
from tests.factories import NOON

PURGEABLE = sorted(table for table, purgeable in APPEND_ONLY.items() if purgeable)
KEPT = sorted(set(APPEND_ONLY) - set(PURGEABLE))
SAMPLES = {
    InstantType: NOON,
    JsonType: ["plain"],
    Text: "text",
    Boolean: True,
    Double: 0.5,
    LargeBinary: b"bytes",
    Integer: 1,
    BigInteger: 1,
}


def row(table):
    """Return any row that a table takes."""
    return {c.name: SAMPLES[type(c.type)] for c in metadata.tables[table].columns}


def filled(database, table):
    with database.begin_write() as transaction:
        transaction.execute(insert(metadata.tables[table]).values(row(table)))
    return metadata.tables[table]


def rows(database, table):
    with database.begin_read() as transaction:
        return transaction.execute(select(func.count()).select_from(table)).scalar()


def done(database, *statements):
    with database.begin_write() as transaction:
        for statement in statements:
            transaction.execute(statement)


def refused(database, *statements):
    """Do the statements in one transaction; the last one, and so all of them, is refused."""
    with pytest.raises(IntegrityError, match="append-only"):
        done(database, *statements)


@pytest.mark.parametrize("name", sorted(APPEND_ONLY))
def test_no_row_is_ever_updated_deleted_or_replaced(database, name):
    table = filled(database, name)
    refused(database, update(table).values(rollout=2))
    refused(database, delete(table))
    assert rows(database, table) == 1


@pytest.mark.parametrize("name", sorted(set(APPEND_ONLY) - ERASABLE))
def test_a_purge_updates_nothing_that_an_erasure_leaves_alone(database, name):
    refused(database, text(OPEN_PURGE), update(filled(database, name)).values(rollout=2))


@pytest.mark.parametrize("name", sorted(ERASABLE))
def test_an_erasure_updates_names_only_while_it_is_open(database, name):
    table = filled(database, name)
    with database.begin_write() as transaction, purge.open_purge(transaction):
        assert transaction.execute(update(table).values(rollout=2)).rowcount == 1
    refused(database, update(table).values(rollout=3))


@pytest.mark.parametrize("name", PURGEABLE)
def test_a_purge_deletes_records(database, name):
    table = filled(database, name)
    with database.begin_write() as transaction, purge.open_purge(transaction):
        assert transaction.execute(delete(table)).rowcount == 1
    assert rows(database, table) == 0


@pytest.mark.parametrize("name", KEPT)
def test_a_purge_touches_nothing_that_is_kept(database, name):
    refused(database, text(OPEN_PURGE), delete(filled(database, name)))


def test_an_opened_purge_cannot_be_committed(database):
    with pytest.raises(IntegrityError), database.begin_write() as transaction:
        transaction.execute(text(OPEN_PURGE))
    refused(database, delete(filled(database, "cases")))


def test_an_opened_purge_is_seen_by_nobody_else(database, other):
    with (
        database.begin_write() as transaction,
        purge.open_purge(transaction),
        other.begin_read() as reader,
    ):
        assert not reader.execute(text("select id from purging")).all()


@on_sqlite
def test_sqlites_own_replace_meets_the_same_refusal(database):
    """On our connections everywhere, on those of others at least in the ledger."""
    for name in APPEND_ONLY:
        table = filled(database, name)
        refused(database, insert(table).prefix_with("or replace").values(row(name)))
    with closing(sqlite3.connect(database.engine.url.database)) as plain:
        there = "insert or replace into ledger select * from ledger"
        with pytest.raises(sqlite3.IntegrityError, match="replace refused"):
            plain.execute(there)


def test_an_upsert_is_an_update(database):
    for name in APPEND_ONLY:
        table = filled(database, name)
        with database.begin_write() as transaction:
            statement = build_insert(transaction.engine, table).values(row(name))
        key = [column.name for column in table.primary_key]
        refused(database, statement.on_conflict_do_update(index_elements=key, set_=row(name)))


@on_postgresql
def test_postgresql_refuses_truncate(database):
    for name in APPEND_ONLY:
        refused(database, text(f"truncate {name}"))
