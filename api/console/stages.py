"""Stages as pages mark them: a code of letters, a pattern that survives grey, who decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rollout.core.places import SHADOW
from rollout.core.policy import Policy

EMPTY, HATCHED, SOLID, HELD = "0", "1", "2", "held"
PEOPLE_DECIDE: Final = "people decide"


@dataclass(frozen=True, slots=True)
class Mark:
    """How a stage is drawn and said.

    Attributes:
        name: of the stage, as the policy calls it.
        code: its first two letters, or three where two stages begin alike.
        look: `0` empty, `1` hatched, `2` solid, `held` bars: the classes and patterns of the maps.
        says: who decides there.
    """

    name: str
    code: str
    look: str
    says: str


def marks_of(policy: Policy) -> Mapping[str, Mark]:
    """Return the mark of each stage of a policy by its name, shadow first."""
    codes = _codes(policy.rungs)
    marks = {SHADOW: Mark(SHADOW, codes[SHADOW], EMPTY, PEOPLE_DECIDE)}
    for stage in policy.stages:
        look, says = (
            (SOLID, "model decides") if stage.model_decides else (HATCHED, "people confirm")
        )
        marks[stage.id] = Mark(stage.id, codes[stage.id], look, says)
    return marks


def withheld(marks: Mapping[str, Mark]) -> Mark:
    """Return the mark of a cell whose grants are withheld: people decide, as in shadow."""
    return Mark("suspended or stopped", marks[SHADOW].code, HELD, PEOPLE_DECIDE)


def withheld_as(marks: Mapping[str, Mark], word: str) -> Mark:
    """Return the same mark under one word alone: `stopped` or `suspended`."""
    return Mark(word, marks[SHADOW].code, HELD, PEOPLE_DECIDE)


def _codes(names: Sequence[str]) -> dict[str, str]:
    for letters in range(2, max(map(len, names)) + 1):
        codes = {name: name[:letters].capitalize() for name in names}
        if len(set(codes.values())) == len(names):
            return codes
    return {name: name for name in names}


SHOWN_STAGES: Final = (
    Mark("shadow", "Sh", EMPTY, "people decide"),
    Mark("supervised", "Su", HATCHED, "people confirm"),
    Mark("autonomous", "Au", SOLID, "model decides"),
    Mark("suspended or stopped", "Sh", HELD, "people decide"),
)
"""The legend where rollouts with stages of their own stand side by side."""
