"""Upgrades on both engines, with rows in the tables, and no drift from the code."""

from contextlib import closing

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, text

from rollout.data.database import migrations
from rollout.data.database.append_failures import DatabaseBusyError, SchemaMismatchError
from rollout.data.database.migrations import (
    check_revision_known,
    check_schema_current,
    drop_tables,
    find_head_revision,
    find_missing_triggers,
    load_current_revision,
    upgrade,
)
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import SQLITE_PRAGMAS, Database, create_database_engine
from rollout.data.tables.tables import api_keys, cases, metadata, users
from tests.data.tables.test_append_only import row
from tests.factories import NOON
from tests.migrations.drift import find_drift
from tests.migrations.further import FURTHER, HEAD, copy_migrations

BATCHES = """
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("mail", sa.Text()))
        users.alter_column("password", new_column_name="secret")
    with op.batch_alter_table("cases", recreate="{recreate}") as cases:
        cases.add_column(sa.Column("weather", sa.Text()))
    {last}
"""


def tables(url):
    engine = create_database_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def opened(url):
    return closing(Database(url))


def fill(url):
    """Write some rows, a key that refers to a user among them."""
    with opened(url) as database, database.begin_write() as transaction:
        Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)
        for table in (users, api_keys, cases):
            transaction.execute(insert(table).values(row(table.name)))


def contents(url):
    """Return the rows of the tables that `fill` writes, without columns that came later."""
    with opened(url) as database, database.begin_read() as transaction:
        kept = [users.c["id", "name"], api_keys.c, cases.c]
        return [transaction.execute(select(*columns)).all() for columns in kept]


@pytest.fixture
def further(tmp_path, monkeypatch):
    """Add a synthetic revision after the last one, in a copy of the folder."""

    def add(recreate="auto", last="pass"):
        copy = copy_migrations(tmp_path, BATCHES.format(recreate=recreate, last=last))
        monkeypatch.setattr(migrations, "find_migrations_folder", lambda: copy)

    return add


@pytest.mark.slow
def test_an_upgrade_makes_every_table_of_the_program(url):
    assert load_current_revision(url) is None
    upgrade(url)
    assert tables(url) == {*metadata.tables, "alembic_version"}
    assert load_current_revision(url) == find_head_revision()


@pytest.mark.slow
def test_what_an_upgrade_makes_differs_in_nothing_from_the_program(url):
    upgrade(url)
    assert find_drift(url) == []


@pytest.mark.slow
def test_a_table_that_the_program_does_not_know_is_drift(current):
    with opened(current) as database, database.begin_write() as transaction:
        transaction.execute(text("create table stray (id integer)"))
    assert [kind for kind, *_ in find_drift(current)] == ["remove_table"]


def test_dropped_tables_leave_nothing_and_an_upgrade_makes_them_anew(current):
    fill(current)
    drop_tables(current)
    assert tables(current) == set()
    assert load_current_revision(current) is None
    upgrade(current)
    with opened(current) as database, database.begin_read() as transaction:
        assert find_missing_triggers(transaction) == ()
    assert contents(current) == [[], [], []]
    fill(current)


def test_an_upgrade_of_what_is_current_changes_nothing(current):
    fill(current)
    before = contents(current)
    upgrade(current)
    assert contents(current) == before


@pytest.mark.parametrize("recreate", ["auto", "always"])
def test_an_upgrade_of_a_filled_database_keeps_every_row(current, further, recreate):
    fill(current)
    before = contents(current)
    further(recreate)
    upgrade(current)
    assert load_current_revision(current) == FURTHER
    assert contents(current) == before


@pytest.mark.slow
def test_a_table_that_sqlite_copied_lost_its_triggers_and_they_are_named(tmp_path, further):
    url = f"sqlite:///{tmp_path / 'copied.db'}"
    further("always")
    upgrade(url)
    with opened(url) as database, database.begin_read() as transaction:
        assert find_missing_triggers(transaction) == (
            "cases_refuses_delete",
            "cases_refuses_update",
        )


@pytest.mark.slow
def test_an_upgrade_that_fails_changes_nothing(current, further):
    fill(current)
    before = contents(current)
    further(last="raise RuntimeError")
    with pytest.raises(RuntimeError):
        upgrade(current)
    assert load_current_revision(current) == HEAD
    assert contents(current) == before
    assert find_drift(current) == []


def test_an_upgrade_does_not_queue_everybody_behind_itself(current, further, monkeypatch):
    """Waiting for its lock it would hold up every later transaction; it gives up instead."""
    further()
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setitem(SQLITE_PRAGMAS, "busy_timeout", ("100", 100))
    with opened(current) as database, database.begin_write() as transaction:
        transaction.execute(insert(cases).values(row("cases")))
        with pytest.raises(DatabaseBusyError):
            upgrade(current)
    assert load_current_revision(current) == HEAD


def test_no_tables_are_refused_with_the_command_to_run(url):
    with opened(url) as database, pytest.raises(SchemaMismatchError, match="rollout db upgrade"):
        check_schema_current(database)


def test_the_programs_own_schema_is_accepted(current):
    with opened(current) as database:
        check_schema_current(database)


def test_an_older_schema_is_refused_with_the_command_to_run(current, further):
    further()
    with (
        opened(current) as database,
        pytest.raises(SchemaMismatchError, match="older; run `rollout db upgrade`"),
    ):
        check_schema_current(database)


def test_tables_of_another_commit_are_refused_with_what_to_do(current):
    with opened(current) as database:
        with database.begin_write() as transaction:
            transaction.execute(text("update alembic_version set version_num = '0046'"))
        said = "at revision 0046, made by an earlier commit: make the database anew"
        with pytest.raises(SchemaMismatchError, match=said):
            check_schema_current(database)
        with pytest.raises(SchemaMismatchError, match="restore it with that commit's program"):
            check_revision_known(database)
        with pytest.raises(SchemaMismatchError, match=said):
            upgrade(current)


def test_every_revision_says_why_what_it_locks_and_how_to_go_back():
    for path in (migrations.find_migrations_folder() / "versions").glob("*.py"):
        said = path.read_text().split('"""')[1]
        assert [w for w in ("Why:", "Locks:", "Back:") if w not in said] == []


def test_the_last_revision_is_the_one_that_alembic_finds():
    scripts = ScriptDirectory.from_config(migrations.build_config())
    assert find_head_revision() == scripts.get_current_head()
