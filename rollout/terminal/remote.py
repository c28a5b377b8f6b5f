"""Answers of commands: asked of a service, and printed.

Requests to a service over HTTP with an API key.

Print answers on a terminal, from a service or the local database alike.

Print errors as a message with an exit code, without a traceback.

A progress bar on standard error, shown only in a terminal.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from shutil import get_terminal_size
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


JsonObject = Mapping[str, Any]
JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
EVENT_FIELDS = (
    "proposal",
    "stop",
    "incident",
    "site",
    "window",
    "version",
    "stage",
    "from_stage",
    "to_stage",
)


def print_answer(answer: Any, text: str, *, as_json: bool) -> None:
    """Print an answer as JSON, or as its text."""
    typer.echo(json.dumps(answer) if as_json else text)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on standard error, one per line."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def format_event(event: JsonObject) -> str:
    """Return an event as a line: time, kind and subject."""
    body = event["body"]
    field_values = " ".join(str(body[key]) for key in EVENT_FIELDS if body.get(key))
    return f"{event['at']} {event['kind']} {field_values}".rstrip()


def format_command_result(answer: JsonObject) -> str:
    """Return the events of a command, excluded targets, and the new revision."""
    lines = [format_event(event) for event in answer["events"]] or ["nothing changed"]
    lines += [
        f"excluded: {excluded_target['target']}: {excluded_target['reason']}"
        for excluded_target in answer.get("excluded", ())
    ]
    if any(event["kind"] == "ProposalRaised" for event in answer["events"]):
        lines.append("needs approval: `rollout proposals` shows the hash to approve it with")
    if answer.get("text"):
        lines.append(answer["text"])
    lines.append(f"revision {answer['revision']}, {answer['hash']}")
    return "\n".join(lines)


def format_changes(preview: JsonObject) -> str:
    """Return the changes that a policy would make, as text."""
    changes = preview["changes"]
    lines = [f"Applied to {preview['rollout']} now, the policy {OUTCOME_TEXTS[changes['outcome']]}"]
    labels = {
        "looser_texts": "looser",
        "required_approvals": "needs approval of",
        "narrowed": "narrowed",
        "restarted": "evidence starts anew",
        "cleared": "loses grants and evidence",
        "voided": "proposal becomes void",
        "unfamiliar": "not familiar, decided by humans",
    }
    for key, label in labels.items():
        lines += [f"  {label}: {change}" for change in changes[key]]
    return "\n".join(lines)


OUTCOME_TEXTS = {
    "create": "creates the rollout, with every cell in shadow",
    "unchanged": "changes nothing: it is in force, or already proposed",
    "apply": "takes effect at once",
    "propose": "needs approval",
}


EXIT_INTERRUPTED = 130
EXIT_REFUSED = 2
MIN_WIDTH, MAX_WIDTH = 40, 80


@contextmanager
def print_refusals(interrupted_text: str = "nothing was written") -> Iterator[None]:
    """Print refusals and unreadable files on standard error and exit with code 2.

    `interrupted_text` states the result of Ctrl-C, which exits with code 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; {interrupted_text}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        file_text = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"{file_text}{_format_os_error(error)}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    except (RefusalError, ValueError) as error:
        notes = getattr(error.__cause__, "__notes__", ())  # details for the local terminal only
        typer.echo("\n".join([str(error) or type(error).__name__, *notes]), err=True)
        raise typer.Exit(EXIT_REFUSED) from None


def _format_os_error(error: OSError) -> str:
    """Return the text of a system error without number and quotes, in lower case."""
    error_text = error.strerror or str(error) or type(error).__name__
    hint = "; check the path" if isinstance(error, FileNotFoundError) else ""
    return f"{error_text[:1].lower()}{error_text[1:]}{hint}"


def get_text_width() -> int:
    """Return the width for text: that of the terminal, from 40 to 80 columns."""
    return max(MIN_WIDTH, min(MAX_WIDTH, get_terminal_size((MAX_WIDTH, 24)).columns))


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function for progress reports: task name, steps done, steps in all."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    # imported here: a bar is seldom shown, and Rich takes a twentieth of a second
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks_by_name: dict[str, object] = {}

        def report_progress(task_name: str, done: int, total: int) -> None:
            if task_name not in tasks_by_name:
                tasks_by_name[task_name] = bar.add_task(task_name, total=total)
            bar.update(tasks_by_name[task_name], completed=done, total=total)  # type: ignore[arg-type]

        yield report_progress
