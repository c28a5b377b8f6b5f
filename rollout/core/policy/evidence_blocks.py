"""Blocks of evidence: at the start of each one, a gate may begin to judge anew."""

from dataclasses import dataclass
from typing import Final

MIN_BLOCK_UNITS: Final = 50  # smaller blocks only share the weight among more starts
MAX_BLOCK_UNITS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class BlockRule:
    """How a policy that forgets cuts evidence: into weeks, or by number of units.

    `units` is 0 for weeks. A block has at least that many closed units: it ends with a slot.
    """

    units: int = 0

    def __str__(self) -> str:
        """Return the rule as a policy file has it.

        >>> str(BlockRule()), str(BlockRule(200))
        ('weekly', '200 units')
        """
        return f"{self.units} units" if self.units else "weekly"

    @property
    def block_text(self) -> str:
        """Return what a block is, as a sentence of its own.

        >>> BlockRule(1000).block_text
        'A block is 1,000 closed units.'
        """
        if self.units:
            return f"A block is {self.units:,} closed units."
        return "A block is a week, counted from Monday 00:00 UTC."
