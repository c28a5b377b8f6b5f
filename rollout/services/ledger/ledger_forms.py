"""Convert ledgers from form 1 to form 2."""

from datetime import datetime

from rollout.core.scope.event_base import ENGINE
from rollout.store.access.access_ledger import load_access_head
from rollout.store.access.users import Users
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.ledger import Ledger


def change_forms(database: Database, at: datetime) -> tuple[str, ...]:
    """Append `FormChanged` to each ledger of form 1; return their names.

    Every account gets its id. It is safe to repeat: each ledger is converted in its own
    transaction, once. No replica of the previous release may run.
    """
    with database.begin_write() as transaction:
        Accounts(transaction).add_names(user.name for user in Users(transaction).list_all())
        rollouts = Rollouts(transaction).list_all()
        if load_access_head(transaction).revision:
            rollouts = (ACCESS_CHAIN, *rollouts)
    changed = []
    for rollout in rollouts:
        with database.begin_write() as transaction:
            if Ledger(transaction, rollout).change_form(at=at, by=ENGINE):
                changed.append(rollout.name)
    return tuple("access ledger" if name == ACCESS_CHAIN.name else name for name in changed)
