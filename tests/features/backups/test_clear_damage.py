"""`rollout doctor --clear-damage`: only an admin, with a reason, and only if all checks pass."""

from contextlib import closing

import pytest
from sqlalchemy import text

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import Damage, load_safety_rows, store_damage
from tests.commands import run
from tests.data.databases import fresh
from tests.factories import NOON
from tests.features import bear_field as field

CLEAR = ("doctor", "--clear-damage", "--by", "ada", "--reason", "disk replaced")


@pytest.fixture
def database(tmp_path, monkeypatch):
    with fresh("sqlite", tmp_path) as url, closing(Database(url)) as made:
        field.set_up_field(made)
        with made.begin_write() as transaction:
            store_damage(transaction, Damage("bears", "malformed", NOON))
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        yield made


def read(database):
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("bears"))
        rows = list(ledger.list_rows(kinds=("DamageCleared",)))
        return rows, load_safety_rows(transaction).damages


def test_a_clean_check_ends_damage_with_name_and_reason(database):
    done = run(*CLEAR)
    assert (done.exit_code, done.output) == (0, "damage cleared: bears\n")
    (row,), damages = read(database)
    assert (row.by, row.fields["reason"], damages) == ("ada", "disk replaced", ())
    assert run(*CLEAR).output == "no damage was found by any replica\n"
    assert len(read(database)[0]) == 1


def test_a_fault_leaves_it(database):
    with database.begin_write() as transaction:
        query = text("select name from sqlite_master where type = 'trigger' limit 1")
        trigger = transaction.execute(query).scalar_one()
        transaction.execute(text(f"drop trigger {trigger}"))
    done = run(*CLEAR)
    assert done.exit_code == 2
    assert "faults remain" in done.output
    assert read(database)[0] == []
    assert read(database)[1]


@pytest.mark.parametrize("words", [CLEAR[:2], CLEAR[:4], (*CLEAR[:4], "--reason", " ")])
def test_a_name_and_a_reason_are_needed(database, words):
    assert run(*words).exit_code == 2
    assert read(database)[1]
