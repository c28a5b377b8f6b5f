"""Calls of the service over HTTP, with the standard library's client."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from rollout_client.seen_heads import LedgerHead

MAX_BODY_BYTES: Final = 64 * 2**20
"""A longer response is none: it would fill a small machine's memory."""
PLAIN_KEY: Final = re.compile(r"[!-~]+")


class ServiceReply(NamedTuple):
    """A response: its status, its body, and after how many seconds to ask again, if it says so."""

    status: int
    body: bytes
    retry_after: float | None = None


class _NoRedirects(HTTPRedirectHandler):
    """Answers a redirect as an error: the key is for one host."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request."""


class ServiceConnection:
    """The API of one rollout. Every call may raise `OSError`: then a human decides.

    Args:
        url: of the service, `https://` or `http://`.
        key: an API key with the role `ingest-predictions`.
        timeout: seconds for a response.
    """

    def __init__(self, url: str, key: str, rollout: str, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url} is no http or https address")
        if not PLAIN_KEY.fullmatch(key):  # else an exception of the standard library would show it
            raise ValueError("the API key is empty, or has spaces, line ends or other letters")
        self._base = f"{url.rstrip('/')}/v1/rollouts/{quote(rollout, safe='')}/"
        self._headers, self._timeout = {"Authorization": f"Bearer {key}"}, timeout
        self._key = key.encode()
        self._opener = build_opener(_NoRedirects)

    def fetch_scope(self, head: LedgerHead, sites: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Return the scope with its table; () means all sites that the key can read.

        Raises:
            OSError: no response, or an error; its text has the service's reason.
        """
        query = [
            ("form", "table-1"),
            ("ledger_revision", head.revision),
            ("ledger_hash", head.hash),
            ("ledger_code", head.code),
            *(("site", site) for site in sites),
        ]
        reply = self._send(Request(f"{self._base}scope?{urlencode(query)}", headers=self._headers))  # noqa: S310
        if reply.status != 200:
            raise OSError(
                f"GET scope got {reply.status}: {reply.body[:500].decode(errors='replace')}"
            )
        try:
            body: Mapping[str, Any] = json.loads(reply.body)
        except (RecursionError, ValueError) as error:  # such as the page of a network's own log-in
            raise OSError(f"GET scope got no JSON: {error!r:.200}") from error
        return body

    def send_lines(self, lines: bytes) -> ServiceReply:
        """Send records as NDJSON, and return the response whatever its status.

        Raises:
            OSError: no response.
        """
        headers = {**self._headers, "Content-Type": "application/x-ndjson"}
        return self._send(Request(f"{self._base}records", data=lines, headers=headers))  # noqa: S310

    def _send(self, request: Request) -> ServiceReply:
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return ServiceReply(response.status, _read_body(response))
        except HTTPError as error:
            with error:
                body = _read_body(error).replace(self._key, b"(the key)")
                wait = parse_retry_after(error.headers.get("Retry-After"))
                return ServiceReply(error.code, body, wait)
        except HTTPException as error:
            raise OSError(f"the response broke off: {error!r:.200}") from error


def _read_body(response: Any) -> bytes:
    try:
        body: bytes = response.read(MAX_BODY_BYTES + 1)
    except HTTPException as error:
        raise OSError(f"the response broke off: {error!r:.200}") from error
    if len(body) > MAX_BODY_BYTES:
        raise OSError(f"the response has more than {MAX_BODY_BYTES} bytes")
    missing = getattr(response, "length", None)
    if missing:  # a read of at most so many bytes doesn't tell
        raise OSError(f"the response lacks {missing} bytes")
    return body


def parse_retry_after(text: str | None) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date; None if it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        wait = at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None
    return max(0.0, wait.total_seconds())
