"""Users' choices about suspicious labels, for the next training only.

They are made knowing the prediction, so they are never evidence. The last choice on a case and
lever counts; earlier ones are kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import RefusalError
from rollout.core.policy.policy import Policy
from rollout.core.records.reviews import check_decision

RELABEL, DROP, KEEP = "relabel", "drop", "keep"
CHOICES = (RELABEL, DROP, KEEP)
MAX_REASON_LENGTH = 1_000  # characters
HUMANS_DISAGREE = "people said otherwise"
"""Kind of a loss stored while counting, before thresholds, outcomes and other decisions exist."""

MAX_LISTED = 20  # suspicious labels of each kind, version and lever

LabelKey = tuple[str, str]  # case key, lever


class InvalidChoiceError(RefusalError):
    """A choice that does not fit the policy; nothing was stored."""

    code = "bad-choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningChoiceRequest:
    """A choice about a case as sent.

    Attributes:
        choice: `relabel` (to `label`), `drop` (leave out of training) or `keep` (it is right).
        lever: "" means the only lever.
        label: the new label, only with `relabel`.
        version: the version whose loss listed the case, "" if unknown.
        report: the report it was read from, "" if unknown.
    """

    key: str
    choice: str
    lever: str = ""
    label: str | None = None
    reason: str = ""
    version: str = ""
    report: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningChoice(CleaningChoiceRequest):
    """A user's choice for one lever of one case, which it names."""

    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CleaningChoiceResult:
    """Status of a choice: `saved`, `unchanged`, or `rejected` with a reason."""

    key: str
    lever: str
    status: str
    reason: str = ""


def find_final_choices(choices: Iterable[CleaningChoice]) -> Mapping[LabelKey, CleaningChoice]:
    """Return the last choice for each case and lever, in the order given."""
    return {(choice.key, choice.lever): choice for choice in choices}


def check_choice(
    policy: Policy, lever: str, choice: str, label: str | None, reason: str = ""
) -> None:
    """Raise an error unless the policy's levers allow the choice.

    Raises:
        InvalidChoiceError: the text names what would be right.
        InvalidDecisionError: the lever has no such label.
    """
    if choice not in CHOICES:
        raise InvalidChoiceError(f"{choice} is no choice; write {', '.join(CHOICES)}")
    if lever not in policy.levers_by_id:
        raise InvalidChoiceError(f"no lever {lever}; there is {', '.join(policy.levers_by_id)}")
    if choice == RELABEL and not label:
        raise InvalidChoiceError("relabel needs the new label")
    if choice != RELABEL and label:
        raise InvalidChoiceError(f"{choice} takes no label; write relabel, or leave the label out")
    if len(reason) > MAX_REASON_LENGTH or "\0" in reason:
        raise InvalidChoiceError(f"a reason has at most {MAX_REASON_LENGTH} characters, and no NUL")
    if label:
        check_decision(policy, {lever: label}, unsure=False)
