"""Forms of answers that have the fields of what they are made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, create_model

FormT = TypeVar("FormT", bound=BaseModel)
FORMS: Final[dict[Any, type[BaseModel]]] = {}
"""The form of each value that has one, in answers that contain it."""


def add_fields_of(source: type, *left_out: str) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds to a form the fields of a dataclass; those that it declares stay its own.

    All are required: an answer has each of its fields. Forms declared later contain the form where
    their values contain the dataclass.
    """
    added = {each.name: each.type for each in fields(source) if each.name not in left_out}
    return add_fields(source, {name: (hint, ...) for name, hint in added.items()})


def add_fields(source: type, added: Mapping[str, Any]) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds fields to a form of `source`: types with what `create_model` takes."""

    def add(form: type[FormT]) -> type[FormT]:
        missing: dict[str, Any] = {
            name: (convert_type(hint), default)
            for name, (hint, default) in added.items()
            if name not in form.model_fields
        }
        texts: Any = {"__doc__": form.__doc__, "__module__": form.__module__}
        complete = create_model(form.__name__, __base__=form, **texts, **missing)
        FORMS[source] = complete
        return complete

    return add


def convert_type(hint: Any) -> Any:
    """Return the type of a JSON answer: lists of tuples, dictionaries of mappings, forms."""
    parts = tuple(map(convert_type, get_args(hint)))
    match get_origin(hint):
        case origin if origin is tuple or origin is Sequence:
            return list[parts[0]]  # type: ignore[valid-type]
        case origin if origin is Mapping:
            return dict[parts[0], parts[1]]  # type: ignore[valid-type]
        case origin if origin is UnionType or origin is Union:
            return reduce(or_, parts)
    return FORMS.get(hint, hint)
