"""Rules of reviews: tasks, exposure, answers, choices for training, and names.

The tasks of a case depend on its sampling values and the stage when it occurred, never on the
model's answer. The one exception is a policy's confidence floor, below which humans decide.

Users' choices about suspicious labels are for the next training only. They are made knowing the
prediction, so they are never evidence. The last choice on a case and lever counts; earlier ones are
kept.

Reviewers and versions have different names: the model is no human. A decision under the name of a
version, or of an account that sends predictions, would let a model agree with itself. An account
may pass on what named people decided.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from unicodedata import category, normalize

from rollout.engine.decide.assignment import compute_unit_key
from rollout.engine.records.records import Case
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import EvidenceRules, Policy
from rollout.kernel.statistics.sampling import AUDIT, SAMPLING_PURPOSE, compute_sampling_value
from rollout.kernel.units import Lever, read_label_set

BLIND, ASSISTED, ADJUDICATE, SEEDED = "blind", "assisted", "adjudication", "gold"
BLIND_KINDS: Final = (BLIND, SEEDED)
"""Kinds whose reviewer sees nothing of the model; reviewers see both as `blind`."""

NUMBER_PATTERN: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
"""Numbers that counting accepts."""

REVEALED, UNKNOWN = "revealed", "unknown"
EXPOSURE_ORDER: Final = (BLIND, UNKNOWN, ASSISTED, REVEALED)
"""Exposures, from best to worst as evidence."""

MAX_REVIEW_TIME, MAX_CLOCK_SKEW = timedelta(days=7), timedelta(minutes=5)

CASE, PREDICTION, DECISIONS = "case", "prediction", "decisions"
REVIEW_PAGE = "review"
PLANTED: Final = "planted"
"""The content that a user knows who declared a case as planted."""
REVEALING_CONTENT: Final = frozenset({PREDICTION, DECISIONS, PLANTED})
"""Content after which a reviewer's decision is no longer blind."""


class UnknownReviewError(RefusalError):
    """The caller has no review of that id."""

    code = "unknown-review"


class UnknownCaseError(RefusalError):
    """No case of that key was ever sent."""

    code = "unknown-case"


class ReviewReassignedError(RefusalError):
    """The caller's claim expired and another reviewer has the review now."""

    code = "review-gone"


class DecisionConflictError(RefusalError):
    """A different decision is stored already."""

    code = "conflict"


class ReviewStillOpenError(RefusalError):
    """Blind reviews of the case are still open."""

    code = "case-still-open"


class NoConflictError(RefusalError):
    """No two answers differ, so there is nothing to adjudicate."""

    code = "no-conflict"


class InvalidDecisionError(RefusalError):
    """An answer that the lever does not have."""

    code = "bad-decision"


@dataclass(frozen=True, slots=True)
class PlannedReviewTask:
    """A review task to create; tasks of a kind are numbered from 1."""

    kind: str
    number: int = 1


class CaseDraws(NamedTuple):
    """The sampling values of a case.

    Attributes:
        decider: of its unit: below a stage's blind share a human decides.
        audit: of its unit: below the stage's audit share the model's answer is audited.
        second: of the case itself, for a second blind decision.
    """

    decider: float
    audit: float
    second: float


def plan_review_tasks(
    policy: Policy,
    stage_level: int,
    *,
    draws: CaseDraws,
    is_trusted: bool = True,
) -> tuple[PlannedReviewTask, ...]:
    """Return the review tasks of a case.

    Shadow and the blind and audited shares get blind tasks; other cases of a stage with
    confirmation get one assisted task; cases below the confidence floor, or unfamiliar to the
    acting version, get one blind task.

    Args:
        stage_level: level of the acting version when the case occurred; 0 is shadow.
        draws: the sampling values of the case.
        is_trusted: False if the acting version's confidence is below the policy's floor, or the
            case is unfamiliar to it.
    """
    stage = None if stage_level == 0 else policy.get_stage(stage_level)
    if stage is None or draws.decider < stage.blind:
        return plan_blind_tasks(policy.evidence, draws.second)
    if not is_trusted:
        return (PlannedReviewTask(BLIND),)
    if not stage.model_decides:
        return (PlannedReviewTask(ASSISTED),)
    return (
        plan_blind_tasks(policy.evidence, draws.second)
        if draws.audit < (stage.audit or 0.0)
        else ()
    )


