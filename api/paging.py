"""Pages of a list; `after` is an opaque cursor from the previous page."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from rollout.kernel.errors import RefusalError

T = TypeVar("T")
MAX_ITEMS = 1_000
MAX_DIGITS = 15  # far below the largest integer of a database

Limit = Annotated[int, Query(ge=1, le=MAX_ITEMS, description="maximum number of items")]
After = Annotated[
    str | None, Query(description="cursor: `next` of the previous page", max_length=500)
]


class ItemList(BaseModel, Generic[T]):
    """A list that is answered as a whole."""

    items: list[T]


class Page(ItemList[T]):
    """A page of a list. `next` is null on the last page."""

    next: str | None = Field(
        default=None, description="cursor for the next page, as `after`; null on the last page"
    )


def encode_cursor(position: str) -> str:
    """Return a position in a list as an opaque cursor."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """Return the position of a cursor, or None for the start.

    Raises:
        RefusalError: the cursor is invalid.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error) as error:
        raise RefusalError("`after` is no cursor of ours; leave it out to begin anew") from error


def build_page(
    items: Sequence[T], name: Callable[[T], str], after: str | None, limit: int
) -> Page[T]:
    """Return one page of a list whose items have unique names.

    A cursor of an unknown item starts again; items of such lists are never deleted.

    Raises:
        RefusalError: `after` is invalid.
    """
    position = decode_cursor(after)
    start = next((index for index, item in enumerate(items, start=1) if name(item) == position), 0)
    return cut_page(items, name, start, limit)


def cut_page(items: Sequence[T], name: Callable[[T], str], start: int, limit: int) -> Page[T]:
    """Return the page of a list that begins at a place."""
    page_items = list(items[start : start + limit])
    has_more = len(items) > start + limit
    return Page(items=page_items, next=encode_cursor(name(page_items[-1])) if has_more else None)


def encode_number(number: int | None) -> str | None:
    """Return a cursor for a number, or None at the end of a list."""
    return None if number is None else encode_cursor(str(number))


def decode_number(cursor: str | None) -> int | None:
    """Return the number in a cursor, or None for the start.

    Raises:
        RefusalError: the cursor is invalid.
    """
    position = decode_cursor(cursor)
    if position is None:
        return None
    if not (position.isascii() and position.isdigit() and len(position) <= MAX_DIGITS):
        raise RefusalError("`after` is no cursor of ours; leave it out to begin anew")
    return int(position)
