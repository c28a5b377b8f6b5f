"""What a batch of records has to know before it is stored, read by one statement."""

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, literal_column, select

from rollout.store.database.bulk import fetch_rows
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.erased_keys import ERASED_KINDS
from rollout.store.records.external_keys import select_first_of_kinds
from rollout.store.tables.tables import account_names, exposures, versions


class BatchFacts(NamedTuple):
    """What a rollout has when a batch comes; most have neither exposures nor erased names.

    Attributes:
        sender: the id of the sender's account; None if it has none.
        has_exposures: whether anything of it was reviewed here.
        versions: how many it has.
        erased_kinds: those of `ERASED_KINDS` of which it has keys.
    """

    sender: str | None
    has_exposures: bool
    versions: int
    erased_kinds: frozenset[str]


def load_batch_facts(transaction: Transaction, rollout: Rollout, sender_name: str) -> BatchFacts:
    """Return what a rollout has, and who the sender of a batch is."""
    parameters = {"rollout": rollout.number, "sender_name": sender_name}
    ((sender, exposed_case, version_count, *first_ids),) = fetch_rows(
        transaction, _build_query(), parameters
    )
    erased_kinds = frozenset(
        kind for kind, first in zip(ERASED_KINDS, first_ids, strict=True) if first is not None
    )
    return BatchFacts(sender, exposed_case is not None, version_count, erased_kinds)


@cache
def _build_query() -> Select[Any]:
    sender = select(account_names.c.account).where(
        account_names.c.name == bindparam("sender_name", type_=account_names.c.name.type)
    )
    exposed_case = (
        select(exposures.c.case_id)
        .where(exposures.c.rollout == bindparam("rollout"))
        .order_by(exposures.c.case_id)  # PostgreSQL then uses the key, whatever its statistics say
        .limit(literal_column("1"))
    )
    version_count = select(func.count(versions.c.version.distinct())).where(
        versions.c.rollout == bindparam("rollout")
    )
    return select(
        sender.scalar_subquery().label("sender"),
        exposed_case.scalar_subquery().label("exposed_case"),
        version_count.scalar_subquery().label("versions"),
        *select_first_of_kinds(ERASED_KINDS),
    )
