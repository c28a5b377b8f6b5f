"""Checks of triggers, settings and the privileges of the service role."""

import pytest
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import ProgrammingError

from rollout.data.counting import purge
from rollout.data.database.migrations import (
    find_missing_triggers,
    find_unsafe_settings,
    grant_privileges,
    list_owned_tables,
)
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.record_tables import APPEND_ONLY, list_triggers
from rollout.data.tables.tables import cases
from rollout.engine.events import VersionFirstUsed
from tests.data.databases import on_postgresql, on_sqlite
from tests.data.tables.test_append_only import row
from tests.factories import NOON


def test_after_an_upgrade_every_trigger_is_there(database):
    with database.begin_read() as transaction:
        assert find_missing_triggers(transaction) == ()


def after(database, *statements):
    """Return the triggers that are missing after some statements, which are then undone."""
    with database.engine.connect() as connection, connection.begin() as begun:
        for statement in statements:
            connection.exec_driver_sql(statement)
        found = find_missing_triggers(Transaction(connection, connection.engine.pool))
        begun.rollback()
    return found


def test_a_trigger_that_was_dropped_is_named(database):
    engine = database.engine.dialect.name
    for name in list_triggers(engine):
        on = f" on {name.partition('_refuses_')[0]}" if engine == "postgresql" else ""
        assert after(database, f"drop trigger {name}{on}") == (name,)


@on_sqlite
def test_a_trigger_that_refuses_nothing_is_named(database):
    made = "create trigger cases_refuses_update before update on cases begin select 1; end"
    found = after(database, "drop trigger cases_refuses_update", made)
    assert found == ("cases_refuses_update",)


REPORTS = "reports_refuses_update_or_delete"


@on_postgresql
@pytest.mark.parametrize(
    "statement",
    [
        f"alter table reports disable trigger {REPORTS}",
        (
            f"create or replace trigger {REPORTS} before update on reports for each row"
            " execute function refuse_change('kept')"
        ),
        (
            f"create or replace trigger {REPORTS} before update or delete on reports for each row"
            " execute function refuse_change('purgeable')"
        ),
    ],
)
def test_a_trigger_that_refuses_less_is_named(database, statement):
    assert after(database, statement) == (REPORTS,)


@on_postgresql
def test_a_function_that_refuses_nothing_is_named_with_all_that_call_it(database):
    made = (
        "create or replace function refuse_change() returns trigger language plpgsql"
        " as $$ begin return new; end $$"
    )
    assert len(after(database, made)) == 2 * len(APPEND_ONLY)


@on_postgresql
def test_a_server_that_forgets_is_named(database):
    with database.begin_write() as transaction:
        assert find_unsafe_settings(transaction) == ()
        transaction.execute(text("set local synchronous_commit = off"))
        assert find_unsafe_settings(transaction) == ("synchronous_commit",)


@on_sqlite
def test_sqlite_is_asserted_elsewhere_and_owned_by_whoever_writes_the_file(database):
    with database.begin_read() as transaction:
        assert find_unsafe_settings(transaction) == list_owned_tables(transaction) == ()


@pytest.fixture
def role(database):
    """Make the service's role, and remove it after the test."""
    name = "rollout service"
    with database.begin_write() as transaction:
        transaction.execute(text(f'create role "{name}"'))
        grant_privileges(transaction, name)
    yield name
    with database.begin_write() as transaction:
        transaction.execute(text(f'drop owned by "{name}"'))
        transaction.execute(text(f'drop role "{name}"'))


def become(transaction, role):
    transaction.execute(text(f'set local role "{role}"'))


@on_postgresql
def test_the_services_role_owns_nothing_and_can_do_its_work(database, role):
    with database.begin_write() as transaction:
        assert set(list_owned_tables(transaction)) == set(APPEND_ONLY)
        become(transaction, role)
        assert list_owned_tables(transaction) == ()
        rollout = Rollouts(transaction).create("a", salt=bytes(32), at=NOON)
        seen = VersionFirstUsed(at=NOON, by="policy", version="v1")
        Ledger(transaction, rollout).append([seen], after=0)
        transaction.execute(insert(cases).values(row("cases")))
        with purge.open_purge(transaction):
            transaction.execute(delete(cases))


@on_postgresql
@pytest.mark.parametrize(
    "statement",
    [
        "drop trigger ledger_refuses_update_or_delete on ledger",
        "alter table ledger disable trigger all",
        "delete from ledger",
        "update cases set site = 'x'",
        "truncate cases",
        "set local session_replication_role = replica",
        "drop table ledger",
    ],
)
def test_the_services_role_cannot_pass_the_triggers(database, role, statement):
    with database.engine.connect() as connection, connection.begin():
        become(Transaction(connection, connection.engine.pool), role)
        with pytest.raises(ProgrammingError):
            connection.exec_driver_sql(statement)
