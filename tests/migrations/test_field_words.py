"""The revision that renames tables, columns and values: a filled database goes up and down."""

from contextlib import closing
from operator import itemgetter

import pytest
from sqlalchemy import Boolean, Float, Integer, LargeBinary, MetaData, inspect, text
from sqlalchemy.exc import IntegrityError

from rollout.store.database.append_only_checks import find_missing_triggers
from rollout.store.database.migrations import downgrade, find_drift, grant_privileges, upgrade
from rollout.store.database.session import Database, create_database_engine
from rollout.store.tables.append_only import APPEND_ONLY
from tests.store.databases import on_postgresql

LATER_TABLES = {
    "erased_hashes",
    "counted_records",
    "planted_cases",
    "counted_outcomes",
    "comments",
}  # append-only tables of later migrations
BEFORE, AFTER = "0011", "0012"
ROWS = 4
RENAMED = {
    "caller_keys": "external_keys",
    "counted": "counted_units",
    "due": "count_queue",
    "keys": "api_keys",
    "losses": "top_losses",
    "matrices": "confusion_matrices",
    "people": "users",
    "replies": "idempotency_keys",
    "rights": "role_assignments",
    "set_aside": "rejected_records",
    "shown": "exposures",
    "slots": "tick_slots",
    "tallies": "counts",
    "tally_kinds": "count_classes",
    "tally_series": "count_series",
}
VALUES = {  # by table and column as they were named before; at most `ROWS` of each
    ("actions", "permission"): {
        "permitted": "authorized",
        "in-lease": "authorized_within_lease",
        "unpermitted": "unauthorized",
        "by-person": "not_required",
    },
    ("due", "track"): {"arrived": "received", "came": "unscheduled", "gate": "gate"},
    ("reviews", "kind"): {"adjudicate": "adjudication", "seeded": "gold", "blind": "blind"},
    ("shown", "page"): {"set-aside": "rejected-records", "seed": "gold-case", "case": "case"},
    ("shown", "what"): {"verdicts": "decisions", "prediction": "prediction"},
    ("versions", "source"): {"asked": "assignment", "told": "registration", "records": "records"},
}


def reflected(url):
    """Return the tables of a database as they are there, but for those that hold no data."""
    found, engine = MetaData(), create_database_engine(url)
    found.reflect(engine)
    engine.dispose()
    return [t for t in found.sorted_tables if t.name not in {"alembic_version", "purging"}]


def sample(column, number):
    kind = column.type
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, Float):
        return number + 0.5
    if isinstance(kind, Integer):
        return number
    return f"bytes {number}".encode() if isinstance(kind, LargeBinary) else f"text {number}"


def row_of(table, number):
    row = {column.name: sample(column, number) for column in table.columns}
    for (name, column), values in VALUES.items():
        if name == table.name:
            row[column] = list(values)[number % len(values)]
    return row


def fill(url):
    tables = reflected(url)
    with closing(Database(url)) as database, database.begin_write() as transaction:
        for table in tables:
            rows = [row_of(table, number) for number in range(1, ROWS + 1)]
            transaction.execute(table.insert(), rows)


def contents(url):
    """Return the rows of each table, in the order of its columns."""
    tables = reflected(url)
    with closing(Database(url)) as database, database.begin_read() as transaction:
        return {
            table.name: sorted(map(tuple, transaction.execute(table.select())), key=repr)
            for table in tables
        }


by_name = itemgetter("name")


