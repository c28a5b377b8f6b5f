"""Evidence visible to the engine for one version in one cell, by slot; in batches, and while fresh.

A view is built for one cell state and one stage history; when either changes, a new one is built.
Its counts at a slot do not depend on which other slots are read.

Readers who may still be asked for blind reviews get evidence that moves in whole batches. A sum
read before one's own answer and another one after it differ by a batch, not by a case.

Fresh units are inside their grace, and their answer is known. They are read beside those that
count.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import numpy as np

from rollout.engine.decide.incident_kinds import name_late
from rollout.engine.decide.widening_steps import find_acting_index
from rollout.engine.evidence.gate_series import (
    GateSeries,
    ValueSeries,
    are_all_met,
    are_minimums_met,
    are_renewal_minimums_met,
    build_floor_views,
    choose_first_part,
)
from rollout.engine.evidence.guard_evidence import ArmReader, CountWindow, GuardEvidence, GuardFeeds
from rollout.engine.evidence.guard_series import GuardSeries, compute_detector_series, count_slots
from rollout.engine.evidence.stage_history import (
    NO_HISTORY,
    FamiliarHistory,
    StageHistory,
    StageShares,
    find_familiar_units,
)
from rollout.engine.evidence.unit_arrays import (
    CellUnitArrays,
    UnitArrays,
    UnitClasses,
    build_empty_arrays,
    unite_ascending,
)
from rollout.kernel.calendar.instants import FIRST_SLOT, LAST_SLOT, find_slot_after
from rollout.kernel.measures import Condition, MeasureKey, Statistic, Watch
from rollout.kernel.policy.cell_evidence import (
    EvidenceCounts,
    SliceCounts,
    VersionEvidence,
    compute_gate_risk,
)
from rollout.kernel.policy.familiarity import find_line
from rollout.kernel.policy.gates import NEWEST_SIZES, NO_UNPLACED, FreshEvidence, UnplacedDecisions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from rollout.engine.decide.scope import CellState
    from rollout.kernel.arrays import Bools, Ints
    from rollout.kernel.calendar.instants import Cell
    from rollout.kernel.policy.policy import Policy
    from rollout.kernel.statistics.gain import ArmUnits
    from rollout.kernel.units import OutcomeRule


_BEFORE_ALL_SLOTS = np.array([FIRST_SLOT])  # before all slots, where gates are read too


@dataclass(frozen=True)
class EvidenceView:
    """Evidence of one version in one cell under one state.

    Attributes:
        rows: the units of the version in the cell.
        state: grants, attempt and the last change of the stage.
        first_seen: when the version was first seen; a state that never changed starts there.
        stage_history: the cell's stages, which determined the reviews.
        shares: the policy's shares by stage level.
        find_buckets: returns the bucket of each row's sampling value.
        feeds: records that guards read besides decisions.
        familiar_history: which attribute values were familiar when.
        floor_index: the confidence floor that the rows reach; None for all floors together.
        draws_late: whether `find_buckets` computes draws, so that shadow, which has no shares, is
            to ask for none.
        begun: in which slot the attempt's first predicted unit occurred, if it isn't among `rows`.
    """

    cell: Cell
    version: str
    rows: CellUnitArrays
    unit_classes: UnitClasses
    policy: Policy
    state: CellState
    first_seen: datetime
    stage_history: StageHistory
    shares: StageShares
    find_buckets: Callable[[UnitArrays], Ints]
    feeds: GuardFeeds
    familiar_history: FamiliarHistory = NO_HISTORY
    floor_index: int | None = None
    draws_late: bool = False
    begun: int | None = None

    def renew_grants(self, state: CellState) -> EvidenceView:
        """Return the view under a state whose grants alone differ.

        A renewal changes neither which units count nor what most guards read, so what was computed
        of these is kept.
        """
        view = replace(self, state=state)
        cached_parts = dict(self.__dict__)
        has_same_start = [grant.held_evidence_start for grant in self.state.grants[:1]] == [
            grant.held_evidence_start for grant in state.grants[:1]
        ]
        if not has_same_start or self.policy.evidence.higher_floors:
            cached_parts.pop("guard_series", None)
        own_starts = {grant.stage: grant.evidence_start for grant in self.state.grants}
        starts = {grant.stage: grant.evidence_start for grant in state.grants}
        kept_stages = {stage for stage, start in starts.items() if own_starts.get(stage) == start}
        cached_parts["_kept_windows"] = {
            stage: window
            for stage, window in self.__dict__.get("grant_windows", {}).items()
            if stage in kept_stages
        }
        cached_parts["_series_cache"] = {
            key: series
            for key, series in self._series_cache.items()
            if key[1] is not None or self.policy.stage_ids[key[0]] in kept_stages  # a renewal's
        }
        for name in ("floor_views", "grant_windows", *(part.name for part in fields(self))):
            cached_parts.pop(name, None)
        view.__dict__.update(cached_parts)
        return view

    def read_evidence(self, slot: int) -> VersionEvidence:
        """Return all evidence for a decision about the cell."""
        if self.floor_views:
            floors = tuple(view.read_evidence(slot) for view in self.floor_views)
            guards = floors[find_acting_index(self.policy, self.state)].guards
            return replace(floors[0], guards=guards, floors=floors)
        attempt = self.attempt_window.count_at(slot)
        is_same_window = self.entered_window is self.attempt_window
        return VersionEvidence(
            attempt=attempt,
            entered=attempt if is_same_window else self.entered_window.count_at(slot),
            spans={stage: window.count_at(slot) for stage, window in self.grant_windows.items()},
            guards={
                guard_id: series.read_at(slot, self.policy.tick)
                for guard_id, series in self.guard_series.items()
            },
            values={} if self.value_series is None else self.value_series.read_at(slot),
        )

    @cached_property
    def floor_views(self) -> tuple[EvidenceView, ...]:
        """Return a view for each confidence floor, lowest first; () without several."""
        return build_floor_views(self)

    def get_floor_view(self, floor_index: int) -> EvidenceView:
        """Return the view at a confidence floor, by its place in the policy's list."""
        return self.floor_views[floor_index] if self.floor_views else self

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Return all conditions of the cell's gates."""
        stage_levels = range(1, len(self.policy.stage_ids))
        return tuple(
            dict.fromkeys(
                c for level in stage_levels for c in self.policy.list_conditions(level, self.cell)
            )
        )

    def find_first_slot(self, at: datetime) -> int:
        """Return the first slot whose units count from `at` on.

        From its first use on a version's units count whenever they occurred: a service sees the
        first case of a sender that is late some days after it.
        """
        return FIRST_SLOT if at == self.first_seen else find_slot_after(at, self.policy.tick)

    @cached_property
    def gate_rows(self) -> UnitArrays:
        """Return the visible gate rows of this attempt, from its first predicted one on."""
        return self._skip_silent_start(self._select_attempt(self.rows.gate))

    def find_begin(self, slot: int) -> int | None:
        """Return when the attempt's first unit occurred that was predicted in time, by a slot.

        What was decided before is nothing that the version was silent about.
        """
        if self.begun is not None:
            return self.begun
        counted, occurred = self._first_answered
        return occurred if counted <= slot else None

    @cached_property
    def _first_answered(self) -> tuple[int, int]:
        """Return in which slots the first predicted unit counts, and occurred.

        Of several the earliest; both are far in the future without any.
        """
        rows = self._select_attempt(self.rows.gate)
        answered = np.flatnonzero(~self.unit_classes.is_silent[rows.unit_class])
        if not len(answered):
            return LAST_SLOT, LAST_SLOT
        slot = int(rows.slot[answered[0]])
        return slot, int(rows.occurred[answered[rows.slot[answered] == slot]].min())

    def _skip_silent_start(self, rows: UnitArrays) -> UnitArrays:
        """Return the rows without those before the attempt's first predicted unit.

        Of the others none counts before it: no tick could know that the attempt had begun.
        """
        is_silent = self.unit_classes.is_silent
        if not is_silent.any():
            return rows
        counted, begin = (
            (FIRST_SLOT, self.begun) if self.begun is not None else self._first_answered
        )
        is_kept = ~is_silent[rows.unit_class] | (rows.occurred >= begin)
        return replace(rows, slot=np.maximum(rows.slot, counted)).select(np.flatnonzero(is_kept))

    @cached_property
    def visible_rows(self) -> UnitArrays:
        """Return the visible gate rows of all attempts."""
        return self.select_visible(self.rows.gate)

    @cached_property
    def planted_rows(self) -> UnitArrays:
        """Return the visible planted rows of this attempt."""
        return self._select_attempt(self.rows.planted)

    @cached_property
    def attempt_guard_rows(self) -> UnitArrays:
        """Return the visible rows of decided units of this attempt."""
        return self._skip_silent_start(self._select_attempt(self.rows.guard))

    def _select_attempt(self, rows: UnitArrays) -> UnitArrays:
        rows = self.select_visible(rows)
        if self.state.attempt == 1:
            return rows
        return rows.select_since(self.find_first_slot(self.state.attempt_since))

    def select_visible(self, rows: UnitArrays) -> UnitArrays:
        """Return the familiar units that the stage sends to a blind review."""
        if not self.unit_classes.has_values and not self.stage_history.ever_left_shadow:
            return rows
        return rows.select(self.find_visible(rows))

    def find_visible(self, rows: UnitArrays) -> Bools:
        """Return which units are familiar, and sent to a blind review by the stage."""
        is_visible = np.ones(len(rows), dtype=bool)
        if self.unit_classes.has_values:
            is_visible &= self.find_familiar(rows)
        if self.stage_history.ever_left_shadow:
            is_visible &= self.find_reviewed(rows)
        return is_visible

    def find_familiar(self, rows: UnitArrays) -> Bools:
        """Return which units were familiar to the version when they occurred."""
        return find_familiar_units(rows, self.unit_classes, self.familiar_history)

    def find_reviewed(self, rows: UnitArrays) -> Bools:
        """Return which units the stage sends to a blind review, by their sampling values."""
        stage_levels = self.stage_history.find_levels(rows.occurred)
        buckets = self.find_buckets_at(rows, stage_levels)
        return self.shares.find_reviewed(buckets, stage_levels)

    def find_buckets_at(self, rows: UnitArrays, stage_levels: Ints) -> Ints:
        """Return the bucket of each row; 0 in shadow where draws are late: no share is compared."""
        if not self.draws_late:
            return self.find_buckets(rows)
        buckets, drawn = np.zeros(len(rows), dtype=np.int64), np.flatnonzero(stage_levels)
        buckets[drawn] = self.find_buckets(rows.select(drawn))
        return buckets

    @cached_property
    def value_series(self) -> ValueSeries | None:
        """Return the readings of attribute values, None if the policy asks for none.

        They rest on all blind decisions that were asked for, of units familiar or not, in every
        attempt: humans decide all unfamiliar ones.
        """
        rule, rows = self.policy.evidence.familiar, self.rows.guard
        if rule is None:
            return None
        rows = rows.select(self.unit_classes.is_whole_unit[rows.unit_class])
        rows = rows.select(~self.unit_classes.is_missing[rows.unit_class])
        if self.stage_history.ever_left_shadow:
            rows = rows.select(~self.find_familiar(rows) | self.find_reviewed(rows))
        conditions = (guard.condition for guard in self.policy.list_guards(self.cell))
        return ValueSeries(rows, self.unit_classes, rule, find_line(rule, conditions))

    def _build_window(self, since: datetime) -> CountWindow:
        first_slot = self.find_first_slot(since)
        parts = (self.gate_rows, self.planted_rows)
        rows, planted = (part.select_since(first_slot) for part in parts)
        arms = self._build_arms_since(first_slot)
        is_whole = len(rows) + len(planted) == sum(map(len, parts))
        if is_whole and not arms:
            return self.attempt_window  # a cell's first stage: counting it twice takes long
        return CountWindow(rows, self.unit_classes, self.conditions, arms, planted)

    def _limit_to_attempt(self, first_slot: int) -> int:
        """Return the later of a slot and the attempt's first one."""
        if self.state.attempt == 1:
            return first_slot
        return max(first_slot, self.find_first_slot(self.state.attempt_since))

    def _build_arms_since(self, first_slot: int) -> dict[MeasureKey, ArmUnits]:
        """Return the arms of each gain, from a slot of occurrence on."""
        first_slot = self._limit_to_attempt(first_slot)
        gains = (c for c in self.conditions if c.population.has_gain)
        return {
            gain.key: self.build_arms(gain.population.outcome, gain.population.arm, first_slot)
            for gain in gains
        }

    def build_arms(self, outcome: OutcomeRule, arm: str, first_slot: int) -> ArmUnits:
        """Return the units of both arms as evidence, by slots of occurrence."""
        return self.arm_reader.read_units(outcome, arm, first_slot)

    @cached_property
    def arm_reader(self) -> ArmReader:
        """Return the reader of both arms."""
        return ArmReader(self.cell, self.version, self.stage_history, self.shares, self.feeds)

    @cached_property
    def attempt_window(self) -> CountWindow:
        """Return the evidence of the attempt."""
        parts = (self.gate_rows, self.unit_classes, self.conditions)
        return CountWindow(*parts, self._build_arms_since(FIRST_SLOT), self.planted_rows)

    @cached_property
    def entered_window(self) -> CountWindow:
        """Return the evidence since the cell entered its stage."""
        return self._build_window(self.state.changed_at)

    @cached_property
    def grant_windows(self) -> dict[str, CountWindow]:
        """Return the evidence since the start of each grant, by stage."""
        starts = {grant.stage: grant.evidence_start for grant in self.state.grants}
        return {
            stage: self._kept_windows.get(stage) or self._build_window(start)
            for stage, start in starts.items()
        }

    @cached_property
    def _kept_windows(self) -> dict[str, CountWindow]:
        """Return the windows of grants whose start is that of the view before."""
        return {}

    def get_gate_series(self, stage_level: int, minimum_window: CountWindow) -> GateSeries:
        """Return where the gate to `stage_level` is met; minimums count in `minimum_window`."""
        key = (stage_level, minimum_window is self.attempt_window)
        series = self._series_cache.get(key)
        if series is None:
            series = self._compute_gate_series(stage_level, minimum_window)
            self._series_cache[key] = series
        return series

    @cached_property
    def _series_cache(self) -> dict[tuple[int, bool | None], GateSeries]:
        return {}

    def _compute_gate_series(self, stage_level: int, minimum_window: CountWindow) -> GateSeries:
        gate = self.policy.find_gate(stage_level, self.cell)
        assert gate is not None  # noqa: S101 - callers pass stage levels with gates
        window = self.attempt_window
        slots = window.slots
        if minimum_window is not window:
            slots = unite_ascending(slots, minimum_window.slots)
        slots = np.concatenate([_BEFORE_ALL_SLOTS, slots])
        conditions = self.policy.list_conditions(stage_level, self.cell)
        holds = partial(are_minimums_met, self.policy, gate.minimum, window, minimum_window)
        evaluate = partial(are_all_met, self.policy, conditions, window, holds, is_renewal=False)
        risk = compute_gate_risk(self.policy, gate, self.state.risk_share)
        return GateSeries(slots, evaluate, risk, choose_first_part(conditions, slots))

    def get_renewal_series(self, stage_level: int) -> GateSeries:
        """Return where a grant may be renewed on its own evidence."""
        if (stage_level, None) not in self._series_cache:
            self._series_cache[stage_level, None] = self._compute_renewal_series(stage_level)
        return self._series_cache[stage_level, None]

    def _compute_renewal_series(self, stage_level: int) -> GateSeries:
        gate = self.policy.find_gate(stage_level, self.cell)
        window = self.grant_windows[self.policy.stage_ids[stage_level]]
        assert gate is not None  # noqa: S101 - each grant has a gate
        slots = np.concatenate([_BEFORE_ALL_SLOTS, window.slots])
        conditions = self.policy.list_conditions(stage_level, self.cell)
        holds = partial(are_renewal_minimums_met, gate.minimum, window)
        evaluate = partial(are_all_met, self.policy, conditions, window, holds, is_renewal=True)
        return GateSeries(slots, evaluate, 1.0, choose_first_part(conditions, slots))

    @cached_property
    def guard_series(self) -> dict[str, GuardSeries]:
        """Return the readings of each guard; without grants of late harms alone."""
        if not self.state.grants and not self.stage_history.ever_left_shadow:
            return {}
        if self.state.grants and self.floor_views:  # that of the acting floor alone may act
            return self.floor_views[find_acting_index(self.policy, self.state)].guard_series
        evidence = GuardEvidence(self)  # large, and the series hold what is read of it
        guards = self.policy.list_guards(self.cell)
        harm_guards = (g for g in guards if g.condition.measure.watch is Watch.HARMS)
        late = {name_late(guard.id): evidence.compute_late_series(guard) for guard in harm_guards}
        if not self.state.grants:
            return late
        return {guard.id: evidence.compute_series(guard) for guard in guards} | late


