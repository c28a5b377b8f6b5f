"""Bodies of the review queue. They are what reviewers see: nothing may be added without thought."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from rollout.core.policy.levers import Lever
from rollout.services.reviews.review_queue import Answer, Desk, Task
from rollout.services.reviews.reviews import MOST_AHEAD, Late, Said, Verdict
from rollout.store.records.record_rows import LONGEST_KEY

MOST_PEOPLE = 50
Kind = Literal["blind", "assisted", "adjudicate"]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_KEY, pattern=r"^[^\x00]+$")
]
Number = Annotated[int, Field(ge=1, lt=2**53)]

TASK: dict[str, Any] = {
    "review": 4182,
    "kind": "blind",
    "case": "meadow-004182",
    "site": "meadow",
    "occurred_at": "2027-06-16T23:48:00-07:00",
    "attributes": {"weather": "dry"},
    "media": {"still": "https://pictures.example/meadow-004182.jpg"},
    "answer_by": "2027-06-16T23:50:00-07:00",
    "claimed_until": "2027-06-16T23:58:12-07:00",
    "model_answer": None,
    "decisions": [],
}
LEVER: dict[str, Any] = {"id": "alarm", "labels": ["bear", "no-bear"], "number": None}
DESK: dict[str, Any] = {
    "levers": [LEVER],
    "tasks": [TASK],
    "waiting": {"blind": 7, "assisted": 0, "adjudicate": 0},
}
VERDICT: dict[str, Any] = {
    "review": 4182,
    "case": "meadow-004182",
    "answers": {"alarm": "bear"},
    "unsure": False,
    "note": None,
    "revision": 1,
    "at": "2027-06-16T23:48:20-07:00",
}
REVEALED: dict[str, Any] = {
    "answers": [{"version": "v7", "answers": {"alarm": "no-bear"}, "confidence": 0.61}]
}
LATE: dict[str, Any] = {
    "review": 4170,
    "case": "meadow-004170",
    "site": "meadow",
    "kind": "blind",
    "due_at": "2027-06-17T23:48:00-07:00",
    "reviewer": "ana",
}


def _example(example: Any, *, closed: bool = False) -> ConfigDict:
    """Return how a body is read: with an example, and if `closed` with no field but its own."""
    extra = {"example": example}
    if closed:
        return ConfigDict(extra="forbid", json_schema_extra=extra)
    return ConfigDict(from_attributes=True, json_schema_extra=extra)


class ClaimRequest(BaseModel):
    """How many cases the reviewer wants to hold, and of which queue; left out: as they are due."""

    model_config = _example({"kind": "blind", "claims": 2}, closed=True)

    kind: Kind | None = None
    claims: int = Field(default=1, ge=1, le=MOST_AHEAD)


class NumberRange(BaseModel):
    """A lever whose answer is a number."""

    model_config = ConfigDict(from_attributes=True)

    unit: str
    low: float
    high: float


class ReviewLever(BaseModel):
    """What is decided: one of some labels, or a number."""

    model_config = _example(LEVER)

    id: str
    labels: list[str]
    number: NumberRange | None

    @classmethod
    def of(cls, lever: Lever) -> "ReviewLever":
        """Return a lever as it goes out; what its answers lead to is nothing that is asked."""
        number = None if lever.number is None else NumberRange.model_validate(lever.number)
        return cls(id=lever.id, labels=list(lever.labels), number=number)


class VersionAnswer(BaseModel):
    """What a version said of a case; null where it failed."""

    model_config = _example(REVEALED["answers"][0])

    version: str
    answers: dict[str, str | None]
    confidence: float | None


class ReviewTask(BaseModel):
    """A case to judge, with all that the reviewer may see of it."""

    model_config = _example(TASK)

    review: int
    kind: Kind
    case: str
    site: str
    occurred_at: datetime
    attributes: dict[str, str]
    media: dict[str, str]
    answer_by: datetime | None = Field(description="then whoever acts stops waiting")
    claimed_until: datetime = Field(description="then somebody else may be given it")
    model_answer: VersionAnswer | None = Field(description="of an assisted review alone")
    decisions: list[dict[str, str | None]] = Field(description="of an adjudication alone")

    @classmethod
    def of(cls, task: Task) -> "ReviewTask":
        """Return a task as it goes out."""
        return cls(
            review=task.review,
            kind=task.kind,
            case=task.case.key,
            site=task.case.site,
            occurred_at=task.case.occurred_at,
            attributes=dict(task.case.attributes),
            media=dict(task.case.media),
            answer_by=task.answer_by,
            claimed_until=task.claimed_until,
            model_answer=_answer(task.proposal),
            decisions=[dict(answers) for answers in task.verdicts],
        )


def _answer(answer: Answer | None) -> VersionAnswer | None:
    if answer is None:
        return None
    lever_answers = dict(answer.answers)
    return VersionAnswer(
        version=answer.version, answers=lever_answers, confidence=answer.confidence
    )


class ReviewQueueCounts(BaseModel):
    """How many cases could be given to the reviewer, by queue."""

    model_config = _example(DESK["waiting"])

    blind: int
    assisted: int
    adjudicate: int


class ReviewQueue(BaseModel):
    """What is asked, the cases that the reviewer holds, and how many more wait."""

    model_config = _example(DESK)

    levers: list[ReviewLever]
    tasks: list[ReviewTask]
    waiting: ReviewQueueCounts

    @classmethod
    def of(cls, desk: Desk) -> "ReviewQueue":
        """Return a desk as it goes out."""
        return cls(
            levers=[ReviewLever.of(lever) for lever in desk.levers],
            tasks=[ReviewTask.of(task) for task in desk.tasks],
            waiting=ReviewQueueCounts.model_validate(dict(desk.waiting)),
        )


class DecisionRequest(BaseModel):
    """A verdict: an answer by lever, or `unsure`. A lever left out, or null, is unsure alone."""

    model_config = _example(
        {"answers": {"alarm": "bear"}, "started_at": "2027-06-16T23:48:05-07:00"}, closed=True
    )

    answers: dict[Name, Name | None] = Field(default_factory=dict, max_length=50)
    unsure: bool = False
    note: str | None = Field(default=None, max_length=2_000)
    started_at: AwareDatetime | None = None
    exposure: Literal["blind", "assisted", "revealed"] = Field(
        default="blind", description="what the reviewer owns up to; it only makes it worse"
    )
    supersedes: Number | None = Field(default=None, description="the revision that this corrects")

    def said(self) -> Said:
        """Return it as the service takes it."""
        return Said(
            answers=self.answers,
            unsure=self.unsure,
            note=self.note,
            started_at=self.started_at,
            claims=self.exposure,
            supersedes=self.supersedes,
        )


class ReviewDecision(BaseModel):
    """A verdict as it is stored."""

    model_config = _example(VERDICT)

    review: int
    case: str
    answers: dict[str, str | None]
    unsure: bool
    note: str | None
    revision: int
    at: datetime

    @classmethod
    def of(cls, stored: Verdict) -> "ReviewDecision":
        """Return a verdict as it goes out."""
        return cls.model_validate(stored)


class RevealedAnswers(BaseModel):
    """What each version said."""

    model_config = _example(REVEALED)

    answers: list[VersionAnswer]

    @classmethod
    def of(cls, answers: tuple[Answer, ...]) -> "RevealedAnswers":
        """Return answers as they go out."""
        return cls(answers=[VersionAnswer.model_validate(answer) for answer in answers])


class AdjudicationRequest(BaseModel):
    """A case to be settled; `version`: whose answer is set beside those of people."""

    model_config = _example({"case": "meadow-004182", "version": "v7"}, closed=True)

    case: Name
    version: Name | None = None


class GoldCaseRequest(BaseModel):
    """A stored case with what is right, and how many people are to judge it."""

    model_config = _example(
        {"case": "meadow-003107", "answers": {"alarm": "bear"}, "reviewers": 3}, closed=True
    )

    case: Name
    answers: dict[Name, Name] = Field(min_length=1, max_length=50)
    reviewers: int = Field(ge=1, le=MOST_PEOPLE)


class ReassignmentRequest(BaseModel):
    """Somebody who is away."""

    model_config = _example({"reviewer": "ana"}, closed=True)

    reviewer: Name


class ReassignmentResult(BaseModel):
    """How many cases went back into the queue."""

    model_config = _example({"released": 2})

    released: int


class OverdueReview(BaseModel):
    """A seat without a verdict that runs out soon, or did."""

    model_config = _example(LATE)

    review: int
    case: str
    site: str
    kind: Kind
    due_at: datetime
    reviewer: str | None = Field(description="who has it now")


class OverdueReviewList(BaseModel):
    """Seats without a verdict, the first to run out first."""

    model_config = _example({"items": [LATE]})

    items: list[OverdueReview]

    @classmethod
    def of(cls, late: list[Late]) -> "OverdueReviewList":
        """Return them as they go out."""
        return cls(items=[OverdueReview.model_validate(one, from_attributes=True) for one in late])