def form(url):
    """Return what each table is made of, as text: conditions of indexes are objects."""
    engine = create_database_engine(url)
    seen = inspect(engine)
    found = {
        name: _plainly(
            [(c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(name)],
            seen.get_pk_constraint(name),
            *sorted(seen.get_unique_constraints(name), key=by_name),
            *sorted(seen.get_foreign_keys(name), key=by_name),
            *sorted(seen.get_indexes(name), key=by_name),
        )
        for name in seen.get_table_names()
    }
    engine.dispose()
    return found


def _plainly(columns, *parts):
    for part in parts:
        options = part.get("dialect_options", {})
        part["dialect_options"] = {name: str(value) for name, value in options.items()}
    return columns, parts


def expected(url, before):
    """Return the rows as they should be under the names and values of the new form."""
    found = {}
    for table in reflected(url):
        names = [column.name for column in table.columns]
        words = [VALUES.get((table.name, name), {}) for name in names]
        found[RENAMED.get(table.name, table.name)] = sorted(
            (
                tuple(
                    of.get(cell, cell) if of else cell for of, cell in zip(words, row, strict=True)
                )
                for row in before[table.name]
            ),
            key=repr,
        )
    return found


@pytest.fixture
def filled(url):
    upgrade(url, BEFORE)
    fill(url)
    return url


@pytest.mark.slow
def test_a_filled_database_goes_up_reads_the_same_and_comes_down_equal(filled):
    before, was = contents(filled), form(filled)
    assert all(len(rows) == ROWS for rows in before.values())
    right = expected(filled, before)
    upgrade(filled, AFTER)
    assert contents(filled) == right
    downgrade(filled, BEFORE)
    assert (contents(filled), form(filled)) == (before, was)


@pytest.mark.slow
def test_every_stored_word_that_was_replaced_is_tried(filled):
    """Else a value of the list above might never have been in a row."""
    found = contents(filled)
    for (table, column), values in VALUES.items():
        place = [c.name for t in reflected(filled) if t.name == table for c in t.columns]
        assert {row[place.index(column)] for row in found[table]} == set(values)


def test_up_and_down_append_only_tables_refuse_changes(filled):
    for go, to in ((upgrade, AFTER), (downgrade, BEFORE)):
        go(filled, to)
        names = {name: RENAMED.get(name, name) for name in old_append_only()}
        with closing(Database(filled)) as database:
            for old, new in names.items():
                name = new if to == AFTER else old
                with (
                    pytest.raises(IntegrityError, match=f"{name} is append-only"),
                    database.begin_write() as transaction,
                ):
                    transaction.execute(text(f"update {name} set rollout = 7"))  # noqa: S608 - ours


def old_append_only():
    names = {new: old for old, new in RENAMED.items()}
    return [names.get(name, name) for name in APPEND_ONLY if name not in LATER_TABLES]


@pytest.mark.slow
def test_the_form_afterwards_is_that_of_the_program(filled):
    upgrade(filled)
    assert find_drift(filled) == []
    with closing(Database(filled)) as database, database.begin_read() as transaction:
        assert find_missing_triggers(transaction) == ()


@pytest.mark.slow
@on_postgresql
def test_a_role_keeps_what_it_was_granted_and_gains_nothing(filled):
    role = "rollout_renamed"
    upgrade(filled)
    with closing(Database(filled)) as database:
        try:
            with database.begin_write() as transaction:
                transaction.execute(text(f"create role {role}"))
                grant_privileges(transaction, role)
            downgrade(filled, BEFORE)
            assert allowed(database, role, "cases", "people") == (True, False, True, True)
            upgrade(filled)
            assert allowed(database, role, "cases", "users") == (True, False, True, True)
        finally:
            with database.begin_write() as transaction:
                transaction.execute(text(f"drop owned by {role}"))
                transaction.execute(text(f"drop role {role}"))


def allowed(database, role, append_only, other):
    with database.begin_read() as transaction:
        asked = [
            f"has_table_privilege('{role}', '{append_only}', 'insert')",
            f"has_table_privilege('{role}', '{append_only}', 'update')",
            f"has_table_privilege('{role}', '{other}', 'update')",
            f"has_sequence_privilege('{role}', '{other}_id_seq', 'usage')",
        ]
        return tuple(transaction.execute(text(f"select {', '.join(asked)}")).one())
