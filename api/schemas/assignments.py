"""Questions "who decides?" as they come in, and answers as they go out."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final, get_type_hints

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from msgspec.json import Decoder
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from rollout.formats.records.parse import AMISS
from rollout.formats.records.schema import Answers, Name, Share, Short, Texts, Time, type_of
from rollout.store.records.record_rows import LONGEST_KEY

MOST = 1_000  # questions at once
Said = Annotated[str, Field(max_length=LONGEST_KEY)]
FORM = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
NONE: list[Any] = []  # what `questions` is where it was left out

QUESTION: dict[str, Any] = {
    "site": "creek",
    "at": "2027-06-01T12:00:00+00:00",
    "key": "creek-000123",
    "version": "v7",
    "confidence": 0.93,
    "prediction": {"answers": {"alarm": "bear"}, "confidence": 0.93, "latency_ms": 84},
    "ledger_head": {"revision": 41, "hash": "9f2c"},
}
QUESTIONS: dict[str, Any] = {
    "questions": [{name: part for name, part in QUESTION.items() if name != "ledger_head"}],
    "ledger_head": QUESTION["ledger_head"],
}
ANSWER: dict[str, Any] = {
    "key": "creek-000123",
    "decider": "model",
    "stage": "autonomous",
    "exposure": "blind",
    "audited": True,
    "share": 0.1,
    "reason": "audited",
    "unanswered": [{"lever": "alarm", "action": "siren", "answer_within": 120.0}],
    "revision": 41,
    "hash": "9f2c",
    "permit": "1.model.41.1811851200000000.60000000.5be1",
    "lease": 60.0,
    "fresh_until": "2027-06-01T12:01:00+00:00",
    "recorded": {"status": "accepted", "reason": ""},
}


class AssignmentPrediction(BaseModel):
    """What the version says of the case; `error` where it failed."""

    model_config = FORM

    answers: Answers
    confidence: Share | None = None
    probabilities: Annotated[dict[Name, Share], Field(max_length=1_000)] | None = None
    latency_ms: float | None = Field(default=None, ge=0)
    error: Short | None = None
    at: Time | None = Field(default=None, description="when it was made; by default the case's")


class ClientLedgerHead(BaseModel):
    """The highest row of the ledger that the client was ever told of."""

    model_config = FORM

    revision: Annotated[int, Field(ge=0, lt=2**53)]
    hash: Annotated[str, Field(max_length=100)]


class QuestionFields:
    """What is asked about a case, however it was read."""

    __slots__ = ()

    site: str
    at: datetime | None
    key: str
    version: str
    episode: str | None
    confidence: float | None
    attributes: dict[str, str] | None
    media: dict[str, str] | None
    prediction: AssignmentPrediction | None

    @property
    def predicted(self) -> bool:
        """Say whether a prediction came with the question."""
        return self.prediction is not None

    def items(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the case and its prediction, as they would be sent as records."""
        case = {
            "kind": "case",
            "key": self.key,
            "site": self.site,
            "occurred_at": None if self.at is None else self.at.isoformat(),
            "episode": self.episode or None,
            "attributes": self.attributes or {},
            "media": self.media or {},
        }
        said: dict[str, Any] = {"kind": "prediction", "key": self.key, "version": self.version}
        if self.prediction is not None:
            said |= self.prediction.model_dump()
        if said.get("confidence") is None:
            said["confidence"] = self.confidence
        return case, said


# Dataclasses, not models: half the time for each of a batch.


@dataclass(slots=True, config=FORM)
class AssignmentQuestion(QuestionFields):
    """A case to be decided. Whatever is left out or unknown makes it a person's."""

    site: Said = ""
    at: datetime | None = None
    key: Said = ""
    version: Said = ""
    episode: Said | None = None
    confidence: float | None = None
    attributes: Texts | None = None
    media: Texts | None = None
    prediction: AssignmentPrediction | None = None


@dataclass(slots=True, config=ConfigDict(**FORM, json_schema_extra={"example": QUESTION}))
class AssignmentRequest(AssignmentQuestion):
    """One case to be decided."""

    ledger_head: ClientLedgerHead | None = None


@dataclass(slots=True, config=ConfigDict(**FORM, json_schema_extra={"example": QUESTIONS}))
class AssignmentBatchRequest:
    """Several cases to be decided."""

    questions: Annotated[list[AssignmentQuestion], Field(max_length=MOST)]
    ledger_head: ClientLedgerHead | None = None


