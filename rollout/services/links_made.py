"""Whether a one-time link was made meanwhile: a page that is sent twice makes no second one."""

from datetime import datetime

from rollout.core.house import OneTimeLinkCreated
from rollout.core.ledger import event_of
from rollout.core.rights import Act, Caller, require
from rollout.store.house import house_head
from rollout.store.ledger import Ledger
from rollout.store.rollouts import HOUSE_CHAIN
from rollout.store.session import Database


def house_revision(database: Database) -> int:
    """Return where the house chain is; 0 before anything was written to it."""
    with database.reading() as transaction:
        return house_head(transaction).revision or 0


def link_made_since(
    database: Database, caller: Caller, name: str, revision: int
) -> datetime | None:
    """Return when a link was made for somebody after a revision of the house chain, None if never.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
    """
    require(caller, Act.ADMINISTER, "")
    with database.reading() as transaction:
        if house_head(transaction).revision is None:
            return None
        ledger = Ledger(transaction, HOUSE_CHAIN)
        rows = ledger.rows(after=revision, kinds=(OneTimeLinkCreated.__name__,))
        made = [event_of(row) for row in rows if row.fields["user"] == name]
    return made[-1].at if made else None
