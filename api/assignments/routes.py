"""Assignments: who decides a case, from memory where possible; their requests and responses.

Clients send a request for every picture, so this module parses the body and formats the response
without FastAPI's generic code, and `api.assignments.fast_path` answers most requests without the
route. A test compares the response with `AssignmentResult`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from json.encoder import encode_basestring_ascii
from typing import Annotated, Any, Final, get_type_hints

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from msgspec.json import Decoder
from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from api.auth import Caller, OutageTolerantCheck, Permission
from api.metrics import RequestCounts
from api.priority_threads import NO_ANSWER_TEXT, run_in_time
from api.schema_forms import build_responses, inline_schema
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.data.records.record_rows import MAX_KEY_LENGTH
from rollout.data.records.records import RecordReceipt
from rollout.engine.files.parse import (
    MAX_DETAILED_FAULTS,
    PARSE_ERRORS,
    Answers,
    Name,
    Share,
    ShortText,
    TextMap,
    TimeText,
    convert_type,
)
from rollout.features.assignments.assignments import (
    DATABASE_UNAVAILABLE,
    AssignmentAnswers,
    ClientHead,
    CodedHead,
    answer_from_memory,
    answer_questions,
    assign_all_to_humans,
)
from rollout.live.service import Service
from rollout.live.state_cache import SharedAssignment

MAX_QUESTIONS = 1_000  # in one request
MAX_MEMBERS = 1_000  # of an object in a request; probabilities may have the most
BoundedText = Annotated[str, Field(max_length=MAX_KEY_LENGTH)]
FORM = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
NO_QUESTIONS: list[Any] = []  # marks an omitted `questions`

QUESTION: dict[str, Any] = {
    "site": "creek",
    "at": "2027-06-01T12:00:00+00:00",
    "key": "creek-000123",
    "version": "v7",
    "confidence": 0.93,
    "prediction": {"answers": {"alarm": "bear"}, "confidence": 0.93, "latency_ms": 84},
    "ledger_head": {"revision": 41, "hash": "9f2c", "code": "1.1.6b1f"},
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
    "share": 1.0,
    "reason": "the model decides",
    "unanswered": [{"lever": "alarm", "action": "siren", "answer_within": 120.0}],
    "revision": 41,
    "hash": "9f2c",
    "era": 1,
    "head_code": "1.1.6b1f",
    "permit": "b.1.model.41.1811851200000000.60000000.9c0e.5be1",
    "lease": 60.0,
    "issued_at": "2027-06-01T12:00:00+00:00",
    "fresh_until": "2027-06-01T12:01:00+00:00",
    "recorded": {"status": "accepted", "reason": ""},
    "drawn": None,
}


class AssignmentPrediction(BaseModel):
    """A version's prediction of the case, to be stored; `error` if it failed."""

    model_config = FORM

    answers: Answers
    confidence: Share | None = None
    probabilities: Annotated[dict[Name, Share], Field(max_length=MAX_MEMBERS)] | None = None
    latency_ms: float | None = Field(default=None, ge=0)
    error: ShortText | None = None
    at: TimeText | None = Field(
        default=None, description="when it was made; default: the case's time"
    )


class ClientLedgerHead(BaseModel):
    """The newest ledger revision that the client knows, with its hash."""

    model_config = FORM

    revision: Annotated[int, Field(ge=0, lt=2**53)]
    hash: Annotated[str, Field(max_length=100)]
    code: Annotated[str, Field(max_length=100)] = Field(
        default="", description="`head_code` that came with them"
    )


# Dataclasses, not models: parsing a batch takes half the time.


