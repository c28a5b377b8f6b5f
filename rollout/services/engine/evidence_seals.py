"""Seals of evidence: a tick's event with the digest of what it counted, and proposals with theirs.

A proposal's digest covers the evidence of its version in its cell, and in the cells whose units its
gate counts with these, up to the last `RecordsCounted` before it. So it follows from the ledger and
the counted units alone.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from rollout.core.policy.policy import Policy
from rollout.core.policy.pools import list_counted_cells
from rollout.core.scope.event_base import ENGINE, LedgerEvent
from rollout.core.scope.events import ProposalRaised
from rollout.core.scope.record_events import RecordsCounted
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.counting.counted_outcomes import CountedOutcomes
from rollout.store.counting.counted_records import CountedRecords
from rollout.store.counting.unit_digests import (
    CellDigests,
    CountedSummary,
    read_unit_lines,
    summarize_counted,
)
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.tally.slots import find_slot_before, to_instant


class EvidenceSeals:
    """The seals that one ticker has read or made."""

    def __init__(self) -> None:
        self._last_slot = -1
        self._cell_digests = CellDigests()

    def add_events(self, events: Iterable[LedgerEvent], policy: Policy) -> None:
        """Add the ledger's next events."""
        for event in events:
            if isinstance(event, RecordsCounted):
                self._last_slot = find_sealed_slot(event, policy)

    def seal_events(
        self,
        transaction: Transaction,
        state: RolloutState,
        events: tuple[LedgerEvent, ...],
        slot: int,
        at: datetime,
    ) -> tuple[LedgerEvent, ...]:
        """Return the events of a slot, decided at `at`, with the seals of its evidence."""
        summary = self._summarize_slots(transaction, state.rollout, slot)
        sealed_slot = slot if summary else self._last_slot
        if any(_is_cell_proposal(event) for event in events):
            self._cell_digests.advance(transaction, state.rollout, sealed_slot)
            digests = self._cell_digests
            events = tuple(add_digest(event, digests, state.policy) for event in events)
        if summary is None:
            return events
        counted = RecordsCounted(
            at=events[0].at if events else at,
            by=ENGINE,
            slot=to_instant(slot, state.policy.tick),
            records=summary.records,
            digest=summary.digest,
        )
        return (counted, *events)

    def _summarize_slots(
        self, transaction: Transaction, rollout: Rollout, until: int
    ) -> CountedSummary | None:
        """Return what was counted since the last seal; None if nothing was."""
        after, others = self._last_slot, CountedRecords(transaction, rollout)
        if not others.has_any_line(after=after, until=until):
            return None  # most ticks of a quiet rollout, which this costs one query
        units = read_unit_lines(transaction, rollout, after=after, until=until)
        outcomes = CountedOutcomes(transaction, rollout).read_lines(after=after, until=until)
        return summarize_counted(units, others.read_lines(after=after, until=until), outcomes)


def seal_proposals(
    transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    """Return a command's events; proposals get the digest of their evidence."""
    keys = {
        (cell, event.version)
        for event in events
        if isinstance(event, ProposalRaised) and event.cell is not None
        for cell in list_counted_cells(state.policy, event.cell, event.to_stage)
    }
    if not keys:
        return events
    counted = Ledger(transaction, state.rollout).find_last_event(RecordsCounted.__name__)
    if not isinstance(counted, RecordsCounted):
        return events
    cell_digests = CellDigests(keys)
    cell_digests.advance(transaction, state.rollout, find_sealed_slot(counted, state.policy))
    return tuple(add_digest(event, cell_digests, state.policy) for event in events)


def find_sealed_slot(event: RecordsCounted, policy: Policy) -> int:
    """Return the last slot whose units an event covers."""
    assert event.slot is not None  # noqa: S101 - only ticks write it
    return find_slot_before(event.slot, policy.tick)


def _is_cell_proposal(event: LedgerEvent) -> bool:
    return isinstance(event, ProposalRaised) and event.cell is not None


def add_digest(event: LedgerEvent, cell_digests: CellDigests, policy: Policy) -> LedgerEvent:
    """Return the event, a proposal of a cell with the digest of its evidence."""
    if not isinstance(event, ProposalRaised) or event.cell is None:
        return event
    cells = list_counted_cells(policy, event.cell, event.to_stage)
    return replace(event, records_digest=cell_digests.get_pool_digest(cells, event.version))
