"""What is written after the revision that was read: done again when somebody came first."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from rollout.core.errors import StaleRevision

TRIES: Final = 20  # others came first each time: more is no contention, but a fault
Done = TypeVar("Done")


def retried(work: Callable[[], Done]) -> Done:
    """Return what `work` does, which reads and writes anew each time that it is called.

    Raises:
        StaleRevision: the rollout moved on at every try.
    """
    for _ in range(TRIES - 1):
        with suppress(StaleRevision):
            return work()
    return work()
