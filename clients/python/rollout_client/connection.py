"""Calls of the service over HTTP, with the standard library's client."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from rollout_client.seen_heads import LedgerHead


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
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ValueError(f"{url} is no http or https address")
        self._base = f"{url.rstrip('/')}/v1/rollouts/{quote(rollout, safe='')}/"
        self._headers, self._timeout = {"Authorization": f"Bearer {key}"}, timeout
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
        body: Mapping[str, Any] = json.loads(reply.body)
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
                return ServiceReply(response.status, response.read())
        except HTTPError as error:
            with error:
                return ServiceReply(
                    error.code, error.read(), parse_retry_after(error.headers.get("Retry-After"))
                )


def parse_retry_after(text: str | None) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date; None if it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
