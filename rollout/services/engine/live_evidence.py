"""What the engine is shown of a live rollout, held in memory from one slot to the next.

Only cells in which something may follow are looked at: those that gained units or records, whose
state moved, or whose time has come. It is the same agenda by which replay leaves slots out.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import Known
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Tick
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Event, ProposalRaised, SuspensionCleared
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope
from rollout.replay.agenda import Agenda
from rollout.replay.engine import Key, Shown, shows_the_same
from rollout.replay.fast_forward import Interest, interest
from rollout.services.engine.evidence_feeds import LiveFeeds
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.stage_history import Past
from rollout.store.counting.counted_units import Counted
from rollout.store.database.session import Transaction
from rollout.tally.evidence_view import Sight
from rollout.tally.slots import instant
from rollout.tally.unit_buffer import KeptUnits


class LiveEvidence:
    """What was read under one policy.

    Args:
        policy: the policy in force.
        scope: the scope as it stands.
        past: what held when.
    """

    def __init__(self, policy: Policy, scope: Scope, past: Past) -> None:
        self._policy, self._past = policy, past
        self._units = KeptUnits(policy, past.meanings)
        self._feeds = LiveFeeds()
        self._agenda = Agenda(policy, self._interest)
        self._sights: dict[Key, Sight] = {}
        self._through = -1
        self._take_up((key for key, cell_state in scope.cells.items() if cell_state.grants), scope)

    def take(self, events: Iterable[Event], scope: Scope) -> None:
        """Take what happened next, with the scope that it led to."""
        self._agenda.touch(events)
        self._take_up(self._units, scope)

    def _take_up(self, keys: Iterable[Key], scope: Scope) -> None:
        policy_cells = self._policy.known
        self._agenda.add(key for key in keys if key[0] in policy_cells and key[1] in scope.versions)

    def read(self, transaction: Transaction, stood: Standing, slot: int) -> None:
        """Read what was counted in the slots up to this one, and what came in for guards."""
        if self._through < slot:
            self._read_counted(Counted(transaction, stood.rollout), stood.scope, slot)
        self._forget(self._past.mark(slot - 1, stood.scope))
        at = instant(slot, self._policy.tick)
        if self._feeds.stale(at):
            self._feeds = LiveFeeds()
        self._forget_at(self._feeds.read(transaction, stood, at))
        due_cells = self._agenda.due(stood.scope, slot)
        silence_sites = {cell.site for cell in due_cells if self._asks_for_silence(cell)}
        self._forget_at(self._feeds.hear(transaction, stood, silence_sites))

    def _read_counted(self, counted: Counted, scope: Scope, slot: int) -> None:
        if counted.some(after=self._through, until=slot):  # Polars for nothing takes 12 MiB
            for frame in counted.frames(after=self._through, until=slot):
                changed_keys = self._units.add(frame)
                self._take_up(changed_keys, scope)
                self._forget(cell for cell, _ in changed_keys)
        self._through = slot

    def _asks_for_silence(self, cell: Cell) -> bool:
        guards = self._policy.guards_of(cell)
        return any(guard.condition.measure == "heartbeat" for guard in guards)

    def _forget_at(self, sites: Collection[str]) -> None:
        windows = [window.id for window in self._policy.windows]
        self._forget(Cell(site, window) for site in sites for window in windows)

    def _forget(self, cells: Iterable[Cell]) -> None:
        cell_set = set(cells)
        for cell in cell_set:
            self._agenda.forget(cell)
        if cell_set:
            self._sights = {
                key: evidence_view
                for key, evidence_view in self._sights.items()
                if key[0] not in cell_set
            }

    def decided(
        self, stood: Standing, slot: int, now: datetime, *, narrow_only: bool
    ) -> tuple[Event, ...]:
        """Return what follows in a slot that was read; `now` is what the clock shows."""
        due_cells = self._agenda.due(stood.scope, slot)
        at = _decided_at(instant(slot, self._policy.tick), stood, now)
        events = self._decided(stood, slot, at, due_cells, narrow_only=narrow_only)
        pending_keys = self._agenda.waiting
        self._sights = {
            key: evidence_view for key, evidence_view in self._sights.items() if key in pending_keys
        }
        return events

    def _decided(
        self,
        stood: Standing,
        slot: int,
        at: datetime,
        cells: Collection[Cell],
        *,
        narrow_only: bool,
    ) -> tuple[Event, ...]:
        """Decide on what is known of `cells`, and of those that what follows there stirs."""
        keys = sorted(key for cell in cells for key in self._agenda.keys(cell))
        evidence = Shown({key: self._sight(key, stood.scope) for key in keys}, slot)
        judged = instant(slot, self._policy.tick)
        if narrow_only:
            tick = Tick(at=at, evidence=evidence, slot=judged)
            return _narrowed(tick, stood.scope, self._policy)
        tick = Tick(at=at, evidence=evidence, pending=stood.pending, slot=judged)
        events = decide(tick, stood.scope, self._policy)
        if not events:
            return events
        affected_cells = self._agenda.stirred(events, fold(events, stood.scope), slot)
        if affected_cells.issubset(cells):
            return events
        return self._decided(stood, slot, at, affected_cells.union(cells), narrow_only=False)

    def _interest(self, key: Key, scope: Scope, slot: int) -> Interest:
        cell_interest = interest(self._sight(key, scope), scope, slot)
        if cell_interest.at != slot and not cell_interest.waits:
            del self._sights[key]  # what a cell is shown is large, and nothing follows from it now
        return cell_interest

    def _sight(self, key: Key, scope: Scope) -> Sight:
        cell, version = key
        cell_state, stage_history = scope.state(cell, version), self._past.of(cell)
        evidence_view = self._sights.get(key)
        if evidence_view is None or not shows_the_same(evidence_view, cell_state, stage_history):
            evidence_view = self._sights[key] = Sight(
                cell=cell,
                version=version,
                rows=self._units.rows(key),
                kinds=self._units.kinds,
                policy=self._policy,
                state=cell_state,
                first_seen=scope.versions[version].first_seen,
                timeline=stage_history,
                shares=self._past.shares,
                band_of=lambda rows: rows.unit,  # kept units carry their bands
                feeds=self._feeds,
            )
        return evidence_view


def _narrowed(tick: Tick, scope: Scope, policy: Policy) -> tuple[Event, ...]:
    """Return only what narrows: alarms, lapses, what is void or has expired.

    No approval counts and no measure is good for long enough to give anything back.
    """
    unapproved_proposals = {
        proposal_id: replace(proposal, approvals=())
        for proposal_id, proposal in scope.proposals.items()
    }
    pessimistic_tick = replace(tick, evidence=_NeverGood(tick.evidence))
    events = decide(pessimistic_tick, replace(scope, proposals=unapproved_proposals), policy)
    return tuple(
        event for event in events if not isinstance(event, ProposalRaised | SuspensionCleared)
    )


class _NeverGood(Mapping[Key, Known]):
    """Evidence in which no guard's measure is seen to be good."""

    def __init__(self, evidence: Mapping[Key, Known]) -> None:
        self._evidence = evidence

    def __getitem__(self, key: Key) -> Known:
        cell_evidence = self._evidence[key]
        guards = {
            guard_id: replace(guard_reading, good_since=None)
            for guard_id, guard_reading in cell_evidence.guards.items()
        }
        return replace(cell_evidence, guards=guards)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._evidence)

    def __len__(self) -> int:
        return len(self._evidence)


def _decided_at(slot: datetime, stood: Standing, now: datetime) -> datetime:
    """Return the slot's instant, or later where people have acted in it before the tick came.

    A clock is behind only if it is behind what they wrote; the slot's beginning often is.
    """
    last_written = stood.scope.at
    return slot if last_written is None else max(slot, min(last_written, now))
