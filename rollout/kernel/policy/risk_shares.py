"""Shares of a gate's risk: how much of it each attempt may use.

The attempts of a cell are numbered over all versions from 1 January on, and their shares sum to at
most 1: however many versions are tried, the chance that one of the year's attempts
opens a gate wrongly is at most the gate's risk.
"""

from collections.abc import Sequence
from typing import Final

# The sum of k^-1.5 over all whole numbers k from 1 on: Riemann's zeta function at 1.5.
_ZETA_OF_THREE_HALVES: Final = 2.6123753486854883
PLANNED_SHARE: Final = 0.8
"""What the releases that a policy plans for share equally; later ones share the rest."""


def compute_yearly_share(number: int, releases: int = 0) -> float:
    """Return the share of the attempt with this number in its cell's year.

    Args:
        number: of the attempt, from 1.
        releases: how many attempts a year the policy plans for; 0 if it doesn't say.

    >>> [round(compute_yearly_share(number), 9) for number in (1, 2, 5)]
    [0.382793384, 0.135337899, 0.034238081]
    >>> compute_yearly_share(4, releases=4), round(compute_yearly_share(5, releases=4), 9)
    (0.2, 0.1)
    """
    if not releases:
        return float(number**-1.5) / _ZETA_OF_THREE_HALVES
    if number <= releases:
        return PLANNED_SHARE / releases
    later = number - releases
    return (1 - PLANNED_SHARE) / (later * (later + 1))


def describe_attempt(number: int, share: float) -> str:
    """Describe an attempt by its number in the cell's year and its share of the risk.

    >>> describe_attempt(4, compute_yearly_share(4))
    "attempt 4 of the year in this cell, over all versions, with 4.78 % of the gate's risk"
    """
    return (
        f"attempt {number} of the year in this cell, over all versions, with {share * 100:.3g} % of"
        " the gate's risk"
    )


def describe_restart(cell: str, questions: Sequence[str], number: int, share: float) -> str:
    """Describe what an edit costs a cell: its next attempt; without questions for a higher risk.

    >>> describe_restart("creek/day", ["agreement at least 95 %"], 2, compute_yearly_share(2))
    ... # doctest: +ELLIPSIS
    "creek/day: agreement at least 95 % starts anew, as attempt 2 of the year in this cell, ..."
    """
    subject = ", ".join(questions) or "evidence for a higher risk"
    verb = "start" if len(questions) > 1 else "starts"
    return (
        f"{cell}: {subject} {verb} anew, as {describe_attempt(number, share)}; only units that"
        " occur from then on count"
    )


def describe_releases(releases: int) -> str:
    """Return how a year's attempts share the risk, for a sentence.

    >>> describe_releases(12)
    'the first 12 attempts of a year share 80 % of the risk equally'
    """
    if not releases:
        return "each attempt of a year gets a smaller share of the risk than the one before"
    attempts = "attempt of a year has" if releases == 1 else f"{releases} attempts of a year share"
    return f"the first {attempts} {PLANNED_SHARE * 100:g} % of the risk" + (
        "" if releases == 1 else " equally"
    )
