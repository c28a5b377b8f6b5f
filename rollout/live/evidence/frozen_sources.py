"""New proposals state from which sources their evidence came."""

from datetime import datetime
from functools import partial

from rollout.data.counting.unit_records import (
    load_outcome_source_counts,
    load_registering_counts,
    load_source_counts,
    load_vouched_counts,
)
from rollout.data.database.session import Transaction
from rollout.engine.events import NO_SOURCES, LedgerEvent, ProposalSources
from rollout.engine.evidence.slots import LAST_SLOT, find_slot_after, find_slot_before
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.evidence_sources import CountedOutcomeSource
from rollout.live.rollout_state import RolloutState


def freeze_sources(
    transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    """Return the events, each new proposal of a cell with its sources."""
    return tuple(
        event.add_sources(partial(_load_sources, transaction, state, event.slot))
        for event in events
    )


def _load_sources(
    transaction: Transaction,
    state: RolloutState,
    slot: datetime | None,
    cell: Cell,
    version: str,
    stage: str,
) -> ProposalSources:
    if version not in state.scope.versions:
        return NO_SOURCES
    cell_state = state.scope.get_cell_state(cell, version)
    is_later = cell_state.attempt > 1  # a first attempt counts all units
    first_slot = find_slot_after(cell_state.attempt_since, state.policy.tick) if is_later else 0
    # units of later slots may be counted already
    until = LAST_SLOT if slot is None else find_slot_before(slot, state.policy.tick)
    slots = (first_slot, until)
    units = (transaction, state.rollout, cell, version)
    counts = load_source_counts(*units, first_slot=first_slot, until=until)
    later_names = (later for later, first in state.first_names.items() if first == version)
    names = [version, *later_names]
    outcome_counts = _load_outcome_counts(transaction, state, (cell, version, stage), slots)
    return ProposalSources(
        sources=counts,
        outcome_sources=outcome_counts,
        vouched=load_vouched_counts(*units, names, first_slot=first_slot, until=until),
        registered=load_registering_counts(*units, names, first_slot=first_slot, until=until),
    )


def _load_outcome_counts(
    transaction: Transaction,
    state: RolloutState,
    place: tuple[Cell, str, str],
    slots: tuple[int, int],
) -> tuple[CountedOutcomeSource, ...]:
    """Return the sources of the outcomes that the proposal's gate asks for; () if for none."""
    policy, (cell, version, stage) = state.policy, place
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
        version,
        outcomes,
        first_slot=first_slot,
        until=until,
    )
