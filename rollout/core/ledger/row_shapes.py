"""The shape of a ledger's row: the fields of its kind, and their types.

Hashes don't show a wrong shape: the author of a file can hash anything.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from math import isfinite
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import (
    ALL_EVENT_TYPES,
    EVENT_HINTS,
    ROW_FIELDS,
    BrokenLedgerError,
    CanonicalRow,
    read_body,
)
from rollout.kernel.facts import parse_facts, to_facts
from rollout.kernel.readings import StoredReading

COLUMN_HINTS: Final[Mapping[str, Any]] = {
    "rollout": str,
    "revision": int,
    "at": int,
    "slot": int | None,
    "actor": str,
    "body": dict,
    "access_head": int | None,
}
CELL_KEYS: Final = ("site", "window")


def check_shape(row: CanonicalRow) -> None:
    """Raise `BrokenLedgerError` unless a verified row has the shape of its kind."""
    if fault := find_shape_fault(row):
        raise BrokenLedgerError(row.revision, fault)


def find_shape_fault(row: CanonicalRow) -> str:
    """Return what is wrong with the shape of a verified row, or ""."""
    for name, hint in COLUMN_HINTS.items():
        if not _has_type(getattr(row, name), hint):
            return f"its `{name}` has a wrong type"
    values = read_body(row.kind, row.body, row.texts)
    hints = {name: hint for name, hint in EVENT_HINTS[row.kind].items() if name not in ROW_FIELDS}
    if "cell" in hints:
        values["cell"] = {key: values.pop(key) for key in CELL_KEYS if key in values} or None
    for name in values:
        if name not in hints:
            return f"an entry {row.kind} has no `{name}`"
        if not _has_type(values[name], hints[name]):
            return f"its `{name}` has a wrong type"
    missing = sorted(_list_required_fields(row.kind) - values.keys())
    return f"it lacks `{missing[0]}`" if missing else ""


def _list_required_fields(kind: str) -> frozenset[str]:
    return frozenset(
        each.name
        for each in fields(ALL_EVENT_TYPES[kind])
        if each.name not in ROW_FIELDS and each.default is MISSING
    )


def _is_reading(value: Any) -> bool:
    """Return whether a value has all that a reading has, so that its words can be said."""
    try:
        reading = StoredReading(**value)
        condition, numbers = reading.parse_condition(), (reading.log_e, reading.risk)
        extras = filter(None, (reading.estimate, reading.bound, reading.draw_log_e))
        return (
            to_facts(condition) == value["condition"]
            and _has_type(value["counts"], tuple[int, ...])
            and all(isfinite(float(number)) for number in (*numbers, *extras))
            and float(reading.risk) > 0
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _is_value(value: Any, hint: Any) -> bool:
    """Return whether a value has all that its class has, and each as it is written."""
    try:
        return bool(to_facts(parse_facts(hint, value)) == value)
    except (LookupError, TypeError, ValueError, AttributeError):
        return False


def _has_type(value: Any, hint: Any) -> bool:
    """Return whether a value of a body can be read as the type of its field."""
    arguments = get_args(hint)
    if get_origin(hint) in {Union, UnionType}:
        return any(_has_type(value, argument) for argument in arguments)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_has_type(item, arguments[0]) for item in value)
    if hint is Cell:
        return (
            isinstance(value, dict)
            and all(isinstance(value.get(key), str) for key in CELL_KEYS)
            and len(value) == len(CELL_KEYS)
        )
    if hint is StoredReading:
        return _is_reading(value)
    if is_dataclass(hint):
        return _is_value(value, hint)
    # not isinstance: a boolean is no number here
    return type(value) is (int if hint is datetime else hint)