@dataclass(slots=True, config=FORM)
class AssignmentQuestion:
    """A case to be decided. Missing or unknown values result in `human`.

    `content` is the SHA-256 of the version's weights and pre-processing. A question with another
    one than the version has results in `human`.
    """

    site: BoundedText = ""
    at: datetime | None = None
    key: BoundedText = ""
    version: BoundedText = ""
    episode: BoundedText | None = None
    confidence: float | None = None
    attributes: TextMap | None = None
    media: TextMap | None = None
    content: BoundedText | None = None
    prediction: AssignmentPrediction | None = None

    @property
    def has_prediction(self) -> bool:
        """Return whether the question carries a prediction."""
        return self.prediction is not None

    @property
    def has_two_confidences(self) -> bool:
        """Return whether the prediction has another confidence than the question."""
        sent = None if self.prediction is None else self.prediction.confidence
        return sent is not None and self.confidence is not None and sent != self.confidence

    def build_records(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the case and its prediction as records."""
        case = {
            "kind": "case",
            "key": self.key,
            "site": self.site,
            "occurred_at": None if self.at is None else self.at.isoformat(),
            "episode": self.episode or None,
            "attributes": self.attributes or {},
            "media": self.media or {},
        }
        prediction: dict[str, Any] = {
            "kind": "prediction",
            "key": self.key,
            "version": self.version,
        }
        if self.prediction is not None:
            prediction |= self.prediction.model_dump()
        if prediction.get("confidence") is None:
            prediction["confidence"] = self.confidence
        return case, prediction


@dataclass(slots=True, config=ConfigDict(**FORM, json_schema_extra={"example": QUESTION}))
class AssignmentRequest(AssignmentQuestion):
    """A request for one case."""

    ledger_head: ClientLedgerHead | None = None


@dataclass(slots=True, config=ConfigDict(**FORM, json_schema_extra={"example": QUESTIONS}))
class AssignmentBatchRequest:
    """A request for several cases."""

    questions: Annotated[list[AssignmentQuestion], Field(max_length=MAX_QUESTIONS)]
    ledger_head: ClientLedgerHead | None = None


@dataclass(slots=True, config=FORM)
class AssignmentBody(AssignmentRequest):
    """One question or several, parsed in one pass."""

    # of a batch the first faulty question is described: each may have thousands of faults
    questions: Annotated[list[AssignmentQuestion], Field(max_length=MAX_QUESTIONS), FailFast()] = (
        Field(default_factory=lambda: NO_QUESTIONS)
    )

    @property
    def is_batch(self) -> bool:
        """Return whether `questions` is set."""
        return self.questions is not NO_QUESTIONS

    @property
    def mixes_forms(self) -> bool:
        """Return whether `questions` and fields of a single question are set."""
        return (
            self.is_batch
            and replace(self, questions=NO_QUESTIONS, ledger_head=None) != AssignmentBody()
        )


class UnansweredAction(BaseModel):
    """The action to take if no human answers in time."""

    lever: str
    action: str
    answer_within: float = Field(description="seconds after which to take the action")


class RecordedStatus(BaseModel):
    """The result of storing the case and its prediction."""

    status: str = Field(description="`accepted`, `duplicate`, `conflict` or `rejected`")
    reason: str


class AssignmentResult(BaseModel, json_schema_extra={"example": ANSWER}):
    """Who decides a case, and for how long the answer may be used."""

    key: str
    decider: str = Field(description="`human` or `model`")
    stage: str
    exposure: str = Field(
        description="whether reviewers see the model's answer: `blind` or `assisted`"
    )
    share: float
    reason: str
    unanswered: list[UnansweredAction]
    revision: int
    hash: str
    era: int = Field(description="1, and one more after each restore of the database")
    head_code: str = Field(
        description="send it back in `ledger_head`, as `code`, with the revision and hash"
    )
    permit: str | None = Field(
        description="send it with the action to authorize it; null if there is none"
    )
    lease: float = Field(
        description="seconds for which the answer may be used, from before the request was sent, "
        "on a monotonic clock that continues during sleep"
    )
    issued_at: datetime = Field(
        description="the service's time: date an action by it and the seconds since the answer"
    )
    fresh_until: datetime = Field(
        description="when the lease ends by the server's clock; programs use `lease`"
    )
    recorded: RecordedStatus | None
    drawn: bool | None = Field(
        description="whether the version's `sample` has the case; null if it runs on all, or the"
        " case is not stored"
    )


class AssignmentResultList(BaseModel, json_schema_extra={"example": {"answers": [ANSWER]}}):
    """Who decides each case, in the order of the questions."""

    answers: list[AssignmentResult]


UNSUPPORTED_TEXT: Final = re.compile(
    rb"\.[0-9]{7}(?<=:[0-9]{2}\.[0-9]{7})"
)  # starts at the point, which is rare in a body, so that the search is fast
"""A time finer than microseconds: msgspec rounds it, pydantic truncates it."""

ESCAPED_TEXT: Final = re.compile(rb"\\u00[0-7]")
"""An escaped ASCII character: it can hide such a time, or a NUL, at which msgspec stops."""

EMPTY_QUESTION: Final = AssignmentQuestion()
FIELDS: Final = [
    (name, convert_type(hint), getattr(EMPTY_QUESTION, name))
    for name, hint in get_type_hints(AssignmentQuestion, include_extras=True).items()
    if name != "prediction"
]


class PredictionlessQuestion:
    """What an `AssignmentQuestion` without a prediction answers, for another parser's fields."""

    __slots__ = ()
    prediction = None
    has_prediction = False
    has_two_confidences = False
    build_records = AssignmentQuestion.build_records


class QuestionBody(PredictionlessQuestion):
    """One question or several, without predictions."""

    __slots__ = ()
    questions: Any

    @property
    def is_batch(self) -> bool:
        """Return whether `questions` is set."""
        return self.questions is not UNSET


def _define_struct(name: str, fields: list[Any], *bases: type) -> Any:
    return defstruct(name, fields, bases=(*bases, Struct), forbid_unknown_fields=True, gc=False)


def _list_defaults(name: str) -> tuple[Any, ...]:
    """Return the default of a field of a ledger head, () if it is required."""
    head_field = ClientLedgerHead.model_fields[name]
    return () if head_field.is_required() else (head_field.default,)


_LedgerHead: Final = _define_struct(
    "LedgerHead",
    [
        (name, convert_type(hint), *_list_defaults(name))
        for name, hint in get_type_hints(ClientLedgerHead, include_extras=True).items()
    ],
)
ParsedQuestion: Any = _define_struct("ParsedQuestion", FIELDS, PredictionlessQuestion)
_Questions: Any = Annotated[list[ParsedQuestion], Meta(max_length=MAX_QUESTIONS)]
_Body: Final = _define_struct(
    "Body",
    [
        *FIELDS,
        ("ledger_head", _LedgerHead | None, None),
        ("questions", _Questions | UnsetType, UNSET),
    ],
    QuestionBody,
)
_BODY: Final[Decoder[Any]] = Decoder(_Body)


def parse_quickly(body: bytes) -> Any | None:
    """Return the body parsed by msgspec, or None if pydantic must parse it."""
    if UNSUPPORTED_TEXT.search(body) or (b"\\" in body and ESCAPED_TEXT.search(body)):
        return None
    try:
        body_value = _BODY.decode(body)
    except PARSE_ERRORS:
        return None
    has_both_forms = body_value.is_batch and body_value != _Body(
        questions=body_value.questions, ledger_head=body_value.ledger_head
    )
    return None if has_both_forms else body_value


class _LargeObjectError(Exception):
    """An object has over `MAX_MEMBERS` members."""


def _check_object(members: list[tuple[str, Any]]) -> None:
    if len(members) > MAX_MEMBERS:
        raise _LargeObjectError


def has_large_object(body: bytes) -> bool:
    """Return whether an object of a JSON body has over `MAX_MEMBERS` members.

    Members of the same name count each, and NaN is a number: validation reads them so, too.
    """
    try:
        json.loads(body, object_pairs_hook=_check_object, parse_int=str)
    except _LargeObjectError:
        return True
    except PARSE_ERRORS:
        pass  # its parser says where
    return False


router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["assignments"])
BODY_ADAPTER = TypeAdapter(AssignmentBody)
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    inline_schema(TypeAdapter(AssignmentRequest)),
                    inline_schema(TypeAdapter(AssignmentBatchRequest)),
                ]
            },
            "example": QUESTION,
        }
    },
}
TOO_MANY_FAULTS_TEXT = f"over {MAX_DETAILED_FAULTS} faults; see the schema of a question"
TOO_MANY_MEMBERS_TEXT = f"an object has at most {MAX_MEMBERS} members; send fewer"
QUOTE = '"'
DRAWN_TEXTS = {None: "null", True: "true", False: "false"}  # of each answer: faster than `dumps`
BOTH_FORMS_FAULT = {"loc": ("questions",), "msg": "give one question or `questions`, not both"}


