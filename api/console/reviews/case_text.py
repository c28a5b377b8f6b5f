"""One case in words: who decided and why they might, what people had seen, what happened when."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from api.console.page.text import segment
from rollout.core.records.records import Action, Decision, Outcome, Prediction
from rollout.reports.text import formatting
from rollout.services.divergences.case_explanation import Ruling, Story

SEEN: Final = {
    "blind": "had seen nothing of the model",
    "assisted": "had the model's answer in sight",
    "revealed": "had seen what was said of it before",
    "unknown": "nobody says what they had seen",
}
PERMISSIONS: Final = {
    "authorized": "It was permitted: the scope of then gave the case to this version.",
    "authorized_within_lease": (
        "It was within its lease: the scope had just changed, and the answer from before could "
        "still be used."
    ),
    "unauthorized": "It had no permission: nothing that the scope allowed covers it.",
    "not_required": "A person did it; that needs no permission.",
}
TRACKS: Final = {
    "gate": "for gates, when its unit closed",
    "guard": "for guards, when the verdict came",
    "assisted": "for overrides, when somebody confirmed or changed the answer",
}
BECAUSE: Final = {
    "shadow: people decide": "The cell was in shadow, so people decided.",
    "blind share": "Its draw fell into the blind share: people decide it unseen, to compare.",
    "a person confirms": "On this stage a person confirms what the model says.",
    "audited": "The model decided, and the draw picked the case for a blind look afterwards.",
    "the model decides": "The model decided, and the draw left it unwatched.",
    "below the confidence floor": "It was less sure than the policy asks, so people decided.",
    "no window fits": "No window of the policy fits its time, so people decided.",
}
CHOSEN: Final = {"keep": "keep as it is", "drop": "train on it no more", "relabel": "relabel"}


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that happened to a case, for its history."""

    at: datetime
    says: str


def headline(story: Story) -> str:
    """Say who decided, and what was done, in one sentence."""
    details = story.explained
    if details.hidden:
        return "You may still be asked to judge this case."
    if details.actions:
        return f"{decided(details.actions)}."
    if story.ruling is not None and story.ruling.decider == "model":
        return f"{story.ruling.version} was to decide; what was done was not reported."
    reviewers = [decision.reviewer for decision in details.decisions]
    if reviewers:
        return f"People decided: {formatting.listed(reviewers)}."
    return "People decide it; nobody has said anything yet."


def decided(actions: Sequence[Action]) -> str:
    """Say who decided what, each lever by its name where there are several."""
    actions_by_decider = {
        _who(action): [other for other in actions if _who(other) == _who(action)]
        for action in actions
    }
    parts = [
        f"{decider} decided:"
        f" {formatting.listed([_done(other, actions) for other in decider_actions])}"
        for decider, decider_actions in actions_by_decider.items()
    ]
    return "; ".join(parts)


def _who(action: Action) -> str:
    return action.version or "The model" if action.by == "model" else "A person"


def _done(action: Action, actions: Sequence[Action]) -> str:
    return action.action if len(actions) == 1 else f"{action.action} ({action.lever})"


def ruling_says(ruling: Ruling) -> list[str]:
    """Say by what the case was given to whom: stage, share, draw, revision."""
    reason = BECAUSE.get(ruling.because, formatting.sentence(ruling.because))
    stage_text = f" {ruling.version} stood on {ruling.stage} there." if ruling.version else ""
    sentences = [f"{reason}{stage_text}"]
    if ruling.version and ruling.drawn is not None:
        sentences.append(
            f"The draw of its unit was {ruling.drawn:.4f}; "
            f"{formatting.per_cent(ruling.share)} of all "
            "units are treated like it."
        )
    source_text = (
        "the answer was given from it" if ruling.recorded else "the last one before the case"
    )
    return [
        *sentences,
        f"Revision {formatting.number(ruling.revision)} of the ledger says so: {source_text}.",
    ]


def permission_says(action: Action) -> str:
    """Say what permission an act had, and from which revision."""
    text = PERMISSIONS.get(action.permission, formatting.sentence(action.permission or "unknown"))
    if action.scope_revision is None:
        return text
    return f"{text} Its permit is of revision {formatting.number(action.scope_revision)}."


def answers(given: Mapping[str, str | None]) -> str:
    """Say answers, each with its lever where there are several.

    >>> answers({"alarm": "bear"}), answers({"alarm": None, "lid": "shut"}), answers({})
    ('bear', 'alarm: no answer, lid: shut', 'no answer')
    """
    if len(given) < 2:
        return next(iter(given.values()), None) or "no answer"
    return ", ".join(f"{lever}: {answer or 'no answer'}" for lever, answer in given.items())


def said_by(decision: Decision) -> str:
    """Say what a person answered."""
    return "unsure" if decision.unsure else answers(decision.answers)


def why_failed(prediction: Prediction) -> str:
    """Say what went wrong with a prediction; "" for nothing."""
    return f"It failed: {prediction.error}" if prediction.error else ""


def turned_out(outcome: Outcome) -> str:
    """Say what turned out to be true."""
    answer_text = answers(outcome.answers) if outcome.answers else ""
    harm_text = f"harm: {outcome.harm}" if outcome.harm else ""
    return ", ".join(part for part in (answer_text, harm_text) if part) or "nothing that was named"


def uncounted(story: Story, *, still_open: bool) -> str:
    """Say why a case was counted nowhere; of an open one the page adds until when."""
    if story.ruling is None:
        return "It belongs to no cell of the policy, so it never will be."
    if not story.explained.predictions:
        return "No version has answered, so there is nothing to compare with people."
    if still_open:
        return "Its unit is counted when it closes,"
    return "It has closed; a tick counts it, or did so for its episode under another case."


def counted_as(excluded: str | None) -> str:
    """Say whether a unit is evidence.

    >>> counted_as(None), counted_as("trained on")
    ('evidence', 'no evidence: trained on')
    """
    return "evidence" if excluded is None else f"no evidence: {excluded}"


def history(story: Story) -> Sequence[Happened]:
    """Return what happened to a case, as far as it may be told, the first first."""
    return sorted(_happened(story), key=lambda event: event.at)


def _happened(story: Story) -> Iterator[Happened]:
    details = story.explained
    yield Happened(details.case.occurred_at, "The case occurred.")
    yield Happened(details.case.received_at, "The service received it.")
    for prediction in details.predictions:
        if prediction.at is not None:
            yield Happened(
                prediction.at, f"{prediction.version} said {answers(prediction.answers)}."
            )
    for decision in details.decisions:
        if decision.submitted_at is not None:
            yield Happened(decision.submitted_at, f"{decision.reviewer} said {said_by(decision)}.")
    for action in details.actions:
        yield Happened(action.at, f"{decided([action])}.")
    for outcome in details.outcomes:
        yield Happened(outcome.at, f"It turned out: {turned_out(outcome)}.")
    for count in details.counted:
        track = TRACKS.get(count.track, count.track)
        yield Happened(count.slot, f"It was counted {track}: {counted_as(count.excluded)}.")
    for choice in story.choices:
        label_text = f" as {choice.label}" if choice.label else ""
        yield Happened(
            choice.at, f"{choice.by} chose for training: {CHOSEN[choice.choice]}{label_text}."
        )


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
