"""Stage markers: code, pattern and text, the same in the console and in reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rollout.core.policy.stages import describe_share

EMPTY, HATCHED, SOLID, WITHHELD = "0", "1", "2", "held"
HUMANS_DECIDE: Final = "humans decide"
HUMANS_CONFIRM: Final = "humans confirm"
MODEL_DECIDES: Final = "model decides"


@dataclass(frozen=True, slots=True)
class StageMarker:
    """How a stage is drawn and described.

    Attributes:
        name: the stage's name in the policy.
        code: first two letters; three if two stages begin alike.
        pattern: `0` empty, `1` hatched, `2` solid, `held` bars: the classes and patterns of the
            maps.
        text: who decides at this stage.
    """

    name: str
    code: str
    pattern: str
    text: str


def build_markers(stages: Sequence[str], deciding: Mapping[str, float]) -> dict[str, StageMarker]:
    """Return a marker for each stage of a ladder, shadow first.

    Args:
        stages: the names, the lowest stage first.
        deciding: by those at which the model decides the share of cases drawn for it, 1 for all.
    """
    codes = compute_stage_codes(stages)
    markers = {}
    for level, name in enumerate(stages):
        if level == 0:
            pattern, text = EMPTY, HUMANS_DECIDE
        elif name in deciding:
            share = deciding[name]
            pattern = SOLID
            text = MODEL_DECIDES if share == 1 else describe_share("model", share)
        else:
            pattern, text = HATCHED, HUMANS_CONFIRM
        markers[name] = StageMarker(name, codes[name], pattern, text)
    return markers


def compute_stage_codes(names: Sequence[str]) -> dict[str, str]:
    """Return the shortest first letters that tell the stages apart.

    >>> compute_stage_codes(("shadow", "supervised", "autonomous"))
    {'shadow': 'Sh', 'supervised': 'Su', 'autonomous': 'Au'}
    """
    for letter_count in range(2, max(map(len, names)) + 1):
        codes = {name: name[:letter_count].capitalize() for name in names}
        if len(set(codes.values())) == len(names):
            return codes
    return {name: name for name in names}
