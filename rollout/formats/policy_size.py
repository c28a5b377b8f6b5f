"""How large a policy may be, judged before anything is made of it.

A service reads policies that others send. What is refused here would take it minutes or all of its
memory: labels are compared with each other, each gate and guard is looked up for each cell, and
there are as many cells as sites times windows.
"""

from collections.abc import Iterator
from itertools import chain

from rollout.formats.policy_file import PolicyShape
from rollout.formats.yaml_lines import Fault, Place, Value

MOST_CELLS = 10_000
MOST_ROWS = 200_000
"""Cells times gates and guards."""
MOST_ITEMS = 500
"""Of any list save the sites, and of any mapping."""
MOST_LETTERS = 4_000
"""Of any one text."""


def long_faults(value: Value) -> tuple[Fault, ...]:
    """Return the lists and texts of a document that are too long, with the bounds."""
    return tuple(chain.from_iterable(_too_long(inner, place) for inner, place in _parts(value, ())))


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
        says = f"makes {cells} cells with its windows; at most {MOST_CELLS}: make several rollouts"
        return (Fault(("sites",), says),)
    if rows > MOST_ROWS:
        says = f"and its guards for each of {cells} cells are {rows}; at most {MOST_ROWS}"
        return (Fault(("gates",), says),)
    return ()