@router.post(
    "/assignments",
    operation_id="requestAssignments",
    summary="Ask who decides a case, or many cases",
    response_model=AssignmentResult | AssignmentResultList,
    responses=build_responses(ANSWER),
    openapi_extra={"requestBody": BODY},
)
async def request_assignments(
    rollout: str,
    request: Request,
    caller: Annotated[Caller | None, Depends(OutageTolerantCheck(Permission.REQUEST_ASSIGNMENT))],
) -> Response:
    """Return who decides a case, or each case of a batch.

    If the request carries predictions, they are stored like records. Unknown sites, versions or
    rollouts and incomplete questions get `human`; `reason` explains why.

    Use an answer for at most `lease` seconds. Count them from before you sent the request, on a
    monotonic clock that continues during sleep. On an error or a timeout, a human decides. It is
    safe to retry.

    While the database does not respond, the answer within a second is `human`. A request with
    predictions gets 503 instead, because they could not be stored.
    """
    service = request.app.state.service
    body = _parse_body(await request.body())
    questions, client_head = _list_questions(body), _find_client_head(body)
    answers = await _answer_in_time(request, caller, rollout, questions, client_head)
    is_known = service.state_cache.find_last_policy(rollout) is not None
    request.app.state.counts.count_assignments(
        rollout if is_known else "", [r.assignment.decider for r in answers.assignments]
    )
    return Response(_format_response(answers, body), media_type="application/json")


