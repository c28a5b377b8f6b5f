"""Check the last slot of evidence, from which on units count, against the ledger and the ticks."""

from collections.abc import Iterator

from rollout.core.scope.record_events import RecordsCounted
from rollout.services.engine.evidence_seals import find_sealed_slot
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.tick_slots import TickSlots
from rollout.tally.slots import to_instant


def find_head_faults(transaction: Transaction, state: RolloutState) -> Iterator[str]:
    """Yield a sentence if no tick can have left the last slot of evidence, or of ticks.

    A later one would keep units that are counted from now on out of evidence, an earlier one would
    add units to slots that a tick has sealed. Read in this order, a tick that runs meanwhile makes
    no fault.
    """
    counted = Ledger(transaction, state.rollout).find_last_event(RecordsCounted.__name__)
    sealed_slot = 0
    if isinstance(counted, RecordsCounted):
        sealed_slot = find_sealed_slot(counted, state.policy)
    last_slot = EvidenceStore(transaction, state.rollout).get_last_slot()
    claim = TickSlots(transaction, state.rollout).load_last_claim()
    claimed_slot = 0 if claim is None else claim[0]
    if not sealed_slot <= last_slot <= claimed_slot:
        yield (
            f"evidence_heads: the last slot of evidence is {last_slot}; the ledger has a digest"
            f" through slot {sealed_slot}, and the last tick began slot {claimed_slot}"
        )
    if claim is not None and to_instant(claimed_slot, state.policy.tick) > claim[1]:
        yield (
            f"tick_slots: slot {claimed_slot} begins after {claim[1].isoformat()}, when a tick"
            " claimed it; until then no tick runs"
        )
