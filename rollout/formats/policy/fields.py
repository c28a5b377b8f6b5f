"""Field types of a policy file: a reader and a JSON Schema for each.

Both are in one annotated type, so that the generated schema and the loader agree. A schema is
slightly wider than its reader: where an editor sees a number, the file has digits.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, WithJsonSchema

from rollout.core.policy.confidence_floors import MAX_FLOORS
from rollout.core.policy.familiarity import FamiliarAttribute
from rollout.core.policy.levers import Margin
from rollout.core.policy.version_rules import parse_content
from rollout.formats.policy import scalars

T = TypeVar("T")


def _build_scalar_reader(parse: Callable[[str], T]) -> Callable[[Any], T]:
    """Return a reader that raises ValueError for lists and mappings."""

    def read_scalar(value: Any) -> T:
        if not isinstance(value, str):
            shape = "a list" if isinstance(value, list) else "keys and values"
            raise ValueError(f"holds {shape}; write one value")  # noqa: TRY004 - pydantic expects ValueError
        return parse(value)

    return read_scalar


def _validate_with(parse: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(_build_scalar_reader(parse))


def read_groups(value: Any) -> tuple[str, ...]:
    """Read required approvals: `2` is two operators, a list has a group per approver."""
    if isinstance(value, str):
        value = ["operator"] * scalars.read_ordinal(value)
    if not isinstance(value, list) or not value:
        raise ValueError("names no approver; write a number of operators, or a list of groups")
    return tuple(_build_scalar_reader(scalars.read_name)(group) for group in value)


def read_position(value: Any) -> tuple[float, float]:
    """Read a position: latitude, then longitude, in degrees."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("is no place; write [latitude, longitude], such as [40.34, -105.57]")
    latitude, longitude = (_build_scalar_reader(scalars.read_number)(part) for part in value)
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise ValueError(f"[{value[0]}, {value[1]}] is not on the globe; latitude comes first")
    return latitude, longitude


def read_floors(value: Any) -> tuple[float, ...]:
    """Read confidence floors: an ascending list of shares."""
    if not isinstance(value, list) or not value:
        raise ValueError("names no floor; write a list such as [0%, 80%, 97%]")
    if len(value) > MAX_FLOORS:
        raise ValueError(f"has {len(value)} floors; write at most {MAX_FLOORS}")
    floors = tuple(_build_scalar_reader(scalars.read_share)(part) for part in value)
    if sorted(set(floors)) != list(floors):
        texts = ", ".join(str(part) for part in value)
        raise ValueError(f"has {texts}; write each floor once, in ascending order")
    return floors


def read_column_sources(value: Any) -> dict[str, Any]:
    """Read a column map: a column, `{value: TEXT}`, or a list of attributes by our name."""
    if not isinstance(value, dict):
        raise ValueError("has the wrong form; write keys and values: {label: THEIR_COLUMN}")  # noqa: TRY004 - pydantic expects ValueError
    for name, source in value.items():
        match source:
            case str() if source and name != "attributes":
                pass
            case {"value": str()} if len(source) == 1 and name != "attributes":
                pass
            case [*columns] if name == "attributes" and all(isinstance(c, str) for c in columns):
                pass
            case dict() if name == "attributes" and all(
                isinstance(column, str) for column in source.values()
            ):
                pass
            case _:
                raise ValueError(
                    f"{name} is neither a column, nor {{value: TEXT}}, nor (for attributes) a list"
                    " of columns"
                )
    return value


def _build_text_schema(pattern: str, *, numeric: bool = False, **more: Any) -> WithJsonSchema:
    """Return the schema of a scalar; `numeric` also allows a number."""
    text = {"type": "string", "pattern": pattern}
    number = [{"type": "number", **more}] if numeric else []
    return WithJsonSchema({"anyOf": [text, *number]} if number else text)


