"""The chain: each event in one canonical form, each row hashed with the row before it.

Canonical form is RFC 8785 by restriction: text, booleans, null, lists, objects with ASCII keys
and whole numbers below 2**53. There are no floats; times are microseconds since 1970, UTC.
A chain shows edits, deletions and swaps. By itself it can't show that its end was cut off or
that every hash was made anew: compare its head with one kept elsewhere.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import Field, dataclass, fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from sys import intern
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from rollout.core.events import CAME_LATER, KINDS, Event
from rollout.core.house import HOUSE_KINDS
from rollout.core.places import Cell

DOMAIN = b"rollout-ledger-1\n"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST = 2**53
ALL_KINDS = KINDS | HOUSE_KINDS  # a rollout's chain and the house chain have one form
HINTS = {name: get_type_hints(kind) for name, kind in ALL_KINDS.items()}  # slow to ask for
COLUMNS = ("rollout", "revision", "at", "kind", "actor", "body", "house", "previous")


class BrokenChainError(ValueError):
    """A row of the chain is not what its hash, place or form says; `line` counts from 1."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a chain. `previous` is the hash of the row before, "" for the first."""

    rollout: str
    revision: int
    at: int
    kind: str
    actor: str
    body: dict[str, Any]
    house: int | None
    previous: str

    @property
    def hash(self) -> str:
        """Return SHA-256 over the canonical form of everything else."""
        content = {column: getattr(self, column) for column in COLUMNS}
        return sha256(DOMAIN + canonical(content).encode()).hexdigest()

    def text(self) -> str:
        """Return the row as one line of JSON in canonical form, hash included."""
        content = {column: getattr(self, column) for column in COLUMNS}
        return canonical({**content, "hash": self.hash})


def canonical(value: Any) -> str:
    """Return the one text that stands for `value`.

    Raises:
        ValueError: a float, a number from 2**53 on, or a key that is not ASCII text.

    >>> canonical({"b": [1, None], "a": "ä"})
    '{"a":"ä","b":[1,null]}'
    """
    _check(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _check(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(  # noqa: TRY004 - the form is wrong, as for the other refusals here
            f"{value!r} is a float; write it as whole units or decimal text"
        )
    if isinstance(value, int) and abs(value) >= MOST:
        raise ValueError(f"{value} is too large for JSON; write it as text")
    if isinstance(value, dict):
        if not all(isinstance(key, str) and key.isascii() for key in value):
            raise ValueError("keys are ASCII text")
        for item in value.values():
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)


def chain(rollout: str, events: Iterable[Event]) -> Iterator[Row]:
    """Yield the rows of a rollout's whole chain, the first one with revision 1."""
    previous = ""
    for revision, event in enumerate(events, start=1):
        row = row_of(rollout, revision, event, previous)
        previous = row.hash
        yield row


def row_of(rollout: str, revision: int, event: Event, previous: str) -> Row:
    """Return the row of one event after the row with hash `previous`."""
    kind = type(event).__name__
    body = body_of(event)
    return Row(rollout, revision, micros(event.at), kind, event.by, body, None, previous)


def micros(at: datetime) -> int:
    """Return an instant as whole microseconds since 1970, UTC."""
    return (at - EPOCH) // MICROSECOND


def body_of(event: Event) -> dict[str, Any]:
    """Return an event's own fields as plain values; `cell` stands as site and window."""
    own = (f.name for f in fields(event) if f.name not in {"at", "by"} and not _unsaid(f, event))
    body = {name: _plain(getattr(event, name)) for name in own}
    cell = body.pop("cell", None)
    return {**body, **(cell or {})}


def _unsaid(field: Field[Any], event: Event) -> bool:
    return CAME_LATER in field.metadata and not getattr(event, field.name)


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return micros(value)
        case Cell():
            return {"site": value.site, "window": value.window}
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def event_of(row: Row) -> Event:
    """Return the event that a row holds: the inverse of `row_of`."""
    kind = ALL_KINDS[row.kind]
    hints = HINTS[row.kind]
    body: dict[str, Any] = dict(row.body)
    if "cell" in hints:
        body["cell"] = {k: body.pop(k) for k in ("site", "window") if k in body} or None
    values = {name: _typed(hints[name], value) for name, value in body.items()}
    return kind(at=EPOCH + row.at * MICROSECOND, by=row.actor, **values)


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) in {Union, UnionType}:
        return None if value is None else _typed(get_args(hint)[0], value)
    if get_origin(hint) is tuple:
        return tuple(_typed(get_args(hint)[0], item) for item in value)
    if hint is datetime:
        return EPOCH + value * MICROSECOND
    if hint is Cell:
        return Cell(intern(value["site"]), intern(value["window"]))
    return intern(value) if type(value) is str else value  # ten thousand grants, one "v1"


def verified(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of a written chain, recomputing every link.

    Raises:
        BrokenChainError: at the first line that is not canonical, has another hash than its
            content, does not follow the line before it, or is of an unknown kind.
    """
    previous, rollout = "", None
    for number, line in enumerate(lines, start=1):
        row = _read(number, line)
        if row.previous != previous:
            raise BrokenChainError(number, "does not follow the line before it")
        if row.revision != number or rollout not in (None, row.rollout):
            raise BrokenChainError(
                number, f"revision {row.revision} of {row.rollout} is out of place"
            )
        previous, rollout = row.hash, row.rollout
        yield row


def _read(number: int, line: str) -> Row:
    try:
        content = json.loads(line, object_pairs_hook=_no_doubles)
        row = Row(**{column: content[column] for column in COLUMNS})
        known = row.kind in ALL_KINDS
        same = row.text() == line.rstrip("\n")
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise BrokenChainError(number, f"is not a row of a ledger: {fault}") from fault
    if content.get("hash") != row.hash:
        raise BrokenChainError(number, "its hash is not that of its content")
    if not same:
        raise BrokenChainError(number, "is not written in canonical form")
    if not known:
        raise BrokenChainError(number, f"has the unknown kind {row.kind}")
    return row


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
