"""Field types of a policy file: a reader and a JSON Schema for each.

Both are in one annotated type, so that the generated schema and the loader agree. A schema is
slightly wider than its reader: where an editor sees a number, the file has digits. Readers of
scalars take text.

Each reader raises `ValueError` with the problem and its remedy.
"""

import math
import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, WithJsonSchema

from rollout.kernel.policy.cell_evidence import MAX_FLOORS
from rollout.kernel.policy.familiarity import FamiliarAttribute
from rollout.kernel.policy.stages import parse_content
from rollout.kernel.units import FAILED, LATE, OUTSIDE, Margin

UNKNOWN_LABEL = "(not listed)"  # written by the tally for a human's label outside the policy
DELIMITERS = (",", ";", "\t", "|")
DATE_FORMATS = (
    "iso",
    "day-first",
    "month-first",
    "year-first",
    "basic",
    "unix-seconds",
    "unix-milliseconds",
)
_CLOCK_DIRECTIVES = re.compile(r"%-?[HIkTRXcsrl]")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_YEARS = re.compile(r"(\d+)y")
_MAX_DURATION = timedelta(days=36525)
T = TypeVar("T")


def build_limited_reader(
    read: Callable[[str], T], allows: Callable[[T], object], fault: str
) -> Callable[[str], T]:
    """Return a reader that refuses some of what another reads; `fault` says it of the `{text}`.

    >>> read_share("95%"), read_share("0.95")
    (0.95, 0.95)
    """

    def read_limited(text: str) -> T:
        value = read(text)
        if not allows(value):
            raise ValueError(fault.format(text=text))
        return value

    return read_limited


def read_number(text: str) -> float:
    """Read a plain number.

    >>> read_number("0.3")
    0.3
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        hint = "without a per cent sign" if text.endswith("%") else "such as 0.3 or 20"
        raise ValueError(f"{text!r} is no plain number; write one {hint}")
    return value


def read_signed_share(text: str) -> float:
    """Read a share that can be negative, such as a difference of shares.

    >>> read_signed_share("-3%")
    -0.03
    """
    try:
        value = Decimal(text.removesuffix("%").strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise ValueError(f"{text!r} is no share; write one such as 95% or 0.95")
    if text.endswith("%"):
        value /= 100
    if abs(value) > 1:
        hint = "at most 100%" if text.endswith("%") else f"write {text}% if per cent is meant"
        raise ValueError(f"{text!r} is more than the whole; {hint}")
    return float(value)


read_share = build_limited_reader(
    read_signed_share,
    lambda share: share >= 0,
    "{text!r} is negative; a share lies between 0% and 100%",
)
"""Read a share: `95%` or `0.95`."""


def read_duration(text: str) -> timedelta:
    """Read a duration with its unit: `300ms 20s 15m 2h 30d`.

    >>> read_duration("90m")
    datetime.timedelta(seconds=5400)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and ms, s, m, h or d: 20s, 15m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _MAX_DURATION.total_seconds():
        raise ValueError(f"{text!r} is longer than a century; write at most 36525d")
    return timedelta(seconds=seconds)


read_positive_duration = build_limited_reader(
    read_duration, bool, "{text!r} is no time at all; write more than 0s"
)
"""Read a duration greater than zero."""
read_cost = build_limited_reader(
    read_number, lambda cost: cost >= 0, "{text!r} is negative; a cost is 0 or more"
)
"""Read a cost: a plain number, 0 or more, in the charter's unit."""


def read_count(text: str) -> int:
    """Read a whole number, 0 or more."""
    if not re.fullmatch(r"\d{1,15}", text):
        raise ValueError(f"{text!r} is no count; write a whole number, 0 or more")
    return int(text)


read_ordinal = build_limited_reader(read_count, bool, "0 is too few; write 1 or more")
"""Read a whole number, 1 or more."""


