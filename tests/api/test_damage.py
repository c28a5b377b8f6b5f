"""Rows that can't be read hand cases to people until a clean check with a name and a reason."""

import pytest
from sqlalchemy import text

from rollout.engine.decide.commands import Actor
from rollout.features.process.health_checks import (
    NotCleanError,
    clear_checked_damage,
    find_damaged_rollouts,
)
from rollout.live.autonomy import DAMAGED
from rollout.live.stop_latches import LatchFolder
from tests.api.assignments.test_autonomy import (
    _clocks_agree,
    bears,
    events,
    replica,
    second,
    stored,
)
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field

__all__ = ["_clocks_agree", "bears", "replica", "second"]


def spoil_rows(database):
    """Write what is no JSON over the bodies of the rollout's ledger."""
    with database.begin_write() as transaction:
        for name in ("update", "delete", "insert"):
            transaction.execute(text(f"drop trigger if exists ledger_no_{name}"))
        triggers = transaction.execute(
            text("select name from sqlite_master where type = 'trigger' and tbl_name = 'ledger'")
        ).scalars()
        for trigger in list(triggers):
            transaction.execute(text(f"drop trigger {trigger}"))
        transaction.execute(text("update ledger set body = '{' where rollout = 1"))


def add_second_rollout(database):
    from rollout.live.policy_application import apply_policy  # noqa: PLC0415

    apply_policy(database, field.POLICY.replace("bears", "caves"), Actor("zoe"), NOON)


@on_sqlite
def test_a_rollout_whose_rows_cant_be_read_is_handed_to_people(replica, second, database):
    add_second_rollout(database)
    replica.beat()
    second.beat()
    assert (replica.decider(), second.decider()) == ("model", "model")
    spoil_rows(database)
    assert find_damaged_rollouts(database) == ("bears",)
    assert (replica.decider(), second.decider()) == ("model", "model")  # from memory
    database.damage_signs.text = "malformed"
    assert (replica.decider(), replica.reason()) == ("human", DAMAGED)
    assert replica.service.autonomy.find_doubt("caves") == DAMAGED  # until it is told apart
    replica.beat()
    assert replica.decider() == "human"
    assert replica.service.autonomy.find_doubt("caves") == ""
    assert [damage.rollout for damage in stored(database).damages] == ["bears"]
    replica.pass_time()
    assert second.decider() == "human"


@on_sqlite
def test_damage_that_cant_be_told_apart_is_of_all(replica, database):
    database.damage_signs.text = "malformed"
    replica.beat()
    assert [damage.rollout for damage in stored(database).damages] == [""]
    assert replica.service.autonomy.find_doubt("caves") == DAMAGED


@on_sqlite
def test_a_row_without_a_form_is_damage_as_soon_as_it_is_read(replica, database):
    spoil_rows(database)
    replica.beat()
    assert replica.decider() == "human"
    assert replica.service.autonomy.latches.is_damaged("bears")


@on_sqlite
def test_a_policy_whose_text_was_changed_is_damage(replica, second, database):
    replica.beat()
    assert replica.decider() == "model"
    with database.begin_write() as transaction:
        query = "select name from sqlite_master where type = 'trigger' and tbl_name = 'policies'"
        for trigger in list(transaction.execute(text(query)).scalars()):
            transaction.execute(text(f"drop trigger {trigger}"))
        assert transaction.execute(text("update policies set text = text || '#'")).rowcount
    second.beat()  # it reads the policy for the first time
    assert second.decider() == "human"
    assert second.service.autonomy.latches.is_damaged("bears")


@on_sqlite
def test_only_a_clean_check_ends_damage_as_an_event_with_name_and_reason(
    replica, second, database, door, tmp_path
):
    folder = LatchFolder(tmp_path / "stops")
    replica.service.autonomy.latches.folder = folder
    for one in (replica, second):
        one.beat()
    database.damage_signs.text = "malformed"
    replica.beat()
    admin = door.callers["admin"]
    with database.begin_write() as transaction:
        transaction.execute(text("update proposals set kind = 'x'"))
        transaction.execute(text("delete from ledger_heads where rollout = 0"))
    with pytest.raises(NotCleanError):
        clear_checked_damage(database, admin, " ", at=NOON)
    assert stored(database).damages
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "rollout.features.process.health_checks.run_health_checks", lambda *_, **__: ()
        )
        assert clear_checked_damage(database, admin, "disk replaced", at=NOON) == ("bears",)
    (row,) = events(database, "DamageCleared")
    assert (row.by, row.fields["reason"]) == ("admin", "disk replaced")
    assert stored(database).damages == ()
    assert replica.service.autonomy.find_doubt("bears") == DAMAGED  # until its next pass
    replica.beat()
    replica.pass_time()
    assert (replica.decider(), second.decider()) == ("model", "model")
    assert list(folder.path.iterdir()) == []


@on_sqlite
def test_a_row_of_damage_that_vanishes_clears_nothing(replica, database):
    replica.beat()
    database.damage_signs.text = "malformed"
    replica.beat()
    with database.begin_write() as transaction:
        transaction.execute(text("delete from damages"))
    replica.beat()
    assert replica.reason() == DAMAGED
    assert stored(database).damages
