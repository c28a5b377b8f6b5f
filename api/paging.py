"""Pages of a list: `after` is the cursor that the page before gave, opaque to who asks."""

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from rollout.core.errors import Refusal

T = TypeVar("T")
MOST = 1_000

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
