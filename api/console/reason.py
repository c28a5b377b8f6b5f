"""The reason that a person gives: asked for with a yes and a no, never with a stop."""

from typing import Final

MOST: Final = 2_000
"""Letters of a reason that are kept."""

FOR: Final = {"approve": "it is kept with your approval", "reject": "it is kept with your no"}


def fault(reason: str, act: str) -> str:
    """Say what is wrong with a reason to approve or reject, "" for nothing.

    >>> fault("", "approve"), fault("two cubs", "reject")
    ('Write a reason: it is kept with your approval', '')
    """
    if not reason:
        return f"Write a reason: {FOR[act]}"
    if len(reason) > MOST:
        return f"Say it in at most {MOST:,} letters; these are {len(reason):,}"
    if "\0" in reason:
        return "The reason holds a letter that no database keeps (NUL); write it again"
    return ""
