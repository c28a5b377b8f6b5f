"""A document as a policy's shape: every fault of form at once, and what can still be read.

A value that cannot be read is left out and the rest is read again, so that the faults which need
several fields to judge come out in the same run. `lost` says what was left out: a check that
needs it would only repeat the fault in other words.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rollout.formats.policy.json_schema import example_at, homes_of, keys_at
from rollout.formats.policy.model import PolicyShape
from rollout.formats.policy.yaml_reader import Document, Fault, Place, Value

MOST_FAULTS = 100
"""Faults of form that are told at once; comparing more of them would take minutes."""

# What stands in for a required section that could not be read, so that the others are checked.
_STAND_INS: Mapping[str, Value] = {
    "rollout": "unread",
    "timezone": "UTC",
    "levers": [{"id": "unread", "labels": ["unread"]}],
    "sites": ["unread"],
    "evidence": {"unit": "case"},
    "gates": [
        {"to": "supervised", "require": [{"measure": "agreement", "at_least": "95%"}]},
    ],
}


@dataclass(frozen=True, slots=True)
class Shaped:
    """What was read of a document.

    Attributes:
        policy: the shape, without what is in `lost`.
        lost: places of the document that could not be read.
        faults: one for each.
    """

    policy: PolicyShape
    lost: frozenset[Place]
    faults: tuple[Fault, ...]
    value: Value

    def origin(self, place: Place) -> Place:
        """Return where in the document a place of the shape stands: lists lost what is lost."""
        return _origin(place, self.value, self.lost)

    def is_lost(self, place: Place) -> bool:
        """Say whether what stands at a place was not read: a stand-in is judged by nobody."""
        return any(
            place[: len(unreadable_path)] == unreadable_path for unreadable_path in self.lost
        )

    def has(self, *needed: str) -> bool:
        """Say whether everything at the paths is there, such as `sites.*.id`."""
        path_parts = [tuple(parts.split(".")) for parts in needed]
        return not any(
            _covers(unreadable_path, parts) for unreadable_path in self.lost for parts in path_parts
        )


def _covers(gone: Place, wanted: tuple[str, ...]) -> bool:
    """Say whether what is gone holds, or is, the wanted place."""
    pairs = zip(gone, wanted, strict=False)
    return len(gone) <= len(wanted) and all(part in ("*", str(step)) for step, part in pairs)


def read_shape(document: Document) -> Shaped:
    """Read a document's values as a policy."""
    unreadable: set[Place] = set()
    faults: list[Fault] = []
    value: Value = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        faults.append(Fault((), "holds no keys; a policy starts with `rollout: its-name`"))
        value = {}
        unreadable.update((key,) for key in _STAND_INS)
    while True:
        try:
            shape = PolicyShape.model_validate(_readable(value, unreadable))
            return Shaped(shape, frozenset(unreadable), tuple(faults), value)
        except ValidationError as error:
            unreadable_count, errors = len(unreadable), error.errors(include_url=False)
            faults.extend(_faults(errors[:MOST_FAULTS], value, unreadable))
            if (
                len(unreadable) == unreadable_count or len(faults) >= MOST_FAULTS
            ):  # nothing more can be read of it
                value = {}
                unreadable.update((key,) for key in _STAND_INS)


def _faults(errors: Iterable[ErrorDetails], value: Value, lost: set[Place]) -> list[Fault]:
    """Say each new fault once, and leave its place out of the next reading."""
    unreadable_before = frozenset(lost)
    located = [(error, _origin(error["loc"], value, unreadable_before)) for error in errors]
    unknown_keys = [path for error, path in located if error["type"] == "extra_forbidden"]
    lost.update(target for path in unknown_keys if (target := _meant(path, value)) is not None)
    faults = []
    for error, path in located:
        is_repeated = any(unreadable_path[: len(path)] == path for unreadable_path in lost)
        if not is_repeated:
            faults.append(Fault(path, _sentence(error, path)))
        lost.add(_around(path) if is_repeated or error["type"] == "missing" else path)
        lost.add(path)
    return faults


def _meant(place: Place, value: Value) -> Place | None:
    """Return the place that a misspelt key was meant for: what that would have said is lost too."""
    row, close_key = _at(value, place[:-1]), _near(place)
    is_absent = close_key is not None and isinstance(row, dict) and close_key not in row
    return (
        (*place[:-1], close_key)
        if close_key and is_absent and not homes_of(str(place[-1]))
        else None
    )


def _near(place: Place) -> str | None:
    return next(iter(get_close_matches(str(place[-1]), keys_at(place[:-1]), n=1)), None)


def _around(place: Place) -> Place:
    """Return the row that goes with a place, or a section of its own."""
    return place[:-1] if len(place) > 1 else place


def _readable(value: Value, lost: set[Place]) -> dict[str, Value]:
    """Return the values without what is lost, and with stand-ins for whole sections."""
    values = _without(value, (), lost)
    assert isinstance(values, dict)  # noqa: S101 - the caller saw to it
    stand_ins = {key: stand_in for key, stand_in in _STAND_INS.items() if (key,) in lost}
    return values | stand_ins


