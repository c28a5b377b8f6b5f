"""New proposals state from which sources their evidence came."""

from dataclasses import replace

from rollout.core.calendar.sites import Cell
from rollout.core.policy.evidence_sources import FrozenOutcomeSource
from rollout.core.scope.events import LedgerEvent, ProposalRaised
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.counting.counted_decisions import load_outcome_source_counts, load_source_counts
from rollout.store.counting.vouched_units import load_registering_counts, load_vouched_counts
from rollout.store.database.session import Transaction
from rollout.tally.slots import LAST_SLOT, find_slot_after, find_slot_before


def freeze_sources(
    transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    """Return the events, each new proposal of a cell with its sources."""
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
    cell_state = state.scope.get_cell_state(event.cell, event.version)
    is_later = cell_state.attempt > 1  # a first attempt counts all units
    first_slot = find_slot_after(cell_state.attempt_since, state.policy.tick) if is_later else 0
    # units of later slots may be counted already
    until = LAST_SLOT if event.slot is None else find_slot_before(event.slot, state.policy.tick)
    slots = (first_slot, until)
    units = (transaction, state.rollout, event.cell, event.version)
    counts = load_source_counts(*units, first_slot=first_slot, until=until)
    later_names = (later for later, first in state.first_names.items() if first == event.version)
    names = [event.version, *later_names]
    vouched_counts, registering_counts = (
        load(*units, names, first_slot=first_slot, until=until)
        for load in (load_vouched_counts, load_registering_counts)
    )
    outcome_counts = _load_outcome_counts(transaction, state, event, event.cell, slots)
    return replace(
        event,
        sources=tuple(count.format() for count in counts),
        outcome_sources=tuple(count.format() for count in outcome_counts),
        vouched=tuple(count.format() for count in vouched_counts),
        registered=tuple(count.format() for count in registering_counts),
    )


def _load_outcome_counts(
    transaction: Transaction,
    state: RolloutState,
    event: ProposalRaised,
    cell: Cell,
    slots: tuple[int, int],
) -> tuple[FrozenOutcomeSource, ...]:
    """Return the sources of the outcomes that the proposal's gate asks for; () if for none."""
    policy, stage = state.policy, event.to_stage
    if not policy.outcomes or stage not in policy.stage_ids or cell not in policy.cell_set:
        return ()
    conditions = policy.list_conditions(policy.stage_ids.index(stage), cell)
    outcomes = {c.population.outcome.id for c in conditions if c.population.has_gain}
    if not outcomes:
        return ()
    first_slot, until = slots
    return load_outcome_source_counts(
        transaction,
        state.rollout,
        cell,
        event.version,
        outcomes,
        first_slot=first_slot,
        until=until,
    )
