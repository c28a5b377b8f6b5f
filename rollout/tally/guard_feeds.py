"""What guards and gates read besides decisions."""

from typing import Protocol

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Guard
from rollout.kernel.outcomes import OutcomeRule
from rollout.tally.episode_series import SiteVotes
from rollout.tally.outcome_units import OutcomeUnits
from rollout.tally.silence_series import SiteSigns
from rollout.tally.unit_arrays import BoolArray, IntArray


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