def plan_blind_tasks(
    rules: EvidenceRules, second_sampling_value: float
) -> tuple[PlannedReviewTask, ...]:
    """Return a case's blind tasks, as many as the policy wants.

    A sampled share gets a second one where the policy wants a single decision.
    """
    needs_second = rules.verdicts == 1 and second_sampling_value < rules.second_verdict
    return tuple(
        PlannedReviewTask(BLIND, number + 1) for number in range(rules.verdicts + needs_second)
    )


def draw_case_values(policy: Policy, salt: bytes, audit_salt: bytes, case: Case) -> CaseDraws:
    """Return the sampling values of a case; no client can compute that of audits."""
    unit_key = compute_unit_key(policy, case.key, case.site, case.occurred_at, case.episode)
    return CaseDraws(
        decider=compute_sampling_value(salt, SAMPLING_PURPOSE, unit_key),
        audit=compute_sampling_value(audit_salt, AUDIT, unit_key),
        second=compute_sampling_value(salt, "second", case.key),
    )


def compute_queue_value(salt: bytes, key: str) -> float:
    """Return the order of a case among those due at the same instant."""
    return compute_sampling_value(salt, "queue", key)


def compute_due_time(policy: Policy, occurred_at: datetime, received_at: datetime) -> datetime:
    """Return until when a decision counts as evidence."""
    return max(occurred_at, received_at) + policy.evidence.grace


def compute_answer_deadline(policy: Policy, occurred_at: datetime) -> datetime | None:
    """Return when the first lever needs its answer, or None."""
    time_limits = [
        lever.answer_within for lever in policy.levers if lever.answer_within is not None
    ]
    return occurred_at + min(time_limits) if time_limits else None


def find_worst_exposure(*exposures: str) -> str:
    """Return the worst exposure as evidence; `blind` for none.

    >>> (
    ...     find_worst_exposure("blind", "unknown"),
    ...     find_worst_exposure("assisted", "revealed"),
    ...     find_worst_exposure(),
    ... )
    ('unknown', 'revealed', 'blind')
    """
    return max(exposures, key=EXPOSURE_ORDER.index, default=BLIND)


def compute_exposure(
    kind: str, exposures: Iterable[tuple[str, str]], claimed_exposure: str = BLIND
) -> str:
    """Return a decision's exposure from what its reviewer was shown before.

    Args:
        kind: of the review.
        exposures: content and page of everything of the case shown to the reviewer.
        claimed_exposure: the client's claim; it can only make the result worse.
    """
    if kind == ADJUDICATE:
        return REVEALED
    revealing_pages = [page for content, page in exposures if content in REVEALING_CONTENT]
    if not revealing_pages:
        return claimed_exposure
    is_review_page_only = kind == ASSISTED and all(page == REVIEW_PAGE for page in revealing_pages)
    return find_worst_exposure(claimed_exposure, ASSISTED if is_review_page_only else REVEALED)


def has_disagreement(answer_sets: Collection[Mapping[str, str | None]]) -> bool:
    """Return whether two sets of sure answers differ on a lever.

    >>> (
    ...     has_disagreement([{"alarm": "bear"}, {"alarm": None}]),
    ...     has_disagreement([{"alarm": "bear"}, {"alarm": "fox"}]),
    ... )
    (False, True)
    """
    levers = {lever for answers in answer_sets for lever in answers}
    distinct_answers = (
        {answer_set[lever] for answer_set in answer_sets if answer_set.get(lever) is not None}
        for lever in levers
    )
    return any(len(answers) > 1 for answers in distinct_answers)


def check_decision(
    policy: Policy, answers: Mapping[str, str | None], *, unsure: bool, note: str | None = None
) -> None:
    """Raise an error unless the policy's levers allow the answers.

    A missing or None lever is "unsure" on that lever.

    Raises:
        InvalidDecisionError: the text names the wrong answer and the valid ones.
    """
    given_answers = {lever: answer for lever, answer in answers.items() if answer is not None}
    if note is not None and "\0" in note:
        raise InvalidDecisionError("the note has a NUL character; leave it out", field="note")
    if unsure and given_answers:
        raise InvalidDecisionError("unsure and an answer at once; send one of them")
    if not unsure and not given_answers:
        raise InvalidDecisionError(
            f"no answer; give one for {_list_levers(policy)}, or `unsure: true`"
        )
    for name, answer in given_answers.items():
        if name not in policy.levers_by_id:
            raise InvalidDecisionError(f"no lever {name}; there is {_list_levers(policy)}")
        problem = _find_answer_error(policy.levers_by_id[name], answer)
        if problem:
            raise InvalidDecisionError(problem, field=f"answers.{name}")


