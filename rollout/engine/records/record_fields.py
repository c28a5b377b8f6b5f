"""What a record's declaration says of each of its fields."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import (
    Annotated,
    Any,
    Final,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import fields

Name = Annotated[str, Meta(min_length=1, max_length=200)]


ShortText = Annotated[str, Meta(max_length=2_000)]


LongText = Annotated[str, Meta(max_length=10_000)]


Share = Annotated[float, Meta(ge=0, le=1)]


Revision = Annotated[int, Meta(ge=1, lt=2**31)]


Number = Annotated[int, Meta(lt=2**63)]
"""A number that the database counts up."""


Answers = Mapping[str, str | None]


class Personal(Enum):
    """What an erasure of a user's name does with a field."""

    NO = "leaves it"
    NAME = "replaces it by the pseudonym"
    TEXT = "replaces it by its default"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """What a field is for; its type and limits stand beside it.

    Attributes:
        personal: what an erasure of a name does with it; a text without it stops the start.
        is_sent: whether clients send it; otherwise the service fills it in.
        is_content: whether records of one key that differ in it are in conflict.
        is_exported: whether the user who is named by the record gets it.
        is_shown: whether page and API of the case have it.
        is_key: whether it is a part of the row's key.
        is_numbered: whether the row has the number of this external key.
        is_null_if_empty: whether an empty mapping is stored as null.
        column: the column's name; "" for that of the field.
        sent_as: its name in what clients send; "" for its own.
        shown_as: its name in the API; "" for that of the column.
    """

    personal: Personal | None = None
    is_sent: bool = True
    is_content: bool = True
    is_exported: bool = True
    is_shown: bool = True
    is_key: bool = False
    is_numbered: bool = False
    is_null_if_empty: bool = False
    column: str = ""
    sent_as: str = ""
    shown_as: str = ""


@dataclass(frozen=True, slots=True)
class RecordField:
    """A field of a record, as declared.

    Attributes:
        hint: the type with its limits.
        plain: the type without limits and None.
        default: NODEFAULT if it is required.
    """

    name: str
    hint: Any
    plain: Any
    limits: Meta | None
    is_optional: bool
    default: Any
    rule: FieldRule

    @property
    def kind(self) -> Any:
        """Return the type without what it is of: `Mapping` of any mapping."""
        return get_origin(self.plain) or self.plain

    @property
    def column(self) -> str:
        """Return the name of its column."""
        return self.rule.column or self.name

    @property
    def sent_name(self) -> str:
        """Return its name in what clients send."""
        return self.rule.sent_as or self.name

    @property
    def shown_name(self) -> str:
        """Return its name in the API."""
        return self.rule.shown_as or self.column


def read_fields(record: type[Struct]) -> tuple[RecordField, ...]:
    """Return the fields of a record, in the order of their declaration.

    Raises:
        TypeError: a field has no rule or a wrong place, or a text does not say whether it is
            personal.
    """
    hints = get_type_hints(record, include_extras=True)
    read = tuple(
        _read_field(record, field.name, hints[field.name], _find_default(field))
        for field in fields(record)
    )
    if list(read) != sorted(read, key=lambda field: not field.rule.is_sent):
        raise TypeError(f"{record.__name__}: declare what is sent before what the service fills in")
    return read


def _find_default(field: Any) -> Any:
    return field.default if field.default_factory is NODEFAULT else field.default_factory()


def _read_field(record: type[Struct], name: str, declared: Any, default: Any) -> RecordField:
    base, *extras = get_args(declared) if get_origin(declared) is Annotated else (declared,)
    rule = next((extra for extra in extras if isinstance(extra, FieldRule)), None)
    limits = [extra for extra in extras if isinstance(extra, Meta)]
    hint = Annotated[base, limits[0]] if limits else base
    if rule is None or (rule.personal is None and TEXT_TYPES.intersection(_list_types(base))):
        raise TypeError(f"{record.__name__}.{name}: say in its `FieldRule` whether it is personal")
    is_optional = NoneType in get_args(base)
    part = next(each for each in get_args(base) if each is not NoneType) if is_optional else hint
    is_limited = get_origin(part) is Annotated
    plain, *others = get_args(part) if is_limited else (part,)
    return RecordField(
        name=name,
        hint=hint,
        plain=plain,
        limits=others[0] if others else None,
        is_optional=is_optional,
        default=default,
        rule=rule,
    )


TEXT_TYPES: Final = frozenset({str, Any})


def _list_types(hint: Any) -> Iterator[Any]:
    """Yield the types of which a type is made."""
    if get_origin(hint) is Annotated:
        yield from _list_types(get_args(hint)[0])
        return
    yield hint
    for part in get_args(hint):
        yield from _list_types(part)
