"""New proposals state from which sources their evidence came."""

from dataclasses import replace

from rollout.core.policy.counting_rules import distinguishes_sources
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import ProposalRaised
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.counting.source_counts import load_source_counts
from rollout.store.database.session import Transaction


def freeze_sources(
    transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    """Return the events, each new proposal of a cell with its sources."""
    if not distinguishes_sources(state.scope.rules):
        return events
    return tuple(
        _add_sources(transaction, state, event)
        if isinstance(event, ProposalRaised) and event.cell is not None
        else event
        for event in events
    )


def _add_sources(
    transaction: Transaction, state: RolloutState, event: ProposalRaised
) -> ProposalRaised:
    if event.cell is None or event.version not in state.scope.versions:
        return event
    attempt = state.scope.get_cell_state(event.cell, event.version).attempt
    counts = load_source_counts(transaction, state.rollout, event.cell, event.version, attempt)
    return replace(event, sources=tuple(count.format() for count in counts))
