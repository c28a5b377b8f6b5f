"""An access ledger with an admin, a user and a service account, as it was written."""

from itertools import count

from rollout.data.access.tokens import load_access_head
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.ledger.ledger import parse_event
from rollout.features.access import users
from tests.data.snapshots import filled_once
from tests.factories import NOON

ADA = Caller("ada", role_assignments=(AssignedRole("admin"),))
BO = Caller("bo", role_assignments=(AssignedRole("operator", "ramps"),))
BOX = Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest", "ramps"),))
PASSWORD = "correct horse battery"  # noqa: S105 - bo's, in tests alone
_numbers = count(1)


def chance(size=38):
    """Return bytes that were never returned before."""
    return next(_numbers).to_bytes(8, "big").rjust(size, b"r")[::-1]


@filled_once
def furnish(database):
    """Make a rollout, ada the admin, bo who operates it, and box that sends to it."""
    with database.begin_write() as transaction:
        Rollouts(transaction).create("ramps", salt=bytes(32), at=NOON)
    users.create_first_admin(database, "ada", at=NOON)
    users.create_account(database, ADA, "bo", at=NOON, role_assignments=BO.role_assignments)
    users.create_account(
        database,
        ADA,
        "box",
        at=NOON,
        is_service_account=True,
        role_assignments=BOX.role_assignments,
    )


def chain_of(database):
    """Return the access ledger's events, verified."""
    with database.begin_read() as transaction:
        if load_access_head(transaction).revision is None:
            return []
        ledger = Ledger(transaction, ACCESS_CHAIN)
        ledger.verify()
        return [parse_event(row) for row in ledger.list_rows()]


def kinds(database, after=0):
    """Return the kinds of the access ledger's events and whom they are about."""
    return [(type(e).__name__, e.user) for e in chain_of(database)[after:]]
