"""OFREP: OpenFeature clients evaluate who decides a case.

A rollout has six flags: `gate.<rollout>.decider` and the other facets. The targeting key is the
case's key; `site`, `at`, `version`, `confidence` and the attributes of windows are in the context,
and `ledger_head` as the last answer's metadata had it.
Doubt is answered with `human` and never with an error, because a client replaces errors by its own
default. Contract: open-feature/protocol, service/openapi.yaml 0.3.0.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from msgspec import Meta, Struct
from msgspec.json import Decoder
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from api.assignments.routes import AssignmentQuestion, ParsedQuestion
from api.auth import Caller, OutageTolerantCheck, Permission, ServiceDependency
from api.priority_threads import run_in_time
from api.problems import build_problem_responses
from api.schema_forms import MAX_DIGITS, inline_schema
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.data.records.record_rows import MAX_KEY_LENGTH
from rollout.engine.decide.assignment import Assignment
from rollout.engine.files.parse import PARSE_ERRORS
from rollout.features.assignments.assignments import (
    DATABASE_UNAVAILABLE,
    UNKNOWN_ROLLOUT,
    AssignmentAnswers,
    ClientHead,
    CodedHead,
    answer_from_memory,
    answer_questions,
    assign_all_to_humans,
    load_rollout_names,
)
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.errors import NotAllowedError, UnknownRolloutError
from rollout.kernel.policy.policy import Policy
from rollout.live.service import Service
from rollout.live.state_cache import SharedAssignment

CONTEXT_FIELDS: Final = frozenset(
    {"targetingKey", "site", "at", "version", "episode", "confidence", "ledger_head"}
)
MAX_BODY_BYTES: Final = 2 * 2**20  # 100 attributes take less, whatever their letters
MAX_FIELDS: Final = 1_000  # of a context; checking a million attributes takes seconds
ErrorCode = Literal["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "GENERAL"]


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """The question of a context, and the ledger head that its client knows."""

    question: AssignmentQuestion
    head_text: str

    def find_head(self, rollout_name: str) -> ClientHead | None:
        """Return the client's head in a rollout, or None without one."""
        match self.head_text.split(":"):
            case [name, digits, row_hash, code] if name == rollout_name:
                is_number = digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS
                return ClientHead(int(digits), row_hash, code) if is_number else None
        return None


class InvalidContextError(Exception):
    """A body that can't be evaluated, with the protocol's error code."""

    def __init__(self, code: ErrorCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


PlainText = Annotated[str, Meta(max_length=MAX_KEY_LENGTH)]


class PlainContext(Struct, forbid_unknown_fields=True, gc=False):
    """A context without attributes, in which each field has its type."""

    targetingKey: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_LENGTH)]  # noqa: N815 - the protocol's name
    site: PlainText = ""
    at: str | None = None
    version: PlainText = ""
    episode: PlainText | None = None
    confidence: float | None = None
    ledger_head: str = ""


class PlainContextBody(Struct, forbid_unknown_fields=True, gc=False):
    """A body with a plain context and nothing else."""

    context: PlainContext


PLAIN_BODY: Final = Decoder(PlainContextBody)


def parse_context(body: bytes) -> EvaluationContext:
    """Return the question and the ledger head in an evaluation context.

    Raises:
        InvalidContextError: the context is missing, or has no targeting key.
    """
    try:
        plain = PLAIN_BODY.decode(body).context
    except PARSE_ERRORS:
        return parse_any_context(body)
    question = ParsedQuestion(
        site=plain.site,
        at=parse_instant(plain.at),
        key=plain.targetingKey,
        version=plain.version,
        episode=plain.episode,
        confidence=plain.confidence,
        attributes={},
    )
    return EvaluationContext(question, plain.ledger_head)


