"""What answers are compared with, in words: only an outcome says that one is wrong."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TruthWords:
    """What answers are that agree with the truth, and those that don't."""

    right: str
    wrong: str


BY_OUTCOME: Final = TruthWords("right", "wrong")
BY_HUMANS: Final = TruthWords("as humans", "different from humans")
BY_BOTH: Final = TruthWords("right or as humans", "wrong or different from humans")


def choose_words(by_outcome: int, compared: int) -> TruthWords:
    """Return the words for answers to `compared` cases, of which `by_outcome` have an outcome.

    An answer that differs from humans may be the better one, above all where an objective counts
    what answers bring. So a human decision alone makes no answer wrong.

    >>> choose_words(9, 9).wrong, choose_words(0, 9).wrong, choose_words(4, 9).wrong
    ('wrong', 'different from humans', 'wrong or different from humans')
    """
    if not by_outcome:
        return BY_HUMANS
    return BY_OUTCOME if by_outcome == compared else BY_BOTH
