"""Begin an era in every rollout of a restored database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.scope.commands import AcceptRestore
from rollout.core.scope.permissions import Permission, require_permission
from rollout.services.access.users import load_local_caller
from rollout.services.backups.lost_revocations import end_sign_ins
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.process.damage_search import clear_damage
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database


@dataclass(frozen=True, slots=True)
class RolloutEra:
    """A rollout's era, and the stops that hold in it."""

    rollout: str
    era: int
    stops: tuple[str, ...]


def accept_restore(
    database: Database,
    user_name: str,
    reason: str,
    *,
    at: datetime,
    known_eras: Mapping[str, int] | None = None,
) -> tuple[RolloutEra, ...]:
    """Begin an era with every cell stopped in each rollout, in an admin's name.

    All sessions and one-time links end. Damage found before ends with it: the declared database is
    the one that counts. `known_eras`
    are eras that clients may know although this database lacks them.

    Raises:
        UnknownUserError: there are users, but none of that name.
        NotAllowedError: the user is no admin of every rollout.
    """
    caller = load_local_caller(database, user_name)
    names = list_rollout_names(database)
    for name in names:
        require_permission(caller, Permission.ADMINISTER, name)
    eras = dict(known_eras or {})
    for name in names:

        def build_command(_: RolloutState, name: str = name) -> AcceptRestore:
            by, known_era = caller.as_actor(name), eras.get(name, 0)
            return AcceptRestore(at=at, by=by, reason=reason, known_era=known_era)

        execute_command(database, name, build_command, caller.access_head)
    end_sign_ins(database, at)
    clear_damage(database, caller.name, reason, at=at)
    return tuple(_load_era(database, name) for name in names)


def load_eras(database: Database) -> Mapping[str, int]:
    """Return the era of each rollout."""
    return {name: _load_era(database, name).era for name in list_rollout_names(database)}


def list_rollout_names(database: Database) -> tuple[str, ...]:
    """Return the names of all rollouts, sorted."""
    with database.begin_read() as transaction:
        return tuple(sorted(rollout.name for rollout in Rollouts(transaction).list_all()))


def _load_era(database: Database, name: str) -> RolloutEra:
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, name).scope
    return RolloutEra(name, scope.era, tuple(scope.stops))