BATCH_SIZE: Final = 20
"""Judged units by which figures move at once."""


def batch_view(view: EvidenceView) -> EvidenceView:
    """Return a view whose gate and planted units are counted when their batch is whole.

    Batches don't depend on the span that is read, nor on the slot at which it is read. None has
    units of before and after a start of the cell's stages, attempts or grants: figures since such a
    start, and differences of two of them, are of whole batches too. Each confidence band is batched
    by itself, so that the same holds for figures of a floor and differences between floors.
    """
    starts, planted = _list_starts(view), view.rows.planted
    bands = _list_floor_bands(view)
    rows = replace(
        view.rows,
        gate=_batch_gate_rows(view, starts),
        planted=select_batches(planted, np.ones(len(planted), dtype=bool), starts, bands),
    )
    return replace(view, rows=rows)


def _batch_gate_rows(view: EvidenceView, starts: Ints) -> UnitArrays:
    gate = view.rows.gate
    whole = view.unit_classes.is_whole_unit & ~view.unit_classes.is_missing
    is_judged = whole[gate.unit_class] if len(gate) else np.zeros(0, dtype=bool)
    is_judged &= view.find_visible(gate)
    return select_batches(gate, is_judged, starts, _list_floor_bands(view))


def _list_floor_bands(view: EvidenceView) -> Ints:
    """Return the band of each unit class by which figures are read: none without floors."""
    bands = view.unit_classes.bands
    return bands if view.policy.evidence.higher_floors else np.zeros_like(bands)


