"""What a browser keeps of its own: whether single keys judge cases, and the zone of its clock."""

from typing import Final
from zoneinfo import available_timezones

from fastapi import Request, Response

from api.console.visitor import HOME

KEYS_COOKIE: Final = "rollout-keys"
OFF: Final = "off"
YEAR: Final = 365 * 86_400
"""How long a browser keeps it, in seconds."""


def keeps_keys(request: Request) -> bool:
    """Say whether the review page listens to single keys here: it does until it is told not to."""
    return request.cookies.get(KEYS_COOKIE) != OFF


def keep_keys(answer: Response, said: str) -> None:
    """Have the browser keep whether single keys judge: all but `off` means that they do."""
    kept = OFF if said == OFF else "on"
    answer.set_cookie(KEYS_COOKIE, kept, YEAR, path=HOME, httponly=True, samesite="lax")


def zone_named(typed: str) -> str:
    """Return the zone of that name, however its letters are written; "" where there is none.

    >>> zone_named(" europe/vienna "), zone_named("Vienna")
    ('Europe/Vienna', '')
    """
    wanted = typed.strip().casefold()
    return next((zone for zone in available_timezones() if zone.casefold() == wanted), "")
