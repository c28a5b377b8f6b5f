"""Text of a case page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from api.web_kit.page import encode_segment
from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
)
from rollout.engine.words import formatting
from rollout.features.divergences.case_explanation import CaseAssignment, ExplainedCase

EXPOSURE_TEXTS: Final = {
    "blind": "blind: had seen no model answer",
    "assisted": "assisted: had seen the model's answer",
    "revealed": "revealed: had seen earlier answers",
    "unknown": "not recorded",
}
AUTHORIZATION_TEXTS: Final = {
    "authorized": "Authorized: the scope at that time assigned the case to this version.",
    "authorized_within_lease": (
        "Authorized within lease: the scope had just changed, and the earlier assignment was "
        "still valid."
    ),
    "unauthorized": "Unauthorized: nothing in the scope allowed it.",
    "not_required": "A human acted; that needs no permit.",
}
TRACK_TEXTS: Final = {
    "gate": "for gates, when its unit closed",
    "guard": "for guards, when the decision came",
    "assisted": "for overrides, when a reviewer confirmed or changed the answer",
    "planted": "for planted cases, when its unit closed",
}
CHOICE_TEXTS: Final = {
    "keep": "keep as it is",
    "drop": "exclude from training",
    "relabel": "relabel",
}


PLACED_FIELDS: Final[Mapping[type[Record], str]] = {
    Case: "key site occurred_at episode attributes",
    Prediction: "version answers confidence latency_ms error at scope_revision decider exposure"
    " share",
    Decision: "reviewer answers unsure claims exposure seat submitted_at note",
    Action: "lever action by at version scope_revision permission",
    Outcome: "at answers values harm source",
}
"""The fields that a case's page shows at a place of their own, or not at all."""
PLANTED_TEXT = "A user planted this case: no figure about the cases that occur counts it. "


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """One event in the history of a case."""

    at: datetime
    text: str


def describe_decider(story: ExplainedCase) -> str:
    """Describe who decided and what was done."""
    details = story.case_details
    if details.hidden:
        return "You may still be asked to decide this case."
    return (PLANTED_TEXT if details.planted else "") + _describe_case_decider(story)


def _describe_case_decider(story: ExplainedCase) -> str:
    details = story.case_details
    if details.actions:
        return f"{describe_actions(details.actions)}."
    if story.assignment is not None and story.assignment.decider == "model":
        return f"{story.assignment.version} was assigned; no action was reported."
    reviewers = [decision.reviewer for decision in details.decisions]
    if reviewers:
        return f"Decided by {formatting.join_words(reviewers)}."
    return "Humans decide it; there is no decision yet."


def describe_actions(actions: Sequence[Action]) -> str:
    """Describe who decided each action, with lever names if several."""
    actions_by_decider = {
        _get_decider(action): [
            other for other in actions if _get_decider(other) == _get_decider(action)
        ]
        for action in actions
    }
    parts = [
        f"{decider} decided:"
        f" {formatting.join_words([_describe_action(other, actions) for other in decider_actions])}"
        for decider, decider_actions in actions_by_decider.items()
    ]
    return "; ".join(parts)


def _get_decider(action: Action) -> str:
    return action.version or "The model" if action.by == "model" else "A human"


def _describe_action(action: Action, actions: Sequence[Action]) -> str:
    return action.action if len(actions) == 1 else f"{action.action} ({action.lever})"


def describe_assignment(assignment: CaseAssignment) -> list[str]:
    """Describe the assignment: stage, share, sampling value, revision."""
    sampled = "sampled" if assignment.is_audited else "not sampled"
    reason = (
        f"The model decided, and the case was {sampled} for a blind audit."
        if assignment.decider == "model"
        else f"Humans decided ({assignment.reason})."
    )
    stage_text = (
        f" {assignment.version} was {assignment.stage} there." if assignment.version else ""
    )
    sentences = [f"{reason}{stage_text}"]
    if assignment.version and assignment.sampling_value is not None:
        sentences.append(
            f"Sampling treats {formatting.format_percent(assignment.share)} of all units like this"
            f" one (sampling value {assignment.sampling_value:.4f})."
        )
    source_text = (
        "the assignment used it" if assignment.is_recorded else "the last one before the case"
    )
    return [
        *sentences,
        (
            f"The scope is that of ledger entry {formatting.format_count(assignment.revision)}:"
            f" {source_text}."
        ),
    ]


def describe_authorization(action: Action) -> str:
    """Describe the authorization of an action and its revision."""
    text = AUTHORIZATION_TEXTS.get(
        action.permission, formatting.to_sentence(action.permission or "unknown")
    )
    if action.scope_revision is None:
        return text
    return f"{text} Its permit is of revision {formatting.format_count(action.scope_revision)}."