def select_batches(rows: UnitArrays, is_judged: Bools, starts: Ints, bands: Ints) -> UnitArrays:
    """Return the rows of whole batches, each with the last slot of its batch.

    Batches run in the order of closing and never split a slot of their band. Those that occurred
    between two `starts` are batched by themselves; what is left over of them stays away.

    Args:
        rows: units of a cell, in the order of closing.
        is_judged: which of them have a decision.
        starts: slots of occurrence that no batch spans.
        bands: confidence band of each unit class.
    """
    period = np.searchsorted(starts, rows.occurred, side="right")
    groups = period * (1 + int(bands.max(initial=0))) + bands[rows.unit_class]
    slots = np.full(len(rows), -1, dtype=np.int64)
    for number in np.unique(groups):
        index = np.flatnonzero(groups == number)
        slots[index] = _find_batch_ends(rows.slot[index], is_judged[index])
    order = np.argsort(slots, kind="stable")
    order = order[slots[order] >= 0]
    return replace(rows.select(order), slot=slots[order])


def _find_batch_ends(slots: Ints, is_judged: Bools) -> Ints:
    """Return the last slot of each row's batch, -1 in one that isn't whole."""
    ends = np.full(len(slots), -1, dtype=np.int64)
    if not len(slots):
        return ends
    _, firsts = np.unique(slots, return_index=True)
    counts = np.add.reduceat(is_judged.astype(np.int64), firsts)
    begin = judged = 0
    for count, end in zip(counts.tolist(), [*firsts.tolist()[1:], len(slots)], strict=True):
        judged += count
        if judged >= BATCH_SIZE:
            ends[begin:end] = slots[end - 1]
            begin, judged = end, 0
    return ends