_ANY = WithJsonSchema({"type": ["string", "number", "boolean"]})
_WHOLE = r"^\d+$"
_SPAN = r"^\d+(\.\d+)?(ms|s|m|h|d)$"
_PLAIN = r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"
_INTERVAL = r"^([-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|\d+(\.\d+)?(ms|s|m|h|d)|\d+y)$"
_QUIET_SHARE = r"^([¼½¾⅓⅔]|\d+/\d+|\d+(\.\d+)? ?%?)$"
_PART = r"^\d+(\.\d+)? ?%?$"

NonEmptyText = Annotated[str, _validate_with(scalars.read_text), _ANY]
Identifier = Annotated[
    str,
    _validate_with(scalars.read_identifier),
    _build_text_schema(r"^[A-Za-z0-9._-]+$", numeric=True),
]
Name = Annotated[str, _validate_with(scalars.read_name), _ANY]
ContentHash = Annotated[
    str, _validate_with(parse_content), _build_text_schema(r"^[0-9a-f]{64}$", numeric=True)
]
Pattern = Annotated[str, _validate_with(scalars.read_text), _ANY]
Label = Annotated[str, _validate_with(scalars.read_label), _ANY]
RawText = Annotated[str, _validate_with(scalars.read_text), _build_text_schema(r"\S", numeric=True)]
Share = Annotated[
    float,
    _validate_with(scalars.read_share),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=1),
]
ConfidenceFloors = Annotated[
    tuple[float, ...],
    BeforeValidator(read_floors),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_FLOORS,
            "items": {
                "anyOf": [
                    {"type": "string", "pattern": _PART},
                    {"type": "number", "minimum": 0, "maximum": 1},
                ]
            },
        }
    ),
]
Overlap = Annotated[
    float,
    _validate_with(scalars.read_overlap),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=1),
]
SampleShare = Annotated[
    float,
    _validate_with(scalars.read_sample),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=1),
]
QuietShare = Annotated[
    float,
    _validate_with(scalars.read_quiet_share),
    _build_text_schema(_QUIET_SHARE, numeric=True, minimum=0, maximum=1),
]
Risk = Annotated[
    float,
    _validate_with(scalars.read_risk),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=0.2),
]
Duration = Annotated[timedelta, _validate_with(scalars.read_duration), _build_text_schema(_SPAN)]
PositiveDuration = Annotated[
    timedelta, _validate_with(scalars.read_positive_duration), _build_text_schema(_SPAN)
]
Tick = Annotated[timedelta, _validate_with(scalars.read_tick), _build_text_schema(_SPAN)]
RetentionAge = Annotated[
    timedelta | None,
    _validate_with(scalars.read_retention),
    _build_text_schema(r"^(kept|\d+(\.\d+)?(ms|s|m|h|d))$"),
]
Number = Annotated[
    float, _validate_with(scalars.read_number), _build_text_schema(_PLAIN, numeric=True)
]
CostValue = Annotated[
    float, _validate_with(scalars.read_cost), _build_text_schema(_PLAIN, numeric=True, minimum=0)
]
FalseAlarmInterval = Annotated[
    float | timedelta,
    _validate_with(scalars.read_alarm_interval),
    _build_text_schema(_INTERVAL, numeric=True, minimum=1),
]
Count = Annotated[
    int, _validate_with(scalars.read_count), _build_text_schema(_WHOLE, numeric=True, minimum=0)
]
Ordinal = Annotated[
    int, _validate_with(scalars.read_ordinal), _build_text_schema(_WHOLE, numeric=True, minimum=1)
]
ReviewerCount = Annotated[
    int,
    _validate_with(scalars.read_reviewer_count),
    WithJsonSchema({"enum": [1, 3, 5, "1", "3", "5"]}),
]
Flag = Annotated[
    bool,
    _validate_with(scalars.read_flag),
    WithJsonSchema({"enum": [True, False, "true", "false"]}),
]
Zone = Annotated[str, _validate_with(scalars.read_zone), _build_text_schema(r"^[A-Za-z0-9_+/-]+$")]
Country = Annotated[str, _validate_with(scalars.read_country), _build_text_schema(r"^[A-Z]{2}$")]
Day = Annotated[date, _validate_with(scalars.read_day), _build_text_schema(r"^\d{4}-\d{2}-\d{2}$")]
Clock = Annotated[
    str, _validate_with(scalars.read_time_of_day), _build_text_schema(r"^\d{2}:\d{2}$")
]
Distance = Annotated[
    Margin,
    _validate_with(scalars.read_distance),
    _build_text_schema(r"^[-+.\deE]+ ?%?$", numeric=True, minimum=0),
]
Encoding = Annotated[str, _validate_with(scalars.read_encoding), _build_text_schema(r"\S")]
Delimiter = Annotated[
    str,
    _validate_with(scalars.read_delimiter),
    WithJsonSchema({"enum": [",", ";", "|", "tab"]}),
]
DateFormat = Annotated[str, _validate_with(scalars.read_date_format), _build_text_schema(r"\S")]
ColumnSources = Annotated[
    dict[str, Any], BeforeValidator(read_column_sources), WithJsonSchema({"type": "object"})
]
Position = Annotated[
    tuple[float, float],
    BeforeValidator(read_position),
    WithJsonSchema(
        {"type": "array", "items": {"type": ["number", "string"]}, "minItems": 2, "maxItems": 2}
    ),
]
Groups = Annotated[
    tuple[str, ...],
    BeforeValidator(read_groups),
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

MAX_ATTRIBUTES: Final = 8
"""Attributes and combinations of a policy; snapshots list the familiar values of each."""
FORMS: Final = "an attribute, a list of attributes, or {of: NUMBER, cuts: [0, 20, 50]}"


def read_attributes(value: Any) -> tuple[FamiliarAttribute, ...]:
    """Read attributes: names, combinations, and numbers with their cuts.

    Raises:
        ValueError: an entry has none of these forms, or two are equal.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("names no attribute; write a list such as [form]")
    if len(value) > MAX_ATTRIBUTES:
        raise ValueError(f"has {len(value)} attributes; write at most {MAX_ATTRIBUTES}")
    attributes = tuple(_read_attribute(entry) for entry in value)
    ids = [attribute.id for attribute in attributes]
    for i, name in enumerate(ids):
        if name in ids[:i]:
            raise ValueError(f"names {name} twice; remove one")
    return attributes


def _read_attribute(entry: Any) -> FamiliarAttribute:
    match entry:
        case str() if entry.strip():
            return FamiliarAttribute((scalars.read_text(entry),))
        case [str(), str(), *others] if all(isinstance(name, str) for name in others):
            names = tuple(scalars.read_text(name) for name in entry)
            if len(set(names)) == len(names):
                return FamiliarAttribute(names)
        case {"of": str() as name, "cuts": [str(), str(), *_] as cuts} if len(entry) == 2:
            return FamiliarAttribute((scalars.read_text(name),), _read_cuts(cuts))
    raise ValueError(f"holds {entry!r}; write {FORMS}")


def _read_cuts(texts: list[Any]) -> tuple[float, ...]:
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"holds {texts!r}; write cuts as numbers, such as [0, 20, 50]")
    cuts = tuple(scalars.read_number(text) for text in texts)
    if sorted(set(cuts)) != list(cuts):
        raise ValueError(f"has cuts {', '.join(texts)}; write them in ascending order")
    return cuts


FamiliarAttributes = Annotated[
    tuple[FamiliarAttribute, ...],
    BeforeValidator(read_attributes),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_ATTRIBUTES,
            "items": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 2},
                    {
                        "type": "object",
                        "properties": {
                            "of": {"type": "string"},
                            "cuts": {
                                "type": "array",
                                "items": {"type": ["number", "string"]},
                                "minItems": 2,
                            },
                        },
                        "required": ["of", "cuts"],
                        "additionalProperties": False,
                    },
                ]
            },
        }
    ),
]
