"""What guards and gates read besides decisions.

Units of both arms of one version in a cell.

A gain weighs each unit by the probability of the model's arm that it had.
"""

from dataclasses import dataclass
from typing import Protocol

from rollout.engine.evidence.episode_series import SiteVotes
from rollout.engine.evidence.outcome_buffer import (
    SOURCE_FAULTS,
    UNRECORDED,
    OutcomeUnits,
    build_arms,
    count_staged,
)
from rollout.engine.evidence.silence_series import SiteSigns
from rollout.engine.evidence.stage_history import StageHistory, StageShares
from rollout.engine.evidence.unit_arrays import BoolArray, IntArray
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.outcomes import OutcomeRule
from rollout.kernel.policy.policy import Guard
from rollout.kernel.statistics.gain import ArmUnits


class GuardFeeds(Protocol):
    """Records that guards read besides decisions: answers, arrivals and harm."""

    def read_answers(
        self, cell: Cell, version: str, guard: Guard
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Return slot, occurred slot and badness of a guard's answers.

        For guards of harm these are outcomes instead.
        """
        ...

    def read_votes(self, site: str, version: str, guard: Guard) -> SiteVotes:
        """Return a site's answers, one per unit and minute."""
        ...

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's units in a cell with the value of an outcome."""
        ...

    def read_signs(self, site: str) -> SiteSigns:
        """Return the instants of the site's cases and signs of life."""
        ...

    @property
    def last_slot(self) -> int:
        """Return the last slot in which any site sent anything."""
        ...


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
