"""Stored snapshots of counted evidence: restored by a process, and compared by `rollout doctor`."""

import zlib
from itertools import islice

from rollout.core.scope.events import PolicyApplied
from rollout.services.engine.rollout_state import RolloutState, parse_stored_policy
from rollout.services.engine.stage_history import RolloutHistory
from rollout.store.counting.counted_outcomes import LINES_PER_READ, CountedOutcomes
from rollout.store.counting.counted_units import CountedUnits
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence_snapshots import EvidenceSnapshots
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts
from rollout.tally.buffer_snapshots import BufferDigests, restore_buffers
from rollout.tally.first_values import FirstValues
from rollout.tally.outcome_buffer import OutcomeBuffer
from rollout.tally.unit_buffer import UnitBuffer

UNREADABLE = (
    *(ValueError, LookupError, TypeError, OverflowError, zlib.error),
    *(StopIteration, MemoryError),  # too few parts, or lengths that nothing holds
)


def restore_evidence(
    transaction: Transaction,
    state: RolloutState,
    units: UnitBuffer,
    outcomes: OutcomeBuffer,
    *,
    until: int | None = None,
) -> int:
    """Fill empty buffers from the stored snapshot; return its last slot.

    -1 means that nothing was restored, since no snapshot is valid for the state, readable, and of a
    slot `until` the given one. Then the counted units are read instead.
    """
    snapshots = EvidenceSnapshots(transaction, state.rollout)
    snapshot = snapshots.load(until=state.scope.revision)
    if snapshot is None or (until is not None and snapshot.slot > until):
        return -1
    try:
        return snapshot.slot if restore_buffers(snapshot.body, units, outcomes) else -1
    except UNREADABLE:
        return -1


def is_snapshot_wrong(transaction: Transaction, state: RolloutState) -> bool:
    """Return whether the stored snapshot would restore other evidence than was counted.

    The counted units are read in parts, each of which is compared and forgotten.
    """
    history = _build_history(transaction, state)
    policy, levels = state.policy, history.find_equivalent_definitions
    units, outcomes, restored = UnitBuffer(policy, levels), OutcomeBuffer(), BufferDigests()
    last_slot = restore_evidence(transaction, state, units, outcomes)
    if last_slot < 0:
        return False  # no process uses it
    restored.add(units, outcomes)
    restored_values = units.first_values
    del units, outcomes
    counted, counted_values = BufferDigests(), FirstValues()
    for units_part in CountedUnits(transaction, state.rollout).load_units(
        after=-1, until=last_slot
    ):
        part = UnitBuffer(policy, levels)
        part.add(units_part)
        counted.add(part, OutcomeBuffer())
        counted_values.add(units_part.list_sliced_units())
    if policy.outcomes:
        lines = CountedOutcomes(transaction, state.rollout).read_lines(after=-1, until=last_slot)
        while batch := list(islice(lines, LINES_PER_READ)):
            outcome_part = OutcomeBuffer()
            outcome_part.add(batch)
            counted.add(UnitBuffer(policy, levels), outcome_part)
    is_other_value = restored_values.encode() != counted_values.encode()
    return is_other_value or restored.sums != counted.sums


def _build_history(transaction: Transaction, state: RolloutState) -> RolloutHistory:
    """Return the policies that were in force."""
    ledger = Ledger(transaction, state.rollout)
    events = list(ledger.list_of(PolicyApplied, until=state.scope.revision))
    texts = PolicyTexts(transaction, state.rollout).load_texts({e.policy_hash for e in events})
    policies = {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}
    history = RolloutHistory()
    history.add_events(events, policies.__getitem__)
    return history