def describe_answers(answers: Mapping[str, str | None]) -> str:
    """Format answers, with lever names if several.

    >>> (
    ...     describe_answers({"alarm": "bear"}),
    ...     describe_answers({"alarm": None, "lid": "shut"}),
    ...     describe_answers({}),
    ... )
    ('bear', 'alarm: no answer, lid: shut', 'no answer')
    """
    if len(answers) < 2:
        return next(iter(answers.values()), None) or "no answer"
    return ", ".join(f"{lever}: {answer or 'no answer'}" for lever, answer in answers.items())


def describe_human_decision(decision: Decision) -> str:
    """Format the answers of a human decision."""
    return "unsure" if decision.unsure else describe_answers(decision.answers)


def list_further_fields(record: Record) -> list[str]:
    """Return what is shown of a record beside what the page has a place for."""
    return [
        f"{field.shown_name}: {value}"
        for field in RECORD_FIELDS[type(record)]
        if field.rule.is_shown
        and field.name not in PLACED_FIELDS[type(record)].split()
        and (value := getattr(record, field.name)) != field.default
    ]


def describe_error(prediction: Prediction) -> str:
    """Format the error of a prediction, or ""."""
    return f"It failed: {prediction.error}" if prediction.error else ""


def describe_outcome(outcome: Outcome) -> str:
    """Format an outcome."""
    answer_text = describe_answers(outcome.answers) if outcome.answers else ""
    value_texts = [f"{name}: {value:g}" for name, value in outcome.values.items()]
    harm_text = f"harm: {outcome.harm}" if outcome.harm else ""
    return ", ".join(filter(None, (answer_text, *value_texts, harm_text))) or "no label"


def explain_uncounted(story: ExplainedCase, *, still_open: bool) -> str:
    """Explain why no unit is shown for a case; an open one's time of closing follows."""
    if story.assignment is None:
        return "It is never counted: it belongs to no cell of the policy."
    if not story.case_details.predictions:
        return "It is not counted: no version has answered, so there is nothing to compare."
    if still_open:
        return "It is not counted yet. Its unit is counted when it closes,"
    if not story.is_counted_by_episode:
        return "It is not counted yet. It has closed, so the next tick counts it."
    return (
        "It has no count of its own. One case stands for all cases of its episode: either the next"
        " tick counts this one, or another case of the episode is counted."
    )


def describe_evidence_use(excluded: str | None) -> str:
    """Describe whether a unit is evidence.

    >>> describe_evidence_use(None), describe_evidence_use("trained on")
    ('evidence', 'no evidence: trained on')
    """
    return "evidence" if excluded is None else f"no evidence: {excluded}"


def list_case_events(story: ExplainedCase) -> Sequence[CaseEvent]:
    """Return the readable events of a case, oldest first."""
    return sorted(_list_events(story), key=lambda event: event.at)


def _list_events(story: ExplainedCase) -> Iterator[CaseEvent]:
    details = story.case_details
    yield CaseEvent(details.case.occurred_at, "The case occurred.")
    yield CaseEvent(details.case.received_at, "The service received it.")
    for prediction in details.predictions:
        if prediction.at is not None:
            yield CaseEvent(
                prediction.at,
                f"{prediction.version} answered {describe_answers(prediction.answers)}.",
            )
    for decision in details.decisions:
        if decision.submitted_at is not None:
            yield CaseEvent(
                decision.submitted_at,
                f"{decision.reviewer} answered {describe_human_decision(decision)}.",
            )
    for action in details.actions:
        yield CaseEvent(action.at, f"{describe_actions([action])}.")
    for outcome in details.outcomes:
        yield CaseEvent(outcome.at, f"The outcome is known: {describe_outcome(outcome)}.")
    for count in details.counted_units:
        track = TRACK_TEXTS.get(count.track, count.track)
        yield CaseEvent(
            count.slot, f"The case was counted {track}: {describe_evidence_use(count.excluded)}."
        )
    for choice in story.choices:
        label_text = f" as {choice.label}" if choice.label else ""
        yield CaseEvent(
            choice.at, f"{choice.by} chose for training: {CHOICE_TEXTS[choice.choice]}{label_text}."
        )


DOT_SEGMENTS: Final = frozenset({".", ".."})
"""Path segments that browsers remove, even when escaped."""


def build_case_path(rollout: str, key: str) -> str:
    """Return the path of a case's page, below the console's home.

    >>> build_case_path("bears", "creek/0412"), build_case_path("bears", "..")
    ('/rollouts/bears/cases/creek%2F0412', '/rollouts/bears/cases?key=..')
    """
    cases = f"/rollouts/{encode_segment(rollout)}/cases"
    return (
        f"{cases}/{encode_segment(key)}"
        if fits_in_path(key)
        else f"{cases}?key={quote(key, safe='')}"
    )


def fits_in_path(key: str) -> bool:
    r"""Return whether a key survives in a URL path.

    >>> (
    ...     fits_in_path("creek/0412"),
    ...     fits_in_path(".."),
    ...     fits_in_path("50%"),
    ...     fits_in_path("two\nlines"),
    ... )
    (True, False, False, False)
    """
    return key not in DOT_SEGMENTS and "%" not in key and key.isprintable()
