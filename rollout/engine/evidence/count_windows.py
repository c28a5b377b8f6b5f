"""Cumulative counts of a time span of a cell's evidence, readable at any slot."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.unit_arrays import (
    BoolArray,
    IntArray,
    UnitArrays,
    UnitClasses,
    build_empty_arrays,
    find_first_positions,
    find_run_starts,
)
from rollout.kernel.facts import RECENT_DAYS
from rollout.kernel.measures import Condition, MeasureKey
from rollout.kernel.policy.cell_evidence import (
    MAX_SLICE_VALUES,
    EvidenceCounts,
    SliceCounts,
    ValueCounts,
)
from rollout.kernel.policy.policy import Minimum
from rollout.kernel.statistics.gain import ArmUnits, build_empty_arms
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold

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
        self.positions: IntArray = counted[order]
        self.codes: IntArray = codes[rows.unit_class[self.positions]]
        is_missing = unit_classes.is_missing[rows.unit_class[self.positions]]
        self.columns: IntArray = np.column_stack([counts[self.positions], is_missing])
        self.is_first: BoolArray = np.diff(self.codes, prepend=-1) != 0
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

    def find_passing(self, condition: Condition, risk: float, *, has_minimum: bool) -> BoolArray:
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
        passing: BoolArray = (failing == 0) & (value_count > 0) & (value_count <= MAX_SLICE_VALUES)
        return passing

    def _cumulate_by_value(self) -> IntArray:
        """Return the running counts of each row's value, that row included."""
        cumulative = np.cumsum(self.columns, axis=0)
        starts = np.flatnonzero(self.is_first)
        before = cumulative[starts] - self.columns[starts]
        sums: IntArray = cumulative - before[np.cumsum(self.is_first) - 1]
        return sums

    def _sum_over_rows(self, changes: IntArray) -> IntArray:
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
    def slots(self) -> IntArray:
        """Return the slots in which rows or outcomes are counted, ascending."""
        arm_slots = (units.slots for units in self._arms.values())
        other_slots = (self._planted.slot, *arm_slots)
        others = [slots for slots in other_slots if len(slots)]
        if others:
            return np.unique(np.concatenate([self._rows.slot, *others]))
        return self._rows.slot[find_run_starts(self._rows.slot)]

    @property
    def row_slots(self) -> IntArray:
        """Return the slot of each row of the cases that occur, ascending."""
        return self._rows.slot

    def get_arms(self, condition: Condition) -> ArmUnits:
        """Return the units of both arms."""
        units = self._arms.get(condition.key)
        return build_empty_arms() if units is None else units

    def count_rows_by(self, slots: IntArray) -> IntArray:
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

    def get_counts_at(self, condition: Condition, slots: IntArray) -> IntArray:
        """Return the condition's counts up to each slot."""
        rows = self._get_rows(condition)
        positions = np.searchsorted(rows.slot, slots, side="right")
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
    def recent_starts(self) -> IntArray:
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

    def find_few_missing(self, missing_at_most: float, slots: IntArray) -> BoolArray:
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

    def find_minimum(self, minimum: Minimum, slots: IntArray) -> BoolArray:
        """Return at which slots there are enough units, reviewers and days."""
        positions = self.count_rows_by(slots)
        return (
            (self.judged_counts[positions] >= minimum.units)
            & (self.reviewer_counts[positions] >= minimum.reviewers)
            & (self.day_counts[positions] >= minimum.days)
        )

    @cached_property
    def _is_whole_unit(self) -> BoolArray:
        return self._unit_classes.is_whole_unit[self._rows.unit_class]

    @cached_property
    def _is_judged(self) -> BoolArray:
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


def _cumulate(increments: IntArray) -> CountArray:
    sums = np.zeros((len(increments) + 1, *increments.shape[1:]), dtype=np.int32)
    np.cumsum(increments, axis=0, out=sums[1:])
    return sums


def _count_distinct(values: IntArray, mask: BoolArray) -> CountArray:
    """Return the number of different masked values after each number of rows."""
    is_first = np.zeros(len(values), dtype=np.int64)
    positions = np.flatnonzero(mask)
    is_first[positions[find_first_positions(values[positions])]] = 1
    return _cumulate(is_first)