def parse_any_context(body: bytes) -> EvaluationContext:
    """Return what `parse_context` returns, by the rules for any body."""
    if len(body) > MAX_BODY_BYTES:
        text = f"a context has at most {MAX_BODY_BYTES // 2**20} MiB"
        raise InvalidContextError("INVALID_CONTEXT", text)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidContextError("PARSE_ERROR", "the body is no JSON") from None
    context = content.get("context", {}) if isinstance(content, dict) else None
    if not isinstance(context, dict):
        raise InvalidContextError("INVALID_CONTEXT", 'send {"context": {"targetingKey": "…", …}}')
    if len(context) > MAX_FIELDS:
        raise InvalidContextError("INVALID_CONTEXT", f"a context has at most {MAX_FIELDS} fields")
    if not isinstance(context.get("targetingKey"), str) or not context["targetingKey"]:
        raise InvalidContextError(
            "TARGETING_KEY_MISSING", "`targetingKey` is the key of the case, a text"
        )
    try:
        question = AssignmentQuestion(**_parse_fields(context))
    except ValidationError as error:
        problems_text = "; ".join(f"{f['loc'][-1]}: {f['msg']}" for f in error.errors()[:3])
        raise InvalidContextError("INVALID_CONTEXT", problems_text) from None
    head_text = context.get("ledger_head")
    return EvaluationContext(question, head_text if isinstance(head_text, str) else "")


def _parse_fields(context: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: context.get(name) for name in ("site", "version", "episode")}
    # a number is its text, or a case would look as if it lacked the attribute
    attributes = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in context.items()
        if name not in CONTEXT_FIELDS and type(value) in (str, int, float)
    }
    return {
        "key": context["targetingKey"],
        **{name: text for name, text in texts.items() if isinstance(text, str)},
        "at": parse_instant(context.get("at")),
        "confidence": _parse_number(context.get("confidence")),
        "attributes": {name: text for name, text in attributes.items() if name},
    }


def parse_instant(value: object) -> datetime | None:
    """Return a time, or None if it is invalid, which results in `human`."""
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _parse_number(value: object) -> float | None:
    """Return a finite number, or None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


VOLATILE_METADATA: Final = frozenset({"permit", "fresh_until"})
FlagValue = bool | str | int | float | dict[str, JsonValue]
encode_flag: Final = json.JSONEncoder(separators=(",", ":")).encode
Facet = Callable[[Assignment, Policy | None], FlagValue]


def _get_stage_level(assignment: Assignment, policy: Policy | None) -> int:
    return 0 if policy is None else policy.stage_ids.index(assignment.stage)


def _get_audit_rate(assignment: Assignment, policy: Policy | None) -> float:
    """Return the stage's share of audits."""
    stage_level = _get_stage_level(assignment, policy)
    if policy is None or not stage_level:
        return 0.0
    return float(policy.get_stage(stage_level).audit or 0.0)


def _build_decision(assignment: Assignment, policy: Policy | None) -> dict[str, JsonValue]:
    return {
        "decider": assignment.decider,
        "stage": assignment.stage,
        "stage_level": _get_stage_level(assignment, policy),
        "exposure": assignment.exposure,
        "share": assignment.share,
    }


