"""Questions about a file that its rows leave open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadingQuestion:
    """Several readings fit the rows of a file, or none does.

    Attributes:
        option: the option of `rollout init` that decides, such as `--date-format`.
        text: what is open, with examples.
        choices: the values that the option can have here.
    """

    option: str
    text: str
    choices: tuple[str, ...]