def _list_starts(view: EvidenceView) -> Ints:
    """Return the slots from which figures of the cell may count."""
    state = view.state
    instants = {state.attempt_since, state.changed_at}
    instants |= {grant.evidence_start for grant in state.grants}
    slots = map(view.find_first_slot, instants)
    return np.array(sorted({*slots, *view.stage_history.slots}), dtype=np.int64)


@dataclass(frozen=True)
class FreshUnits:
    """Units inside their grace whose answer is known; `slot` is from when on.

    Their classes may be others than those of the units that count.
    """

    rows: UnitArrays
    unit_classes: UnitClasses
    unplaced: UnplacedDecisions = NO_UNPLACED


def read_fresh_evidence(
    view: EvidenceView,
    slot: int,
    fresh: FreshUnits | None = None,
    unplaced: UnplacedDecisions = NO_UNPLACED,
) -> FreshEvidence:
    """Return the evidence at a slot with the units whose answer is known by then.

    Args:
        view: of the units that count; in a replay also of those to come.
        slot: the present.
        fresh: what the view lacks of them.
        unplaced: decisions that belong to no cell, where `fresh` doesn't say it.
    """
    if fresh is None:
        fresh = FreshUnits(_select_fresh(view, slot), view.unit_classes, unplaced)
    fresh_view = replace(
        view,
        rows=CellUnitArrays(gate=fresh.rows),
        unit_classes=fresh.unit_classes,
        begun=view.find_begin(slot),
    )
    views = list(zip(view.floor_views, fresh_view.floor_views, strict=True))
    floors = tuple(
        replace(_read_floor(*pair, slot), unplaced=fresh.unplaced)
        for pair in views or [(view, fresh_view)]
    )
    return replace(floors[0], floors=floors if views else ())


