"""Stops and damage in their small tables come back as they were stored."""

from rollout.data.ledger.scopes import (
    ALL_ROLLOUTS,
    NO_SAFETY_ROWS,
    Damage,
    PendingStop,
    SafetyRows,
    delete_damages,
    delete_pending_stop,
    load_safety_rows,
    store_damage,
    store_pending_stop,
)
from rollout.engine.decide.commands import Actor
from rollout.kernel.calendar.instants import Cell
from tests.factories import HOUR, NOON

CELLS = (Cell("creek", "day"), Cell("lake", "night"))
BO = Actor("bo", ("operator", "safety"), is_service_account=True)
STOP = PendingStop("a1", "bears", CELLS, BO, 'smoke "here"', NOON, 7, drill=True)
OTHER = PendingStop("b2", "caves", CELLS[:1], Actor("ana"), "", NOON + HOUR, drill=False)
EVERYWHERE = Damage(ALL_ROLLOUTS, "malformed", NOON)
BEARS = Damage("bears", "row 3", NOON)


def test_rows_come_back_and_are_stored_once(database):
    with database.begin_write() as transaction:
        for _ in range(2):
            store_pending_stop(transaction, STOP)
            store_pending_stop(transaction, OTHER)
            store_damage(transaction, BEARS)
            store_damage(transaction, EVERYWHERE)
        store_damage(transaction, Damage("bears", "later", NOON + HOUR))
    with database.begin_read() as transaction:
        rows = load_safety_rows(transaction)
    assert rows == SafetyRows((STOP, OTHER), (EVERYWHERE, BEARS))
    assert rows.select_rollout("bears") == SafetyRows((STOP,), (EVERYWHERE, BEARS))
    assert rows.select_rollout("caves") == SafetyRows((OTHER,), (EVERYWHERE,))


def test_rows_are_deleted(database):
    with database.begin_write() as transaction:
        store_pending_stop(transaction, STOP)
        store_damage(transaction, BEARS)
        assert delete_pending_stop(transaction, "a1")
        assert not delete_pending_stop(transaction, "a1")
        delete_damages(transaction)
    with database.begin_read() as transaction:
        assert load_safety_rows(transaction) == NO_SAFETY_ROWS
