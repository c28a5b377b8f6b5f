"""Pages of a list: `after` is the cursor that the page before gave, opaque to who asks."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from rollout.core.errors import Refusal

T = TypeVar("T")
MOST = 1_000
DIGITS = 15  # of a revision or place: far from what a database can not hold

Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at most")]
After = Annotated[str | None, Query(description="`next` of the page before", max_length=500)]


class Page(BaseModel, Generic[T]):
    """Some of a list, and where to go on; `next` is null at its end."""

    items: list[T]
    next: str | None = Field(default=None, description="give it as `after`")


def cursor(place: str) -> str:
    """Return a place in a list as text that nobody reads."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(given: str | None) -> str | None:
    """Return the place that a cursor stands for, None for the beginning.

    Raises:
        Refusal: it is none that we gave.
    """
    if given is None:
        return None
    try:
        padded = given.encode("ascii") + b"=" * (-len(given) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error) as error:
        raise Refusal("`after` is no cursor of ours; leave it out to begin anew") from error


def page_of(items: Sequence[T], name: Callable[[T], str], after: str | None, limit: int) -> Page[T]:
    """Return some of a list that is at hand, told apart by `name`.

    A cursor whose item is gone begins anew: nothing of such a list is ever deleted.

    Raises:
        Refusal: `after` is no cursor of ours.
    """
    position = place_of(after)
    start = next((index for index, item in enumerate(items, start=1) if name(item) == position), 0)
    page_items = list(items[start : start + limit])
    has_more = len(items) > start + limit
    return Page(items=page_items, next=cursor(name(page_items[-1])) if has_more else None)


def number_of(given: str | None) -> int | None:
    """Return the number that a cursor stands for, None for the beginning.

    Raises:
        Refusal: it is none that we gave.
    """
    position = place_of(given)
    if position is None:
        return None
    if not (position.isascii() and position.isdigit() and len(position) <= DIGITS):
        raise Refusal("`after` is no cursor of ours; leave it out to begin anew")
    return int(position)
