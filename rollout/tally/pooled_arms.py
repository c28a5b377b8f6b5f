"""Units of both arms of one version, in a cell or in all cells of a pool.

Each cell has its own stages, so its own probabilities of the model's arm; a gain weighs each unit
by the probability that it had.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.policy.outcomes import GainCondition, OutcomeRule
from rollout.core.policy.policy import Policy
from rollout.core.policy.pools import find_widest_pool, list_pooled_cells
from rollout.core.policy.wave_conditions import WAVE_POOL
from rollout.core.statistics.gain import ArmUnits, merge_arms
from rollout.tally.guard_feeds import GuardFeeds
from rollout.tally.outcome_units import (
    SOURCE_FAULTS,
    UNRECORDED,
    OutcomeUnits,
    build_arms,
    count_staged,
)
from rollout.tally.stage_history import StageHistory, StageShares
from rollout.tally.unit_arrays import CellUnitArrays

CellVersion = tuple[Cell, str]


@dataclass(frozen=True)
class ArmReader:
    """Reads a version's units of both arms.

    `stage_histories` has the cell that is judged, and those whose units count with its own.
    """

    policy: Policy
    version: str
    stage_histories: Mapping[Cell, StageHistory]
    shares: StageShares
    feeds: GuardFeeds

    def read_cell(self, cell: Cell, outcome: OutcomeRule, arm: str, first_slot: int) -> ArmUnits:
        """Return a cell's units as evidence, by slots of occurrence."""
        rows = self.feeds.read_outcomes(cell, self.version, outcome).drop_unsourced_values()
        return self._build_arms(cell, rows.select(rows.occurred >= first_slot), arm)

    def read_watched(
        self, cell: Cell, outcome: OutcomeRule, first_slot: int, after_slot: int
    ) -> ArmUnits:
        """Return a cell's units for guards, by slots of occurrence and of counting.

        Values of no source of evidence are among them: they may narrow.
        """
        rows = self.feeds.read_outcomes(cell, self.version, outcome)
        is_watched = (rows.occurred >= first_slot) & (rows.slot > after_slot)
        return self._build_arms(cell, rows.select(is_watched), "")

    def _build_arms(self, cell: Cell, rows: OutcomeUnits, arm: str) -> ArmUnits:
        stage_levels = self.stage_histories[cell].find_own_levels(self.version, rows.occurred)
        return build_arms(rows, stage_levels, self.shares, arm)

    def count_staged(self, cell: Cell, outcome: OutcomeRule, arm: str) -> int:
        """Return how many units a cell had at stages with two arms, whether or not in one."""
        rows = self.feeds.read_outcomes(cell, self.version, outcome)
        stage_levels = self.stage_histories[cell].find_own_levels(self.version, rows.occurred)
        return count_staged(stage_levels, self.shares, arm)

    def count_source_faults(self, cell: Cell, outcome: OutcomeRule, arm: str) -> dict[str, int]:
        """Return by reason the units at stages with two arms whose values don't count."""
        rows = self.feeds.read_outcomes(cell, self.version, outcome)
        numbers = enumerate(SOURCE_FAULTS[1:], 1)
        parts = {fault: rows.select(rows.source_fault == number) for number, fault in numbers}
        find_levels = self.stage_histories[cell].find_own_levels
        counts = {
            fault: count_staged(find_levels(self.version, part.occurred), self.shares, arm)
            for fault, part in parts.items()
        }
        return {fault: count for fault, count in counts.items() if count}

    def has_recorded_arms(self, cell: Cell, outcome: OutcomeRule) -> bool:
        """Return whether the records say which arm a unit was in; without, the stage says it."""
        rows = self.feeds.read_outcomes(cell, self.version, outcome)
        return not bool((rows.drawn_arm == UNRECORDED).any())

    def read_pool(self, cell: Cell, condition: GainCondition, first_slot: int) -> ArmUnits:
        """Return the units of all cells of a condition's pool, from the same slot on.

        The slot is that of the cell that is judged: a start of each cell's own would leave out what
        a cell lost before its evidence began anew.
        """
        cells = list_pooled_cells(self.policy, cell, condition.pool)
        return merge_arms(
            [self.read_cell(each, condition.outcome, condition.arm, first_slot) for each in cells]
        )


def collect_pool_histories(
    policy: Policy, cell: Cell, get_stage_history: Callable[[Cell], StageHistory]
) -> Mapping[Cell, StageHistory]:
    """Return the stages of all cells whose units may count with a cell's own, and its own."""
    cells = list_pooled_cells(policy, cell, find_widest_pool(policy))
    return {pooled_cell: get_stage_history(pooled_cell) for pooled_cell in cells}


def collect_pool_rows(
    policy: Policy, key: CellVersion, get_rows: Callable[[CellVersion], CellUnitArrays]
) -> Mapping[Cell, CellUnitArrays]:
    """Return a version's units in all cells of a wave; {} if no gate counts a wave together."""
    cell, version = key
    if find_widest_pool(policy) != WAVE_POOL:
        return {}
    cells = list_pooled_cells(policy, cell, WAVE_POOL)
    return {pooled_cell: get_rows((pooled_cell, version)) for pooled_cell in cells}