def _select_fresh(view: EvidenceView, slot: int) -> UnitArrays:
    """Return the rows that close after a slot and are known by it."""
    rows, known_slots, policy = view.rows.gate, view.rows.gate_known, view.policy
    if known_slots is None:
        return build_empty_arrays()
    last = slot + count_slots(policy.evidence.grace, policy) + 1
    start, end = np.searchsorted(rows.slot, [slot, last], side="right").tolist()
    return order_by_receipt(rows.select(slice(start, end)), known_slots[start:end], slot)


def order_by_receipt(rows: UnitArrays, known_slots: Ints, until: int) -> UnitArrays:
    """Return the rows that are known by a slot, each counted in the slot that knew it first."""
    order = np.flatnonzero(known_slots <= until)
    order = order[np.lexsort((rows.occurred[order], known_slots[order]))]
    return replace(rows.select(order), slot=known_slots[order])


def _read_floor(view: EvidenceView, fresh_view: EvidenceView, slot: int) -> FreshEvidence:
    rows, classes = fresh_view.gate_rows, fresh_view.unit_classes
    fresh = CountWindow(rows, classes, view.conditions).count_at(LAST_SLOT)
    return FreshEvidence(
        fresh=fresh,
        attempt=_add_counts(view.attempt_window.count_at(slot), fresh),
        newest=dict(_count_newest(view, slot, rows, classes)),
        alarms=tuple(_find_alarms(view, slot)),
    )


