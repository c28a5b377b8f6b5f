"""When a stop was last drilled at each site."""

from datetime import datetime

from rollout.core.ledger.ledger import parse_event
from rollout.core.scope.events import Stopped
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger


def load_last_drills(transaction: Transaction, state: RolloutState) -> dict[str, datetime]:
    """Return the time of the last stop drill by site, also if of one window."""
    rows = Ledger(transaction, state.rollout).list_rows(
        until=state.scope.revision, kinds=(Stopped.__name__,)
    )
    last_drills: dict[str, datetime] = {}
    for row in rows:
        event = parse_event(row)
        if isinstance(event, Stopped) and event.drill:
            last_drills.update(dict.fromkeys((cell.site for cell in event.cells), event.at))
    return last_drills