def check_started_at(started_at: datetime | None, at: datetime) -> None:
    """Raise an error unless the start lies near the decision's time `at`.

    Raises:
        InvalidDecisionError: it is more than 5 min later or 7 days earlier, so a clock is wrong.
    """
    if started_at is not None and not at - MAX_REVIEW_TIME <= started_at <= at + MAX_CLOCK_SKEW:
        raise InvalidDecisionError(
            f"started_at is not within a week before {at.isoformat()}; leave it out"
        )


def _list_levers(policy: Policy) -> str:
    return ", ".join(policy.levers_by_id)


def _find_answer_error(lever: Lever, answer: str) -> str:
    if lever.many:
        return _find_set_error(lever, answer)
    if lever.number is None:
        return "" if answer in lever.labels else f"{lever.id}: one of {', '.join(lever.labels)}"
    low, high = lever.number.low, lever.number.high
    is_in_range = NUMBER_PATTERN.fullmatch(answer) is not None and low <= float(answer) <= high
    return "" if is_in_range else f"{lever.id}: a number from {low:g} to {high:g}"


def _find_set_error(lever: Lever, answer: str) -> str:
    try:
        text = read_label_set(answer, lever.labels, lever.id)
    except ValueError as error:
        return str(error)
    return "" if text == answer else f"{lever.id}: write {text}, its labels in this order"


RELABEL, DROP, KEEP = "relabel", "drop", "keep"
CHOICES = (RELABEL, DROP, KEEP)
MAX_REASON_LENGTH = 1_000  # characters
HUMANS_DISAGREE = "people said otherwise"
"""Kind of a loss stored while counting, before thresholds, outcomes and other decisions exist."""

MAX_LISTED = 20  # suspicious labels of each kind, version and lever
LISTED_PERIOD: Final = timedelta(days=30)  # of divergences and suspicious labels, by default

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


def parse_number(lever: Lever, text: str) -> float | None:
    """Return the number of a text, or None if it is none in the lever's range."""
    text = text.strip()
    if lever.number is None or NUMBER_PATTERN.fullmatch(text) is None:
        return None
    value = float(text)
    return value if lever.number.low <= value <= lever.number.high else None


def fold_name(name: str) -> str:
    """Return a name without letter case, outer blanks and invisible characters, for comparison.

    Letters of other widths and ligatures are those that they stand for (NFKC): two people taken for
    one make a gate wait, one taken for two opens it.

    >>> fold_name(" V1"), fold_name("\uff56\u200b1")
    ('v1', 'v1')
    """
    if not name.isascii():
        visible = (letter for letter in normalize("NFKC", name) if category(letter) != "Cf")
        name = normalize("NFKC", "".join(visible).casefold())
    return name.strip().casefold()


def find_reviewer_fault(
    reviewer: str, folded_versions: Collection[str], predicting_accounts: Collection[str]
) -> str:
    """Return why a decision of this reviewer is rejected, or "".

    Args:
        reviewer: the name that the decision has.
        folded_versions: the names of all versions, by `fold_name`.
        predicting_accounts: service accounts that send predictions.

    >>> find_reviewer_fault("ana", {"v1"}, {"box-7"})
    ''
    >>> find_reviewer_fault("Box-7", {"v1"}, {"box-7"}).partition(":")[0]
    'reviewer Box-7 is an account that sends predictions'
    """
    advice = "a model is no human; name the person who decided as `reviewer`"
    if fold_name(reviewer) in folded_versions:
        return f"reviewer {reviewer} is the name of a version: {advice}"
    if fold_name(reviewer) in map(fold_name, predicting_accounts):
        return f"reviewer {reviewer} is an account that sends predictions: {advice}"
    return ""


def find_version_fault(version: str, reviewers: Collection[str]) -> str:
    """Return why a version of this name is refused, or "".

    Args:
        version: a new name.
        reviewers: names of people: users, and who decided a case.
    """
    if version not in reviewers:
        return ""
    return f"{version} is the name of a reviewer; give the version another name"
