"""Where the page of a case is: its key may hold anything, slashes, dots and line ends among it."""

from typing import Final
from urllib.parse import quote

from api.console.wording import segment

STEPS: Final = frozenset({".", ".."})
"""What browsers take out of a path, however it is written."""


def case_address(rollout: str, key: str) -> str:
    """Return the page of a case, below the console's home.

    >>> case_address("bears", "creek/0412"), case_address("bears", "..")
    ('/rollouts/bears/cases/creek%2F0412', '/rollouts/bears/cases?key=..')
    """
    cases = f"/rollouts/{segment(rollout)}/cases"
    return f"{cases}/{segment(key)}" if in_path(key) else f"{cases}?key={quote(key, safe='')}"


def in_path(key: str) -> bool:
    r"""Say whether a key can stand in a path: what servers and browsers read anew can not.

    >>> in_path("creek/0412"), in_path(".."), in_path("50%"), in_path("two\nlines")
    (True, False, False, False)
    """
    return key not in STEPS and "%" not in key and key.isprintable()
