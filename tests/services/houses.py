"""A house with an admin, a person and a machine, and its chain as it was written."""

from itertools import count

from rollout.core.ledger import event_of
from rollout.core.rights import Caller, Right
from rollout.services import people
from rollout.store.house import house_head
from rollout.store.ledger import Ledger
from rollout.store.rollouts import HOUSE_CHAIN, Rollouts
from tests.factories import NOON
from tests.store.snapshots import filled_once

ADA = Caller("ada", rights=(Right("admin"),))
BO = Caller("bo", rights=(Right("operator", "ramps"),))
BOX = Caller("box", machine=True, rights=(Right("ingest", "ramps"),))
PASSWORD = "correct horse battery"  # noqa: S105 - bo's, in tests alone
_numbers = count(1)


def chance(size=38):
    """Return bytes that were never returned before."""
    return next(_numbers).to_bytes(8, "big").rjust(size, b"r")[::-1]


@filled_once
def furnish(database):
    """Make a rollout, ada the admin, bo who operates it, and box that sends to it."""
    with database.writing() as transaction:
        Rollouts(transaction).create("ramps", salt=bytes(32), at=NOON)
    people.first_admin(database, "ada", at=NOON)
    people.add(database, ADA, "bo", at=NOON, rights=BO.rights)
    people.add(database, ADA, "box", at=NOON, machine=True, rights=BOX.rights)


def chain_of(database):
    """Return the house chain's events, verified."""
    with database.reading() as transaction:
        if house_head(transaction).revision is None:
            return []
        ledger = Ledger(transaction, HOUSE_CHAIN)
        ledger.verify()
        return [event_of(row) for row in ledger.rows()]


def kinds(database, after=0):
    """Return the kinds of the house chain's events and whom they are about."""
    return [(type(e).__name__, e.user) for e in chain_of(database)[after:]]
