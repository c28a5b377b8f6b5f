"""Replay of a whole history, slot by slot, and retirements in a replay of many versions.

A replay uses no later records early.

A rollout has at most `MAX_OPEN_VERSIONS` open versions at once. Files of a year may have more, one
after the other; nobody recorded when each was retired. So each is retired after its last
prediction.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    Actor,
    AddVersion,
    ApproveProposal,
    Command,
    RetireVersion,
    Tick,
)
from rollout.engine.decide.decider import MAX_OPEN_VERSIONS, decide
from rollout.engine.decide.permissions import OPERATOR
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import CellState, Scope, find_acting_version
from rollout.engine.decide.widening_steps import format_decided_floor
from rollout.engine.events import ENGINE, LedgerEvent, PolicyApplied, RolloutCreated
from rollout.engine.evidence.evidence_view import EvidenceView, read_fresh_evidence
from rollout.engine.evidence.guard_evidence import GuardFeeds
from rollout.engine.evidence.stage_history import (
    FamiliarHistories,
    FamiliarHistory,
    StageHistory,
    build_stage_shares,
    draw_buckets,
)
from rollout.engine.evidence.tallied_units import TalliedUnits
from rollout.engine.evidence.unit_arrays import UnitArrays
from rollout.engine.ledger.access_events import REPLAY, SIMULATED
from rollout.engine.slots.fast_forward import Agenda, SlotInterest, find_interest
from rollout.engine.slots.options import ReplayOptions
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import (
    MICROSECOND,
    Cell,
    CellVersion,
    find_slot_after,
    to_instant,
)
from rollout.kernel.errors import EvidenceChangedError, ProposalClosedError, RolloutError
from rollout.kernel.policy.cell_evidence import list_floor_texts
from rollout.kernel.policy.gates import FreshEvidence
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import group_pairs

EARLIEST = datetime.min.replace(tzinfo=UTC)


def list_first_uses(
    first_seen: Mapping[str, datetime], contents: Mapping[str, str], start: datetime = EARLIEST
) -> list[AddVersion]:
    """Return the first use of each name in order, none before `start`."""
    in_order = sorted(first_seen.items(), key=lambda item: (item[1], item[0]))
    return [
        AddVersion(at=max(at, start), version=name, content=contents.get(name, ""))
        for name, at in in_order
    ]


def find_continued_versions(
    policy: Policy, commands: Iterable[AddVersion | RetireVersion]
) -> Mapping[str, str]:
    """Return by later name of a version its first one, by the rule of the service."""
    scope = Scope()
    for command in sorted(commands, key=lambda command: command.at):
        scope = apply_events(decide(command, scope, policy), scope)
    return scope.aliases


ReadingT = TypeVar("ReadingT")
ReportProgress = Callable[[int, int], None]
NO_CONTENTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class ReplayResult:
    """Result of a replay.

    Attributes:
        events: the whole ledger, in order.
        scope: the scope after the last event.
        stage_histories: per cell the stages of the acting version.
        units: what was counted.
        views: per version and cell the evidence that the engine saw at the end.
        first_slot, last_slot: the replayed span.
        ticks: number of decided slots.
    """

    policy: Policy
    events: tuple[LedgerEvent, ...]
    scope: Scope
    stage_histories: Mapping[Cell, StageHistory]
    units: TalliedUnits
    views: Mapping[CellVersion, EvidenceView]
    first_slot: int
    last_slot: int
    ticks: int


class SlotReadings(Mapping[CellVersion, ReadingT]):
    """What is read of cells and versions at one slot, of each at the first access."""

    def __init__(
        self, views: Mapping[CellVersion, EvidenceView], read: Callable[[CellVersion], ReadingT]
    ) -> None:
        self._views, self._read = views, read
        self._cache: dict[CellVersion, ReadingT] = {}

    def __getitem__(self, key: CellVersion) -> ReadingT:
        """Return what is read of one version in one cell."""
        if key not in self._cache:
            self._cache[key] = self._read(key)
        return self._cache[key]

    def __iter__(self) -> Iterator[CellVersion]:
        """Iterate over the cells and versions, in their order."""
        return iter(self._views)

    def __len__(self) -> int:
        """Return the number of cells and versions."""
        return len(self._views)


class Replay:
    """The mutable state of one replay."""

    def __init__(
        self,
        units: TalliedUnits,
        policy: Policy,
        feeds: GuardFeeds,
        first_seen: Mapping[str, datetime],
        options: ReplayOptions,
        contents: Mapping[str, str] = NO_CONTENTS,
        commands: Iterable[Command] = (),
    ) -> None:
        """Prepare a replay; `units` and `feeds` name each version by its first name."""
        self._contents = contents
        self._units, self._policy, self._feeds, self._options = units, policy, feeds, options
        self._shares = build_stage_shares(policy)
        undrawn = np.full(len(units.unit_keys), -1, dtype=np.int16)
        self._buckets = undrawn if units.buckets is None else units.buckets  # of each unit
        self._stage_histories = {cell: StageHistory() for cell in policy.cells}
        self._familiar_histories = FamiliarHistories()
        self._views: dict[CellVersion, EvidenceView] = {}
        self._queue: list[tuple[datetime, int, Command]] = []
        self._counter = count()
        self._keys = sorted(key for key in units.cells if key[0] in policy.cell_set)
        self._places_by_cell = group_pairs(
            (cell, place) for place, (cell, _) in enumerate(self._keys)
        )
        self._agenda = Agenda(policy, self._find_interest)
        self._start(first_seen)
        start = to_instant(units.first_slot, policy.tick)
        for command in commands:
            self._queue_command(replace(command, at=max(command.at, start)))

    def _start(self, first_seen: Mapping[str, datetime]) -> None:
        start = to_instant(self._units.first_slot, self._policy.tick)
        salt_hash = sha256(self._options.salt).hexdigest()
        self._events: list[LedgerEvent] = [
            RolloutCreated(at=start, by=ENGINE, salt_hash=salt_hash),
            PolicyApplied(
                at=start,
                by=REPLAY,
                number=1,
                policy_hash=self._policy.hash,
                confidence_floors=list_floor_texts(self._policy.evidence),
            ),
        ]
        self._scope = apply_events(self._events)
        for first_use in list_first_uses(first_seen, self._contents, start):
            self._queue_command(first_use)

    def _queue_command(self, command: Command) -> None:
        heapq.heappush(self._queue, (command.at, next(self._counter), command))

    def run(self, progress: ReportProgress | None = None) -> ReplayResult:
        """Tick from the first slot to the last with counts; return the result."""
        if self._options.pass_times is not None:
            return self._run_passes(self._options.pass_times)
        first, last, ticks = self._units.first_slot, self._units.last_slot, 0
        slot, slot_count = first, last - first + 1
        while (slot := self._find_next_slot(slot)) <= last:
            self._apply_commands_until(to_instant(slot, self._policy.tick))
            if self._options.skip_idle_slots and self._find_next_slot(slot) > slot:
                continue  # an approval moved the next slot of interest
            self._run_tick(slot)
            ticks, slot = ticks + 1, slot + 1
            _report_progress(progress, slot - first, slot_count)
        _report_progress(progress, slot_count, slot_count)
        return self._build_result(ticks)

    def _run_passes(self, pass_times: Mapping[int, datetime]) -> ReplayResult:
        """Tick in the slots of recorded passes; between them grants end and trials begin."""
        slots = range(min(pass_times, default=0), max(pass_times, default=-1) + 1)
        for slot in slots:
            self._apply_commands_until(to_instant(slot, self._policy.tick))
            if slot in pass_times:
                self._run_tick(slot)
                continue
            for cell in self._policy.cells:
                self._record_stage(cell, slot)
        return self._build_result(len(pass_times))

    def _apply_commands_until(self, at: datetime) -> None:
        """Apply the commands that are due by `at`."""
        while self._queue and self._queue[0][0] <= at:
            command = heapq.heappop(self._queue)[2]
            # voided before the simulated approval, or to be read again for what speaks against it
            with suppress(ProposalClosedError, EvidenceChangedError):
                self._append_events(decide(command, self._scope, self._policy))

    def _run_tick(self, slot: int) -> None:
        due_cells = (
            self._agenda.list_due_cells(self._scope, slot)
            if self._options.skip_idle_slots
            else self._policy.cell_set
        )
        changed_cells = self._append_events(self._decide_cells(slot, due_cells))
        for cell in changed_cells.union(due_cells):
            self._record_stage(cell, slot)

    def _decide_cells(self, slot: int, cells: Collection[Cell]) -> tuple[LedgerEvent, ...]:
        """Return the events of `cells` and of every cell that these affect."""
        views = {key: self._get_view(key) for key in self._list_known_keys(cells)}
        slot_start, passes = to_instant(slot, self._policy.tick), self._options.pass_times or {}
        tick = Tick(
            at=passes.get(slot, slot_start),
            evidence=SlotReadings(views, lambda key: views[key].read_evidence(slot)),
            fresh=SlotReadings(views, lambda key: self._read_fresh(views[key], slot)),
            slot=slot_start,
        )
        events = decide(tick, self._scope, self._policy)
        if not events or not self._options.skip_idle_slots:
            return events
        affected_cells = self._agenda.find_affected_cells(
            events, apply_events(events, self._scope), slot
        )
        return (
            events
            if affected_cells.issubset(cells)
            else self._decide_cells(slot, affected_cells.union(cells))
        )

    def _read_fresh(self, view: EvidenceView, slot: int) -> FreshEvidence:
        count = self._options.count_unplaced
        at = to_instant(slot, self._policy.tick)
        unplaced = self._units.unplaced if count is None else count(at)
        return read_fresh_evidence(view, slot, unplaced=unplaced)

    def _record_stage(self, cell: Cell, slot: int) -> None:
        """Record the stage of the cell from this slot on."""
        if self._scope.get_holder(cell) is None and not self._stage_histories[cell].slots:
            return
        acting_stage = find_acting_version(
            self._scope, self._policy, cell, to_instant(slot, self._policy.tick)
        )
        version, stage_level = acting_stage or ("", 0)
        floor = ""
        if version:
            state = self._scope.get_cell_state(cell, version)
            floor = format_decided_floor(self._policy, state, stage_level)
        new_history = self._stage_histories[cell].extend(slot, stage_level, version, floor)
        if new_history is not self._stage_histories[cell]:
            self._stage_histories[cell] = new_history
            # a trial may end without an event, which changes the visible evidence
            self._agenda.forget_cell(cell)

    def _append_events(self, events: tuple[LedgerEvent, ...]) -> set[Cell]:
        """Append events; return their cells."""
        self._events.extend(events)
        self._scope, previous = apply_events(events, self._scope), self._scope.effective_at
        for event in events:
            previous = event.compute_effective_time(previous)
            slot = find_slot_after(previous, self._policy.tick)
            self._familiar_histories.add_event(event, slot)
            if event.raises_proposal:
                self._queue_approvals(event.about_proposal, event.at)
            if event.speaks_against:
                self._queue_acknowledgement(event.speaks_against, event.at)
            if event.first_version:
                self._agenda.add_keys(key for key in self._keys if key[1] == event.first_version)
        return self._agenda.apply_events(events)

    def _queue_approvals(self, proposal_id: str, since: datetime) -> None:
        """Queue a simulated approval of an open proposal for each needed group."""
        delay, proposal = self._options.approval_delay, self._scope.proposals.get(proposal_id)
        if delay is None or proposal is None:
            return
        for number, group in enumerate(proposal.needs, start=1):
            actor = Actor(f"{SIMULATED}{number}", (group,))
            hash_read = proposal.evidence_hash
            self._queue_command(
                ApproveProposal(
                    at=since + delay, by=actor, proposal=proposal_id, evidence_hash=hash_read
                )
            )

    def _queue_acknowledgement(self, incident: str, opened_at: datetime) -> None:
        """Queue the acknowledgement of an incident, and new approvals of what it holds."""
        if self._options.approval_delay is None:
            return
        at, actor = opened_at + self._options.approval_delay, Actor(f"{SIMULATED}1", (OPERATOR,))
        self._queue_command(AcknowledgeIncident(at=at, by=actor, incident=incident))
        for proposal in self._scope.proposals.values():
            if incident in proposal.unconfirmed:
                self._queue_approvals(proposal.id, opened_at)

    def _list_known_keys(self, cells: Iterable[Cell]) -> list[CellVersion]:
        """Return the cells and known versions, in order; most slots need a few of all cells."""
        places = sorted(place for cell in cells for place in self._places_by_cell.get(cell, ()))
        keys = (self._keys[place] for place in places)
        return [key for key in keys if key[1] in self._scope.versions]

    def _find_next_slot(self, slot: int) -> int:
        """Return the first slot from `slot` on that needs a decision."""
        if not self._options.skip_idle_slots:
            return slot
        next_slot = self._agenda.find_next_slot(self._scope, slot)
        if self._queue:
            command_slot = find_slot_after(self._queue[0][0], self._policy.tick)
            next_slot = min(next_slot, max(slot, command_slot))
        return next_slot

    def _find_interest(self, key: CellVersion, scope: Scope, slot: int) -> SlotInterest:
        return find_interest(self._get_view(key), scope, slot)

    def _get_view(self, key: CellVersion) -> EvidenceView:
        """Return the evidence view of a cell, rebuilt after changes."""
        cell, version = key
        state = self._scope.get_cell_state(cell, version)
        familiar_history = self._familiar_histories[key]
        stage_history = self._stage_histories[cell]
        view = update_view(self._views.get(key), state, stage_history, familiar_history)
        if view is None:
            view = EvidenceView(
                cell=cell,
                version=version,
                rows=self._units.cells[key],
                unit_classes=self._units.unit_classes,
                policy=self._policy,
                state=state,
                first_seen=self._scope.versions[version].first_seen,
                stage_history=stage_history,
                shares=self._shares,
                find_buckets=self._find_buckets,
                draws_late=True,
                feeds=self._feeds,
                familiar_history=familiar_history,
            )
        self._views[key] = view
        return view

    def _find_buckets(self, rows: UnitArrays) -> Ints:
        """Return the sampling bucket of each row, each unit's computed at first use."""
        buckets = self._buckets[rows.unit]
        if (is_undrawn := buckets < 0).any():
            units = np.unique(rows.unit[is_undrawn])
            keys = self._units.unit_keys[units]
            salt = self._options.salt
            self._buckets[units] = draw_buckets(
                self._shares, salt, self._options.audit_salt or salt, keys.to_list()
            )
            buckets = self._buckets[rows.unit]
        return buckets.astype(np.int64)

    def _build_result(self, ticks: int) -> ReplayResult:
        return ReplayResult(
            policy=self._policy,
            events=tuple(self._events),
            scope=self._scope,
            stage_histories=self._stage_histories,
            units=self._units,
            views={key: self._get_view(key) for key in self._list_known_keys(self._places_by_cell)},
            first_slot=self._units.first_slot,
            last_slot=self._units.last_slot,
            ticks=ticks,
        )


