"""Ledgers of form 1 go on in form 2, each after one row that holds its head."""

from datetime import datetime

from rollout.core.scope import ENGINE
from rollout.store.accounts import Accounts
from rollout.store.house import house_head
from rollout.store.ledger import Ledger
from rollout.store.people import People
from rollout.store.rollouts import HOUSE_CHAIN, Rollouts
from rollout.store.session import Database


def change_forms(database: Database, at: datetime) -> tuple[str, ...]:
    """Write `FormChanged` into each ledger of form 1, and return whose ledgers those were.

    Every account gets its id. It is safe to repeat: each ledger is done in a transaction of its
    own, and one that is done is left alone.

    Args:
        database: with the tables of this program. No replica of the release before may run.
        at: now; a row never comes before the one it follows.
    """
    with database.writing() as transaction:
        Accounts(transaction).add_names(user.name for user in People(transaction).all())
        rollouts = Rollouts(transaction).all()
        if house_head(transaction).revision:
            rollouts = (HOUSE_CHAIN, *rollouts)
    changed = []
    for rollout in rollouts:
        with database.writing() as transaction:
            if Ledger(transaction, rollout).change_form(at=at, by=ENGINE):
                changed.append(rollout.name)
    return tuple("access ledger" if n == HOUSE_CHAIN.name else n for n in changed)
