"""Counts of each value of a sliced attribute, and where all values pass, row by row."""

import numpy as np

from rollout.core.policy.cell_evidence import SliceCounts, ValueCounts
from rollout.core.policy.slice_conditions import MAX_SLICE_VALUES, SliceCondition
from rollout.core.statistics.gate_thresholds import get_gate_threshold
from rollout.tally.unit_arrays import BoolArray, IntArray, UnitArrays, UnitClasses


class SliceRows:
    """The rows that count for a slice condition, ordered by value and then by slot.

    `positions` are their row numbers; `columns` the successes, failures and missing decisions.
    """

    def __init__(
        self, rows: UnitArrays, unit_classes: UnitClasses, condition: SliceCondition
    ) -> None:
        counts = unit_classes.get_class_counts(condition)[rows.unit_class]
        codes, self.values = unit_classes.get_slice_codes(condition.slice)
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

    def find_passing(
        self, condition: SliceCondition, risk: float, *, has_minimum: bool
    ) -> BoolArray:
        """Return whether every value seen passes after each number of rows; none seen fails.

        The shape is (rows + 1,).
        """
        agreed, disagreed, missing = self._cumulate_by_value().T
        is_passing = get_gate_threshold(condition.line, risk).are_met(agreed, disagreed)
        if has_minimum:
            is_passing &= agreed + disagreed - missing >= condition.minimum
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
