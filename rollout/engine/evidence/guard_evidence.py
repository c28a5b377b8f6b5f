"""What guards and gates read of a cell: units, arms, counts of time spans, other records.

A gain weighs each unit by the probability of the model's arm that it had. Counts of a time span are
cumulative, so that they can be read at any slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from rollout.engine.decide.incident_kinds import name_late
from rollout.engine.evidence.guard_series import (
    compute_detector_series,
    compute_drift_series,
    compute_gain_series,
    compute_share_series,
    compute_slice_series,
)
from rollout.engine.evidence.outcome_buffer import (
    SOURCE_FAULTS,
    UNRECORDED,
    OutcomeUnits,
    build_arms,
    count_staged,
)
from rollout.engine.evidence.site_series import (
    SiteSigns,
    SiteVotes,
    compute_cell_silences,
    compute_episode_series,
)
from rollout.engine.evidence.unit_arrays import (
    UnitArrays,
    UnitClasses,
    build_empty_arrays,
    find_first_positions,
    find_run_starts,
)
from rollout.kernel.calendar.instants import FIRST_SLOT, find_slot_before
from rollout.kernel.facts import RECENT_DAYS
from rollout.kernel.measures import Condition, MeasureKey, Watch
from rollout.kernel.policy.cell_evidence import (
    MAX_SLICE_VALUES,
    EvidenceCounts,
    SliceCounts,
    ValueCounts,
    names_slices,
)
from rollout.kernel.statistics.gain import ArmUnits, build_empty_arms
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rollout.engine.evidence.evidence_view import EvidenceView
    from rollout.engine.evidence.guard_series import GuardSeries
    from rollout.engine.evidence.stage_history import StageHistory, StageShares
    from rollout.kernel.arrays import Bools, Ints
    from rollout.kernel.calendar.instants import Cell
    from rollout.kernel.policy.policy import Guard, Minimum
    from rollout.kernel.units import OutcomeRule


class GuardEvidence:
    """What the guards of a cell read of a view: since the stage's change, or the last alarm.

    Rows that several guards share are selected once.
    """

    def __init__(self, view: EvidenceView) -> None:
        self._view, self._cell, self._state = view, view.cell, view.state
        self._policy, self._shares = view.policy, view.shares
        self._unit_classes, self._stage_history = view.unit_classes, view.stage_history
        self._feeds = view.feeds
        # overrides or not, and since when
        self._detector_rows: dict[tuple[bool, int, int], UnitArrays] = {}

    def compute_series(self, guard: Guard) -> GuardSeries:
        """Return the readings of one guard."""
        if names_slices(guard.condition):
            return self._compute_stream_series(guard)
        match guard.condition.measure.watch:
            case Watch.UNITS | Watch.LABELS | Watch.OUTCOMES:
                return self._compute_quality_series(guard)
            case Watch.RECORDS:
                return self._compute_episode_series(guard)
            case Watch.SIGNS:
                return self._compute_silence_series(guard)
            case Watch.HARMS:
                return self._compute_harm_series(guard)
            case watch:
                assert_never(watch)

    def _compute_harm_series(self, guard: Guard) -> GuardSeries:
        """Return the harms over the guard's span."""
        answer_slots, occurred_slots, is_bad = self._feeds.read_answers(
            self._cell, self._view.version, guard
        )
        is_kept = occurred_slots >= self._view.find_first_slot(self._find_harm_start(guard))
        return compute_share_series(guard, answer_slots[is_kept], is_bad[is_kept], self._policy)

    def compute_late_series(self, guard: Guard) -> GuardSeries:
        """Return the harms that `name_late` is about, since the guard's last alarm."""
        version, state = self._view.version, self._state
        slots, occurred, is_bad = self._feeds.read_answers(self._cell, version, guard)
        is_kept = self._stage_history.find_own_levels(version, occurred) > 0
        if state.grants:
            is_kept &= occurred < self._view.find_first_slot(self._find_harm_start(guard))
        for guard_id in {guard.id, name_late(guard.id)} & state.last_alarms.keys():
            is_kept &= slots > find_slot_before(state.last_alarms[guard_id], self._policy.tick)
        return compute_share_series(guard, slots[is_kept], is_bad[is_kept], self._policy)

    def _compute_stream_series(self, guard: Guard) -> GuardSeries:
        """Return the readings of a guard on slices or drift.

        Drift reads decided units too: closed ones would be known only after the grace.
        """
        rows, condition = self._select_detector_rows(guard), guard.condition
        if condition.measure.watch is Watch.UNITS and condition.population.attribute:
            return compute_slice_series(guard, condition, rows, self._unit_classes)
        start = self._state.find_detector_start(guard.id)
        before = self._visible_rows
        # by slot: a unit that was decided later was not known when the cell entered its stage
        is_reference = before.slot <= find_slot_before(start.changed_at, self._policy.tick)
        if self._state.attempt > 1:
            is_reference &= before.occurred >= self._view.find_first_slot(start.attempt_since)
        return compute_drift_series(guard, rows, before.select(is_reference), self._unit_classes)

    def _compute_quality_series(self, guard: Guard) -> GuardSeries:
        if guard.condition.population.has_gain:
            return compute_gain_series(guard, self._select_watched_arms(guard, guard.condition))
        rows = self._select_detector_rows(guard)
        return compute_detector_series(guard, rows, self._unit_classes, self._policy)

    def _compute_episode_series(self, guard: Guard) -> GuardSeries:
        measure = guard.condition.measure
        last_alarm = self._state.last_alarms.get(guard.id)
        restarted = None
        if last_alarm is not None and guard.narrows:
            restarted = find_slot_before(last_alarm, self._policy.tick)
        per_day = self._policy.expect.units_per_day
        if measure.is_of_site:
            votes = self._feeds.read_votes(self._cell.site, self._view.version, guard)
            per_day = None if per_day is None else per_day * len(self._policy.windows)
            return votes.compute_series(guard, self._policy, per_day, restarted)
        rows = self._select_closed(audits=measure.reads_audits)
        if measure.reads_audits and per_day is not None:
            per_day *= max(stage.audit or 0.0 for stage in self._policy.stages)
        return compute_episode_series(
            guard,
            rows.slot,
            self._unit_classes.is_missing[rows.unit_class],
            self._policy,
            expected_per_day=per_day,
            restarted=restarted,
        )

    def _compute_silence_series(self, guard: Guard) -> GuardSeries:
        signs, site = (
            self._feeds.read_signs(self._cell.site),
            self._policy.sites_by_id[self._cell.site],
        )
        return compute_cell_silences(
            guard,
            signs,
            site,
            self._policy,
            self._cell.window,
            self._feeds.last_slot,
        )

    def _find_harm_start(self, guard: Guard) -> datetime:
        """Return when harm last narrowed the cell, or it left shadow: no case narrows twice."""
        left_shadow_at = self._state.grants[0].held_evidence_start
        last_alarm = self._state.last_alarms.get(guard.id)
        if last_alarm is None or guard.then == "report":
            return left_shadow_at
        return max(left_shadow_at, last_alarm)

    def _select_assisted(self, rows: UnitArrays) -> UnitArrays:
        """Return the units whose reviewer saw the proposal, by stage and bucket."""
        if self._unit_classes.has_values:
            rows = rows.select(self._view.find_familiar(rows))
        stage_levels = self._stage_history.find_levels(rows.occurred)
        is_confirmed = (stage_levels > 0) & ~self._shares.model_decides[stage_levels]
        return rows.select(
            is_confirmed
            & (
                self._view.find_buckets_at(rows, stage_levels)
                >= self._shares.blind_buckets[stage_levels]
            )
        )

    def _select_watched_arms(self, guard: Guard, condition: Condition) -> ArmUnits:
        """Return both arms since the stage's change and the guard's last alarm."""
        first_slot = self._view.find_first_slot(self._state.changed_at)
        last_alarm, after_slot = self._state.last_alarms.get(guard.id), FIRST_SLOT
        if last_alarm is not None:
            after_slot = find_slot_before(last_alarm, self._policy.tick)
        return self._view.arm_reader.read_watched(
            condition.population.outcome, first_slot, after_slot
        )

    def _select_detector_rows(self, guard: Guard) -> UnitArrays:
        """Return a guard's rows since the stage's change and its last alarm."""
        reads_assisted = guard.condition.measure.reads_assisted
        has_episodes = names_slices(guard.condition)  # that last until recovery, unless they narrow
        find_start = self._state.find_detector_start
        since = find_start(guard.id).changed_at if has_episodes else self._state.changed_at
        last_alarm, after_slot = self._state.last_alarms.get(guard.id), FIRST_SLOT
        if last_alarm is not None and (guard.narrows or not has_episodes):
            after_slot = find_slot_before(last_alarm, self._policy.tick)
        first_slot = self._view.find_first_slot(since)
        key = (reads_assisted, first_slot, after_slot)
        if key not in self._detector_rows:
            rows = self._view.rows.assisted if reads_assisted else self._view.rows.guard
            rows = rows.select_since(first_slot, after_slot)
            select = self._select_assisted if reads_assisted else self._view.select_visible
            self._detector_rows[key] = select(rows)
        return self._detector_rows[key]

    def _select_closed(self, *, audits: bool) -> UnitArrays:
        """Return the closed units since the stage's change, or the audits among them."""
        since = self._view.find_first_slot(self._state.changed_at)
        rows = self._view.select_visible(self._view.rows.gate.select_since(since))
        is_kept = self._unit_classes.is_whole_unit[rows.unit_class]
        if audits:
            stage_levels = self._stage_history.find_levels(rows.occurred)
            is_kept &= self._shares.model_decides[stage_levels] & (
                self._view.find_buckets_at(rows, stage_levels)
                >= self._shares.blind_buckets[stage_levels]
            )
        return rows.select(is_kept)

    @cached_property
    def _visible_rows(self) -> UnitArrays:
        return self._view.select_visible(self._view.rows.guard)


