"""The evaluation context of an OFREP request: a question, and the ledger head of its client.

A context with no more than the fields of a question, each of its type, is read by msgspec; any
other one by the rules below. A test compares the two.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder
from pydantic import ValidationError

from api.schemas.assignments import AssignmentQuestion, ParsedQuestion, QuestionFields
from rollout.formats.records.parse import PARSE_ERRORS
from rollout.services.assignments.client_heads import ClientHead
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