def _report_progress(progress: ReportProgress | None, done_count: int, total: int) -> None:
    if progress is not None:
        progress(done_count, total)


def update_view(
    view: EvidenceView | None,
    state: CellState,
    stage_history: StageHistory,
    familiar_history: FamiliarHistory,
) -> EvidenceView | None:
    """Return the view under a state, or None if it must be built again."""
    if (
        view is None
        or view.stage_history != stage_history
        or view.familiar_history is not familiar_history
        or _get_view_basis(view.state) != _get_view_basis(state)
    ):
        return None
    return view if view.state.grants == state.grants else view.renew_grants(state)


def _get_view_basis(state: CellState) -> tuple[object, ...]:
    return (
        state.attempt,
        state.attempt_since,
        state.changed_at,
        state.detectors,
        state.last_alarms,
        state.risk_share,
    )


REASON = "its last record"


class VersionsAtOnceError(RolloutError, ValueError):
    """More versions were in use at once than may be open."""


@dataclass(frozen=True, slots=True)
class VersionUse:
    """The times of a version's first and last prediction; names of one content are one version."""

    version: str
    first: datetime
    last: datetime


def plan_retirements(
    first_seen: Mapping[str, datetime],
    last_seen: Mapping[str, datetime],
    contents: Mapping[str, str],
) -> tuple[RetireVersion, ...]:
    """Return the retirements of a replay; none if all its versions may be open.

    Raises:
        VersionsAtOnceError: too many were in use at once; the text names them.
    """
    uses = _list_uses(first_seen, last_seen, contents)
    if len(uses) <= MAX_OPEN_VERSIONS:
        return ()
    for use in uses:
        _check_open_versions([u for u in uses if u.first <= use.first <= u.last], use.first)
    return tuple(
        RetireVersion(
            at=use.last + MICROSECOND, by=Actor(REPLAY), version=use.version, reason=REASON
        )
        for use in uses
    )


def _list_uses(
    first_seen: Mapping[str, datetime],
    last_seen: Mapping[str, datetime],
    contents: Mapping[str, str],
) -> list[VersionUse]:
    uses: dict[str, VersionUse] = {}
    for name, first in sorted(first_seen.items(), key=lambda item: (item[1], item[0])):
        content, last = contents.get(name) or name, last_seen[name]
        use = uses.get(content, VersionUse(name, first, last))
        uses[content] = VersionUse(use.version, use.first, max(use.last, last))
    return list(uses.values())


def _check_open_versions(uses: Sequence[VersionUse], at: datetime) -> None:
    if len(uses) > MAX_OPEN_VERSIONS:
        names = ", ".join(use.version for use in uses)
        raise VersionsAtOnceError(
            f"{len(uses)} versions were in use at {at:%Y-%m-%d %H:%M} UTC, and at most"
            f" {MAX_OPEN_VERSIONS} may be: {names}; leave some out of the file of predictions"
        )
