"""The forms of items as structs: what whole batches are read into, four times as fast.

They are made from `rollout.formats.live_forms`, so each form is written once. Where something is
wrong with an item these say no more than that; the forms say what.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import NODEFAULT, Meta, Struct, defstruct
from msgspec.json import Decoder

from rollout.formats.live_forms import FORMS, MOST_ITEMS

KIND: Final = "kind"
LEFT_OUT: Final[Mapping[str, Any]] = {
    "answers": {},
    "attributes": {},
    "media": {},
    "exposure": "unknown",
    "revision": 1,
    "source": "",
    "unsure": False,
}
"""What a name stands for that an item doesn't have; None for all others."""


def _struct(form: type) -> type[Struct]:
    hints = get_type_hints(form, include_extras=True)
    (kind,) = get_args(hints.pop(KIND))
    return defstruct(
        form.__name__,
        [(name, type_of(hint), _default(name, hint)) for name, hint in hints.items()],
        tag_field=KIND,
        tag=kind,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,  # it holds nothing that could hold it
    )


def _default(name: str, hint: Any) -> Any:
    return LEFT_OUT.get(name) if get_origin(hint) is NotRequired else NODEFAULT


def type_of(hint: Any) -> Any:
    """Return a type as pydantic's forms have it, its limits in msgspec's words."""
    base, *rest = get_args(hint) or (hint,)
    match get_origin(hint):
        case origin if origin is NotRequired:
            return type_of(base)
        case origin if origin is Annotated:
            return Annotated[type_of(base), Meta(**_limits(rest))]
        case origin if origin in {Union, UnionType}:
            return reduce(or_, map(type_of, (base, *rest)))
        case origin if origin is dict:
            return dict[type_of(base), type_of(rest[0])]  # type: ignore[misc]
    return hint


def _limits(fields: list[Any]) -> Mapping[str, Any]:
    """Return the limits of a pydantic field, each an object with one attribute of its name."""
    rules = [rule for field in fields for rule in field.metadata]
    return {name: getattr(rule, name) for rule in rules for name in rule.__slots__}


STRUCTS: Final = MappingProxyType({kind: _struct(form) for kind, form in FORMS.items()})
"""By kind what its items are read into."""

Item: Any = reduce(or_, STRUCTS.values())
Items: Any = Annotated[list[Item], Meta(max_length=MOST_ITEMS)]
ITEMS: Final[Decoder[Any]] = Decoder(Items)
WRAPPED: Final[Decoder[Any]] = Decoder(
    defstruct("Wrapped", [("items", Items)], forbid_unknown_fields=True)
)
