"""Named points at which tests inject faults; production installs no action.

A point follows the step that it names. Its name is `path.step`: small letters, words joined by `-`,
the step in the past tense.

    ingest      parsed · set-aside · records · due
    tick        claimed · read · taken · counted · tallied · due-counted · evidence · not-done
    command     read (state and roles) · decided
    append      locked · inserted · moved
    policy      created · kept
    purge       deleted
    migration   step (each statement)
    commit      before · after (of every writing transaction)
    assign      read · kept
    review      claimed · shown · decided · due
    records     answered (each part of a streamed answer)
    report      claimed · sealed
    outbox      taken · sent
    notification queued · sent
    reply       sought · kept (the answer under an `Idempotency-Key`)
    cleaning    read · kept

Add points of further paths here. `tests/faults` finds points by running into them.

Only code installs actions, by `install_action`; no setting does. `serve` checks `has_actions()` at
its start and refuses.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

FaultAction = Callable[[str], object]
"""Called at a point with its name."""

ALL_POINTS: Final = "*"
"""Name of an action for all points without their own."""

_actions: dict[str, FaultAction] = {}


def reach_point(name: str) -> None:
    """Run the action installed at this point, if any.

    >>> reach_point("append.locked")
    """
    action = _actions.get(name) or _actions.get(ALL_POINTS)
    if action is not None:
        action(name)


@contextmanager
def install_action(action: FaultAction, name: str = ALL_POINTS) -> Iterator[None]:
    """Install an action within a block, in this process.

    >>> passed = []
    >>> with install_action(passed.append):
    ...     reach_point("append.locked")
    >>> reach_point("append.locked")
    >>> passed
    ['append.locked']
    """
    previous = dict(_actions)
    _actions[name] = action
    try:
        yield
    finally:
        _actions.clear()
        _actions.update(previous)


def has_actions() -> bool:
    """Return whether any action is installed.

    >>> has_actions()
    False
    """
    return bool(_actions)
