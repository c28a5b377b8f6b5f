"""Read the evidence of each proposal anew, from the counted units and the ledger.

The readings of a proposal hold its counts and e-values. They follow from the units counted by its
slot, the scope before its tick and the stages of its cell.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import EvidenceCounts
from rollout.core.policy.gates import GateReading, read_gate, read_renewal
from rollout.core.policy.policy import Policy
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import PolicyApplied, ProposalRaised
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope
from rollout.services.engine.gate_feeds import GateFeeds
from rollout.services.engine.rollout_state import RolloutState, parse_stored_policy
from rollout.services.engine.stage_history import RolloutHistory
from rollout.store.counting.counted_outcomes import CountedOutcomes
from rollout.store.counting.counted_units import CountedUnits
from rollout.store.counting.unit_digests import CellVersion
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.outcome_buffer import OutcomeBuffer
from rollout.tally.pooled_arms import collect_pool_histories
from rollout.tally.slots import find_slot_before
from rollout.tally.unit_buffer import UnitBuffer


def find_reading_faults(transaction: Transaction, state: RolloutState) -> Iterator[str]:
    """Yield a sentence for each proposal of a tick whose readings its evidence doesn't give."""
    ledger = Ledger(transaction, state.rollout)
    proposals = ledger.list_rows(kinds={ProposalRaised.__name__})
    if next(proposals, None) is None:
        return
    events = tuple(ledger.list_events())
    recount = _ProposalRecount(transaction, state, events)
    for _, tick_events in groupby(enumerate(events), key=_find_group):
        yield from recount.check_events(tuple(event for _, event in tick_events))


def _find_group(numbered_event: tuple[int, LedgerEvent]) -> object:
    """Return what the events of one tick share; other events stand alone."""
    number, event = numbered_event
    return number if event.slot is None else event.slot


class _ProposalRecount:
    """The state of a rollout as its ledger is read."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, events: Iterable[LedgerEvent]
    ) -> None:
        self._transaction, self._state = transaction, state
        self._policies = _load_policies(transaction, state, events)
        self._keys = {
            (event.cell, event.version)
            for event in events
            if isinstance(event, ProposalRaised) and event.cell is not None
        }
        self._scope, self._history = Scope(), RolloutHistory()
        self._units: UnitBuffer | None = None
        self._outcomes: OutcomeBuffer | None = None

    def check_events(self, events: tuple[LedgerEvent, ...]) -> Iterator[str]:
        """Yield the faults of a tick's proposals, then apply its events."""
        scope = self._scope
        for position, event in enumerate(events):
            if isinstance(event, ProposalRaised) and event.slot and event.cell is not None:
                self._scope = apply_events(events[:position], scope)
                expected = self._read_proposal(event, event.cell, scope)
                if expected != event.readings:
                    yield (
                        f"proposal {event.proposal} of {event.cell}: its readings are "
                        f"{'; '.join(event.readings)}; the counted units give {'; '.join(expected)}"
                    )
        self._scope = apply_events(events, scope)
        self._history.add_events(events, self._policies.__getitem__)
        if any(isinstance(event, PolicyApplied) for event in events):
            self._units = None  # units are compared under the policy in force

    def _read_proposal(
        self, event: ProposalRaised, cell: Cell, scope_before: Scope
    ) -> tuple[str, ...]:
        policy = self._policies[scope_before.policy_hash]
        assert event.slot is not None  # noqa: S101 - the caller asks only for those of ticks
        slot = find_slot_before(event.slot, policy.tick)
        self._history.advance_to(slot - 1, scope_before)
        view = self._build_view(policy, cell, event.version, scope_before)
        reading = self._read_gate(event, cell, policy, view, slot)
        return tuple(item.format(policy) for item in reading.readings)

    def _read_gate(
        self, event: ProposalRaised, cell: Cell, policy: Policy, view: EvidenceView, slot: int
    ) -> GateReading:
        stage_level = policy.stage_ids.index(event.to_stage)
        if event.kind == "renewal":
            window = view.grant_windows.get(event.to_stage)
            counts = EvidenceCounts() if window is None else window.count_at(slot)
            return read_renewal(policy, cell, stage_level, counts)
        attempt = view.attempt_window.count_at(slot)
        entered = attempt if event.kind == "takeover" else view.entered_window.count_at(slot)
        risk_share = self._scope.get_cell_state(cell, event.version).risk_share
        return read_gate(policy, cell, stage_level, risk_share, attempt, entered)

    def _build_view(
        self, policy: Policy, cell: Cell, version: str, scope_before: Scope
    ) -> EvidenceView:
        if self._units is None:
            self._units = self._load_units(policy)
        return EvidenceView(
            cell=cell,
            version=version,
            rows=self._units.get_rows((cell, version)),
            unit_classes=self._units.unit_classes,
            policy=policy,
            state=scope_before.get_cell_state(cell, version),
            first_seen=scope_before.versions[version].first_seen,
            stage_history=self._history.get_stage_history(cell),
            shares=self._history.stage_shares,
            find_buckets=lambda rows: rows.unit,  # stored units hold their bucket
            feeds=GateFeeds(self._load_outcomes()),
            rules=scope_before.rules,
            familiar_history=self._history.familiar_histories[cell, version],
            pool_histories=collect_pool_histories(policy, cell, self._history.get_stage_history),
        )

    def _load_units(self, policy: Policy) -> UnitBuffer:
        """Return the units of the cells that had proposals."""
        units = UnitBuffer(policy, self._history.find_equivalent_definitions)
        stored_units = CountedUnits(self._transaction, self._state.rollout)
        for frame in stored_units.load_frames(after=-1, until=_LAST_SLOT):
            keys = zip(frame["site"], frame["window"], frame["version"], strict=True)
            units.add(frame.filter([_has_key(key, self._keys) for key in keys]))
        return units

    def _load_outcomes(self) -> OutcomeBuffer:
        if self._outcomes is None:
            self._outcomes = OutcomeBuffer()
            stored_outcomes = CountedOutcomes(self._transaction, self._state.rollout)
            self._outcomes.add(stored_outcomes.read_lines(after=-1, until=_LAST_SLOT))
        return self._outcomes


_LAST_SLOT: Final = 2**62


def _has_key(values: tuple[str, str, str], keys: Collection[CellVersion]) -> bool:
    site, window, version = values
    return (Cell(site, window), version) in keys


def _load_policies(
    transaction: Transaction, state: RolloutState, events: Iterable[LedgerEvent]
) -> Mapping[str, Policy]:
    hashes = {event.policy_hash for event in events if isinstance(event, PolicyApplied)}
    texts = PolicyTexts(transaction, state.rollout).load_texts(hashes)
    return {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}
