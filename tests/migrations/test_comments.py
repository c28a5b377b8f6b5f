"""The table of comments comes empty; there is no way back once a comment is in a ledger."""

from contextlib import closing

import pytest
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import IntegrityError

from rollout.store.counting.purge import open_purge
from rollout.store.database.migrations import downgrade, load_current_revision, upgrade
from rollout.store.database.session import Database
from rollout.store.tables.tables import comments
from tests.factories import NOON

BEFORE, AFTER = "0038", "0039"
ROW = {"rollout": 1, "revision": 7, "about": "P-1", "at": NOON, "author": "ana", "text": "Why?"}


def test_comments_change_by_erasures_alone_and_an_empty_table_goes_again(url):
    upgrade(url, BEFORE)
    upgrade(url, AFTER)
    with closing(Database(url)) as database:
        with database.begin_write() as transaction:
            transaction.execute(insert(comments).values(ROW))
        for statement in (comments.update().values(text="No"), delete(comments)):
            with pytest.raises(IntegrityError), database.begin_write() as transaction:
                transaction.execute(statement)
        with database.begin_write() as transaction, open_purge(transaction):
            transaction.execute(comments.update().values(text=None))
    with pytest.raises(RuntimeError, match="1 comments have entries in ledgers"):
        downgrade(url, BEFORE)
    assert load_current_revision(url) == AFTER
    with closing(Database(url)) as database, database.begin_write() as transaction:
        is_sqlite = transaction.engine == "sqlite"
        drop = "drop trigger comments_refuses_delete"
        off = "alter table comments disable trigger user"
        transaction.execute(text(drop if is_sqlite else off))
        transaction.execute(delete(comments))
    downgrade(url, BEFORE)
    assert load_current_revision(url) == BEFORE
