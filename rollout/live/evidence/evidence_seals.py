"""Seals of evidence: a tick's event with the digest of what it counted, and proposals with theirs.

A proposal's digest covers the evidence of its version in its cell, and in the cells whose units its
gate counts with these, up to the last `RecordsCounted` before it. So it follows from the ledger and
the counted units alone. A check of evidence against its seals ends with a report, in numbers and
sentences.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

from rollout.data.counting.counted_units import (
    CellDigests,
    CountedSummary,
    JustCounted,
    summarize_counted,
)
from rollout.data.counting.counts import CountedOutcomes
from rollout.data.counting.unit_records import CountedRecords, UnsealedRecords
from rollout.data.database.rollouts import PolicyTexts, Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import ROWS_PER_READ, Ledger
from rollout.engine.events import (
    ENGINE,
    ClockCorrected,
    LedgerEvent,
    PolicyApplied,
    ProposalRaised,
    RecordsCounted,
    find_applied_policies,
    select_events,
)
from rollout.engine.ledger.ledger import parse_event
from rollout.kernel.calendar.instants import LAST_SLOT, find_slot_before, to_instant
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState, parse_stored_policy


class SealedSlots:
    """The slots that ticks have sealed and no correction of the clock has taken back."""

    def __init__(self) -> None:
        """Begin before the first one."""
        self._slots = [-1]

    @property
    def last(self) -> int:
        """Return the last slot; -1 without one."""
        return self._slots[-1]

    def add_event(self, event: LedgerEvent, policy: Policy) -> None:
        """Add the ledger's next event."""
        if event.seals_units:
            self._slots.append(find_sealed_slot(event, policy))
        elif event.takes_back:
            first = find_slot_before(event.at, policy.tick)
            self._slots = [slot for slot in self._slots if slot < first]


class EvidenceSeals:
    """The seals that one ticker has read or made; it adds the units that it stores to `counted`."""

    def __init__(self, counted: JustCounted) -> None:
        self._counted = counted
        self._sealed = SealedSlots()
        self._cell_digests = CellDigests()
        self._summaries: dict[int, CountedSummary] = {}  # by slot, since the last seal

    def add_events(self, events: Iterable[LedgerEvent], policy: Policy) -> None:
        """Add the ledger's next events."""
        for event in events:
            self._sealed.add_event(event, policy)
            if event.seals_units or event.erases:
                self._summaries.clear()  # another span, or lines that an erasure changed

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
        sealed_slot = slot if summary else self._sealed.last
        if any(event.gated_key for event in events):
            self._cell_digests.advance(transaction, state.rollout, sealed_slot)
            digests = self._cell_digests
            events = tuple(event.add_digest(digests.get_digest) for event in events)
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
        """Return what was counted since the last seal; None if nothing was.

        It is kept for the next attempt of a tick that commands overtook.
        """
        if until in self._summaries:
            return self._summaries[until]
        after, others = self._sealed.last, CountedRecords(transaction, rollout)
        if not others.has_any_line(after=after, until=until):
            return None  # most ticks of a quiet rollout, which this costs one query
        units = self._counted.read_lines(transaction, rollout, after=after, until=until)
        outcomes = CountedOutcomes(transaction, rollout).read_lines(after=after, until=until)
        summary = summarize_counted(units, others.read_lines(after=after, until=until), outcomes)
        if summary is not None:
            self._summaries[until] = summary
        return summary


