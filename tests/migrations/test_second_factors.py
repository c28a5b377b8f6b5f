"""Accounts of before: who could sign in had a credential, so a new one by an admin is a reset."""

import pytest
from sqlalchemy import text

from rollout.store.access.users import Users
from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.session import Database

BEFORE, THIS = "0016", "0019"
ADD = """
    insert into users (id, name, service_account, password, created_at, disabled_at)
    values (:id, :name, :machine, :password, 7, :disabled)
"""
ROWS = (("ana", "$argon2", None), ("bo", None, None), ("cy", None, 9), ("dee", None, None))


@pytest.mark.slow
def test_accounts_that_could_sign_in_are_marked_and_the_way_back_keeps_them(url):
    upgrade(url, BEFORE)
    database = Database(url)
    with database.begin_write() as transaction:
        for number, (name, password, disabled) in enumerate(ROWS, 1):
            row = {"id": number, "name": name, "password": password, "disabled": disabled}
            transaction.execute(text(ADD), {**row, "machine": False})
        link = "insert into identities (id, user_id, issuer, subject, linked_at)"
        transaction.execute(text(f"{link} values (1, 4, 'https://id.example.org', '7', 8)"))
    upgrade(url, THIS)
    with database.begin_read() as transaction:
        users = Users(transaction)
        had = {name: users.has_had_credential(users.find(name)) for name, *_ in ROWS}
    assert had == {"ana": True, "bo": False, "cy": True, "dee": True}
    downgrade(url, BEFORE)
    with database.begin_read() as transaction:
        names = transaction.execute(text("select name from users order by id")).scalars().all()
    assert names == ["ana", "bo", "cy", "dee"]
    database.close()
