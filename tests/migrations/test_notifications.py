"""The tables of notifications come empty, and go with the users left as they were."""

from sqlalchemy import text

from rollout.store.access.notification_channels import NotificationChannels, NotificationTimes
from rollout.store.access.users import Users
from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.session import Database
from tests.factories import NOON

BEFORE, THIS = "0022", "0025"


def test_users_can_choose_after_it_and_stay_when_it_goes(url):
    upgrade(url, BEFORE)
    database = Database(url)
    with database.begin_write() as transaction:
        user = Users(transaction).add("ana", at=NOON)
    upgrade(url, THIS)
    with database.begin_write() as transaction:
        NotificationChannels(transaction).store_times(user.number, NotificationTimes("UTC"))
        assert NotificationChannels(transaction).load_times(user.number) == NotificationTimes("UTC")
    downgrade(url, BEFORE)
    with database.begin_read() as transaction:
        assert transaction.execute(text("select name from users")).scalars().all() == ["ana"]
    database.close()