class GuardFeeds(Protocol):
    """Records that guards read besides decisions: answers, arrivals and harm."""

    def read_answers(self, cell: Cell, version: str, guard: Guard) -> tuple[Ints, Ints, Bools]:
        """Return slot, occurred slot and badness of a guard's answers.

        For guards of harm these are outcomes instead.
        """

    def read_votes(self, site: str, version: str, guard: Guard) -> SiteVotes:
        """Return a site's answers, one per unit and minute."""

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's units in a cell with the value of an outcome."""

    def read_signs(self, site: str) -> SiteSigns:
        """Return the instants of the site's cases and signs of life."""

    @property
    def last_slot(self) -> int:
        """Return the last slot in which any site sent anything."""


@dataclass(frozen=True)
class ArmReader:
    """Reads a version's units of both arms in a cell."""

    cell: Cell
    version: str
    stage_history: StageHistory
    shares: StageShares
    feeds: GuardFeeds

    def read_units(self, outcome: OutcomeRule, arm: str, first_slot: int) -> ArmUnits:
        """Return the units as evidence, by slots of occurrence."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome).drop_unsourced_values()
        return self._build_arms(rows.select(rows.occurred >= first_slot), arm)

    def read_watched(self, outcome: OutcomeRule, first_slot: int, after_slot: int) -> ArmUnits:
        """Return the units for guards, by slots of occurrence and of counting.

        Values of no source of evidence are among them: they may narrow.
        """
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        is_watched = (rows.occurred >= first_slot) & (rows.slot > after_slot)
        return self._build_arms(rows.select(is_watched), "")

    def _build_arms(self, rows: OutcomeUnits, arm: str) -> ArmUnits:
        stage_levels = self.stage_history.find_own_levels(self.version, rows.occurred)
        return build_arms(rows, stage_levels, self.shares, arm)

    def count_staged(self, outcome: OutcomeRule, arm: str) -> int:
        """Return how many units were at stages with two arms, whether or not in one."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        stage_levels = self.stage_history.find_own_levels(self.version, rows.occurred)
        return count_staged(stage_levels, self.shares, arm)

    def count_source_faults(self, outcome: OutcomeRule, arm: str) -> dict[str, int]:
        """Return by reason the units at stages with two arms whose values don't count."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        numbers = enumerate(SOURCE_FAULTS[1:], 1)
        parts = {fault: rows.select(rows.source_fault == number) for number, fault in numbers}
        find_levels = self.stage_history.find_own_levels
        counts = {
            fault: count_staged(find_levels(self.version, part.occurred), self.shares, arm)
            for fault, part in parts.items()
        }
        return {fault: count for fault, count in counts.items() if count}

    def has_recorded_arms(self, outcome: OutcomeRule) -> bool:
        """Return whether the records say which arm a unit was in; without, the stage says it."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        return not bool((rows.drawn_arm == UNRECORDED).any())


