"""What flags read from a context and how they are given out."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder
from pydantic import JsonValue, ValidationError

from api.schemas.assignments import AssignmentQuestion, ParsedQuestion, QuestionFields
from rollout.core.calendar.sites import SHADOW
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import Assignment
from rollout.formats.records.parse import PARSE_ERRORS
from rollout.services.assignments.assignments import AssignmentAnswers
from rollout.services.assignments.client_heads import ClientHead, CodedHead
from rollout.services.engine.assignment_cache import SharedAssignment
from rollout.store.records.record_rows import MAX_KEY_LENGTH

CONTEXT_FIELDS: Final = frozenset(
    {"targetingKey", "site", "at", "version", "episode", "confidence", "ledger_head"}
)
MAX_DIGITS: Final = 15  # of a revision
MAX_BODY_BYTES: Final = 2 * 2**20  # 100 attributes take less, whatever their letters
MAX_FIELDS: Final = 1_000  # of a context; checking a million attributes takes seconds
ErrorCode = Literal["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "GENERAL"]


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """The question of a context, and the ledger head that its client knows."""

    question: QuestionFields
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
    stable_flags = [flag | {"metadata": _drop_volatile(flag["metadata"])} for flag in flags]
    return f'"{sha256(json.dumps(stable_flags, sort_keys=True).encode()).hexdigest()[:32]}"'


def _drop_volatile(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in VOLATILE_METADATA}
