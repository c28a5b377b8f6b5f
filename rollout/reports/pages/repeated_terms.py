"""Long terms of conditions: in full where a section first has them, then short."""

from typing import Final

from rollout.core.policy.planted_conditions import PLANTED_TERMS

SECTION_START: Final = '<div class="fold-in"'


def shorten_repeated_terms(page: str) -> str:
    """Return a page whose sections have the terms of planted conditions once each.

    >>> print(shorten_repeated_terms(f"A{PLANTED_TERMS} at least 1; B{PLANTED_TERMS} at least 2"))
    A, not of those that occur, missing decisions counted against it, at least 1; B at least 2
    """
    return SECTION_START.join(_shorten_section(part) for part in page.split(SECTION_START))


def _shorten_section(text: str) -> str:
    before, terms, after = text.partition(PLANTED_TERMS)
    return before + terms + after.replace(PLANTED_TERMS, "")