def _add_counts(counts: EvidenceCounts, fresh: EvidenceCounts) -> EvidenceCounts:
    """Return counts with the fresh ones; days, reviewers and gains stay those that count."""
    return replace(
        counts,
        closed=counts.closed + fresh.closed,
        missing=counts.missing + fresh.missing,
        recent_closed=counts.recent_closed + fresh.closed,
        recent_missing=counts.recent_missing + fresh.missing,
        counts={
            key: tuple(a + b for a, b in zip(own, fresh.counts.get(key, own), strict=True))
            if key in fresh.counts
            else own
            for key, own in counts.counts.items()
        },
        slices={
            key: _add_slices(values, fresh.slices.get(key, {}))
            for key, values in counts.slices.items()
        },
    )


def _add_slices(
    values: Mapping[str, SliceCounts], fresh: Mapping[str, SliceCounts]
) -> dict[str, SliceCounts]:
    none = SliceCounts(0, 0)
    return {
        value: SliceCounts(
            *(a + b for a, b in zip(values.get(value, none), fresh.get(value, none), strict=True))
        )
        for value in dict.fromkeys((*values, *fresh))
    }


def _count_newest(
    view: EvidenceView, slot: int, fresh: UnitArrays, fresh_classes: UnitClasses
) -> Iterator[tuple[MeasureKey, tuple[tuple[int, int], ...]]]:
    """Yield the agreements among the newest answers of each share of the cases that occur."""
    rows = view.gate_rows
    counted = rows.select(slice(0, int(np.searchsorted(rows.slot, slot, side="right"))))
    for condition in view.conditions:
        if condition.population.sums_units and condition.measure.statistic is Statistic.SHARE:
            agreed = np.concatenate(
                [
                    _list_agreements(condition, counted, view.unit_classes),
                    _list_agreements(condition, fresh, fresh_classes),
                ]
            )
            sizes = [size for size in NEWEST_SIZES if size <= len(agreed)]
            yield condition.key, tuple((int(agreed[-size:].sum()), size) for size in sizes)


