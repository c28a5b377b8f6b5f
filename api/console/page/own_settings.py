"""Browser settings (single keys, timezone) and the tokens of key forms."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final
from zoneinfo import available_timezones

from fastapi import Request, Response

from api.console.page.page_context import HOME
from rollout.services.access.keys import KEY_BYTES, PREFIX_BYTES, ApiKey

FORM_TOKEN_BYTES: Final = 16
"""Random bytes that tell two openings of the same form apart."""
ALREADY_CREATED_TEXT: Final = (
    "This key was already created and shown once. If nobody saved it, revoke {} and create another"
)


@dataclass(frozen=True, slots=True)
class KeyState:
    """A listed key; `state` is valid, revoked or over."""

    key: ApiKey
    state: str


def list_key_states(keys: tuple[ApiKey, ...], at: datetime) -> tuple[KeyState, ...]:
    """Return keys with their state, valid ones first, then newest first."""
    key_states = [KeyState(key, _get_state(key, at)) for key in reversed(keys)]
    return tuple(sorted(key_states, key=lambda key_state: key_state.state != "valid"))


def create_form_token(entropy: Callable[[int], bytes]) -> str:
    """Return a form token, so that resending the form creates no second key."""
    return entropy(FORM_TOKEN_BYTES).hex()


def compute_prefix(form_token: str, holder: str) -> bytes:
    """Return the prefix of the key for a form token, always the same."""
    return sha256(f"{holder}\n{form_token}".encode()).digest()[:PREFIX_BYTES]


def compute_key_entropy(form_token: str, holder: str, entropy: Callable[[int], bytes]) -> bytes:
    """Return a source of entropy: the form's prefix, then a new secret."""
    return compute_prefix(form_token, holder) + entropy(KEY_BYTES - PREFIX_BYTES)


def explain_existing_key(form_token: str, holder: str, keys: tuple[ApiKey, ...]) -> str:
    """Return the error if the form has already created its key, else ""."""
    prefix = compute_prefix(form_token, holder).hex()
    return ALREADY_CREATED_TEXT.format(prefix) if any(key.prefix == prefix for key in keys) else ""


def _get_state(key: ApiKey, at: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "over" if key.expires_at is not None and key.expires_at <= at else "valid"


KEYS_COOKIE: Final = "rollout-keys"
OFF: Final = "off"
YEAR_SECONDS: Final = 365 * 86_400
"""How long a browser keeps a setting, in seconds."""


def has_single_keys(request: Request) -> bool:
    """Return whether single keys are on in this browser; by default they are."""
    return request.cookies.get(KEYS_COOKIE) != OFF


def store_single_keys(response: Response, choice: str) -> None:
    """Store in the browser whether single keys are on; only `off` disables them."""
    value = OFF if choice == OFF else "on"
    response.set_cookie(KEYS_COOKIE, value, YEAR_SECONDS, path=HOME, httponly=True, samesite="lax")


def find_timezone(typed: str) -> str:
    """Return the IANA name of a timezone, ignoring case; "" if unknown.

    >>> find_timezone(" europe/vienna "), find_timezone("Vienna")
    ('Europe/Vienna', '')
    """
    name = typed.strip().casefold()
    return next((timezone for timezone in available_timezones() if timezone.casefold() == name), "")
