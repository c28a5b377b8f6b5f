"""Readings of a gate's conditions as a proposal freezes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

from rollout.kernel.facts import parse_condition
from rollout.kernel.measures import Condition


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A condition with the figures on which a proposal rests; numbers are decimal text.

    Attributes:
        condition: its facts.
        counts: successes and failures; one per cost level; or of a gain the units by the model, by
            people and without outcome.
        log_e: ln E, with six decimals.
        risk: of the gate, at which it was read.
        estimate, bound: of a gain, in the outcome's unit; "" without units.
        draw_log_e: ln E against arms as they were drawn, where an arm lacks units; else "".
    """

    condition: Mapping[str, Any]
    counts: tuple[int, ...]
    log_e: str
    risk: str
    estimate: str = ""
    bound: str = ""
    draw_log_e: str = ""

    def parse_condition(self) -> Condition:
        """Return the condition."""
        return parse_condition(self.condition)

    @property
    def needed_log_e(self) -> float:
        """Return the least ln E that suffices, with six decimals."""
        return round(log(1 / float(self.risk)), 6)

    @property
    def is_enough(self) -> bool:
        """Return whether the evidence suffices, of a gain with arms as they were drawn."""
        return not self.draw_log_e and float(self.log_e) >= self.needed_log_e