def _list_agreements(condition: Condition, rows: UnitArrays, unit_classes: UnitClasses) -> Ints:
    """Return 1 or 0 for each unit that a condition counts, in order."""
    counts = unit_classes.take_counts(condition, rows)
    agreed: Ints = counts[counts.any(axis=1), 0]
    return agreed


def _find_alarms(view: EvidenceView, slot: int) -> Iterator[Condition]:
    """Yield the guards on quality that are in alarm if they are run over the attempt.

    The tick after a decision takes a vouched sender that comes later for silent. In shadow, where
    nobody waits for its answer, such units are read as gates count them.
    """
    rows, classes = view.attempt_guard_rows, view.unit_classes
    parts = [rows]
    if view.policy.evidence.has_late_answers and not view.state.grants:
        parts = [rows.select(~classes.is_silent[rows.unit_class]), view.gate_rows]
    past = [rows.select(slice(int(np.searchsorted(rows.slot, slot, "right")))) for rows in parts]
    for guard in view.policy.list_guards(view.cell):
        condition = guard.condition
        if not condition.measure.for_gate or condition.population.has_own_series:
            continue
        readings = (compute_detector_series(guard, rows, classes, view.policy) for rows in past)
        if any(len(series.slots) and series.is_alarm[-1] for series in readings):
            yield condition
