"""When a snapshot of what guards observed is stored, and whether a stored one is right."""

from rollout.services.engine.evidence_feeds import LiveGuardFeeds
from rollout.services.engine.guard_snapshots import encode_snapshot
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.evidence_snapshots import EvidenceSnapshot, EvidenceSnapshots
from rollout.store.tables.tables import guard_snapshots
from rollout.tally.outcome_buffer import OutcomeBuffer
from rollout.tally.slots import find_slot_before, to_instant


def store_guard_snapshot(
    database: Database, state: RolloutState, feeds: LiveGuardFeeds, revision: int
) -> bool:
    """Store what guards observed if much of it is new; return whether it was stored.

    Of several processes that tick in turn, one stores: the others find a newer one than theirs.
    """
    if not feeds.is_snapshot_due(state) or feeds.read_at is None:
        return False
    tick = state.policy.tick
    if feeds.snapshot_at is not None:  # else this process found none that it could use
        with database.begin_read() as transaction:
            slot = EvidenceSnapshots(transaction, state.rollout, guard_snapshots).load_slot()
        stored_slot = find_slot_before(feeds.snapshot_at, tick)
        # a later slot than this one is damaged, or of a clock that was ahead: it is replaced
        if slot is not None and stored_slot < slot <= find_slot_before(feeds.read_at, tick):
            feeds.note_snapshot(to_instant(slot, tick))
            if not feeds.is_snapshot_due(state):
                return False
    body = encode_snapshot(feeds.build_snapshot(state), state)
    snapshot = EvidenceSnapshot(revision, find_slot_before(feeds.read_at, tick), body)
    with database.begin_write() as transaction:
        is_stored = EvidenceSnapshots(transaction, state.rollout, guard_snapshots).store(snapshot)
    feeds.note_snapshot(feeds.read_at)
    return is_stored


def is_guard_snapshot_wrong(transaction: Transaction, state: RolloutState) -> bool:
    """Return whether a process that began with the stored snapshot would observe something else.

    All records that guards use are read, in batches.
    """
    snapshots = EvidenceSnapshots(transaction, state.rollout, guard_snapshots)
    snapshot = snapshots.load(until=state.scope.revision)
    if snapshot is None:
        return False  # no process uses it
    at = to_instant(snapshot.slot, state.policy.tick)
    restored = LiveGuardFeeds(OutcomeBuffer())
    restored.load_arrivals(transaction, state, at)
    if restored.snapshot_at is None:
        return False  # no process uses it
    read = LiveGuardFeeds(OutcomeBuffer(), reads_all=True)
    read.load_arrivals(transaction, state, at)
    return not restored.observes_same(read, state)