def find_quick_answer(
    service: Service, counts: RequestCounts, caller: Caller, rollout: str, body: bytes
) -> bytes | None:
    """Return the JSON of the answers from memory, or None if the route must answer.

    Raises:
        RefusalError: the route refuses the request.
    """
    parsed = parse_quickly(body)
    if parsed is None:
        return None
    questions, client_head = _list_questions(parsed), _find_client_head(parsed)
    answers = answer_from_memory(service, caller, rollout, questions, client_head)
    if answers is None:
        return None
    response = _format_response(answers, parsed)
    counts.count_assignments(rollout, [r.assignment.decider for r in answers.assignments])
    return response


def _list_questions(body: Any) -> Sequence[AssignmentQuestion]:
    return body.questions if body.is_batch else (body,)


def _find_client_head(body: Any) -> ClientHead | None:
    head = body.ledger_head
    return None if head is None else ClientHead(head.revision, head.hash, head.code)


async def _answer_in_time(
    request: Request,
    caller: Caller | None,
    rollout: str,
    questions: Sequence[AssignmentQuestion],
    client_head: ClientHead | None,
) -> AssignmentAnswers:
    """Return the answers, or `human` for each if the database does not respond in time.

    Raises:
        DatabaseUnavailableError: the questions hold predictions that could not be stored.
    """
    service, failure = request.app.state.service, DatabaseUnavailableError(NO_ANSWER_TEXT)
    if caller is not None:
        work = partial(answer_questions, service, caller, rollout, questions, client_head)
        try:
            return await run_in_time(request.scope["state"], work)
        except DatabaseUnavailableError as error:
            failure = error
    if any(question.has_prediction for question in questions):
        raise failure
    return assign_all_to_humans(questions, DATABASE_UNAVAILABLE, service.clock.now())


def _parse_body(body: bytes) -> Any:
    """Return the parsed body, as `AssignmentBody` defines it.

    Raises:
        RequestValidationError: the body has neither form; each fault has its location.
    """
    parsed = parse_quickly(body)
    if parsed is not None:
        return parsed
    if has_large_object(body):  # before each of its members is a fault
        raise RequestValidationError([{"loc": (), "msg": TOO_MANY_MEMBERS_TEXT}])
    try:
        parsed_slowly = BODY_ADAPTER.validate_json(body)
    except ValidationError as error:
        if error.error_count() > MAX_DETAILED_FAULTS:
            raise RequestValidationError([{"loc": (), "msg": TOO_MANY_FAULTS_TEXT}]) from None
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(faults) from None
    if parsed_slowly.mixes_forms:
        raise RequestValidationError([BOTH_FORMS_FAULT])
    return parsed_slowly


def _format_response(answers: AssignmentAnswers, body: Any) -> bytes:
    texts = _format_answers(answers, _list_questions(body))
    if not body.is_batch:
        return texts[0].encode()
    return b'{"answers":[%b]}' % ",".join(texts).encode()


def _format_answers(
    answers: AssignmentAnswers, questions: Sequence[AssignmentQuestion]
) -> list[str]:
    """Format each answer; parts that several cases share are formatted once."""
    ends = {
        assignment: ",".join(
            (_format_assignment(assignment, answers.head), _format_expiry(assignment, answers.at))
        )
        for assignment in set(answers.assignments)
    }
    # a permit's parts need no escapes: digits, points and words of ours
    return [
        f'{{"key":{encode_basestring_ascii(question.key)}'
        f',"permit":{"null" if permit is None else QUOTE + permit + QUOTE}'
        f',"recorded":{"null" if recorded is None else _format_record_result(recorded)}'
        f',"drawn":{DRAWN_TEXTS[is_drawn]}'
        f",{ends[assignment]}}}"
        for question, assignment, permit, recorded, is_drawn in zip(
            questions,
            answers.assignments,
            answers.permits,
            answers.recorded,
            answers.draws,
            strict=True,
        )
    ]


def _format_record_result(record_result: RecordReceipt) -> str:
    return json.dumps({"status": record_result.status, "reason": record_result.reason})


def _format_expiry(assignment: SharedAssignment, at: datetime) -> str:
    fresh_until = at + assignment.assignment.lease
    return f'"issued_at":"{at.isoformat()}","fresh_until":"{fresh_until.isoformat()}"'


@lru_cache(maxsize=4_096)
def _format_assignment(assignment: SharedAssignment, head: CodedHead) -> str:
    decision = assignment.assignment
    fields = {
        "decider": decision.decider,
        "stage": decision.stage,
        "exposure": decision.exposure,
        "share": decision.share,
        "reason": decision.reason,
        "unanswered": [
            {
                "lever": fallback.lever,
                "action": fallback.action,
                "answer_within": fallback.after.total_seconds(),
            }
            for fallback in decision.fallbacks
        ],
        "revision": decision.revision,
        "hash": head.hash,
        "era": head.era,
        "head_code": head.code,
        "lease": decision.lease.total_seconds(),
    }
    return json.dumps(fields)[1:-1]
