"""Cleaning: what people chose to do with a case that stands out, for the next training alone.

Whoever chooses has seen what the model said, so a choice is never evidence: no gate, guard or
verdict reads it. The last choice about a case and lever holds; earlier ones stay beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import Refusal
from rollout.core.policy.policy import Policy
from rollout.core.records.reviews import check_verdict

RELABEL, DROP, KEEP = "relabel", "drop", "keep"
CHOICES = (RELABEL, DROP, KEEP)
LONGEST = 1_000  # letters of a reason

Place = tuple[str, str]  # a case's key and a lever


class BadChoice(Refusal):
    """A choice that means nothing under the policy; nothing of it was kept."""

    code = "bad-choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What somebody chose for one lever of one case.

    Attributes:
        key, lever: of what.
        choice: `relabel` (to `label`), `drop` (leave it out of training) or `keep` (it is right).
        by, at: who chose, and when.
        label: the new label, with `relabel` alone.
        reason: why, for people; "" for none given.
        version: the version whose loss put the case on the list, "" where that is not said.
        report: the report that it was read from, "" where that is not said.
    """

    key: str
    lever: str
    choice: str
    by: str
    at: datetime
    label: str | None = None
    reason: str = ""
    version: str = ""
    report: str = ""


def holding(choices: Iterable[Choice]) -> Mapping[Place, Choice]:
    """Return the choice that holds for each case and lever: the last one, in the order given."""
    return {(choice.key, choice.lever): choice for choice in choices}


def check_choice(
    policy: Policy, lever: str, choice: str, label: str | None, reason: str = ""
) -> None:
    """Let a choice pass that the policy's levers have, or refuse it.

    Raises:
        BadChoice: says what is wrong, and what would be right.
        BadVerdict: the new label is none that the lever has.
    """
    if choice not in CHOICES:
        raise BadChoice(f"{choice} is no choice; write {', '.join(CHOICES)}")
    if lever not in policy.lever:
        raise BadChoice(f"no lever {lever}; there is {', '.join(policy.lever)}")
    if choice == RELABEL and not label:
        raise BadChoice("relabel needs the new label")
    if choice != RELABEL and label:
        raise BadChoice(f"{choice} takes no label; write relabel, or leave the label out")
    if len(reason) > LONGEST or "\0" in reason:
        raise BadChoice(f"a reason has at most {LONGEST} letters, and no NUL")
    if label:
        check_verdict(policy, {lever: label}, unsure=False)
