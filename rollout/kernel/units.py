"""Units as measures count them: the prediction and the human decisions in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

WHOLE_UNIT = "*"  # lever of the class over all levers, in policies with several
AGREE, DIFFER = "agree", "differ"  # `predicted` in such a class, and for numbers
MISSING = ""  # `decided` of a unit without a blind decision
FAILED, LATE, OUTSIDE = "(failed)", "(late)", "(outside)"  # `predicted` without a valid label
AFTER_DECISION = "(after the decision)"
AFTER_CLOSING = "after the unit closed"  # why a row is no unit
NOT_PREDICTED, LATE_CASE = "(not predicted)", "(late case)"
CASELESS = "(no case)"
UNDECIDED = "without a decision"
"""Why a unit is missing that its version predicted in time."""
SILENT_REASONS: Mapping[str, str] = MappingProxyType(
    {
        AFTER_DECISION: "predicted after the decision",
        NOT_PREDICTED: "not predicted",
        LATE_CASE: "case received late",
        CASELESS: "a decision without a case",
    }
)
"""Why units are missing although they may be decided, in words, by their `predicted`."""
SILENT = frozenset(SILENT_REASONS)
UNUSABLE = frozenset({FAILED, LATE, OUTSIDE}) | SILENT
"""`predicted` of all units without an answer that may count."""


@dataclass(frozen=True, slots=True)
class UnitClass:
    """Prediction, decisions and cost level of a unit, as measures count it.

    `attribute_values` is the stored text of `rollout.core.policy.familiarity`; no measure reads it.
    `slices` holds the values of the attributes that conditions slice by, as JSON.
    `band` is how many confidence floors above the lowest one the confidence reaches.
    """

    lever: str
    predicted: str
    decided: str
    second: str = ""
    level: int = 0
    attribute_values: str = ""
    slices: str = ""
    band: int = 0

    @property
    def is_missing(self) -> bool:
        """Return whether the unit is no evidence of both sides: undecided, or not predicted."""
        return self.decided == MISSING or self.predicted in SILENT

    @property
    def loss_reason(self) -> str:
        """Return why the unit is missing, or ""."""
        undecided = UNDECIDED if self.decided == MISSING else ""
        return SILENT_REASONS.get(self.predicted, undecided)

    @property
    def agrees(self) -> bool:
        """Return whether model and human agree; never in a missing unit."""
        return self.decided != MISSING and self.predicted == self.decided
