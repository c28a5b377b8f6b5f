"""Requests to a service over HTTP with an API key."""

import json
import os
from importlib import import_module
from typing import Annotated, Any
from urllib.parse import quote

import typer

from rollout.kernel.errors import RefusalError

SERVER_VARIABLE, KEY_VARIABLE = "ROLLOUT_SERVER", "ROLLOUT_API_KEY"
TIMEOUT = 30.0  # seconds
ITEMS_PER_PAGE = 500  # items of a page
YAML, JSON = "application/yaml", "application/json"

ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar=SERVER_VARIABLE,
        help=f"URL of a service, with the API key in {KEY_VARIABLE} (default: the database in "
        "ROLLOUT_DATABASE_URL, else sqlite:///rollout.db)",
    ),
]


def build_path(rollout: str, *parts: str) -> str:
    """Return the path of a resource of a rollout.

    >>> build_path("ramps", "versions", "models/v7 b", "retirement")
    '/v1/rollouts/ramps/versions/models/v7%20b/retirement'
    """
    return "/v1/rollouts/" + "/".join(quote(part) for part in (rollout, *parts))


def request_json(
    server: str,
    method: str,
    path: str,
    *,
    body: Any = None,
    text: str | None = None,
    params: dict[str, Any] | None = None,
) -> Any:
    """Send a request to a service and return its JSON answer.

    `body` is sent as JSON, `text` (a policy) unchanged.

    Raises:
        RefusalError: the service refused or can't be reached.
    """
    response = _send_request(server, method, path, body=body, text=text, params=params)
    try:
        return response.json()
    except ValueError:
        raise RefusalError(
            f"{server} returned no JSON; check that --server or {SERVER_VARIABLE} is a rollout"
            " service"
        ) from None


def request_lines(server: str, path: str) -> list[str]:
    """Return the lines of an NDJSON answer.

    Raises:
        RefusalError: as for `request_json`.
    """
    text: str = _send_request(server, "GET", path, body=None, text=None, params=None).text
    return text.splitlines()


def request_text(server: str, path: str, params: dict[str, Any]) -> str:
    """Return the text of an answer.

    Raises:
        RefusalError: as for `request_json`.
    """
    text: str = _send_request(server, "GET", path, body=None, text=None, params=params).text
    return text


def request_all_pages(server: str, path: str, params: dict[str, Any]) -> list[Any]:
    """Return the items of all pages of a list."""
    items: list[Any] = []
    page_params: dict[str, Any] = {**params, "limit": ITEMS_PER_PAGE}
    while True:
        page = request_json(server, "GET", path, params=page_params)
        items += page["items"]
        if page["next"] is None:
            return items
        page_params["after"] = page["next"]


def _send_request(
    server: str,
    method: str,
    path: str,
    *,
    body: Any,
    text: str | None,
    params: dict[str, Any] | None,
) -> Any:
    httpx2 = _import_httpx2()
    headers = {
        "Authorization": f"Bearer {_get_api_key()}",
        "Accept": f"{JSON}, application/x-ndjson;q=0.5",
    }
    if path.endswith("/ledger"):
        headers["Accept"] = "application/x-ndjson"
    content = None if body is None else json.dumps(body)
    if text is not None:
        content = text
    if content is not None:
        headers["Content-Type"] = JSON if text is None else YAML
    try:
        response = httpx2.request(
            method,
            f"{server.rstrip('/')}{path}",
            content=content,
            params=params,
            headers=headers,
            timeout=TIMEOUT,
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise RefusalError(
            f"{server} can't be reached ({error}); check --server or {SERVER_VARIABLE}"
        ) from None
    if not response.is_success:
        raise RefusalError(_find_problem_detail(server, response))
    return response


def _find_problem_detail(server: str, response: Any) -> str:
    """Return the detail of a problem document."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return (
            f"{server} returned {response.status_code} without a problem document; check that "
            f"--server or {SERVER_VARIABLE} is a rollout service"
        )
    return str(detail)


def _get_api_key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise RefusalError(
            f"{KEY_VARIABLE} is not set; set it to your API key (`rollout keys create` creates one)"
        )
    if not (key.isascii() and key.isprintable()):
        raise RefusalError(
            f"{KEY_VARIABLE} is no API key: it has characters that no key has; it looks like ro_…"
        )
    return key


def _import_httpx2() -> Any:
    try:
        return import_module("httpx2")
    except ImportError:
        raise RefusalError("--server needs httpx2; run pip install httpx2") from None