FACETS: Final[Mapping[str, Facet]] = {
    "decider": lambda assignment, _: assignment.decider,
    "model-may-act": lambda assignment, _: assignment.decider == "model",
    "audit-rate": _get_audit_rate,
    "stage": _get_stage_level,
    "decision": _build_decision,
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answer for one rollout; `policy` is None in shadow."""

    rollout: str
    answers: AssignmentAnswers
    assignment: Assignment
    policy: Policy | None


def build_flag(evaluation: Evaluation, facet: str) -> dict[str, Any]:
    """Return a flag: the value of a facet, with variant, reason and metadata."""
    value = FACETS[facet](evaluation.assignment, evaluation.policy)
    flag = _build_shared_flag(
        evaluation.rollout, facet, value, evaluation.assignment, evaluation.answers.head
    )
    flag["metadata"] |= _build_own_metadata(evaluation)
    return flag


def format_flag(evaluation: Evaluation, facet: str) -> str:
    """Return the JSON of a flag; what equal cases share is formatted once."""
    value = FACETS[facet](evaluation.assignment, evaluation.policy)
    if isinstance(value, dict):  # can't be the key of a cache
        return encode_flag(build_flag(evaluation, facet))
    answers = evaluation.answers
    shared_text = _format_shared_flag(
        evaluation.rollout, facet, value, answers.assignments[0], answers.head
    )
    return f"{shared_text},{encode_flag(_build_own_metadata(evaluation))[1:]}}}"


@lru_cache(maxsize=4_096, typed=True)  # 0, 0.0 and False differ in JSON
def _format_shared_flag(
    rollout_name: str,
    facet: str,
    value: bool | str | float,
    shared: SharedAssignment,
    head: CodedHead,
) -> str:
    """Return the JSON of a flag up to its case's own metadata."""
    flag = _build_shared_flag(rollout_name, facet, value, shared.assignment, head)
    return encode_flag(flag).removesuffix("}}")


def _build_shared_flag(
    rollout_name: str, facet: str, value: FlagValue, assignment: Assignment, head: CodedHead
) -> dict[str, Any]:
    """Return a flag without its case's own metadata, which comes last in it."""
    head_metadata = {
        "hash": head.hash,
        "ledger_head": f"{rollout_name}:{head.revision}:{head.hash}:{head.code}",
    }
    metadata = {
        "rollout": rollout_name,
        "decider": assignment.decider,
        "stage": assignment.stage,
        "exposure": assignment.exposure,
        "share": assignment.share,
        "reason": assignment.reason,
        "revision": assignment.revision,
        "lease": assignment.lease.total_seconds(),
        **(head_metadata if head.hash else {}),
    }
    return {
        "key": f"gate.{rollout_name}.{facet}",
        "reason": "STATIC" if assignment.stage == SHADOW else "SPLIT",
        "variant": _format_variant(value, assignment),
        "value": value,
        "metadata": metadata,
    }


def _build_own_metadata(evaluation: Evaluation) -> dict[str, str]:
    """Return the metadata of `VOLATILE_METADATA` that a flag has."""
    fresh_until = (evaluation.answers.at + evaluation.assignment.lease).isoformat()
    permit = evaluation.answers.permits[0]
    return {"fresh_until": fresh_until} | ({} if permit is None else {"permit": permit})


def _format_variant(value: FlagValue, assignment: Assignment) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case str():
            return value
    return assignment.stage


def compute_etag(flags: list[dict[str, Any]]) -> str:
    """Return the ETag of flags, which depends on what lasts in them."""
    stable_flags = [
        flag
        | {
            "metadata": {
                name: value
                for name, value in flag["metadata"].items()
                if name not in VOLATILE_METADATA
            }
        }
        for flag in flags
    ]
    return f'"{sha256(json.dumps(stable_flags, sort_keys=True).encode()).hexdigest()[:32]}"'


router = APIRouter(prefix="/ofrep/v1/evaluate/flags", tags=["openfeature"])

FLAG_PATTERN: Final = re.compile(r"gate\.(?P<rollout>[A-Za-z0-9._-]+)\.(?P<facet>[a-z-]+)")
EXAMPLE: dict[str, Any] = {
    "context": {
        "targetingKey": "creek-000123",
        "site": "creek",
        "at": "2027-06-01T12:00:00+00:00",
        "version": "v7",
        "confidence": 0.93,
    }
}
FLAG: dict[str, Any] = {
    "key": "gate.bear-alarm.decider",
    "reason": "SPLIT",
    "variant": "model",
    "value": "model",
    "metadata": {"revision": 41, "lease": 60.0, "fresh_until": "2027-06-01T12:01:00+00:00"},
}


KnownCaller = Annotated[Caller | None, Depends(OutageTolerantCheck(Permission.IDENTIFY))]
"""The caller; None while the database does not respond."""


class FlagEvaluationRequest(BaseModel, json_schema_extra={"example": EXAMPLE}):
    """The evaluation context."""

    context: dict[str, JsonValue] = Field(
        description="`targetingKey` (the case's key) and the attributes of the case"
    )


class FlagEvaluation(BaseModel, json_schema_extra={"example": FLAG}):
    """A flag's value with its variant, reason and metadata."""

    key: str
    reason: Literal["STATIC", "SPLIT"]
    variant: str
    value: FlagValue
    metadata: dict[str, bool | str | int | float] = Field(
        description="`ledger_head`: send it back in the context, so that a ledger that was set back"
        " is found"
    )


class FlagEvaluationList(BaseModel, json_schema_extra={"example": {"flags": [FLAG]}}):
    """All flags of all rollouts for which you can request assignments."""

    flags: list[FlagEvaluation]


class FlagEvaluationFailure(BaseModel):
    """The reason why nothing was evaluated."""

    key: str | None = None
    errorCode: ErrorCode  # noqa: N815 - the protocol's name
    errorDetails: str  # noqa: N815 - the protocol's name


class FlagNotFound(BaseModel):
    """The flag does not exist, or you cannot read its rollout."""

    key: str
    errorCode: Literal["FLAG_NOT_FOUND"]  # noqa: N815 - the protocol's name
    errorDetails: str  # noqa: N815 - the protocol's name


RESPONSES: dict[int | str, dict[str, Any]] = {
    **build_problem_responses(401, 403, 408, 413, 415, 422, 429, 503),
    400: {
        "model": FlagEvaluationFailure,
        "description": "the context is invalid; nothing was evaluated",
    },
}
NO_FLAG: dict[int | str, dict[str, Any]] = {
    404: {"model": FlagNotFound, "description": "the flag does not exist"}
}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "unchanged since the ETag"}}
BODY_SCHEMA = {"application/json": {"schema": inline_schema(TypeAdapter(FlagEvaluationRequest))}}
BODY = {"requestBody": {"required": True, "content": BODY_SCHEMA}}


