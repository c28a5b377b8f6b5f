"""What a browser keeps of its own: whether single keys judge cases, and the zone of its clock."""

from typing import Final
from zoneinfo import available_timezones

from fastapi import Request

KEYS_COOKIE: Final = "rollout-keys"
OFF: Final = "off"


def keeps_keys(request: Request) -> bool:
    """Say whether the review page listens to single keys here: it does until it is told not to."""
    return request.cookies.get(KEYS_COOKIE) != OFF


def zone_named(typed: str) -> str:
    """Return the zone of that name, however its letters are written; "" where there is none.

    >>> zone_named(" europe/vienna "), zone_named("Vienna")
    ('Europe/Vienna', '')
    """
    wanted = typed.strip().casefold()
    return next((zone for zone in available_timezones() if zone.casefold() == wanted), "")