CountArray = NDArray[np.int32]
"""Sums after each number of rows: below 2³¹, and kept for every cell."""


class SliceRows:
    """The rows that count for a slice condition, ordered by value and then by slot.

    `positions` are their row numbers; `columns` the successes, failures and missing decisions.
    """

    def __init__(self, rows: UnitArrays, unit_classes: UnitClasses, condition: Condition) -> None:
        counts = unit_classes.take_counts(condition, rows)
        codes, self.values = unit_classes.get_slice_codes(condition.population.attribute)
        counted = np.flatnonzero(counts.any(axis=1))
        order = np.argsort(codes[rows.unit_class[counted]], kind="stable")
        self.positions: Ints = counted[order]
        self.codes: Ints = codes[rows.unit_class[self.positions]]
        is_missing = unit_classes.is_missing[rows.unit_class[self.positions]]
        self.columns: Ints = np.column_stack([counts[self.positions], is_missing])
        self.is_first: Bools = np.diff(self.codes, prepend=-1) != 0
        self._row_count = len(rows)

    def count_before(self, position: int) -> ValueCounts:
        """Return the counts of each value in the first rows."""
        is_counted = self.positions < position
        codes, columns = self.codes[is_counted], self.columns[is_counted]
        sums = [np.bincount(codes, weights=column) for column in columns.T]
        return {
            self.values[code]: SliceCounts(*(int(column[code]) for column in sums))
            for code in np.unique(codes).tolist()
        }

    def find_passing(self, condition: Condition, risk: float, *, has_minimum: bool) -> Bools:
        """Return whether every value seen passes after each number of rows; none seen fails.

        The shape is (rows + 1,).
        """
        agreed, disagreed, missing = self._cumulate_by_value().T
        is_passing = get_gate_threshold(condition.share, risk).are_met(agreed, disagreed)
        if has_minimum:
            is_passing &= agreed + disagreed - missing >= condition.population.minimum
        fails = (~is_passing).astype(np.int64)
        failed_before = np.where(self.is_first, 0, np.roll(fails, 1))
        failing = self._sum_over_rows(fails - failed_before)
        value_count = self._sum_over_rows(self.is_first.astype(np.int64))
        passing: Bools = (failing == 0) & (value_count > 0) & (value_count <= MAX_SLICE_VALUES)
        return passing

    def _cumulate_by_value(self) -> Ints:
        """Return the running counts of each row's value, that row included."""
        cumulative = np.cumsum(self.columns, axis=0)
        starts = np.flatnonzero(self.is_first)
        before = cumulative[starts] - self.columns[starts]
        sums: Ints = cumulative - before[np.cumsum(self.is_first) - 1]
        return sums

    def _sum_over_rows(self, changes: Ints) -> Ints:
        sums = np.zeros(self._row_count + 1, dtype=np.int64)
        sums[self.positions + 1] = changes
        return np.cumsum(sums)