@router.post(
    "/{key:path}",
    operation_id="evaluateFlag",
    summary="Evaluate one flag (OFREP)",
    response_model=FlagEvaluation,
    responses=RESPONSES | NO_FLAG,
    openapi_extra=BODY,
)
async def evaluate_flag(
    key: str,
    request: Request,
    service: ServiceDependency,
    caller: KnownCaller,
) -> Response:
    """Evaluate one flag for the case of the targeting key.

    The flags of a rollout are `gate.{rollout}.decider`, `.model-may-act`, `.audit`, `.audit-rate`,
    `.stage` and `.decision`. Missing or unknown values in the context result in `human`, not in an
    error. While the database does not respond, the value within a second is that of `human`.
    """
    evaluation = FLAG_PATTERN.fullmatch(key)
    if evaluation is None or evaluation["facet"] not in FACETS:
        return _build_not_found(key)
    try:
        context = parse_context(await request.body())
        flag = await _evaluate_in_time(request, service, caller, evaluation["rollout"], context)
    except InvalidContextError as error:
        return _build_failure(error, key)
    except UnknownRolloutError:
        return _build_not_found(key)
    return Response(format_flag(flag, evaluation["facet"]), media_type="application/json")


@router.post(
    "",
    operation_id="evaluateFlags",
    summary="Evaluate all flags (OFREP)",
    response_model=FlagEvaluationList,
    responses=RESPONSES | NOT_MODIFIED,
    openapi_extra=BODY,
)
async def evaluate_flags(
    request: Request,
    service: ServiceDependency,
    caller: KnownCaller,
    *,
    if_none_match: Annotated[str | None, Header(max_length=300)] = None,
    etag: Annotated[str | None, Query(alias="flagConfigEtag", max_length=300)] = None,
    modified: Annotated[str | None, Query(alias="flagConfigLastModified", max_length=40)] = None,
) -> Response:
    """Evaluate all flags of all your rollouts for one case.

    The ETag depends on the values only. If it matches `If-None-Match`, the response is 304. While
    the database does not respond, all flags that this replica knows have the values of `human`; if
    it knows none for you, the response is 503.
    """
    try:
        _check_hints(etag, modified)
        context = parse_context(await request.body())
    except InvalidContextError as error:
        return _build_failure(error, None)
    evaluations = await _evaluate_all_in_time(request, service, caller, context)
    flags = [build_flag(evaluation, facet) for evaluation in evaluations for facet in FACETS]
    tag = compute_etag(flags)
    if if_none_match is not None and tag in {
        known_tag.strip() for known_tag in if_none_match.split(",")
    }:
        return Response(status_code=304, headers={"ETag": tag})
    return JSONResponse({"flags": flags}, headers={"ETag": tag})


def find_quick_answer(service: Service, caller: Caller, key: str, body: bytes) -> bytes | None:
    """Return the JSON of a flag evaluated from memory, or None if the route must answer.

    Raises:
        InvalidContextError: the route says what is wrong.
        RefusalError: the route refuses the request, or a human decides.
    """
    flag_name = FLAG_PATTERN.fullmatch(key)
    if flag_name is None or flag_name["facet"] not in FACETS:
        return None
    context = parse_context(body)
    client_head = context.find_head(flag_name["rollout"])
    answers = answer_from_memory(
        service, caller, flag_name["rollout"], (context.question,), client_head
    )
    if answers is None:
        return None
    evaluation = _build_evaluation(service, flag_name["rollout"], answers)
    return format_flag(evaluation, flag_name["facet"]).encode()


