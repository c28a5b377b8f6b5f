"""Sites of a closed proposal, which the projection no longer holds."""

from rollout.core.ledger.ledger import parse_event
from rollout.core.scope.events import ProposalRaised, Stopped
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.projections import ProposalStore


def load_closed_proposal_sites(
    database: Database, state: RolloutState, proposal_id: str
) -> tuple[str, ...]:
    """Return the sites that a closed proposal concerned; () for an unknown id.

    A resume concerns the sites of its stop, every other one without a cell all sites.
    """
    with database.begin_read() as transaction:
        row = ProposalStore(transaction, state.rollout).find(proposal_id)
        if row is None:
            return ()
        if row.site:
            return (row.site,)
        ledger = Ledger(transaction, state.rollout)
        (raised_row,) = ledger.list_rows(after=row.raised_in - 1, until=row.raised_in)
        raised_event = parse_event(raised_row)
        stop_sites: set[str] = set()
        if isinstance(raised_event, ProposalRaised) and row.kind == "resume":
            stop_rows = ledger.list_rows(until=row.raised_in, kinds=(Stopped.__name__,))
            stops = [event for event in map(parse_event, stop_rows) if isinstance(event, Stopped)]
            stop_sites = {
                cell.site
                for stop in stops
                if stop.stop == raised_event.about
                for cell in stop.cells
            }
    return tuple(sorted(stop_sites)) or tuple(state.policy.sites_by_id)
