"""Rollouts whose rows can't be read: find them, and clear them after a check."""

from datetime import datetime

from rollout.core.errors import RefusalError
from rollout.core.scope.events import DamageCleared
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.state_cache import UNREADABLE
from rollout.store.database.append_failures import is_damage
from rollout.store.database.rollouts import Rollout, Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.pending_stops import (
    ALL_ROLLOUTS,
    Damage,
    delete_damages,
    load_safety_rows,
)


class NotCleanError(RefusalError):
    """The database still has faults, so damage stays."""


def find_damaged_rollouts(database: Database) -> tuple[str, ...]:
    """Return the rollouts whose ledger can't be read; all if it can't be told.

    Raises:
        StoreError: the database does not respond, which is no damage.
    """
    try:
        with database.begin_read() as transaction:
            rollouts = Rollouts(transaction).list_all()
        damaged = tuple(row.name for row in rollouts if not _is_readable(database, row))
    except Exception as error:
        if is_damage(error):
            return (ALL_ROLLOUTS,)
        raise
    return damaged or (ALL_ROLLOUTS,)


def _is_readable(database: Database, rollout: Rollout) -> bool:
    try:
        with database.begin_read() as transaction:
            Ledger(transaction, rollout).verify()
    except Exception as error:
        if is_damage(error) or isinstance(error, UNREADABLE):
            return False
        raise
    return True


def is_cleared(transaction: Transaction, damage: Damage) -> bool:
    """Return whether a ledger holds that an admin cleared damage since it was found."""
    return any(
        row.at >= int(damage.found_at.timestamp() * 1_000_000)
        for rollout in Rollouts(transaction).list_all()
        if damage.rollout in {ALL_ROLLOUTS, rollout.name}
        for row in Ledger(transaction, rollout).list_rows(kinds=(DamageCleared.__name__,))
    )


def clear_checked_damage(
    database: Database, caller: Caller, reason: str, *, at: datetime
) -> tuple[str, ...]:
    """Run every check; if all pass, clear all damage and return the rollouts.

    Raises:
        NotAllowedError: the caller is no admin.
        NotCleanError: a check failed, or no reason was given.
    """
    from rollout.services.process.health_checks import run_health_checks

    require_permission(caller, Permission.ADMINISTER, "")
    if not reason.strip():
        raise NotCleanError("give the reason with --reason; it stands in the ledger")
    faults = [
        fault for check in run_health_checks(database, rebuilds=True) for fault in check.faults
    ]
    if faults:
        raise NotCleanError(
            f"{len(faults)} faults remain, so humans go on deciding; repair the database or restore"
            f" a backup: {faults[0]}"
        )
    return clear_damage(database, caller.name, reason, at=at)


def clear_damage(
    database: Database, actor_name: str, reason: str, *, at: datetime
) -> tuple[str, ...]:
    """Clear all damage by an event in each rollout that it concerns.

    A declared restore calls it too: the restored rows were verified. Without damage nothing is
    appended, and the result is ().
    """
    return retry_on_stale_revision(lambda: _append_clearings(database, actor_name, reason, at))


def _append_clearings(
    database: Database, actor_name: str, reason: str, at: datetime
) -> tuple[str, ...]:
    with database.begin_write(is_urgent=True) as transaction:
        damaged = {damage.rollout for damage in load_safety_rows(transaction).damages}
        rollouts = [
            rollout
            for rollout in Rollouts(transaction).list_all()
            if damaged and (ALL_ROLLOUTS in damaged or rollout.name in damaged)
        ]
        for rollout in rollouts:
            ledger = Ledger(transaction, rollout)
            head = ledger.load_head()
            event = DamageCleared(
                at=at if head.at is None else max(at, head.at), by=actor_name, reason=reason
            )
            ledger.append((event,), after=head.revision)
        delete_damages(transaction)
    return tuple(rollout.name for rollout in rollouts)