async def _evaluate_in_time(
    request: Request,
    service: Service,
    caller: Caller | None,
    rollout_name: str,
    context: EvaluationContext,
) -> Evaluation:
    """Return the answer of one rollout; `human` if the database does not respond in time."""
    if caller is not None:
        work = partial(_evaluate, service, caller, rollout_name, context)
        with suppress(DatabaseUnavailableError):
            return await run_in_time(request.scope["state"], work)
    return _evaluate_as_human(service, rollout_name, context.question)


async def _evaluate_all_in_time(
    request: Request, service: Service, caller: Caller | None, context: EvaluationContext
) -> list[Evaluation]:
    """Return the answers of the caller's rollouts, `human` for those known in an outage.

    Raises:
        DatabaseUnavailableError: no rollout of the caller is known here.
    """
    known_names: set[str] = request.app.state.flag_rollouts
    if caller is None:
        raise DatabaseUnavailableError(DATABASE_UNAVAILABLE)
    try:
        evaluations = await run_in_time(
            request.scope["state"], partial(_evaluate_all, service, caller, context)
        )
    except DatabaseUnavailableError:
        names = [
            name
            for name in sorted(known_names)
            if caller.has_permission_somewhere(Permission.REQUEST_ASSIGNMENT, name)
        ]
        if not names:
            raise
        return [_evaluate_as_human(service, name, context.question) for name in names]
    known_names |= {evaluation.rollout for evaluation in evaluations}
    return evaluations


def _evaluate_as_human(
    service: Service, rollout_name: str, question: AssignmentQuestion
) -> Evaluation:
    answers = assign_all_to_humans((question,), DATABASE_UNAVAILABLE, service.clock.now())
    return Evaluation(rollout_name, answers, answers.assignments[0].assignment, None)


def _evaluate(
    service: Service, caller: Caller, rollout_name: str, context: EvaluationContext
) -> Evaluation:
    """Return the answer of one rollout; without permission at the site it is `human`.

    Raises:
        UnknownRolloutError: the caller can see no such rollout.
        NotAllowedError: the caller may request assignments at no site of it.
    """
    question, client_head = context.question, context.find_head(rollout_name)
    try:
        answers = answer_questions(service, caller, rollout_name, (question,), client_head)
    except NotAllowedError as error:
        if not caller.has_permission_somewhere(Permission.REQUEST_ASSIGNMENT, rollout_name):
            raise
        answers = assign_all_to_humans((question,), str(error), service.clock.now())
    if answers.assignments[0].assignment.reason == UNKNOWN_ROLLOUT:
        raise UnknownRolloutError(UNKNOWN_ROLLOUT)
    return _build_evaluation(service, rollout_name, answers)


def _build_evaluation(
    service: Service, rollout_name: str, answers: AssignmentAnswers
) -> Evaluation:
    assignment = answers.assignments[0].assignment
    policy = _find_policy(service, rollout_name, assignment)
    return Evaluation(rollout_name, answers, assignment, policy)


def _evaluate_all(service: Service, caller: Caller, context: EvaluationContext) -> list[Evaluation]:
    return [
        _evaluate(service, caller, rollout_name, context)
        for rollout_name in load_rollout_names(service, caller)
    ]


def _find_policy(service: Service, rollout_name: str, assignment: Assignment) -> Policy | None:
    """Return the policy that has the assignment's stage, or None in shadow.

    It may be older than an answer may be: the answer was fresh when it was found.
    """
    if assignment.stage == SHADOW:
        return None
    policy = service.state_cache.find_last_policy(rollout_name)
    return policy if policy is not None and assignment.stage in policy.stage_ids else None


def _check_hints(etag: str | None, modified: str | None) -> None:
    """Refuse invalid hints of an event stream; valid ones have no effect."""
    is_valid_time = modified is None or modified.isdigit() or parse_instant(modified) is not None
    if etag == "" or not is_valid_time:
        raise InvalidContextError(
            "GENERAL", "flagConfigEtag or flagConfigLastModified says nothing"
        )


def _build_failure(error: InvalidContextError, key: str | None) -> JSONResponse:
    key_field = {} if key is None else {"key": key}
    return JSONResponse({**key_field, "errorCode": error.code, "errorDetails": error.details}, 400)


def _build_not_found(key: str) -> JSONResponse:
    details = f"flags are gate.<rollout>.<{'|'.join(FACETS)}> of rollouts that you may ask about"
    body = {"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": details}
    return JSONResponse(body, 404)
