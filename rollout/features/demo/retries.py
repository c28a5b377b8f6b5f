"""Requests that are repeated while the service is busy, as a real client would do."""

from time import sleep
from typing import Any, Final

import httpx2

BUSY_STATUSES: Final = frozenset({429, 503})
MAX_TRIES: Final = 6
DEFAULT_SECONDS: Final = 1.0  # without a Retry-After
MAX_SECONDS: Final = 5.0  # longer waits than these would hold the story


class BusyServiceError(Exception):
    """The service stayed busy or out of reach during all tries."""


def request_with_retries(
    client: httpx2.Client, method: str, path: str, body: Any = None, **options: Any
) -> httpx2.Response:
    """Send a request, again while the service is busy or out of reach.

    Other errors are returned, not raised. Use it for requests that are safe to repeat. `options`
    are the client's own.

    Raises:
        BusyServiceError: no try got an answer.
    """
    failure = ""
    for tries_left in reversed(range(MAX_TRIES)):
        seconds = DEFAULT_SECONDS
        try:
            response = client.request(method, path, json=body, **options)
        except httpx2.TransportError as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            if response.status_code not in BUSY_STATUSES:
                return response
            failure = f"status {response.status_code}"
            seconds = _read_retry_after(response)
        if tries_left:
            sleep(seconds)
    raise BusyServiceError(f"{method} {path} failed {MAX_TRIES} times, at last with {failure}")


def _read_retry_after(response: httpx2.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_SECONDS) if text.isdecimal() else DEFAULT_SECONDS