class CountWindow:
    """Cumulative counts of a span's gate rows.

    Args:
        rows: the rows of the span, sorted by slot.
        unit_classes: the classes of the history.
        conditions: the conditions whose counts are needed.
        arms: per gain, the units of both arms in the span.
        planted: the rows of planted cases in the span, which only conditions about them count.
    """

    def __init__(
        self,
        rows: UnitArrays,
        unit_classes: UnitClasses,
        conditions: tuple[Condition, ...],
        arms: Mapping[MeasureKey, ArmUnits] | None = None,
        planted: UnitArrays | None = None,
    ) -> None:
        self._rows = rows
        self._unit_classes = unit_classes
        self._arms = arms or {}
        self._conditions = {c.key: c for c in conditions if c.population.sums_units}
        self._planted_conditions = [c for c in conditions if c.population.is_planted]
        has_rows = planted is not None and bool(self._planted_conditions)
        self._planted = planted if planted is not None and has_rows else build_empty_arrays()

    @cached_property
    def slots(self) -> Ints:
        """Return the slots in which rows or outcomes are counted, ascending."""
        arm_slots = (units.slots for units in self._arms.values())
        other_slots = (self._planted.slot, *arm_slots)
        others = [slots for slots in other_slots if len(slots)]
        if others:
            return np.unique(np.concatenate([self._rows.slot, *others]))
        return self._rows.slot[find_run_starts(self._rows.slot)]

    @property
    def row_slots(self) -> Ints:
        """Return the slot of each row of the cases that occur, ascending."""
        return self._rows.slot

    def get_arms(self, condition: Condition) -> ArmUnits:
        """Return the units of both arms."""
        units = self._arms.get(condition.key)
        return build_empty_arms() if units is None else units

    def count_rows_by(self, slots: Ints) -> Ints:
        """Return the number of rows up to each slot."""
        return np.searchsorted(self._rows.slot, slots, side="right")

    def get_counts(self, condition: Condition) -> CountArray:
        """Return the condition's counts after each number of rows of its population.

        The shape is (rows + 1, width); widen the numbers before multiplying them.
        """
        counts = self._counts_cache.get(condition.key)
        if counts is None:
            counts = self._counts_cache[condition.key] = _cumulate(
                self._unit_classes.take_counts(condition, self._get_rows(condition))
            )
        return counts

    def get_counts_at(self, condition: Condition, slots: Ints) -> Ints:
        """Return the condition's counts up to each slot."""
        positions = np.searchsorted(self._get_rows(condition).slot, slots, side="right")
        return self.get_counts(condition)[positions].astype(np.int64)

    def _get_rows(self, condition: Condition) -> UnitArrays:
        """Return the rows of the population that the condition is about."""
        return self._planted if condition.population.is_planted else self._rows

    @cached_property
    def _counts_cache(self) -> dict[tuple[str, str | None, str | None], CountArray]:
        return {}

    def get_slice_rows(self, condition: Condition) -> SliceRows:
        """Return the condition's rows by value."""
        rows = self._slice_cache.get(condition.key)
        if rows is None:
            rows = self._slice_cache[condition.key] = SliceRows(
                self._rows, self._unit_classes, condition
            )
        return rows

    @cached_property
    def _slice_cache(self) -> dict[tuple[str, str | None, str | None], SliceRows]:
        return {}

    @cached_property
    def closed_counts(self) -> CountArray:
        """Return the closed units after each number of rows."""
        return _cumulate(self._is_whole_unit.astype(np.int64))

    @cached_property
    def missing_counts(self) -> CountArray:
        """Return the units without a decision after each number of rows."""
        return _cumulate(
            (self._is_whole_unit & self._unit_classes.is_missing[self._rows.unit_class]).astype(
                np.int64
            )
        )

    @cached_property
    def recent_starts(self) -> Ints:
        """Return after each number of rows how many come before the last seven days with units.

        A day begins with its first unit that counts. So what counts late is among the units of the
        day in which it counts.
        """
        newest_days = np.maximum.accumulate(self._rows.day)
        is_new = np.diff(newest_days, prepend=-1) > 0
        first_rows = np.flatnonzero(is_new)
        starts = np.zeros(len(self._rows) + 1, dtype=np.int64)
        day_numbers = np.cumsum(is_new) - 1
        starts[1:] = first_rows[np.maximum(day_numbers - RECENT_DAYS + 1, 0)]
        return starts

    def find_few_missing(self, missing_at_most: float, slots: Ints) -> Bools:
        """Return at which slots few units are missing, of all and of the last seven days."""
        ends = self.count_rows_by(slots)
        are_few = np.ones(len(slots), dtype=bool)
        for starts in (np.zeros_like(ends), self.recent_starts[ends]):
            closed = self.closed_counts[ends] - self.closed_counts[starts]
            missing = self.missing_counts[ends] - self.missing_counts[starts]
            are_few &= missing <= missing_at_most * closed
        return are_few

    @cached_property
    def judged_counts(self) -> CountArray:
        """Return the units with a decision after each number of rows."""
        return self.closed_counts - self.missing_counts

    def has_judged_unit(self, slot: int) -> bool:
        """Return whether a unit with a decision was counted by `slot`, which is quick to find."""
        return bool((self._is_judged & (self._rows.slot <= slot)).any())

    def find_first_evidence(self) -> int | None:
        """Return the slot of the first unit that counts for or against the model, or None.

        Planted units begin no attempt: without others no gate opens.
        """
        classes = self._unit_classes
        is_evidence = classes.is_whole_unit & ~classes.is_missing
        for condition in self._conditions.values():
            is_evidence = is_evidence | (classes.get_class_counts(condition) > 0).any(axis=1)
        rows = np.flatnonzero(is_evidence[self._rows.unit_class])
        firsts = [int(units.slots[0]) for units in self._arms.values() if len(units)]
        if len(rows):
            firsts.append(int(self._rows.slot[rows[0]]))
        return min(firsts, default=None)

    @cached_property
    def day_counts(self) -> CountArray:
        """Return the local days with a decision after each number of rows."""
        return _count_distinct(self._rows.day, self._is_judged)

    @cached_property
    def reviewer_counts(self) -> CountArray:
        """Return the reviewers with a decision after each number of rows."""
        return _count_distinct(self._rows.reviewer, self._is_judged)

    def find_minimum(self, minimum: Minimum, slots: Ints) -> Bools:
        """Return at which slots there are enough units, reviewers and days."""
        positions = self.count_rows_by(slots)
        return (
            (self.judged_counts[positions] >= minimum.units)
            & (self.reviewer_counts[positions] >= minimum.reviewers)
            & (self.day_counts[positions] >= minimum.days)
        )

    @cached_property
    def _is_whole_unit(self) -> Bools:
        return self._unit_classes.is_whole_unit[self._rows.unit_class]

    @cached_property
    def _is_judged(self) -> Bools:
        return self._is_whole_unit & ~self._unit_classes.is_missing[self._rows.unit_class]

    def count_at(self, slot: int) -> EvidenceCounts:
        """Return the counts up to and including `slot`."""
        last = np.array([slot])
        position = int(self.count_rows_by(last)[0])
        start = int(self.recent_starts[position])
        return EvidenceCounts(
            closed=int(self.closed_counts[position]),
            missing=int(self.missing_counts[position]),
            recent_closed=int(self.closed_counts[position] - self.closed_counts[start]),
            recent_missing=int(self.missing_counts[position] - self.missing_counts[start]),
            losses={
                reason: int(counts[position])
                for reason, counts in self._loss_counts.items()
                if counts[position]
            },
            days=int(self.day_counts[position]),
            reviewers=int(self.reviewer_counts[position]),
            counts={
                condition.key: tuple(self.get_counts(condition)[position].tolist())
                for condition in self._conditions.values()
            }
            | {
                condition.key: tuple(self.get_counts_at(condition, last)[0].tolist())
                for condition in self._planted_conditions
            },
            arms={key: units.select(units.slots <= slot) for key, units in self._arms.items()},
            slices={
                key: self.get_slice_rows(condition).count_before(position)
                for key, condition in self._conditions.items()
                if condition.population.attribute
            },
        )

    @cached_property
    def _loss_counts(self) -> dict[str, CountArray]:
        """Return by reason the missing units after each number of rows."""
        reasons = self._unit_classes.loss_reasons
        present = np.unique(self._rows.unit_class)
        names = dict.fromkeys(reasons[code] for code in present.tolist() if reasons[code])
        counts: dict[str, CountArray] = {}
        for name in names:
            has_reason = np.array([reason == name for reason in reasons], dtype=bool)
            is_lost = self._is_whole_unit & has_reason[self._rows.unit_class]
            counts[name] = _cumulate(is_lost.astype(np.int64))
        return counts


def _cumulate(increments: Ints) -> CountArray:
    sums = np.zeros((len(increments) + 1, *increments.shape[1:]), dtype=np.int32)
    np.cumsum(increments, axis=0, out=sums[1:])
    return sums


def _count_distinct(values: Ints, mask: Bools) -> CountArray:
    """Return the number of different masked values after each number of rows."""
    is_first = np.zeros(len(values), dtype=np.int64)
    positions = np.flatnonzero(mask)
    is_first[positions[find_first_positions(values[positions])]] = 1
    return _cumulate(is_first)
