"""The forms of entries: their kinds and fields, and the facts, measures and populations in them.

A program that lacks a form can't read an entry that uses it. A field at its default is in no
entry, so whoever adds one marks it as omitted when empty.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final, get_args, get_type_hints

from rollout.engine.events import LedgerEvent
from rollout.kernel.measures import MEASURES, Measure
from rollout.kernel.populations import POPULATIONS, Population

NEWER_FORMS: Final[frozenset[str]] = frozenset()
"""Forms that the program before can't read: none is written while its replicas may run."""


def list_forms(kinds: Iterable[type]) -> frozenset[str]:
    """Return the forms that entries of some kinds can have.

    >>> sorted(list_forms([]))
    []
    """
    forms: set[str] = set()
    waiting, seen_types = [*kinds], set[type]()
    while waiting:
        kind = waiting.pop()
        if kind in seen_types:
            continue
        seen_types.add(kind)
        if kind is Measure:
            forms.update(map(_name_measure, MEASURES.values()))
        elif kind is Population:
            waiting += POPULATIONS.values()
        elif is_dataclass(kind):
            forms |= {kind.__name__, *(f"{kind.__name__}.{each.name}" for each in fields(kind))}
            waiting += _list_types(get_type_hints(kind).values())
    return frozenset(forms)


def find_newer_forms(events: Iterable[LedgerEvent]) -> list[str]:
    """Return which of the newer forms some events have, in order."""
    if not NEWER_FORMS:
        return []
    used_forms = (form for event in events for form in list_used_forms(event))
    return sorted(NEWER_FORMS.intersection(used_forms))


def list_used_forms(event: LedgerEvent) -> Iterator[str]:
    """Yield the forms without which nobody can read an event's entry."""
    waiting: list[Any] = [event]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple):
            waiting += value
        elif isinstance(value, Measure):
            yield _name_measure(value)
        elif is_dataclass(value):
            kind = type(value).__name__
            yield kind
            for each in fields(value):
                part = getattr(value, each.name)
                if part != each.default:
                    yield f"{kind}.{each.name}"
                    waiting.append(part)


def _name_measure(measure: Measure) -> str:
    return f"measure {measure.name}"


def _list_types(hints: Iterable[Any]) -> Iterator[type]:
    """Yield the classes in type hints."""
    for hint in hints:
        if isinstance(hint, type):
            yield hint
        yield from _list_types(get_args(hint))
