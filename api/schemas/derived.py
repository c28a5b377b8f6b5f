"""Forms of answers that have the fields of what they are made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, create_model

FormT = TypeVar("FormT", bound=BaseModel)


def add_fields_of(source: type, *left_out: str) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds to a form the fields of a dataclass; those that it declares stay its own.

    All are required: an answer has each of its fields.
    """
    hints = get_type_hints(source)
    names = [field.name for field in fields(source) if field.name not in left_out]
    return add_fields({name: (convert_type(hints[name]), ...) for name in names})


def add_fields(added: Mapping[str, Any]) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds fields to a form, given as to `create_model`."""

    def add(form: type[FormT]) -> type[FormT]:
        missing: dict[str, Any] = {
            name: field for name, field in added.items() if name not in form.model_fields
        }
        texts: Any = {"__doc__": form.__doc__, "__module__": form.__module__}
        return create_model(form.__name__, __base__=form, **texts, **missing)

    return add


def convert_type(hint: Any) -> Any:
    """Return the type of a JSON answer: lists of tuples, dictionaries of mappings."""
    parts = tuple(map(convert_type, get_args(hint)))
    match get_origin(hint):
        case origin if origin is tuple or origin is Sequence:
            return list[parts[0]]  # type: ignore[valid-type]
        case origin if origin is Mapping:
            return dict[parts[0], parts[1]]  # type: ignore[valid-type]
    return hint
