"""Conditions of gates that count the cells of one wave and window together.

The sum must reach the threshold, and each cell by itself a lower one: an average alone says nothing
of one cell. All cells are one question: the chance that it is ever met although the average of
their units misses the threshold, or one of them the lower one, is at most the risk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from rollout.core.late_modules import LateModule
from rollout.core.policy.measures import Condition
from rollout.core.statistics.evidence import compute_log_e
from rollout.core.statistics.gate_thresholds import get_gate_threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = LateModule("numpy")

WAVE_POOL: Final = "wave"
MAX_WAVE_SITES: Final = 100  # a proposal lists the counts of each
WAVE_MEASURES: Final = frozenset({"agreement", "recall", "precision"})

Ints: TypeAlias = "NDArray[np.int64]"
Bools: TypeAlias = "NDArray[np.bool_]"


class SiteCounts(NamedTuple):
    """Successes and failures of one site of a wave, in the window of the judged cell."""

    site: str
    agreed: int
    disagreed: int


WaveCounts: TypeAlias = tuple[SiteCounts, ...]


@dataclass(frozen=True, slots=True)
class WaveCondition(Condition):
    """A threshold for a wave's cells together; `each_line` is that of each by itself."""

    each_line: float = field(kw_only=True)

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Return what is measured and over what, without the thresholds."""
        return (f"{self.measure} of {WAVE_POOL}", self.label, self.lever)

    def __str__(self) -> str:
        r"""Return the condition as text.

        >>> text = str(WaveCondition("agreement", 0.95, at_least=True, each_line=0.85))
        >>> print(text.replace(", ", ",\n"))
        agreement over all cells of the wave at least 95 %,
        in each cell at least 85 %
        """
        label = f" of {self.label}" if self.label else ""
        lever = f" ({self.lever})" if self.lever else ""
        return (
            f"{self.measure}{label}{lever} over all cells of the wave at least"
            f" {self.threshold_text}, in each cell at least {self.each_text}"
        )

    @property
    def each_text(self) -> str:
        """Return the threshold of each cell."""
        return f"{self.each_line * 100:g} %"

    @property
    def cell_condition(self) -> Condition:
        """Return what each cell must reach by itself."""
        return Condition(self.measure, self.each_line, self.at_least, self.label, self.lever)


def are_waves_met(condition: WaveCondition, counts: Ints, risk: float) -> Bools:
    """Return at which looks the sum and each cell are met; a cell without records never is.

    Args:
        condition: gives both thresholds.
        counts: successes and failures, shape (looks, cells, 2).
        risk: of the whole question, in (0, 1].
    """
    each = get_gate_threshold(condition.each_line, risk)
    if not counts.shape[1]:
        return np.zeros(len(counts), dtype=bool)
    is_each = each.are_met(counts[:, :, 0], counts[:, :, 1]) & (counts.sum(axis=2) > 0)
    sums = counts.sum(axis=1)
    is_met: Bools = get_gate_threshold(condition.line, risk).are_met(sums[:, 0], sums[:, 1])
    is_met[~np.all(is_each, axis=1)] = False
    return is_met


def is_wave_met(condition: WaveCondition, counts: WaveCounts, risk: float) -> bool:
    """Return whether a wave's counts are met, as in `are_waves_met`."""
    each, (agreed, disagreed) = get_gate_threshold(condition.each_line, risk), sum_counts(counts)
    return (
        bool(counts)
        and get_gate_threshold(condition.line, risk).is_met(agreed, disagreed)
        and all(part.agreed + part.disagreed for part in counts)
        and all(each.is_met(part.agreed, part.disagreed) for part in counts)
    )


def has_wave_turned(condition: WaveCondition, counts: WaveCounts) -> bool:
    """Return whether the sum's E, or that of a cell, is below 1; it is 1 without records."""
    each, (agreed, disagreed) = get_gate_threshold(condition.each_line, 1.0), sum_counts(counts)
    return not (
        get_gate_threshold(condition.line, 1.0).is_met(agreed, disagreed)
        and all(each.is_met(part.agreed, part.disagreed) for part in counts)
    )


def compute_wave_log_e(condition: WaveCondition, counts: WaveCounts) -> float:
    """Return ln of the least E, of the sum and of each cell: the rule asks that all are enough."""
    if not counts:
        return 0.0
    each = (compute_log_e(p.agreed, p.disagreed, at_least=condition.each_line) for p in counts)
    agreed, disagreed = sum_counts(counts)
    return min(*each, compute_log_e(agreed, disagreed, at_least=condition.line))


def sum_counts(counts: WaveCounts) -> tuple[int, int]:
    """Return the successes and failures of all cells."""
    return sum(part.agreed for part in counts), sum(part.disagreed for part in counts)


def format_wave_counts(counts: WaveCounts) -> str:
    """Return the counts of each site as the ledger stores them, signs in names as in addresses.

    >>> format_wave_counts((SiteCounts("creek", 300, 5), SiteCounts("north gate", 0, 0)))
    'creek 300+5 north%20gate 0+0'
    """
    return " ".join(f"{quote(p.site, safe='')} {p.agreed}+{p.disagreed}" for p in counts)


def parse_wave_counts(text: str) -> WaveCounts:
    """Return the counts that `format_wave_counts` wrote.

    >>> parse_wave_counts("creek 300+5")
    (SiteCounts(site='creek', agreed=300, disagreed=5),)
    """
    words = text.split()
    pairs = zip(words[::2], (word.split("+") for word in words[1::2]), strict=True)
    return tuple(SiteCounts(unquote(site), *map(int, numbers)) for site, numbers in pairs)


def describe_wave_promise(condition: WaveCondition, counts: WaveCounts = ()) -> str:
    r"""Return what a met condition promises, with the cells' number and the largest if counted.

    >>> condition = WaveCondition("agreement", 0.95, at_least=True, each_line=0.85)
    >>> counts = (SiteCounts("creek", 300, 5), SiteCounts("lodge", 100, 1))
    >>> print(describe_wave_promise(condition, counts).replace(" and ", "\nand "))
    The average agreement over all cases of these 2 cells (75 % of them from creek) is at least 95 %
    and no cell is below 85 %; a single cell may be below 95 %.
    """
    measure = f"{condition.measure} of {condition.label}" if condition.label else condition.measure
    total = sum(sum_counts(counts))
    cells = "the wave's cells in a window"
    if total:
        largest = max(counts, key=lambda part: part.agreed + part.disagreed)
        share = (largest.agreed + largest.disagreed) / total * 100
        cells = f"these {len(counts)} cells ({share:.0f} % of them from {largest.site})"
    return (
        f"The average {measure} over all cases of {cells} is at least {condition.threshold_text}"
        f" and no cell is below {condition.each_text}; a single cell may be below"
        f" {condition.threshold_text}."
    )
