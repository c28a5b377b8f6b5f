"""The revision of ledger form 2: what it changes, and when there is a way back."""

from contextlib import closing

import pytest
from sqlalchemy import text

from rollout.store.database.migrations import downgrade, load_current_revision, upgrade
from rollout.store.database.session import Database
from tests.migrations.test_field_words import reflected, row_of

BEFORE, AFTER = "0012", "0013"
KINDS = ("rewound", "unpermitted", "alarm")
NOW = ("ledger_rolled_back", "unauthorized", "alarm")


@pytest.fixture
def filled(url):
    """Return a database of before, with a row in each table and an incident of each kind."""
    upgrade(url, BEFORE)
    tables = reflected(url)
    with closing(Database(url)) as database, database.begin_write() as transaction:
        for table in tables:
            rows = [row_of(table, 1)]
            if table.name == "incidents":
                rows = [{**row_of(table, n), "kind": kind} for n, kind in enumerate(KINDS, 1)]
            transaction.execute(table.insert(), rows)
    return url


def read(url, query):
    with closing(Database(url)) as database, database.begin_read() as transaction:
        return [tuple(row) for row in transaction.execute(text(query))]


def add_row(url, **values):
    (table,) = (t for t in reflected(url) if t.name == "ledger")
    with closing(Database(url)) as database, database.begin_write() as transaction:
        transaction.execute(table.insert(), [{**row_of(table, 2), **values}])


def kinds(url):
    return tuple(
        kind for (kind,) in read(url, "select kind from incidents order by opened_revision")
    )


def test_rows_stay_in_form_1_and_incidents_get_the_new_kinds(filled):
    ledger = read(filled, "select rollout, revision, kind, body, access_head, hash from ledger")
    upgrade(filled, AFTER)
    assert ledger == read(
        filled, "select rollout, revision, kind, body, access_head, hash from ledger"
    )
    assert read(filled, "select form, slot from ledger") == [(1, None)]
    assert read(filled, "select form from ledger_heads") == [(1,)]
    assert kinds(filled) == NOW
    assert read(filled, "select * from scopes") == []
    downgrade(filled, BEFORE)
    assert kinds(filled) == KINDS


@pytest.mark.parametrize(
    "row", [{"kind": "Stopped", "form": 2}, {"kind": "FormChanged", "form": 1}]
)
def test_there_is_no_way_back_once_a_ledger_has_left_form_1(filled, row):
    upgrade(filled, AFTER)
    add_row(filled, **row)
    with pytest.raises(RuntimeError, match="restore the backup"):
        downgrade(filled, BEFORE)
    assert load_current_revision(filled) == AFTER
    assert kinds(filled) == NOW
