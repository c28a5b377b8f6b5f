"""What a browser keeps of its own: whether single keys judge cases, and the zone of its clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final
from zoneinfo import available_timezones

from fastapi import Request, Response

from api.console.page.page_context import HOME
from rollout.services.access.keys import CHANCE, PREFIX, ApiKey

ONCE: Final = 16
"""Bytes by which a page's form is told from the same page opened again."""
SHOWN: Final = (
    "This key was made already and shown once. If nobody kept it, revoke {} and make another"
)


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as it is listed: `state` is valid, revoked or over."""

    key: ApiKey
    state: str


def states(keys: tuple[ApiKey, ...], at: datetime) -> tuple[KeyState, ...]:
    """Return keys with their state, those that open something first, the newest on top."""
    key_states = [KeyState(key, _state(key, at)) for key in reversed(keys)]
    return tuple(sorted(key_states, key=lambda key_state: key_state.state != "valid"))


def once(entropy: Callable[[int], bytes]) -> str:
    """Return what a form carries so that sending it again makes no second key."""
    return entropy(ONCE).hex()


def prefix_of(told: str, holder: str) -> bytes:
    """Return the prefix of the key that a form makes: the same whenever it is sent."""
    return sha256(f"{holder}\n{told}".encode()).digest()[:PREFIX]


def chance_of(told: str, holder: str, entropy: Callable[[int], bytes]) -> bytes:
    """Return the chance that a key is made with: the form's prefix, and a secret of this moment."""
    return prefix_of(told, holder) + entropy(CHANCE - PREFIX)


def made_before(told: str, holder: str, keys: tuple[ApiKey, ...]) -> str:
    """Say that the form made its key already, "" where it has not."""
    prefix = prefix_of(told, holder).hex()
    return SHOWN.format(prefix) if any(key.prefix == prefix for key in keys) else ""


def _state(key: ApiKey, at: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "over" if key.expires_at is not None and key.expires_at <= at else "valid"


KEYS_COOKIE: Final = "rollout-keys"
OFF: Final = "off"
YEAR: Final = 365 * 86_400
"""How long a browser keeps it, in seconds."""


def keeps_keys(request: Request) -> bool:
    """Say whether the review page listens to single keys here: it does until it is told not to."""
    return request.cookies.get(KEYS_COOKIE) != OFF


def keep_keys(answer: Response, said: str) -> None:
    """Have the browser keep whether single keys judge: all but `off` means that they do."""
    value = OFF if said == OFF else "on"
    answer.set_cookie(KEYS_COOKIE, value, YEAR, path=HOME, httponly=True, samesite="lax")


def zone_named(typed: str) -> str:
    """Return the zone of that name, however its letters are written; "" where there is none.

    >>> zone_named(" europe/vienna "), zone_named("Vienna")
    ('Europe/Vienna', '')
    """
    name = typed.strip().casefold()
    return next((timezone for timezone in available_timezones() if timezone.casefold() == name), "")
