"""The revision of senders: rows of before stay as they are, and the columns go again."""

from contextlib import closing

import pytest
from sqlalchemy import select

from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.session import Database
from tests.migrations.test_field_words import reflected, row_of

BEFORE, AFTER = "0014", "0015"
TABLES = ("cases", "predictions", "decisions", "actions", "outcomes")


def record_tables(url):
    return [table for table in reflected(url) if table.name in TABLES]


def contents(url):
    tables = record_tables(url)
    with closing(Database(url)) as database, database.begin_read() as transaction:
        return {
            table.name: [dict(row._mapping) for row in transaction.execute(select(table))]
            for table in tables
        }


@pytest.mark.slow
def test_rows_of_before_have_no_sender(url):
    upgrade(url, BEFORE)
    tables = record_tables(url)
    with closing(Database(url)) as database, database.begin_write() as transaction:
        for table in tables:
            transaction.execute(table.insert(), [row_of(table, 1)])
    before = contents(url)
    upgrade(url, AFTER)
    for name, rows in contents(url).items():
        new = {"sender": None, "source": None} if name == "decisions" else {"sender": None}
        assert rows == [{**before[name][0], **new}]
    downgrade(url, BEFORE)
    assert before == contents(url)