def read_flag(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither; write true or false")
    return text == "true"


class EmptyTextError(ValueError):
    """A text is empty; whether its key may be left out is known where it stands."""


def read_text(text: str) -> str:
    """Read a text that is not empty."""
    if not text:
        raise EmptyTextError("is empty; write it")
    return text


read_identifier = build_limited_reader(
    str,
    re.compile(r"[A-Za-z0-9._-]+").fullmatch,
    "{text!r} is no id; use letters, digits, dot, underscore and hyphen",
)
"""Read an id made of letters, digits and `. _ -`."""
read_name = build_limited_reader(
    str,
    re.compile(r"[^*\x00-\x1f]+").fullmatch,
    "{text!r} is no name; it is not empty and holds no * (that is a pattern)",
)
"""Read the name of a site, window, stage or lever."""
read_overlap = build_limited_reader(
    read_share,
    lambda share: share > 0,
    "{text} would let any two sets agree; write a share such as 80%",
)
"""Read the share of labels that two sets need in common to agree."""
read_sample = build_limited_reader(
    read_share,
    lambda share: share > 0,
    "{text} would let the version run on no case; write a share such as 10%",
)
"""Read the share of cases on which a version runs."""
read_label = build_limited_reader(
    read_text,
    lambda label: label not in {FAILED, LATE, OUTSIDE, UNKNOWN_LABEL},
    "{text!r} is reserved by the engine; rename it",
)
"""Read a label that is not reserved by the engine."""


def read_zone(text: str) -> str:
    """Read the name of a time zone."""
    try:
        return ZoneInfo(text).key
    except (ValueError, OSError, KeyError):
        # Names without a region (EST, CET) are excluded: they have no reliable summer time.
        close_names = get_close_matches(
            text, [name for name in available_timezones() if "/" in name], n=1
        )
        hint = close_names[0] if close_names else "Europe/Vienna"
        raise ValueError(f"{text!r} is no time zone; write a name such as {hint}") from None


read_country = build_limited_reader(
    str,
    re.compile(r"[A-Z]{2}").fullmatch,
    "{text!r} is no country; write two capital letters such as US",
)
"""Read a two-letter country code."""


def read_day(text: str) -> date:
    """Read a calendar day."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no day; write it as 2027-10-31")


read_time_of_day = build_limited_reader(
    str,
    re.compile(r"([01]\d|2[0-3]):[0-5]\d").fullmatch,
    "{text!r} is no time of day; write it as 07:00",
)
"""Read a time of day."""


def read_distance(text: str) -> Margin:
    """Read a distance between numbers: plain, or a share of the human's number.

    >>> read_distance("5%")
    Margin(amount=0.05, relative=True)
    """
    relative = text.endswith("%")
    amount = read_number(text[:-1].strip()) / 100 if relative else read_number(text)
    if amount < 0:
        raise ValueError(f"{text!r} is negative; a distance is 0 or more")
    return Margin(amount, relative=relative)


def read_reviewer_count(text: str) -> int:
    """Read the blind decisions per unit: odd, so that a majority exists."""
    if text not in {"1", "3", "5"}:
        raise ValueError(f"{text!r} is not offered; write 1, 3 or 5")
    return int(text)


read_risk = build_limited_reader(
    read_share,
    lambda share: 0 < share <= 0.2,
    "{text!r} is outside what is offered; write more than 0% and at most 20%",
)
"""Read the chance that a gate ever opens wrongly."""
read_tick = build_limited_reader(
    read_positive_duration,
    lambda span: not timedelta(days=1) % span,
    "{text!r} does not divide a day; write 15m, 1h, 6h or 1d",
)
"""Read the tick, a duration that divides a day into equal slots."""


def read_retention(text: str) -> timedelta | None:
    """Read the age at which records are purged; `kept` means never (None)."""
    return None if text == "kept" else read_positive_duration(text)


def read_alarm_interval(text: str) -> float | timedelta:
    """Read the mean number of units, or the time, between two false alarms.

    >>> read_alarm_interval("10000"), read_alarm_interval("1y")
    (10000.0, datetime.timedelta(days=365))
    """
    years = _YEARS.fullmatch(text)
    if years is not None:
        return read_positive_duration(f"{365 * int(years[1])}d")
    if _DURATION.fullmatch(text) is not None:
        return read_positive_duration(text)
    value = read_number(text)
    if value <= 1:
        raise ValueError(f"{text!r} would alarm at every unit; write more than 1, such as 10000")
    return value


def read_encoding(text: str) -> str:
    """Read the name of an encoding that Python knows.

    >>> read_encoding("latin-1")
    'latin-1'
    """
    try:
        "a".encode(text)
    except (LookupError, UnicodeError, ValueError) as error:
        raise ValueError(
            f"{text!r} is no encoding; write one such as utf-8, latin-1 or utf-16"
        ) from error
    return text


def read_delimiter(text: str) -> str:
    r"""Read the character between columns: `,`, `;`, `|` or `tab`.

    >>> read_delimiter("tab")
    '\t'
    """
    delimiter = "\t" if text == "tab" else text
    if delimiter not in DELIMITERS:
        raise ValueError(f"{text!r} is no delimiter; write one of , ; | and tab")
    return delimiter


def read_date_format(text: str) -> str:
    """Read the form of times: a name, or a pattern with a time of day."""
    if text in DATE_FORMATS:
        return text
    if "%" not in text:
        names = ", ".join(DATE_FORMATS)
        raise ValueError(f"{text!r} is no date format; write {names}, or as %d-%b-%Y %H:%M")
    if not _CLOCK_DIRECTIVES.search(text):
        raise ValueError(f"{text!r} has no time of day; write it too, as %d-%b-%Y %H:%M")
    return text


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
        value = ["operator"] * read_ordinal(value)
    if not isinstance(value, list) or not value:
        raise ValueError("names no approver; write a number of operators, or a list of groups")
    return tuple(_build_scalar_reader(read_name)(group) for group in value)


def read_position(value: Any) -> tuple[float, float]:
    """Read a position: latitude, then longitude, in degrees."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("is no place; write [latitude, longitude], such as [40.34, -105.57]")
    latitude, longitude = (_build_scalar_reader(read_number)(part) for part in value)
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise ValueError(f"[{value[0]}, {value[1]}] is not on the globe; latitude comes first")
    return latitude, longitude


def read_floors(value: Any) -> tuple[float, ...]:
    """Read confidence floors: an ascending list of shares."""
    if not isinstance(value, list) or not value:
        raise ValueError("names no floor; write a list such as [0%, 80%, 97%]")
    if len(value) > MAX_FLOORS:
        raise ValueError(f"has {len(value)} floors; write at most {MAX_FLOORS}")
    floors = tuple(_build_scalar_reader(read_share)(part) for part in value)
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
_PART = r"^\d+(\.\d+)? ?%?$"

NonEmptyText = Annotated[str, _validate_with(read_text), _ANY]
Identifier = Annotated[
    str,
    _validate_with(read_identifier),
    _build_text_schema(r"^[A-Za-z0-9._-]+$", numeric=True),
]
Name = Annotated[str, _validate_with(read_name), _ANY]
ContentHash = Annotated[
    str, _validate_with(parse_content), _build_text_schema(r"^[0-9a-f]{64}$", numeric=True)
]
Pattern = Annotated[str, _validate_with(read_text), _ANY]
Label = Annotated[str, _validate_with(read_label), _ANY]
RawText = Annotated[str, _validate_with(read_text), _build_text_schema(r"\S", numeric=True)]
Share = Annotated[
    float,
    _validate_with(read_share),
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
    _validate_with(read_overlap),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=1),
]
SampleShare = Annotated[
    float,
    _validate_with(read_sample),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=1),
]
Risk = Annotated[
    float,
    _validate_with(read_risk),
    _build_text_schema(_PART, numeric=True, minimum=0, maximum=0.2),
]
Duration = Annotated[timedelta, _validate_with(read_duration), _build_text_schema(_SPAN)]
PositiveDuration = Annotated[
    timedelta, _validate_with(read_positive_duration), _build_text_schema(_SPAN)
]
Tick = Annotated[timedelta, _validate_with(read_tick), _build_text_schema(_SPAN)]
RetentionAge = Annotated[
    timedelta | None,
    _validate_with(read_retention),
    _build_text_schema(r"^(kept|\d+(\.\d+)?(ms|s|m|h|d))$"),
]
Number = Annotated[float, _validate_with(read_number), _build_text_schema(_PLAIN, numeric=True)]
CostValue = Annotated[
    float, _validate_with(read_cost), _build_text_schema(_PLAIN, numeric=True, minimum=0)
]
FalseAlarmInterval = Annotated[
    float | timedelta,
    _validate_with(read_alarm_interval),
    _build_text_schema(_INTERVAL, numeric=True, minimum=1),
]
Count = Annotated[
    int, _validate_with(read_count), _build_text_schema(_WHOLE, numeric=True, minimum=0)
]
Ordinal = Annotated[
    int, _validate_with(read_ordinal), _build_text_schema(_WHOLE, numeric=True, minimum=1)
]
ReviewerCount = Annotated[
    int,
    _validate_with(read_reviewer_count),
    WithJsonSchema({"enum": [1, 3, 5, "1", "3", "5"]}),
]
Flag = Annotated[
    bool,
    _validate_with(read_flag),
    WithJsonSchema({"enum": [True, False, "true", "false"]}),
]
Zone = Annotated[str, _validate_with(read_zone), _build_text_schema(r"^[A-Za-z0-9_+/-]+$")]
Country = Annotated[str, _validate_with(read_country), _build_text_schema(r"^[A-Z]{2}$")]
Day = Annotated[date, _validate_with(read_day), _build_text_schema(r"^\d{4}-\d{2}-\d{2}$")]
Clock = Annotated[str, _validate_with(read_time_of_day), _build_text_schema(r"^\d{2}:\d{2}$")]
Distance = Annotated[
    Margin,
    _validate_with(read_distance),
    _build_text_schema(r"^[-+.\deE]+ ?%?$", numeric=True, minimum=0),
]
Encoding = Annotated[str, _validate_with(read_encoding), _build_text_schema(r"\S")]
Delimiter = Annotated[
    str,
    _validate_with(read_delimiter),
    WithJsonSchema({"enum": [",", ";", "|", "tab"]}),
]
DateFormat = Annotated[str, _validate_with(read_date_format), _build_text_schema(r"\S")]
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
            return FamiliarAttribute((read_text(entry),))
        case [str(), str(), *others] if all(isinstance(name, str) for name in others):
            names = tuple(read_text(name) for name in entry)
            if len(set(names)) == len(names):
                return FamiliarAttribute(names)
        case {"of": str() as name, "cuts": [str(), str(), *_] as cuts} if len(entry) == 2:
            return FamiliarAttribute((read_text(name),), _read_cuts(cuts))
    raise ValueError(f"holds {entry!r}; write {FORMS}")


def _read_cuts(texts: list[Any]) -> tuple[float, ...]:
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"holds {texts!r}; write cuts as numbers, such as [0, 20, 50]")
    cuts = tuple(read_number(text) for text in texts)
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
