"""Feeds of readers that need gates alone: counted outcomes, and no records for guards."""

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.outcomes import OutcomeRule
from rollout.core.policy.policy import Guard
from rollout.tally.outcome_buffer import OutcomeBuffer
from rollout.tally.outcome_units import OutcomeUnits
from rollout.tally.site_signs import NO_SIGNS, SiteSigns
from rollout.tally.unit_arrays import BoolArray, IntArray

_NO_SLOTS: IntArray = np.empty(0, dtype=np.int64)


class GateFeeds:
    """Guard feeds with counted outcomes and without other records."""

    last_slot = 0

    def __init__(self, outcomes: OutcomeBuffer) -> None:
        self._outcomes = outcomes

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's counted units in a cell with the value of an outcome."""
        return self._outcomes.read_outcomes(cell, version, outcome)

    def read_answers(
        self, _cell: Cell, _version: str, _guard: Guard
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Return no observations."""
        return _NO_SLOTS, _NO_SLOTS, _NO_SLOTS.astype(bool)

    def read_votes(self, _site: str, _version: str, _guard: Guard) -> tuple[IntArray, BoolArray]:
        """Return no answers."""
        return _NO_SLOTS, _NO_SLOTS.astype(bool)

    def slots_with_records(self, _site: str) -> IntArray:
        """Return no slots."""
        return _NO_SLOTS

    def read_signs(self, _site: str) -> SiteSigns:
        """Return no signs."""
        return NO_SIGNS
