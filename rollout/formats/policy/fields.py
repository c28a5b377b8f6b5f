"""The kinds of field that a policy file has: how each is read, and how an editor may check it.

A field's reader and its JSON Schema stand in one annotated type, so that the schema which
`policy_schema` generates and what the loader takes never drift apart. Schemas are a little wider
than the readers: what an editor reads as a number is digits in the file.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, WithJsonSchema

from rollout.core.policy.levers import Margin
from rollout.formats.policy import scalars

T = TypeVar("T")


def _scalar(read: Callable[[str], T]) -> Callable[[Any], T]:
    """Let a reader of text refuse lists and mappings in its own words."""

    def checked(given: Any) -> T:
        if not isinstance(given, str):
            shape = "a list" if isinstance(given, list) else "keys and values"
            raise ValueError(f"holds {shape}; write one value")  # noqa: TRY004 - pydantic's way
        return read(given)

    return checked


def groups(given: Any) -> tuple[str, ...]:
    """Read who must approve: `2` is two operators, a list names a group for each person."""
    if isinstance(given, str):
        given = ["operator"] * scalars.ordinal(given)
    if not isinstance(given, list) or not given:
        raise ValueError("names nobody; write a number of operators, or a list of groups")
    return tuple(_scalar(scalars.name)(group) for group in given)


def position(given: Any) -> tuple[float, float]:
    """Read a place on the globe: latitude, then longitude, in degrees."""
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError("is no place; write [latitude, longitude], such as [40.34, -105.57]")
    latitude, longitude = (_scalar(scalars.number)(part) for part in given)
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise ValueError(f"[{given[0]}, {given[1]}] is not on the globe; latitude comes first")
    return latitude, longitude


def _text(pattern: str, *, numeric: bool = False, **more: Any) -> WithJsonSchema:
    """Describe a scalar to editors: they may see a number where the file has digits."""
    text = {"type": "string", "pattern": pattern}
    number = [{"type": "number", **more}] if numeric else []
    return WithJsonSchema({"anyOf": [text, *number]} if number else text)


_ANY = WithJsonSchema({"type": ["string", "number", "boolean"]})
_WHOLE = r"^\d+$"
_SPAN = r"^\d+(\.\d+)?(ms|s|m|h|d)$"
_PLAIN = r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"
_PART = r"^\d+(\.\d+)? ?%?$"

Words = Annotated[str, BeforeValidator(_scalar(scalars.words)), _ANY]
Id = Annotated[
    str, BeforeValidator(_scalar(scalars.identifier)), _text(r"^[A-Za-z0-9._-]+$", numeric=True)
]
Name = Annotated[str, BeforeValidator(_scalar(scalars.name)), _ANY]
Pattern = Annotated[str, BeforeValidator(_scalar(scalars.words)), _ANY]
Label = Annotated[str, BeforeValidator(_scalar(scalars.label)), _ANY]
Raw = Annotated[str, BeforeValidator(_scalar(scalars.words)), _text(r"\S", numeric=True)]
Share = Annotated[
    float, BeforeValidator(_scalar(scalars.share)), _text(_PART, numeric=True, minimum=0, maximum=1)
]
Risk = Annotated[
    float,
    BeforeValidator(_scalar(scalars.risk)),
    _text(_PART, numeric=True, minimum=0, maximum=0.2),
]
Duration = Annotated[timedelta, BeforeValidator(_scalar(scalars.duration)), _text(_SPAN)]
Span = Annotated[timedelta, BeforeValidator(_scalar(scalars.positive)), _text(_SPAN)]
Tick = Annotated[timedelta, BeforeValidator(_scalar(scalars.divisor)), _text(_SPAN)]
Kept = Annotated[
    timedelta | None,
    BeforeValidator(_scalar(scalars.kept)),
    _text(r"^(kept|\d+(\.\d+)?(ms|s|m|h|d))$"),
]
Number = Annotated[float, BeforeValidator(_scalar(scalars.number)), _text(_PLAIN, numeric=True)]
Price = Annotated[
    float, BeforeValidator(_scalar(scalars.cost)), _text(_PLAIN, numeric=True, minimum=0)
]
Often = Annotated[
    float, BeforeValidator(_scalar(scalars.often)), _text(_PLAIN, numeric=True, minimum=1)
]
Count = Annotated[
    int, BeforeValidator(_scalar(scalars.count)), _text(_WHOLE, numeric=True, minimum=0)
]
Ordinal = Annotated[
    int, BeforeValidator(_scalar(scalars.ordinal)), _text(_WHOLE, numeric=True, minimum=1)
]
Judges = Annotated[
    int,
    BeforeValidator(_scalar(scalars.judges)),
    WithJsonSchema({"enum": [1, 3, 5, "1", "3", "5"]}),
]
Flag = Annotated[
    bool,
    BeforeValidator(_scalar(scalars.flag)),
    WithJsonSchema({"enum": [True, False, "true", "false"]}),
]
Zone = Annotated[str, BeforeValidator(_scalar(scalars.zone)), _text(r"^[A-Za-z0-9_+/-]+$")]
Country = Annotated[str, BeforeValidator(_scalar(scalars.country)), _text(r"^[A-Z]{2}$")]
Day = Annotated[date, BeforeValidator(_scalar(scalars.day)), _text(r"^\d{4}-\d{2}-\d{2}$")]
Clock = Annotated[str, BeforeValidator(_scalar(scalars.clock)), _text(r"^\d{2}:\d{2}$")]
Distance = Annotated[
    Margin,
    BeforeValidator(_scalar(scalars.margin)),
    _text(r"^[-+.\deE]+ ?%?$", numeric=True, minimum=0),
]
Position = Annotated[
    tuple[float, float],
    BeforeValidator(position),
    WithJsonSchema(
        {"type": "array", "items": {"type": ["number", "string"]}, "minItems": 2, "maxItems": 2}
    ),
]
Groups = Annotated[
    tuple[str, ...],
    BeforeValidator(groups),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": _WHOLE},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