def _without(value: Value, at: Place, lost: set[Place]) -> Value:
    if isinstance(value, dict):
        remaining = {key: inner for key, inner in value.items() if (*at, key) not in lost}
        return {key: _without(inner, (*at, key), lost) for key, inner in remaining.items()}
    if isinstance(value, list):
        rows = [(i, row) for i, row in enumerate(value) if (*at, i) not in lost]
        return [_without(row, (*at, i), lost) for i, row in rows]
    return value


def _origin(place: Place, value: Value, lost: frozenset[Place]) -> Place:
    origin: Place = ()
    for step in place:
        rows = _at(value, origin)
        if isinstance(step, int) and isinstance(rows, list):
            indices = [i for i in range(len(rows)) if (*origin, i) not in lost]
            origin = (*origin, indices[step] if step < len(indices) else step)
        else:
            origin = (*origin, step)
    return origin


def _at(value: Value, place: Place) -> Value | None:
    """Return what the document holds at a place, None where it holds nothing."""
    current: Value | None = value
    for step in place:
        if isinstance(current, dict):
            current = current.get(str(step))
        elif isinstance(current, list) and isinstance(step, int) and step < len(current):
            current = current[step]
        else:
            return None
    return current


def _sentence(error: ErrorDetails, place: Place) -> str:
    value, kind = error["input"], error["type"]
    sentences: dict[str, Callable[[], str]] = {
        "missing": lambda: f"is missing; write it, such as {place[-1]}: {example_at(place)}",
        "extra_forbidden": lambda: _unknown(place, value),
        "literal_error": lambda: _no_choice(error, value),
        "too_short": lambda: "is empty; write at least one, or leave the key out",
        "value_error": lambda: str(error["ctx"]["error"]),
    }
    return sentences.get(kind, lambda: _wrong_form(kind, value))()


def _wrong_form(kind: str, given: Any) -> str:
    if given == "":
        return "is empty; write it, or leave the key out"
    expected = "a list: [a, b]" if "list" in kind else "keys and values: {key: value}"
    return f"has the wrong form; write {expected}"


def _unknown(place: Place, given: Any) -> str:
    key, close_key = str(place[-1]), _near(place)
    key_paths = " or ".join(homes_of(key)[:3])
    if given == "" and ":" in key:
        return "is no key; quote hours that contain a comma"
    if key_paths:
        return f"is no key here; it is known as {key_paths}"
    if close_key:
        return f"is no key here; did you mean {close_key}?"
    return f"is no key here; those known are {', '.join(keys_at(place[:-1]))}"


def _no_choice(error: ErrorDetails, given: Any) -> str:
    choices = error["ctx"]["expected"].replace("'", "")
    words = choices.replace(" or ", ", ").split(", ")
    close_words = get_close_matches(str(given), words, n=1)
    hint = f"did you mean {close_words[0]}?" if close_words else f"write {choices}"
    return f"{given!r} is not offered; {hint}"


MOST_CELLS = 10_000
MOST_ROWS = 200_000
"""Cells times gates and guards."""
MOST_ITEMS = 500
"""Of any list save the sites, and of any mapping."""
MOST_LETTERS = 4_000
"""Of any one text."""


def long_faults(value: Value) -> tuple[Fault, ...]:
    """Return the lists and texts of a document that are too long, with the bounds."""
    return tuple(chain.from_iterable(_too_long(part, path) for part, path in _parts(value, ())))


def _parts(value: Value, place: Place) -> Iterator[tuple[Value, Place]]:
    yield value, place
    if isinstance(value, dict) and len(value) <= _most(place):
        for key, inner in value.items():
            yield from _parts(inner, (*place, key))
    if isinstance(value, list) and len(value) <= _most(place):
        for i, row in enumerate(value):
            yield from _parts(row, (*place, i))


def _most(place: Place) -> int:
    return MOST_CELLS if place == ("sites",) else MOST_ITEMS


def _too_long(value: Value, place: Place) -> Iterator[Fault]:
    if isinstance(value, list | dict) and len(value) > _most(place):
        yield Fault(place, f"holds {len(value)}; write at most {_most(place)}")
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        yield Fault(place, f"has {len(value)} letters; write at most {MOST_LETTERS}")


def size_faults(shape: PolicyShape) -> tuple[Fault, ...]:
    """Return what is too large about a policy as a whole, with the bound."""
    cells = len(shape.sites) * len(shape.windows or (1,))
    rows = cells * (len(shape.gates) + len(shape.guards))
    if cells > MOST_CELLS:
        text = f"makes {cells} cells with its windows; at most {MOST_CELLS}: make several rollouts"
        return (Fault(("sites",), text),)
    if rows > MOST_ROWS:
        text = f"and its guards for each of {cells} cells are {rows}; at most {MOST_ROWS}"
        return (Fault(("gates",), text),)
    return ()
