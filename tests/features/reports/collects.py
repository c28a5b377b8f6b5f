"""How often a computation asks Polars for something: each time costs, however few rows it has."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_collects(compute: Callable[[], object]) -> int:
    """Return how often `compute` lets Polars collect a frame."""
    return _count_events(
        compute, lambda _, event, called: event == "c_call" and called.__name__ == "collect"
    )


def count_pattern_searches(compute: Callable[[], object]) -> int:
    """Return how many expressions `compute` builds that look for a pattern in texts."""
    return _count_events(
        compute,
        lambda frame, event, _: (
            event == "call"
            and frame.f_code.co_name == "contains"
            and frame.f_globals["__name__"] == "polars.expr.string"
        ),
    )


def _count_events(
    compute: Callable[[], object], is_counted: Callable[[FrameType, str, Any], bool]
) -> int:
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += is_counted(frame, event, argument)

    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        compute()
    finally:
        sys.setprofile(previous)
    return count
