"""OFREP: any OpenFeature client may ask who decides a case.

A rollout has six flags, `gate.<rollout>.decider` and its companions. The targeting key is the
case's key; `site`, `at`, `version`, `confidence` and what windows ask for are attributes. Doubt is
an answer, `human`, and never an error, which a client could turn into a default of its own.
Contract: open-feature/protocol, service/openapi.yaml 0.3.0.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.concurrency import run_in_threadpool

from api.deps import Act, By, Caller, Served
from api.problems import problems
from api.schemas.assignments import AssignmentQuestion, inlined
from rollout.core.calendar.sites import SHADOW
from rollout.core.errors import NotAllowed, UnknownRollout
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import Assignment
from rollout.services.assignments.assignments import UNKNOWN, Answers, answer, by_people, names
from rollout.services.engine.service import Service

router = APIRouter(prefix="/ofrep/v1/evaluate/flags", tags=["openfeature"])

KEY: Final = re.compile(r"gate\.(?P<rollout>[A-Za-z0-9._-]+)\.(?P<facet>[a-z-]+)")
PASSING: Final = frozenset({"permit", "fresh_until"})
OWN: Final = frozenset({"targetingKey", "site", "at", "version", "episode", "confidence"})
Errors = Literal["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "GENERAL"]
Value = bool | str | int | float | dict[str, JsonValue]
Facet = Callable[[Assignment, Policy | None], Value]


def _rung(made: Assignment, policy: Policy | None) -> int:
    return 0 if policy is None else policy.rungs.index(made.stage)


def _rate(made: Assignment, policy: Policy | None) -> float:
    stage_level = _rung(made, policy)
    return (
        0.0 if policy is None or not stage_level else float(policy.stage(stage_level).audit or 0.0)
    )


def _decision(made: Assignment, policy: Policy | None) -> dict[str, JsonValue]:
    return {
        "decider": made.decider,
        "stage": made.stage,
        "stage_level": _rung(made, policy),
        "exposure": made.exposure,
        "audited": made.audited,
        "share": made.share,
    }


FACETS: Final[Mapping[str, Facet]] = {
    "decider": lambda made, _: made.decider,
    "model-may-act": lambda made, _: made.decider == "model",
    "audit": lambda made, _: made.audited,
    "audit-rate": _rate,
    "stage": _rung,
    "decision": _decision,
}

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


class FlagEvaluationRequest(BaseModel):
    """The evaluation context."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    context: dict[str, JsonValue] = Field(description="`targetingKey` is the case's key")


class FlagEvaluation(BaseModel):
    """A flag's value; `variant` is always given."""

    model_config = ConfigDict(json_schema_extra={"example": FLAG})

    key: str
    reason: Literal["STATIC", "SPLIT"]
    variant: str
    value: Value
    metadata: dict[str, bool | str | int | float]


class FlagEvaluationList(BaseModel):
    """All flags of all rollouts that the caller may ask about."""

    model_config = ConfigDict(json_schema_extra={"example": {"flags": [FLAG]}})

    flags: list[FlagEvaluation]


class FlagEvaluationFailure(BaseModel):
    """Why nothing was evaluated."""

    key: str | None = None
    errorCode: Errors  # noqa: N815 - the protocol's name
    errorDetails: str  # noqa: N815 - the protocol's name


