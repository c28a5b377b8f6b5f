"""The review case: what a reviewer may see of a case, with its media, questions and keyboard keys.

Media are pictures, links and texts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from api.web_kit.page import CONTENT_POLICY
from rollout.engine.records.records import Case, Prediction
from rollout.engine.words.formatting import capitalize_first, format_quantity, join_words
from rollout.features.reports.inputs.pictures import is_link
from rollout.features.reviews.own_decisions import OwnDecision
from rollout.features.reviews.reviews import CLAIM_DURATION, ClaimedTask, ReviewQueue
from rollout.kernel.units import EMPTY_SET, Lever, Number, split_label_set
from rollout.live.rollout_state import RolloutState

UNSURE_KEY, UNDO_KEY, NOTE_KEY, HELP_KEY = "u", "z", ".", "?"
RESERVED_KEYS: Final = frozenset({UNSURE_KEY, UNDO_KEY, NOTE_KEY, HELP_KEY})
"""Keys with the same meaning on every page."""

MAX_LETTER_LABELS: Final = 8
"""With more labels, the first ten have digits instead of letters."""

DIGITS: Final = "1234567890"


def assign_keys(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a key for each label, "" if none is left.

    A label of one letter or digit is its own key.
    """
    own_keys = [_get_own_key(label) for label in labels]
    keys: list[str] = []
    for label, key in zip(labels, own_keys, strict=True):
        if key and own_keys.count(key) == 1:
            keys.append(key)
            continue
        candidates = DIGITS if len(labels) > MAX_LETTER_LABELS else [*_list_letters(label), *DIGITS]
        used_keys = {*RESERVED_KEYS, *own_keys, *keys}
        keys.append(next((key for key in candidates if key not in used_keys), ""))
    return tuple(keys)


def _get_own_key(label: str) -> str:
    """Return the key that a one-character label is itself, or ""."""
    lowered = label.lower()
    is_key = len(lowered) == 1 and lowered.isascii() and lowered.isalnum()
    return lowered if is_key and lowered not in RESERVED_KEYS else ""


def _list_letters(label: str) -> list[str]:
    """Return the label's characters that are single keys, in lower case."""
    return [
        lowered
        for character in label
        if character.isalnum() and len(lowered := character.lower()) == 1
    ]


MAX_TITLE_LABELS = 4
"""With more labels, the question doesn't list them."""

UNSURE = "unsure"
EMPTY_SET_TEXT = "none of them"


@dataclass(frozen=True, slots=True)
class AnswerOption:
    """An answer: submitted value, text and key ("" for none)."""

    value: str
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class LeverQuestion:
    """The question of one lever, answered by one of `choices`, by `many` of them, or by `number`.

    `position` counts from 1; element ids use it, since a lever's name may contain anything.
    """

    field: str
    position: int
    lever: str
    choices: tuple[AnswerOption, ...]
    number: Number | None
    many: bool = False

    @property
    def range(self) -> str:
        """Text of the allowed range."""
        if self.number is None:
            return ""
        return f"a number from {self.number.low:g} to {self.number.high:g} {self.number.unit}"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """All questions about a case; `buttons`: pressing one button answers it."""

    title: str
    questions: tuple[LeverQuestion, ...]
    buttons: bool


def build_answer_form(levers: Sequence[Lever]) -> AnswerForm:
    """Return the questions for a policy's levers."""
    lever_labels = [_list_choices(lever) for lever in levers]
    keys = iter(assign_keys([text for labels in lever_labels for text in labels.values()]))
    questions = tuple(
        LeverQuestion(
            field=f"lever.{lever.id}",  # distinct also after policy changes
            position=position,
            lever=lever.id,
            choices=tuple(AnswerOption(label, text, next(keys)) for label, text in labels.items()),
            number=lever.number,
            many=lever.many,
        )
        for position, (lever, labels) in enumerate(zip(levers, lever_labels, strict=True), start=1)
    )
    is_single_choice = len(levers) == 1 and levers[0].has_single_labels
    return AnswerForm(describe_questions(questions), questions, buttons=is_single_choice)


def _list_choices(lever: Lever) -> Mapping[str, str]:
    """Return the texts of the choices by submitted value; a set can be empty."""
    no_label = {EMPTY_SET: EMPTY_SET_TEXT} if lever.many else {}
    return {**format_labels(lever.labels), **no_label}