@dataclass(slots=True, config=FORM)
class AssignmentBody(AssignmentRequest):
    """One question or many, read in one pass; which of them is told by what is set."""

    questions: Annotated[list[AssignmentQuestion], Field(max_length=MOST)] = Field(
        default_factory=lambda: NONE
    )

    @property
    def many(self) -> bool:
        """Say whether it is the form of many."""
        return self.questions is not NONE

    @property
    def muddled(self) -> bool:
        """Say whether it is neither form: `questions` beside the fields of one."""
        return self.many and replace(self, questions=NONE, ledger_head=None) != AssignmentBody()


class UnansweredAction(BaseModel):
    """What is done when no person answers within so many seconds."""

    lever: str
    action: str
    answer_within: float = Field(description="seconds")


class RecordedStatus(BaseModel):
    """What became of case and prediction."""

    status: str = Field(description="accepted, duplicate, conflict or rejected")
    reason: str


class AssignmentResult(BaseModel):
    """Who decides a case."""

    model_config = ConfigDict(json_schema_extra={"example": ANSWER})

    key: str
    decider: str = Field(description="human or model")
    stage: str
    exposure: str = Field(description="blind or assisted: what a person may see of the model")
    audited: bool
    share: float
    reason: str
    unanswered: list[UnansweredAction]
    revision: int
    hash: str
    permit: str | None = Field(description="send it back with the action")
    lease: float = Field(
        description="seconds for which this may be used, by a clock that counts sleep too, read "
        "before the question was sent"
    )
    fresh_until: datetime = Field(description="for people to read; machines count the lease")
    recorded: RecordedStatus | None


class AssignmentResultList(BaseModel):
    """Who decides each case, in the order of the questions."""

    model_config = ConfigDict(json_schema_extra={"example": {"answers": [ANSWER]}})

    answers: list[AssignmentResult]


def inlined(form: Any) -> Mapping[str, Any]:
    """Return a form's JSON schema with everything that it refers to put in its place."""
    schema = TypeAdapter(form).json_schema()
    inlined_schema = _inlined(schema, schema.get("$defs", {}))
    return {name: part for name, part in inlined_schema.items() if name != "$defs"}


def _inlined(part: Any, defs: Mapping[str, Any]) -> Any:
    if isinstance(part, dict) and "$ref" in part:
        return _inlined(defs[part["$ref"].rsplit("/", 1)[-1]], defs)
    if isinstance(part, dict):
        return {name: _inlined(inner_part, defs) for name, inner_part in part.items()}
    return [_inlined(inner_part, defs) for inner_part in part] if isinstance(part, list) else part


SMALLER: Final = re.compile(rb"\.[0-9]{7}(?<=:[0-9]{2}\.[0-9]{7})")  # by its point, which is rare
"""A time in less than microseconds: msgspec would round it, and records leave the rest off."""

ESCAPED: Final = re.compile(rb"\\u00[0-7]")
"""An ASCII letter escaped: of a time it could hide smaller parts, or a NUL, where msgspec stops."""

NOTHING: Final = AssignmentQuestion()
FIELDS: Final = [
    (name, type_of(hint), getattr(NOTHING, name))
    for name, hint in get_type_hints(AssignmentQuestion, include_extras=True).items()
    if name != "prediction"
]


class Alone(QuestionFields):
    """A question without a prediction."""

    __slots__ = ()
    prediction = None


class Body(Alone):
    """One question or many."""

    __slots__ = ()
    questions: Any

    @property
    def many(self) -> bool:
        """Say whether it is the form of many."""
        return self.questions is not UNSET


def _struct(name: str, fields: list[Any], *bases: type) -> Any:
    all_bases = (*bases, Struct)
    return defstruct(name, fields, bases=all_bases, forbid_unknown_fields=True, gc=False)


_LedgerHead: Final = _struct(
    "LedgerHead",
    [
        (name, type_of(hint))
        for name, hint in get_type_hints(ClientLedgerHead, include_extras=True).items()
    ],
)
_Question: Any = _struct("Question", FIELDS, Alone)
_Questions: Any = Annotated[list[_Question], Meta(max_length=MOST)]
_Body: Final = _struct(
    "Body",
    [
        *FIELDS,
        ("ledger_head", _LedgerHead | None, None),
        ("questions", _Questions | UnsetType, UNSET),
    ],
    Body,
)
_BODY: Final[Decoder[Any]] = Decoder(_Body)


def quickly(body: bytes) -> Any | None:
    """Return what is asked, as `BodyIn` gives it; None where the forms have to look at it."""
    if SMALLER.search(body) or (b"\\" in body and ESCAPED.search(body)):
        return None
    try:
        body_value = _BODY.decode(body)
    except AMISS:
        return None
    has_both_forms = body_value.many and body_value != _Body(
        questions=body_value.questions, ledger_head=body_value.ledger_head
    )
    return None if has_both_forms else body_value