class FlagNotFound(BaseModel):
    """There is no such flag."""

    key: str
    errorCode: Literal["FLAG_NOT_FOUND"]  # noqa: N815 - the protocol's name
    errorDetails: str  # noqa: N815 - the protocol's name


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was answered for one rollout; `policy` has the stage, None for shadow."""

    rollout: str
    answers: Answers
    made: Assignment
    policy: Policy | None


class UnfitError(Exception):
    """A body that can't be evaluated: the protocol's code, and what to do."""

    def __init__(self, code: Errors, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


RESPONSES: dict[int | str, dict[str, Any]] = {
    **problems(401, 403, 408, 413, 415, 422, 429, 503),
    400: {"model": FlagEvaluationFailure, "description": "not evaluated"},
}
NO_FLAG: dict[int | str, dict[str, Any]] = {
    404: {"model": FlagNotFound, "description": "no such flag"}
}
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "as the ETag says"}}
SCHEMA = {"application/json": {"schema": inlined(FlagEvaluationRequest)}}
BODY = {"requestBody": {"required": True, "content": SCHEMA}}


@router.post(
    "/{key:path}",
    operation_id="evaluateFlag",
    summary="Evaluate one flag (OFREP)",
    response_model=FlagEvaluation,
    responses=RESPONSES | NO_FLAG,
    openapi_extra=BODY,
)
async def evaluate_flag(
    key: str, request: Request, service: Served, who: Annotated[Caller, By(Act.BE)]
) -> Response:
    """Evaluate a flag for the case that the targeting key names."""
    found = KEY.fullmatch(key)
    if found is None or found["facet"] not in FACETS:
        return _not_found(key)
    try:
        question = _question(await request.body())
        told = await run_in_threadpool(_evaluate, service, who, found["rollout"], question)
    except UnfitError as unfit:
        return _failed(unfit, key)
    except UnknownRollout:
        return _not_found(key)
    return JSONResponse(_flag(told, found["facet"]))


@router.post(
    "",
    operation_id="evaluateFlags",
    summary="Evaluate all flags (OFREP)",
    response_model=FlagEvaluationList,
    responses=RESPONSES | UNCHANGED,
    openapi_extra=BODY,
)
async def evaluate_flags(
    request: Request,
    service: Served,
    who: Annotated[Caller, By(Act.BE)],
    *,
    if_none_match: Annotated[str | None, Header(max_length=300)] = None,
    etag: Annotated[str | None, Query(alias="flagConfigEtag", max_length=300)] = None,
    modified: Annotated[str | None, Query(alias="flagConfigLastModified", max_length=40)] = None,
) -> Response:
    """Evaluate every flag of every rollout that the caller may ask about, for one case.

    The ETag covers what was answered, not when: the same answers again are not sent again.
    """
    try:
        _check_hints(etag, modified)
        question = _question(await request.body())
    except UnfitError as unfit:
        return _failed(unfit, None)
    told = await run_in_threadpool(_evaluate_all, service, who, question)
    flags = [_flag(of, facet) for of in told for facet in FACETS]
    tag = _etag(flags)
    if if_none_match is not None and tag in {t.strip() for t in if_none_match.split(",")}:
        return Response(status_code=304, headers={"ETag": tag})
    return JSONResponse({"flags": flags}, headers={"ETag": tag})


def _evaluate(service: Service, who: Caller, name: str, one: AssignmentQuestion) -> Evaluated:
    """Ask who decides; a site that the caller may not ask about is a person's.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may ask about no site of it.
    """
    try:
        answers = answer(service, who, name, (one,), None)
    except NotAllowed as error:
        if not who.may_somewhere(Act.ASK, name):
            raise
        answers = by_people((one,), str(error), service.clock.now())
    assignment = answers.rulings[0].assignment
    if assignment.because == UNKNOWN:
        raise UnknownRollout(UNKNOWN)
    return Evaluated(name, answers, assignment, _policy(service, name, assignment))


def _evaluate_all(service: Service, who: Caller, one: AssignmentQuestion) -> list[Evaluated]:
    return [_evaluate(service, who, rollout_name, one) for rollout_name in names(service, who)]


def _policy(service: Service, name: str, made: Assignment) -> Policy | None:
    """Return the policy that a stage above shadow is one of; shadow is in none."""
    cached_rollout = None if made.stage == SHADOW else service.watch.at_hand(name)
    policy = None if cached_rollout is None else cached_rollout.standing.policy
    return policy if policy is not None and made.stage in policy.rungs else None


def _flag(told: Evaluated, facet: str) -> dict[str, Any]:
    assignment = told.made
    value = FACETS[facet](assignment, told.policy)
    optional_metadata = {"permit": told.answers.permits[0], "hash": told.answers.hash or None}
    metadata = {
        "rollout": told.rollout,
        "decider": assignment.decider,
        "stage": assignment.stage,
        "exposure": assignment.exposure,
        "audited": assignment.audited,
        "share": assignment.share,
        "reason": assignment.because,
        "revision": assignment.revision,
        "lease": assignment.lease.total_seconds(),
        "fresh_until": (told.answers.at + assignment.lease).isoformat(),
        **{name: text for name, text in optional_metadata.items() if text is not None},
    }
    return {
        "key": f"gate.{told.rollout}.{facet}",
        "reason": "STATIC" if assignment.stage == SHADOW else "SPLIT",
        "variant": _variant(value, assignment),
        "value": value,
        "metadata": metadata,
    }


def _variant(value: Value, made: Assignment) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case str():
            return value
    return made.stage


def _etag(flags: list[dict[str, Any]]) -> str:
    stable_flags = [flag | {"metadata": _lasting(flag["metadata"])} for flag in flags]
    return f'"{sha256(json.dumps(stable_flags, sort_keys=True).encode()).hexdigest()[:32]}"'


def _lasting(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in PASSING}


def _question(body: bytes) -> AssignmentQuestion:
    """Read the context.

    Raises:
        UnfitError: it is none, or names no case.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise UnfitError("PARSE_ERROR", "the body is no JSON") from None
    context = content.get("context", {}) if isinstance(content, dict) else None
    if not isinstance(context, dict):
        raise UnfitError("INVALID_CONTEXT", 'send {"context": {"targetingKey": "…", …}}')
    if not isinstance(context.get("targetingKey"), str) or not context["targetingKey"]:
        raise UnfitError("TARGETING_KEY_MISSING", "`targetingKey` is the key of the case, a text")
    try:
        return AssignmentQuestion(**_fields(context))
    except ValidationError as error:
        problems_text = "; ".join(f"{f['loc'][-1]}: {f['msg']}" for f in error.errors()[:3])
        raise UnfitError("INVALID_CONTEXT", problems_text) from None


