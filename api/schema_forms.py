"""Schemas of requests and answers: their forms, pages of lists, and parts of the OpenAPI document.

Forms have the fields of what answers are made from, or of what requests become. Pages of a list:
`after` is an opaque cursor from the previous page. The OpenAPI document gets examples, responses
and inlined schemas.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from dataclasses import Field as DataField
from datetime import datetime
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, Generic, TypeVar, Union, get_args, get_origin

from fastapi import Query
from pydantic import AliasPath, AwareDatetime, BaseModel, Field, TypeAdapter, create_model

from rollout.kernel.errors import RefusalError

T = TypeVar("T")
MAX_ITEMS = 1_000
MAX_DIGITS = 15  # far below the largest integer of a database

Limit = Annotated[int, Query(ge=1, le=MAX_ITEMS, description="maximum number of items")]
After = Annotated[
    str | None, Query(description="cursor: `next` of the previous page", max_length=500)
]


class ItemList(BaseModel, Generic[T]):
    """A list that is answered as a whole."""

    items: list[T]


class Page(ItemList[T]):
    """A page of a list. `next` is null on the last page."""

    next: str | None = Field(
        default=None, description="cursor for the next page, as `after`; null on the last page"
    )


def encode_cursor(position: str) -> str:
    """Return a position in a list as an opaque cursor."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """Return the position of a cursor, or None for the start.

    Raises:
        RefusalError: the cursor is invalid.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error) as error:
        raise RefusalError("`after` is no cursor of ours; leave it out to begin anew") from error


def build_page(items: list[T], after: str | None, limit: int) -> Page[T]:
    """Return one page of a list that only grows at its end; cursors count items.

    An item may get another name, as an erased user does.

    Raises:
        RefusalError: `after` is invalid.
    """
    start = decode_number(after) or 0
    end = start + limit
    return Page(items=items[start:end], next=encode_number(end if end < len(items) else None))


def encode_number(number: int | None) -> str | None:
    """Return a cursor for a number, or None at the end of a list."""
    return None if number is None else encode_cursor(str(number))


def decode_number(cursor: str | None) -> int | None:
    """Return the number in a cursor, or None for the start.

    Raises:
        RefusalError: the cursor is invalid.
    """
    position = decode_cursor(cursor)
    if position is None:
        return None
    if not (position.isascii() and position.isdigit() and len(position) <= MAX_DIGITS):
        raise RefusalError("`after` is no cursor of ours; leave it out to begin anew")
    return int(position)


FormT = TypeVar("FormT", bound=BaseModel)
FORMS: Final[dict[Any, Any]] = {}
"""The form of each value that has one, in answers that contain it."""


class AttributeForm(BaseModel, from_attributes=True):
    """The form of a part of an answer, read from an object's attributes."""


def add_fields_of(
    value: type, *left_out: str, part: str = ""
) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds to a form the fields of a dataclass; those that it declares stay its own.

    All are required: an answer has each of its fields. Forms declared later contain the form where
    their values contain the dataclass. With `part` the form is of what holds the dataclass under
    that name.
    """
    added = {
        each.name: (
            convert_type(each.type),
            Field(validation_alias=AliasPath(part, each.name) if part else None),
        )
        for each in _list_fields(value, left_out)
    }
    return add_fields(added, None if part else value)


def add_input_of(value: type, *left_out: str, text: Any) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds to the form of a request the fields of a dataclass, but its own.

    Texts are of the type `text`, times have an offset; what has a default may be left out.
    """
    types = {str: text, datetime: AwareDatetime}
    return add_fields(
        {
            each.name: (
                convert_type(each.type, types),
                ... if each.default is MISSING else each.default,
            )
            for each in _list_fields(value, left_out)
        }
    )


def _list_fields(value: Any, left_out: Sequence[str]) -> list[DataField[Any]]:
    return [each for each in fields(value) if each.name not in left_out]


def add_fields(
    added: Mapping[str, Any], value: type | None = None
) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds fields, given as to `create_model`, to a form; of answers with `value`."""

    def add(form: type[FormT]) -> type[FormT]:
        missing: dict[str, Any] = {
            name: field for name, field in added.items() if name not in form.model_fields
        }
        texts: Any = {"__doc__": form.__doc__, "__module__": form.__module__}
        complete = create_model(form.__name__, __base__=form, **texts, **missing)
        if value is not None:
            FORMS[value] = complete
        return complete

    return add


def convert_type(hint: Any, types: Mapping[Any, Any] = FORMS) -> Any:
    """Return the type of a JSON value: lists of tuples, dictionaries of mappings, others' forms."""
    parts = tuple(convert_type(part, types) for part in get_args(hint))
    match get_origin(hint):
        case origin if origin is tuple or origin is Sequence:
            return list[parts[0]]  # type: ignore[valid-type]
        case origin if origin is Mapping:
            return dict[parts[0], parts[1]]  # type: ignore[valid-type]
        case origin if origin is UnionType or origin is Union:
            return reduce(or_, parts)
    return types.get(hint, hint)


HEAD: dict[str, Any] = {"rollout": "bear-alarm", "revision": 42, "hash": "9f2c…"}
CELL: dict[str, Any] = {"site": "creek", "window": "night"}
NOON, LATER = "2027-06-01T12:00:00Z", "2027-06-15T12:00:00Z"


def build_responses(
    example: Any, *statuses: int, model: type[Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return a route's OpenAPI `responses` with an example.

    Args:
        example: the example of a response body.
        statuses: the possible statuses, by default only 200.
        model: the type of the body; needed if there are several statuses.
    """
    status_texts = {
        200: "the result, or the existing state if nothing changed",
        201: "created",
        202: "proposed; needs approvals",
    }
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses or (200,):
        content = {"application/json": {"example": example}}
        responses[status] = {"description": status_texts[status], "content": content}
        if model is not None:
            responses[status]["model"] = model
    return responses


def build_command_example(
    event: str, by: str, body: dict[str, Any], **extra: Any
) -> dict[str, Any]:
    """Return an example of a command's result."""
    events = [{"at": NOON, "kind": event, "by": by, "body": body}]
    return {**HEAD, "events": events, **extra}


def inline_schema(adapter: TypeAdapter[Any]) -> Mapping[str, Any]:
    """Return a type's JSON schema with all references replaced by their targets."""
    schema = adapter.json_schema()
    inlined_schema: Mapping[str, Any] = _inline_part(schema, schema.get("$defs", {}))
    return inlined_schema


def _inline_part(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inline_part(inner_part, definitions) for inner_part in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inline_part(definitions[part["$ref"].rsplit("/", 1)[-1]], definitions)
    return {
        name: _inline_part(inner_part, definitions)
        for name, inner_part in part.items()
        if name not in {"$defs", "discriminator"}
    }
