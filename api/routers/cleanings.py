"""Cleaning: cases to look at again, and what people choose about them for the next training."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, Page, cursor, number_of, page_of
from api.schemas.examples import answers
from rollout.reports.figures.label_issues import WorkItem
from rollout.reports.inputs.losses import DIFFER, TOP
from rollout.services.divergences.top_losses import counted_losses
from rollout.services.training.cleaning import Wish, choices_of, choose, note_shown, work_list

router = APIRouter(prefix="/v1/rollouts/{rollout}/cleanings", tags=["training"])
Reader = Annotated[Caller, By(Act.READ)]
Instant = Annotated[AwareDatetime | None, Query(examples=["2027-06-01T00:00:00Z"])]
NO_NUL = "^[^\\x00]*$"
Name = Annotated[str, Field(max_length=200, pattern=NO_NUL)]

CHOICE: dict[str, Any] = {
    "key": "creek-0412",
    "lever": "alarm",
    "choice": "relabel",
    "label": "bear",
    "reason": "ears behind the branch",
    "by": "mia",
    "at": "2027-06-02T09:00:00Z",
    "version": "v7",
    "report": "R-12",
}
LISTED: dict[str, Any] = {
    "case_key": "creek-0412",
    "version": "v7",
    "lever": "alarm",
    "site": "creek",
    "window": "night",
    "occurred_at": "2027-06-01T01:10:00Z",
    "human": "no-bear",
    "model": "bear",
    "confidence": 0.97,
    "loss": 3.51,
    "cost": 20.0,
    "kind": "confident and wrong",
    "outcome": None,
    "votes": [["no-bear", 1]],
    "choice": CHOICE,
}
WISH: dict[str, Any] = {"key": "creek-0412", "choice": "relabel", "label": "bear", "reason": "ears"}
ANSWER: dict[str, Any] = {"key": "creek-0412", "lever": "alarm", "status": "saved", "reason": ""}


class TrainingChoice(BaseModel):
    """What somebody chose, when and why. A choice is never evidence."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": CHOICE})

    key: str
    lever: str
    choice: str
    label: str | None
    reason: str
    by: str
    at: datetime
    version: str
    report: str


class CleaningItem(BaseModel):
    """A case to look at again. `choice` is what holds, null while nobody chose."""

    model_config = ConfigDict(json_schema_extra={"example": LISTED})

    case_key: str
    version: str
    lever: str
    site: str | None
    window: str | None
    occurred_at: datetime | None
    human: str
    model: str
    confidence: float | None
    loss: float | None
    cost: float
    kind: str
    outcome: str | None
    votes: Sequence[tuple[str, int]]
    choice: TrainingChoice | None

    @classmethod
    def of(cls, item: WorkItem) -> "CleaningItem":
        """Return an item of the list as it is sent."""
        fields = [name for name in cls.model_fields if name != "choice"]
        held = None if item.choice is None else TrainingChoice.model_validate(item.choice)
        return cls(**{name: getattr(item.loss, name) for name in fields}, choice=held)


class CleaningItemList(Page[CleaningItem]):
    """Cases to look at again, the costliest first."""


class TrainingChoiceList(Page[TrainingChoice]):
    """Training choices, the newest first."""


class TopLossList(BaseModel):
    """The largest losses of what was counted, the dearest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [LISTED]}})

    items: list[CleaningItem]


class ChoiceEntry(BaseModel):
    """What you choose: relabel (with `label`), drop or keep. `lever` may be left out of one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": WISH})

    key: Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
    choice: Name
    lever: Name = ""
    label: Name | None = None
    reason: Annotated[str, Field(max_length=1_000, pattern=NO_NUL)] = ""
    version: Name = ""
    report: Name = ""