def _fields(context: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: context.get(name) for name in ("site", "version", "episode")}
    attributes = {k: v for k, v in context.items() if k not in OWN and isinstance(v, str)}
    return {
        "key": context["targetingKey"],
        **{name: text for name, text in texts.items() if isinstance(text, str)},
        "at": _instant(context.get("at")),
        "confidence": _number(context.get("confidence")),
        "attributes": {name: text for name, text in attributes.items() if name},
    }


def _instant(said: object) -> datetime | None:
    """Return a written time; None, so a person's case, for what is none."""
    try:
        return datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None


def _number(said: object) -> float | None:
    """Return a finite number; None for what is none, or too large to be one."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    try:
        return float(said) if math.isfinite(said) else None
    except OverflowError:
        return None


def _check_hints(etag: str | None, modified: str | None) -> None:
    """Refuse hints of an event stream that say nothing; others change no answer."""
    is_valid_time = modified is None or modified.isdigit() or _instant(modified) is not None
    if etag == "" or not is_valid_time:
        raise UnfitError("GENERAL", "flagConfigEtag or flagConfigLastModified says nothing")


def _failed(unfit: UnfitError, key: str | None) -> JSONResponse:
    key_field = {} if key is None else {"key": key}
    return JSONResponse({**key_field, "errorCode": unfit.code, "errorDetails": unfit.details}, 400)


def _not_found(key: str) -> JSONResponse:
    details = f"flags are gate.<rollout>.<{'|'.join(FACETS)}> of rollouts that you may ask about"
    body = {"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": details}
    return JSONResponse(body, 404)