def seal_proposals(
    transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    """Return a command's events; proposals get the digest of their evidence."""
    keys = {key for event in events if (key := event.gated_key)}
    if not keys:
        return events
    sealed_slot = find_last_sealed(transaction, state)
    if sealed_slot < 0:
        return events
    cell_digests = CellDigests(keys)
    cell_digests.advance(transaction, state.rollout, sealed_slot)
    return tuple(event.add_digest(cell_digests.get_digest) for event in events)


def find_last_sealed(transaction: Transaction, state: RolloutState) -> int:
    """Return the last slot that a tick has sealed and nothing took back; -1 without one."""
    ledger, sealed = Ledger(transaction, state.rollout), SealedSlots()
    events: Iterator[LedgerEvent]
    if ledger.find_last_event(ClockCorrected.__name__) is None:
        counted = ledger.find_last_event(RecordsCounted.__name__)
        events = iter(()) if counted is None else iter((counted,))
    else:
        kinds = (RecordsCounted.__name__, ClockCorrected.__name__)
        events = map(parse_event, ledger.list_rows(kinds=kinds))
    for event in events:
        sealed.add_event(event, state.policy)
    return sealed.last


def find_sealed_slot(event: LedgerEvent, policy: Policy) -> int:
    """Return the last slot whose units an event covers."""
    assert event.slot is not None  # noqa: S101 - only ticks write it
    return find_slot_before(event.slot, policy.tick)


SPANS_PER_PART: Final = 200
SPAN_KINDS: Final = (PolicyApplied.__name__, RecordsCounted.__name__, ProposalRaised.__name__)


@dataclass(frozen=True, slots=True)
class SealedSpan:
    """The units of slots (`after`, `until`] and what the ledger holds of them.

    Attributes:
        event: the tick's event; None after the last one.
        revision: of the event; 0 without one.
        policies: those in force since the event before, newest first.
        proposals: raised since the event and before the next one.
    """

    after: int
    until: int
    event: LedgerEvent | None
    revision: int
    policies: tuple[Policy, ...]
    proposals: list[ProposalRaised] = field(default_factory=list)


class SealedSpans:
    """The spans of a rollout up to one revision, read in parts, each in its own transaction."""

    def __init__(self, database: Database, state: RolloutState) -> None:
        self._database, self._state = database, state

    def iterate_parts(self) -> Iterator[list[SealedSpan]]:
        """Yield the spans in the order of the ledger, the open one last."""
        part: list[SealedSpan] = []
        for span in self._iterate_spans():
            if len(part) == SPANS_PER_PART:
                yield part
                part = []
            part.append(span)
        yield part

    def _iterate_spans(self) -> Iterator[SealedSpan]:
        """Yield each span when all its proposals are known.

        What a correction of the clock took back is in no span, nor are proposals of that time.
        """
        in_force: tuple[Policy, ...] = ()
        span, last_slot = None, -1
        corrections = self._list_corrections()
        for revision, event in self._iterate_events():
            if (
                not isinstance(event, Policy)
                and event.seals_units
                and any(
                    revision < corrected and event.slot is not None and event.slot >= first
                    for corrected, first in corrections
                )
            ):
                if span is not None:
                    yield span
                span = None
                continue
            if isinstance(event, Policy):
                in_force = (event, *(other for other in in_force if other.hash != event.hash))
            elif event.seals_units:
                if span is not None:
                    yield span
                slot = find_sealed_slot(event, in_force[0])
                span = SealedSpan(last_slot, slot, event, revision, in_force)
                in_force, last_slot = in_force[:1], slot
            elif span is not None:
                span.proposals.extend(select_events((event,), ProposalRaised))
        if span is not None:
            yield span
        yield SealedSpan(last_slot, LAST_SLOT, None, 0, in_force)

    def _list_corrections(self) -> list[tuple[int, datetime]]:
        """Return the revision of each correction of the clock, and the first slot it took back."""
        tick = self._state.policy.tick
        with self._database.begin_read() as transaction:
            rows = Ledger(transaction, self._state.rollout).list_rows(
                kinds=(ClockCorrected.__name__,)
            )
            events = [(row.revision, parse_event(row)) for row in rows]
        return [
            (revision, to_instant(find_slot_before(event.at, tick), tick))
            for revision, event in events
        ]

    def _iterate_events(self) -> Iterator[tuple[int, LedgerEvent | Policy]]:
        """Yield the events of spans with their revisions; of an applied policy the policy."""
        revision = 0
        while True:
            with self._database.begin_read() as transaction:
                ledger = Ledger(transaction, self._state.rollout)
                rows = ledger.list_rows(
                    after=revision, until=self._state.scope.revision, kinds=SPAN_KINDS
                )
                events = [(row.revision, parse_event(row)) for row in islice(rows, ROWS_PER_READ)]
                policies = load_policies(transaction, self._state, (event for _, event in events))
            for row_revision, event in events:
                yield row_revision, policies.get(event.applied_policy, event)
            revision = events[-1][0] if events else revision
            if len(events) < ROWS_PER_READ:
                return


def load_policies(
    transaction: Transaction, state: RolloutState, events: Iterable[LedgerEvent]
) -> Mapping[str, Policy]:
    """Return the policies that some events applied, by hash."""
    hashes = find_applied_policies(events)
    texts = PolicyTexts(transaction, state.rollout).load_texts(hashes) if hashes else {}
    return {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}


MAX_FAULTS: Final = 20  # sentences; the others are counted


@dataclass(slots=True)
class EvidenceReport:
    """The result of a check.

    Attributes:
        records, units: numbers of records hashed anew and of units counted anew.
        erased_units: units that rest on erased content.
        erasures: revisions of the events that took it, or an action or outcome.
        other_records: actions and outcomes compared with the hashes that ticks took.
        erased_records: those of them that an event took.
        unsealed_records: actions and outcomes that no tick's digest covers.
        large_ticks: those of a sample of which only runs were read, and no digest was compared.
        unread_lines: their other units, actions and outcomes.
        fault_count: all differences; `faults` has a sentence for the first ones.
    """

    records: int = 0
    units: int = 0
    erased_units: int = 0
    erasures: set[int] = field(default_factory=set)
    other_records: int = 0
    erased_records: int = 0
    unsealed_records: UnsealedRecords = field(default_factory=UnsealedRecords)
    large_ticks: int = 0
    unread_lines: int = 0
    fault_count: int = 0
    faults: list[str] = field(default_factory=list)

    def add_faults(self, faults: Iterable[str]) -> None:
        """Add differences; the first ones in words."""
        for fault in faults:
            self.fault_count += 1
            if len(self.faults) < MAX_FAULTS:
                self.faults.append(fault)

    def summarize(self) -> str:
        """Return the numbers in one line."""
        tracks = "a version's unit counts once for gates and once for guards"
        parts = [
            f"{self.erased_units:,} units rest on erased content{_list_events(self.erasures)}",
            f"{self.units:,} recomputed ({tracks}) from {self.records:,} records",
            f"{self.fault_count:,} differ",
        ]
        if self.other_records:
            erased = f", {self.erased_records} of them erased" if self.erased_records else ""
            parts.append(f"{self.other_records} actions and outcomes compared{erased}")
        if self.large_ticks:
            parts.append(
                f"{self.unread_lines} units, actions and outcomes of {self.large_ticks} large "
                "ticks were not read"
            )
        unsealed = self.unsealed_records
        if unsealed.newest is not None:
            parts.append(
                f"{unsealed.number} actions and outcomes are in no tick's digest: somebody added "
                "them to the database; the newest was received at "
                f"{unsealed.newest.isoformat()}"
            )
        return ", ".join(parts)

    def list_faults(self) -> Iterator[str]:
        """Yield the sentences; the last one counts the others."""
        yield from self.faults
        if self.fault_count > len(self.faults):
            yield f"and {self.fault_count - len(self.faults)} more"


def _list_events(revisions: Iterable[int]) -> str:
    """Return revisions in brackets; "" without any."""
    names = ", ".join(map(str, sorted(revisions)))
    return f" (events {names})" if names else ""