class ChoiceRequest(BaseModel):
    """Choices; each is answered, and one that is refused fails no other."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"items": [WISH]}})

    items: list[ChoiceEntry] = Field(max_length=1_000)


class ChoiceResult(BaseModel):
    """What became of a choice: `saved`, `unchanged` as it holds already, or `rejected` and why."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": ANSWER})

    key: str
    lever: str
    status: str
    reason: str


class ChoiceResultList(BaseModel):
    """The answers, in the order of the choices."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [ANSWER]}})

    items: list[ChoiceResult]


COUNTED = answers({"items": [{**LISTED, "kind": DIFFER, "choice": None}]})
LIST = answers({"items": [LISTED], "next": None})
CHOICES = answers({"items": [CHOICE], "next": None})


def _asked(
    since: Instant = None,
    until: Instant = None,
    has_choice: Annotated[bool | None, Query(description="only with, or without, a choice")] = None,
) -> dict[str, Any]:
    return {"since": since, "until": until, "chosen": has_choice}


@router.get(
    "",
    operation_id="listCleaningItems",
    summary="List cases whose labels to check",
    response_model=CleaningItemList,
    responses=LIST,
)
def list_cleaning_items(
    rollout: str,
    service: Served,
    who: Reader,
    now: Now,
    asked: Annotated[dict[str, Any], Depends(_asked)],
    after: After = None,
    limit: Limit = 100,
) -> Page[CleaningItem]:
    """Return where a version was sure and wrong, people differ or a person may have slipped.

    Of cases that occurred in the last 30 days, or from `since` up to `until`, the dearest first.
    No case that people still judge is on it.
    """
    found = work_list(service.database, who, rollout, now, **asked)
    page = page_of(found, lambda item: item.name, after, limit)
    note_shown(service.database, who, rollout, page.items, now)
    return Page(items=[CleaningItem.of(item) for item in page.items], next=page.next)


@router.get(
    "/top-losses",
    operation_id="listTopLosses",
    summary="List the costliest divergences",
    responses=COUNTED,
)
def list_top_losses(
    rollout: str,
    service: Served,
    who: Reader,
    now: Now,
    version: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
    has_choice: Annotated[bool | None, Query(description="only with, or without, a choice")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = TOP,
) -> TopLossList:
    """Return the pairs where people said otherwise and the version was surest, cost times loss.

    Of all units that are evidence, by an index: it takes as long for ten as for ten million. No
    case that people still judge is among them, and what you are shown is noted.
    """
    found = counted_losses(
        service.database, who, rollout, now, version=version, chosen=has_choice, most=limit
    )
    note_shown(service.database, who, rollout, found, now)
    return TopLossList(items=[CleaningItem.of(item) for item in found])


@router.get(
    "/choices",
    operation_id="listTrainingChoices",
    summary="List training choices",
    response_model=TrainingChoiceList,
    responses=CHOICES,
)
def list_training_choices(
    rollout: str,
    service: Served,
    who: Reader,
    now: Now,
    after: After = None,
    limit: Limit = 100,
) -> Page[TrainingChoice]:
    """Return every choice, newest first; of several about one case and lever the newest holds.

    A page may hold fewer than `limit` and yet go on: what is of other sites, or judged just now
    as a known case, is left out.
    """
    place = number_of(after)
    found, last = choices_of(service.database, who, rollout, now, before=place, limit=limit)
    items = [TrainingChoice.model_validate(one) for one in found]
    return Page(items=items, next=None if last is None else cursor(str(last)))


@router.post("", operation_id="recordTrainingChoices", summary="Record training choices")
def record_training_choices(
    rollout: str,
    wishes: ChoiceRequest,
    service: Served,
    who: Annotated[Caller, By(Act.OPERATE)],
    now: Now,
) -> ChoiceResultList:
    """Keep choices for the next export. No record changes, and nothing of it is evidence."""
    wanted = [Wish(**one.model_dump()) for one in wishes.items]
    found = choose(service.database, who, rollout, wanted, now)
    return ChoiceResultList(items=[ChoiceResult.model_validate(one) for one in found])
