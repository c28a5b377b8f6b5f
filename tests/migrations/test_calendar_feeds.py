"""The table of calendar addresses comes empty, and goes with the users left as they were."""

import pytest
from sqlalchemy import text

from rollout.store.access.calendar_feeds import CalendarFeeds
from rollout.store.access.users import Users
from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.session import Database
from tests.factories import NOON

BEFORE, THIS = "0033", "0036"


@pytest.mark.slow
def test_users_can_subscribe_after_it_and_stay_when_it_goes(url):
    upgrade(url, BEFORE)
    database = Database(url)
    with database.begin_write() as transaction:
        user = Users(transaction).add("ana", at=NOON)
    upgrade(url, THIS)
    with database.begin_write() as transaction:
        for token in ("first", "second"):
            CalendarFeeds(transaction).store(user.number, token, at=NOON)
        assert CalendarFeeds(transaction).find_user("first") is None
        assert CalendarFeeds(transaction).find_user("second").name == "ana"
    downgrade(url, BEFORE)
    with database.begin_read() as transaction:
        assert transaction.execute(text("select name from users")).scalars().all() == ["ana"]
    database.close()
