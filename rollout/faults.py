"""Named places at which a test lets the program fail. In production nothing is ever installed.

A point stands after the step that it is named for. Its name is `path.step`, in small letters,
words joined by `-`: the path as its part of the program is called, the step in the past tense.

    ingest      parsed · set-aside · records · due
    tick        claimed · taken · counted · tallied · through-read · evidence · not-done
    command     read (the standing and the rights) · decided
    append      locked · inserted · moved
    policy      created · kept
    purge       deleted
    migration   step (each statement)
    commit      before · after (of every writing transaction, whatever it is for)
    assign      read · kept
    review      claimed · shown · decided · due
    records     answered (each part of a streamed answer)
    report      claimed · sealed
    outbox      taken · sent
    reply       sought · kept (the answer under an `Idempotency-Key`)
    cleaning    read · kept

Points of further paths are written in the same way, in a line of their own.
`tests/faults` finds points by running into them: a new one needs no list, only a step of its
script that passes there.

No setting and no variable of the environment installs anything: only code does, by `during`.
`serve` asks `installed()` as it starts, and refuses.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Action = Callable[[str], object]
"""What happens at a point; it is given the point's name."""

EVERY: Final = "*"
"""The name under which an action is installed at all points that have none of their own."""

_installed: dict[str, Action] = {}


def point(name: str) -> None:
    """Let happen what is installed at this point: in production nothing.

    >>> point("append.locked")
    """
    action = _installed.get(name) or _installed.get(EVERY)
    if action is not None:
        action(name)


@contextmanager
def during(action: Action, name: str = EVERY) -> Iterator[None]:
    """Install an action within a block, in this process; what was there before comes back.

    >>> passed = []
    >>> with during(passed.append):
    ...     point("append.locked")
    >>> point("append.locked")
    >>> passed
    ['append.locked']
    """
    previous = dict(_installed)
    _installed[name] = action
    try:
        yield
    finally:
        _installed.clear()
        _installed.update(previous)


def installed() -> bool:
    """Say whether anything is installed anywhere: a program that serves people must not start.

    >>> installed()
    False
    """
    return bool(_installed)
