"""How many frames a computation makes: each is a query of its own, however few rows it has."""

import sys
from collections.abc import Callable
from typing import Any


def count_collects(compute: Callable[[], object]) -> int:
    """Return how often `compute` lets Polars collect a frame."""
    count = 0

    def watch(_frame: object, event: str, called: Any) -> None:
        nonlocal count
        count += event == "c_call" and called.__name__ == "collect"

    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        compute()
    finally:
        sys.setprofile(previous)
    return count