def describe_questions(questions: Sequence[LeverQuestion]) -> str:
    """Return the question in one line."""
    if len(questions) != 1:
        return f"{format_quantity(len(questions), 'question')} about this case"
    (question,) = questions
    if question.number is not None:
        return f"{capitalize_first(question.lever)}: how many {question.number.unit}?"
    if question.many:
        return f"{capitalize_first(question.lever)}: which of these, if any?"
    if len(question.choices) <= MAX_TITLE_LABELS:
        texts = [choice.text for choice in question.choices]
        return capitalize_first(
            f"{', '.join(texts[:-1])} or {texts[-1]}?" if texts[1:] else f"{texts[0]}?"
        )
    return f"{capitalize_first(question.lever)}: which of these?"


def format_labels(labels: Sequence[str]) -> Mapping[str, str]:
    """Return labels with spaces for dashes, unless two would read the same.

    >>> format_labels(["no-bear", "bear"]), format_labels(["a-b", "a b"])
    ({'no-bear': 'no bear', 'bear': 'bear'}, {'a-b': 'a-b', 'a b': 'a b'})
    """
    readable = [" ".join(label.replace("-", " ").replace("_", " ").split()) for label in labels]
    is_unambiguous = all(readable) and len(set(readable)) == len(readable)
    return dict(zip(labels, readable if is_unambiguous else labels, strict=True))


def describe_answers(levers: Sequence[Lever], answers: Mapping[str, str | None]) -> str:
    """Format answers; "unsure" if there are none.

    Answers of levers that the policy no longer has stay as sent.
    """
    parts = [
        f"{lever_id}: {_describe_answer(levers, lever_id, value)}"
        if len(levers) > 1
        else _describe_answer(levers, lever_id, value)
        for lever_id, value in answers.items()
        if value is not None
    ]
    return ", ".join(parts) or UNSURE


def _describe_answer(levers: Sequence[Lever], lever_id: str, value: str) -> str:
    lever = next((lever for lever in levers if lever.id == lever_id), None)
    if lever is None:
        return value
    if lever.number is not None:
        return f"{value} {lever.number.unit}"
    texts = format_labels(lever.labels)
    if not lever.many:
        return texts.get(value, value)
    parts = [texts.get(label, label) for label in sorted(split_label_set(value))]
    return ", ".join(parts) or EMPTY_SET_TEXT


