"""Schemas of the review queue. Reviewers see every field, so new fields can unblind them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasPath, BaseModel, Field, StringConstraints

from api.schema_forms import AttributeForm, ItemList, add_fields_of, add_input_of
from rollout.data.records.record_rows import MAX_KEY_LENGTH
from rollout.features.reviews.reviews import (
    MAX_CLAIMED_CASES,
    DecisionDraft,
    OverdueTask,
    StoredDecision,
)
from rollout.kernel.units import SEPARATOR, join_labels

MAX_REVIEWERS = 50
Kind = Literal["blind", "assisted", "adjudicate"]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[^\x00]+$")
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
LEVER: dict[str, Any] = {
    "id": "alarm",
    "labels": ["bear", "no-bear"],
    "number": None,
    "many": False,
}
OWN_TASKS: dict[str, Any] = {
    "levers": [LEVER],
    "tasks": [TASK],
    "waiting": {"blind": 7, "assisted": 0, "adjudicate": 0},
}
DECISION: dict[str, Any] = {
    "review": 4182,
    "case": "meadow-004182",
    "answers": {"alarm": "bear"},
    "unsure": False,
    "note": None,
    "revision": 1,
    "at": "2027-06-16T23:48:20-07:00",
}
OVERDUE_REVIEW: dict[str, Any] = {
    "review": 4170,
    "case": "meadow-004170",
    "site": "meadow",
    "kind": "blind",
    "due_at": "2027-06-17T23:48:00-07:00",
    "reviewer": "ana",
}


class ClaimRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"kind": "blind", "claims": 2}}
):
    """The number of review tasks to hold, and optionally their queue.

    Without `kind`, tasks are claimed in the order in which they are due, then adjudications.
    """

    kind: Kind | None = None
    claims: int = Field(default=1, ge=1, le=MAX_CLAIMED_CASES)


class NumberRange(AttributeForm):
    """The range of a lever whose answer is a number."""

    unit: str
    low: float
    high: float


class ReviewLever(AttributeForm, json_schema_extra={"example": LEVER}):
    """A decision variable of the case: labels or a number range.

    With `many` an answer is a list of labels, empty if none of them is right.
    """

    id: str
    labels: list[str]
    number: NumberRange | None
    many: bool = False


class VersionAnswer(
    AttributeForm,
    json_schema_extra={
        "example": {"version": "v7", "answers": {"alarm": "no-bear"}, "confidence": 0.61}
    },
):
    """A version's answer to a case; an answer is null if the version failed."""

    version: str
    answers: dict[str, str | None]
    confidence: float | None


class ReviewTask(AttributeForm, json_schema_extra={"example": TASK}):
    """A review task with everything that the reviewer may see."""

    review: int
    kind: Kind
    case: str = Field(validation_alias=AliasPath("case", "key"))
    site: str = Field(validation_alias=AliasPath("case", "site"))
    occurred_at: datetime = Field(validation_alias=AliasPath("case", "occurred_at"))
    attributes: dict[str, str] = Field(validation_alias=AliasPath("case", "attributes"))
    media: dict[str, str] = Field(validation_alias=AliasPath("case", "media"))
    answer_by: datetime | None = Field(
        description="after this time, the client no longer waits for the answer"
    )
    claimed_until: datetime = Field(
        description="after this time, other reviewers can claim the task"
    )
    model_answer: VersionAnswer | None = Field(
        validation_alias="proposal", description="only for assisted reviews"
    )
    decisions: list[dict[str, str | None]] = Field(
        validation_alias="verdicts", description="only for adjudications"
    )


class ReviewQueueCounts(AttributeForm, json_schema_extra={"example": OWN_TASKS["waiting"]}):
    """The number of tasks available to the reviewer, by queue."""

    blind: int
    assisted: int
    adjudicate: int


class ReviewQueue(AttributeForm, json_schema_extra={"example": OWN_TASKS}):
    """The levers, the reviewer's claimed tasks and the number of available ones."""

    levers: list[ReviewLever]
    tasks: list[ReviewTask]
    waiting: ReviewQueueCounts


def _check_labels(labels: list[str]) -> list[str]:
    join_labels(labels)
    return labels


SetLabel = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=rf"^[^\x00{SEPARATOR}]+$")
]
AnswerText = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
SentAnswer = (
    AnswerText | Annotated[list[SetLabel], Field(max_length=100), AfterValidator(_check_labels)]
)
"""An answer as sent: text, or the labels of a set."""


@add_input_of(DecisionDraft, "claimed_exposure", text=Name)
class DecisionRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {"answers": {"alarm": "bear"}, "started_at": "2027-06-16T23:48:05-07:00"}
    },
):
    """A decision: an answer by lever, or `unsure`.

    A lever that is missing or null counts as unsure.
    """

    answers: dict[Name, SentAnswer | None] = Field(default_factory=dict, max_length=50)
    note: str | None = Field(default=None, max_length=2_000)
    exposure: Literal["blind", "assisted", "revealed"] = Field(
        default="blind",
        description="what the reviewer had seen; it can only make the stored exposure less blind",
    )
    supersedes: Number | None = Field(
        default=None, description="the revision that this decision corrects"
    )

    def to_draft(self) -> DecisionDraft:
        """Return the decision as the service takes it."""
        return DecisionDraft(
            answers={
                lever: None if answer is None else join_labels(answer)
                for lever, answer in self.answers.items()
            },
            claimed_exposure=self.exposure,
            **self.model_dump(exclude={"answers", "exposure"}),
        )


@add_fields_of(StoredDecision)
class ReviewDecision(AttributeForm, json_schema_extra={"example": DECISION}):
    """A stored decision."""


class AdjudicationRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"case": "meadow-004182", "version": "v7"}},
):
    """A case to adjudicate.

    The answer of `version`, if given, is shown beside the human decisions.
    """

    case: Name
    version: Name | None = None


class GoldCaseRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {"case": "meadow-003107", "answers": {"alarm": "bear"}, "reviewers": 3}
    },
):
    """A stored case, its known answers and the number of reviewers to ask."""

    case: Name
    answers: dict[Name, SentAnswer] = Field(min_length=1, max_length=50)
    reviewers: int = Field(ge=1, le=MAX_REVIEWERS)


class ReassignmentRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"reviewer": "ana"}}
):
    """The absent reviewer."""

    reviewer: Name


class ReassignmentResult(AttributeForm, json_schema_extra={"example": {"released": 2}}):
    """The number of review tasks that were released."""

    released: int


@add_fields_of(OverdueTask)
class OverdueReview(AttributeForm, json_schema_extra={"example": OVERDUE_REVIEW}):
    """An undecided review task that is close to or past its deadline."""

    kind: Kind
    reviewer: str | None = Field(description="the reviewer who holds the task")


class OverdueReviewList(
    ItemList[OverdueReview],
    from_attributes=True,
    json_schema_extra={"example": {"items": [OVERDUE_REVIEW]}},
):
    """Overdue review tasks, soonest deadline first."""
