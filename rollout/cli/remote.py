"""Requests to a service over HTTP with an API key."""

import json
import os
from importlib import import_module
from typing import Annotated, Any
from urllib.parse import quote

import typer

from rollout.core.errors import Refusal

SERVER, KEY = "ROLLOUT_SERVER", "ROLLOUT_API_KEY"
PATIENCE = 30.0  # seconds
AT_ONCE = 500  # items of a page
YAML, JSON = "application/yaml", "application/json"

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar=SERVER,
        help=f"URL of a service, with the API key in {KEY} (default: the database in "
        "ROLLOUT_DATABASE_URL, else sqlite:///rollout.db)",
    ),
]


def path_of(rollout: str, *parts: str) -> str:
    """Return the path of something in a rollout.

    >>> path_of("ramps", "versions", "models/v7 b", "retirement")
    '/v1/rollouts/ramps/versions/models/v7%20b/retirement'
    """
    return "/v1/rollouts/" + "/".join(quote(part) for part in (rollout, *parts))


def ask_server(
    server: str,
    method: str,
    path: str,
    *,
    body: Any = None,
    text: str | None = None,
    params: dict[str, Any] | None = None,
) -> Any:
    """Ask a service, and return what its JSON says.

    Args:
        server: its address, as `https://rollout.example`.
        method: of HTTP.
        path: from `/v1` on.
        body: to be sent as JSON.
        text: to be sent as it stands: a policy.
        params: of the query.

    Raises:
        Refusal: it refused, in its own words, or can't be reached.
    """
    response = _sent(server, method, path, body=body, text=text, params=params)
    try:
        return response.json()
    except ValueError:
        raise Refusal(
            f"{server} returned no JSON; check that --server or {SERVER} is a rollout service"
        ) from None


def lines_of_server(server: str, path: str) -> list[str]:
    """Return the lines of an NDJSON answer.

    Raises:
        Refusal: as for `ask_server`.
    """
    text: str = _sent(server, "GET", path, body=None, text=None, params=None).text
    return text.splitlines()


def text_of_server(server: str, path: str, params: dict[str, Any]) -> str:
    """Return an answer as the text that it is.

    Raises:
        Refusal: as for `ask_server`.
    """
    text: str = _sent(server, "GET", path, body=None, text=None, params=params).text
    return text


def pages_of_server(server: str, path: str, params: dict[str, Any]) -> list[Any]:
    """Return the items of all pages of a list."""
    items: list[Any] = []
    page_params: dict[str, Any] = {**params, "limit": AT_ONCE}
    while True:
        page = ask_server(server, "GET", path, params=page_params)
        items += page["items"]
        if page["next"] is None:
            return items
        page_params["after"] = page["next"]


def _sent(
    server: str,
    method: str,
    path: str,
    *,
    body: Any,
    text: str | None,
    params: dict[str, Any] | None,
) -> Any:
    httpx = _httpx()
    headers = {"Authorization": f"Bearer {_key()}", "Accept": f"{JSON}, application/x-ndjson;q=0.5"}
    if path.endswith("/ledger"):
        headers["Accept"] = "application/x-ndjson"
    content = None if body is None else json.dumps(body)
    if text is not None:
        content = text
    if content is not None:
        headers["Content-Type"] = JSON if text is None else YAML
    try:
        response = httpx.request(
            method,
            f"{server.rstrip('/')}{path}",
            content=content,
            params=params,
            headers=headers,
            timeout=PATIENCE,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refusal(f"{server} can't be reached ({error}); check --server or {SERVER}") from None
    if not response.is_success:
        raise Refusal(_detail(server, response))
    return response


def _detail(server: str, answer: Any) -> str:
    """Return what a problem says."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return (
            f"{server} returned {answer.status_code} without a problem document; check that "
            f"--server or {SERVER} is a rollout service"
        )
    return str(detail)


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise Refusal(
            f"{KEY} is not set; set it to your API key (`rollout keys create` creates one)"
        )
    if not (key.isascii() and key.isprintable()):
        raise Refusal(f"{KEY} is no API key: it has characters that no key has; it looks like ro_…")
    return key


def _httpx() -> Any:
    try:
        return import_module("httpx")
    except ImportError:
        raise Refusal("--server needs httpx; run pip install httpx") from None