EMBEDDED_PREFIX: Final = "data:image/"
NOT_PICTURE_SUFFIX: Final = re.compile(
    r"\.(mp4|webm|mov|avi|mkv|mp3|wav|flac|ogg|pdf|html?|txt|json|csv)$"
)
HOST_PATTERN: Final = re.compile(r"([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""A host, with an optional port, that is safe in a header."""

IMAGE_SOURCES: Final = "img-src 'self' data: https:"


@dataclass(frozen=True, slots=True)
class CaseMedium:
    """One medium by its name."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class CaseMedia:
    """Media of a case: embedded pictures, outgoing links, plain texts."""

    pictures: tuple[CaseMedium, ...]
    links: tuple[CaseMedium, ...]
    texts: tuple[CaseMedium, ...]


def sort_media(media: Mapping[str, str]) -> CaseMedia:
    """Sort the media of a case.

    Web addresses count as pictures unless the name says otherwise, since cameras and picture stores
    seldom use file extensions.
    """
    media_by_kind: dict[str, list[CaseMedium]] = {"picture": [], "link": [], "text": []}
    for name, address in media.items():
        media_by_kind[_classify_address(address)].append(CaseMedium(name, address))
    return CaseMedia(
        tuple(media_by_kind["picture"]), tuple(media_by_kind["link"]), tuple(media_by_kind["text"])
    )


def _classify_address(address: str) -> str:
    if address.startswith(EMBEDDED_PREFIX):
        return "picture"
    if not is_link(address):
        return "text"
    return "link" if NOT_PICTURE_SUFFIX.search(urlsplit(address).path.lower()) else "picture"


def list_remote_pictures(media: Iterable[CaseMedia]) -> tuple[str, ...]:
    """Return the distinct URLs of pictures that a browser has to fetch."""
    addresses = (picture.address for case_media in media for picture in case_media.pictures)
    return tuple(
        dict.fromkeys(address for address in addresses if not address.startswith(EMBEDDED_PREFIX))
    )


def build_picture_policy(addresses: Iterable[str]) -> str:
    """Return the page's Content-Security-Policy, allowing plain-HTTP picture hosts.

    Cameras in private networks often have no TLS. Other hosts stay blocked.
    """
    parts = (urlsplit(address) for address in addresses)
    hosts = {
        part.netloc
        for part in parts
        if part.scheme == "http" and HOST_PATTERN.fullmatch(part.netloc)
    }
    return CONTENT_POLICY.replace(
        IMAGE_SOURCES, " ".join([IMAGE_SOURCES, *(f"http://{host}" for host in sorted(hosts))])
    )


SECTIONS_BY_QUEUE: Final = {"adjudicate": "adjudication"}


@dataclass(frozen=True, slots=True)
class AnswerDeadline:
    """Deadline of an urgent task, and the fallback without an answer."""

    answer_by: datetime
    fallback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCase:
    """A case to decide, or a decided one shown again.

    Attributes:
        review: number of the review task.
        section: `review` or `adjudication`, part of its path.
        case: the case as sent.
        zone: timezone of the site.
        media: its media.
        pressing: deadline of an urgent task; `too_late`: a missed deadline.
        proposal: the model's answer in an assisted review, else "".
        answers: the conflicting answers of an adjudication.
        revision: revision of the stored answer, or None.
        stands: the stored answer in words; `note`: its note.
    """

    review: int
    section: str
    case: Case
    zone: str
    media: CaseMedia
    pressing: AnswerDeadline | None = None
    too_late: datetime | None = None
    proposal: str = ""
    answers: tuple[str, ...] = ()
    revision: int | None = None
    stands: str = ""
    note: str = ""


def build_review_case(task: ClaimedTask, state: RolloutState, at: datetime) -> ReviewCase:
    """Return the review case of a claimed task."""
    deadline = task.answer_by
    was_urgent = deadline is not None and task.claimed_until - CLAIM_DURATION < deadline <= at
    return ReviewCase(
        review=task.review,
        section=get_section(task.kind),
        case=task.case,
        zone=state.policy.get_timezone(task.case.site),
        media=sort_media(task.case.media),
        pressing=AnswerDeadline(deadline, describe_fallback(state))
        if deadline is not None and at < deadline
        else None,
        too_late=deadline if was_urgent else None,
        proposal=describe_model_answer(task.proposal, state),
        answers=tuple(
            capitalize_first(describe_answers(state.policy.levers, answers))
            for answers in task.verdicts
        ),
    )


def build_decided_case(own_decision: OwnDecision, state: RolloutState) -> ReviewCase:
    """Return the review case of a decided task, with its decision."""
    return ReviewCase(
        review=own_decision.task_number,
        section=get_section(own_decision.kind),
        case=own_decision.case,
        zone=state.policy.get_timezone(own_decision.case.site),
        media=sort_media(own_decision.case.media),
        proposal=describe_model_answer(own_decision.proposal, state),
        revision=own_decision.decision.revision,
        stands=describe_answers(state.policy.levers, own_decision.decision.answers),
        note=own_decision.decision.note or "",
    )


def get_section(kind: ReviewQueue) -> str:
    """Return the path part of a task kind's pages."""
    return SECTIONS_BY_QUEUE.get(kind, "review")


def describe_fallback(state: RolloutState) -> str:
    """Describe the fallback of the levers with the shortest time limit."""
    fallbacks = [
        (lever.answer_within, lever.unanswered)
        for lever in state.policy.levers
        if lever.answer_within
    ]
    shortest = min((period for period, _ in fallbacks), default=None)
    names = [fallback for period, fallback in fallbacks if period == shortest and fallback]
    return join_words(list(dict.fromkeys(names)))


def describe_model_answer(answer: Prediction | None, state: RolloutState) -> str:
    """Describe the model's proposal, or ""."""
    if answer is None:
        return ""
    levers = state.policy.levers
    has_answer = any(value is not None for value in answer.answers.values())
    return (
        f"{answer.version}:"
        f" {describe_answers(levers, answer.answers) if has_answer else 'no answer'}"
    )
