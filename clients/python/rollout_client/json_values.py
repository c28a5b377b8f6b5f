"""Values of a parsed JSON body: what isn't exactly as it should be is refused.

A wrong value that is found as the body is read leaves the case to a human; found later, it would
break an answer.
"""

from math import isfinite
from typing import Any


def check_text(value: Any) -> str:
    """Return a text.

    Raises:
        TypeError: it is none.
    """
    if type(value) is not str:
        raise TypeError(f"{str(value)[:80]} is no text")
    return value


def check_number(value: Any) -> float:
    """Return a finite number.

    Raises:
        TypeError: it is none, such as `true`.
        ValueError: it is infinite or not a number.
    """
    if type(value) is not int and type(value) is not float:
        raise TypeError(f"{str(value)[:80]} is no number")
    if not isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def check_count(value: Any) -> int:
    """Return a whole number, 0 or above.

    Raises:
        TypeError: it is none, such as `true` or 1.0.
        ValueError: it is negative, or too great for the service's own.
    """
    if type(value) is not int:
        raise TypeError(f"{str(value)[:80]} is no whole number")
    if not 0 <= value < 2**63:
        raise ValueError("it is negative or too great")
    return value
