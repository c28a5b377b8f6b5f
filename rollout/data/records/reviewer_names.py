"""Names of people and of accounts that send predictions, to tell reviewers from models."""

from collections.abc import Collection
from weakref import WeakKeyDictionary

from sqlalchemy import exists, false, literal, select, union_all

from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import decisions, role_assignments, users
from rollout.engine.decide.permissions import ROLES_BY_PERMISSION, Permission

_accounts_by_pool: WeakKeyDictionary[object, dict[int, tuple[int | None, frozenset[str]]]] = (
    WeakKeyDictionary()
)
"""By database and rollout number, a revision of the access ledger and its predicting accounts."""


def find_people(transaction: Transaction, rollout: Rollout, names: Collection[str]) -> set[str]:
    """Return the names that are users', or under which a case of the rollout was decided.

    Ask rarely: for a name that has decided nothing every decision is read.
    """
    is_user = select(users.c.name).where(
        users.c.name.in_(names), users.c.service_account == false()
    )
    have_decided = [
        select(literal(name)).where(
            exists().where(decisions.c.rollout == rollout.number, decisions.c.reviewer == name)
        )
        for name in names
    ]
    return set(transaction.execute(union_all(is_user, *have_decided)).scalars())


def find_predicting_accounts(
    transaction: Transaction, rollout: Rollout, access_head: int | None
) -> frozenset[str]:
    """Return the names of the service accounts that may send predictions of the rollout.

    They are read once for each revision of the access ledger, if it is known.
    """
    by_rollout = _accounts_by_pool.setdefault(transaction.pool, {})
    is_known = access_head is not None and rollout.number in by_rollout
    if not is_known or by_rollout[rollout.number][0] != access_head:
        is_of_rollout = role_assignments.c.rollout.is_(None) | (
            role_assignments.c.rollout == rollout.number
        )
        query = (
            select(users.c.name)
            .join(role_assignments, role_assignments.c.user_id == users.c.id)
            .where(users.c.service_account, is_of_rollout)
            .where(role_assignments.c.role.in_(ROLES_BY_PERMISSION[Permission.SEND_PREDICTIONS]))
        )
        names = frozenset(transaction.execute(query).scalars())
        by_rollout[rollout.number] = access_head, names
    return by_rollout[rollout.number][1]
