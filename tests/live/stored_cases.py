"""What a service does with cases once their records are stored, for tests that store them."""

from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import StoredBatch
from rollout.live.evidence.unit_counting import queue_new_cases


def queue_stored_cases(transaction, state, keys, at):
    """Queue cases for the slots in which their units count; tests' rooms queue none."""
    numbers = ExternalKeys(transaction, state.rollout).find_ids(keys)
    batch = StoredBatch((), numbers, frozenset(numbers.values()), frozenset(), {})
    queue_new_cases(transaction, state, batch, at)
