"""Forms that have the fields of what answers are made from, or what requests become."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from datetime import datetime
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, create_model

FormT = TypeVar("FormT", bound=BaseModel)
FORMS: Final[dict[Any, Any]] = {}
"""The form of each value that has one, in answers that contain it."""


def add_fields_of(value: type, *left_out: str) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds to a form the fields of a dataclass; those that it declares stay its own.

    All are required: an answer has each of its fields. Forms declared later contain the form where
    their values contain the dataclass.
    """
    hints = {each.name: each.type for each in _list_fields(value, left_out)}
    return add_fields({name: (convert_type(hints[name]), ...) for name in hints}, value)


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


def _list_fields(value: Any, left_out: Sequence[str]) -> list[Field[Any]]:
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
