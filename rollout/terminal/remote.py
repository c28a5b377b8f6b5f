"""What commands share: their options and what reads them, answers of a service, output and errors.

A command asks a service over HTTP with an API key, or the local database; either way its answer is
printed alike, an error as a message with an exit code and without a traceback. Open questions about
recorded files are asked in a terminal; elsewhere they refuse.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from rollout.engine.files.questions import (
    Choice,
    FileChoices,
    OpenQuestionsError,
    ReadingQuestion,
    describe_question,
    map_rows_of,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.stages import parse_content
from rollout.settings import read_settings

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
    return str(_send_request(server, "GET", path, body=None, text=None, params=params).text)


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


RolloutName = Annotated[str, typer.Argument(help="name of the rollout", metavar="ROLLOUT")]
ActorName = Annotated[
    str, typer.Option(help="acting user, local database only (a service takes it from the API key)")
]
GroupNames = Annotated[
    list[str] | None,
    typer.Option(help="act for this group only (repeatable; default: all groups of the user)"),
]
PastInstant = Annotated[
    str | None, typer.Option(help="act as of this past time, as 2027-06-01T12:00Z (default: now)")
]
ReasonText = Annotated[str, typer.Option(help="reason, stored in the ledger (optional)")]
ExpectedHeads = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        metavar="REVISION:HASH",
        help="head kept elsewhere, which one of the exported ledgers must have (repeatable)",
    ),
]


def parse_time(option: str, text: str | None, example: str) -> datetime | None:
    """Return the time of an option; None without one.

    Raises:
        ValueError: the text is not a time, or has no offset.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} {text} is no time; write it as {example}") from None
    if at.tzinfo is None:
        raise ValueError(f"{option} {text} has no offset; add one, Z for UTC")
    return at


def parse_instant(text: str | None, option: str = "--at") -> datetime:
    """Return the past time of an option, by default now.

    Raises:
        ValueError: the text is not a time, has no offset, or is in the future.
    """
    now = datetime.now(UTC)
    at = parse_time(option, text, "2027-06-01T12:00Z") or now
    if at > now:
        raise ValueError(f"{option} {text} is in the future; name a past time, or leave it out")
    return at


PolicyFile = Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")]


def parse_salt(text: str) -> bytes:
    """Read `--salt`.

    Raises:
        ValueError: the text is not hexadecimal.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(
            f"--salt {text} is not hexadecimal; write an even number of hex digits"
        ) from None


def parse_salts(text: str) -> tuple[bytes, bytes]:
    """Read `--salt` of a replay: a rollout's salt and its service's; b"" for the same one.

    Raises:
        ValueError: a part is not hexadecimal.
    """
    salt, _, audit_salt = text.partition(",")
    return parse_salt(salt), parse_salt(audit_salt)


FACTOR_VARIABLE = "ROLLOUT_REQUIRE_SECOND_FACTOR"


def is_second_factor_required() -> bool:
    """Return the setting of second factors in this process's environment.

    Other settings are not read: a faulty one must not keep an admin from removing a user.
    """
    variables = (
        {FACTOR_VARIABLE: os.environ[FACTOR_VARIABLE]} if FACTOR_VARIABLE in os.environ else {}
    )
    return read_settings(variables).require_second_factor


PredictionsFile = Annotated[
    Path, typer.Option(help="predictions of the model: CSV, JSON lines or Parquet")
]
DecisionsFile = Annotated[Path, typer.Option(help="human decisions")]
CasesFile = Annotated[
    Path | None, typer.Option("--cases", help="sites, times and attributes of the cases")
]
OutcomesFile = Annotated[Path | None, typer.Option(help="outcomes that became known later")]
ActionsFile = Annotated[
    Path | None,
    typer.Option(help="actions taken: case_key, lever, action, by, at, model_version, permit"),
]
PlantedFile = Annotated[
    Path | None,
    typer.Option(
        "--planted",
        help="cases that were planted: case_key, and declared_at before their first answer",
    ),
]
ColumnFile = Annotated[
    Path | None, typer.Option(help="YAML file that maps our column names to yours")
]
ColumnMappings = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="map one column, as predictions.case_key=image; := sets a constant (repeatable)",
    ),
]
PredictionsWhere = Annotated[
    str | None,
    typer.Option(help="only rows of the predictions with COLUMN=TEXT, or COLUMN!=TEXT"),
]
DecisionsWhere = Annotated[
    str | None,
    typer.Option(help="only rows of the decisions with COLUMN=TEXT, or COLUMN!=TEXT"),
]
SameForm = Annotated[
    bool | None,
    typer.Option(help="labels, sites and keys such as 1 and 1.0, or TRUE and true, are the same"),
]


class LabelPopulation(StrEnum):
    """Which predicted cases are in the population."""

    SAMPLED = "sampled"
    ALL = "all"


Labels = Annotated[
    LabelPopulation | None,
    typer.Option(
        help="sampled: a sample was labelled, only labelled cases count; all: cases without a"
        " decision count against the model"
    ),
]
EqualSides = Annotated[
    bool, typer.Option("--equal-sides", help="humans and model agree in all rows, and are two")
]
Backtest = Annotated[
    bool | None,
    typer.Option(
        help="predictions that were made after the decisions count: the model did not see them"
    ),
]
TrainingCutoffs = Annotated[
    list[str] | None,
    typer.Option(help="VERSION=TIME: cases up to this time are no evidence for the version"),
]
VersionContents = Annotated[
    list[str] | None,
    typer.Option(
        "--content",
        help="VERSION=SHA256: hash of the version's weights and pre-processing, if no column"
        " `content` has it",
    ),
]
ChoicesFile = Annotated[Path | None, typer.Option(help="list with the column choice filled in")]


def build_choices(
    predictions_where: str | None = None,
    decisions_where: str | None = None,
    *,
    same_form: bool | None = None,
    labels: LabelPopulation | None = None,
    equal_sides: bool = False,
    backtest: bool | None = None,
) -> FileChoices:
    """Return what options say about both sides of recorded files."""
    wheres = {"--predictions-where": predictions_where, "--decisions-where": decisions_where}
    mappings = (map_rows_of(option, where) for option, where in wheres.items() if where)
    return FileChoices(
        mappings=tuple(mappings),
        same_form=same_form,
        labels=None if labels is None else labels.value,
        equal_sides=equal_sides,
        backtest=backtest,
    )


def parse_training_cutoff(text: str) -> tuple[str, datetime]:
    """Read one `--trained-until`.

    Raises:
        ValueError: the text is not VERSION=TIME, or the time has no offset.
    """
    version, _, at = text.rpartition("=")
    try:
        instant = datetime.fromisoformat(at)
    except ValueError:
        instant = None
    if not version or instant is None or instant.tzinfo is None:
        raise ValueError(
            f"--trained-until {text} is not VERSION=TIME; write it as v2=2025-10-23T23:00Z"
        )
    return version, instant


def parse_version_content(text: str) -> tuple[str, str]:
    """Read one `--content`.

    Raises:
        ValueError: the text is not VERSION=SHA256.
    """
    version, _, content = text.rpartition("=")
    if not version:
        raise ValueError(f"--content {text} is not VERSION=SHA256; write it as v2=9f86d081…")
    return version, parse_content(content)


Read = TypeVar("Read")


def is_terminal() -> bool:
    """Return whether a user can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_questions(questions: Sequence[ReadingQuestion]) -> list[tuple[ReadingQuestion, Choice]]:
    """Ask all questions and return each with its answer.

    Raises:
        OpenQuestionsError: nobody can answer here; the text names the options that do.
    """
    if not is_terminal():
        raise OpenQuestionsError(questions)
    return [(question, _ask(question)) for question in questions]


def _ask(question: ReadingQuestion) -> Choice:
    """Ask a question until the answer is one of its choices."""
    names = {choice.name: choice for choice in question.choices}
    typer.echo(describe_question(question), err=True)
    prompt = f"{question.title} ({', '.join(names)}): "
    # Not typer.prompt: it writes a space to standard output, where the policy goes.
    while True:
        typer.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise OpenQuestionsError([question])
        if (answer := line.strip()) in names:
            return names[answer]
        typer.echo(f"{answer!r} is none of {', '.join(names)}", err=True)


def read_with_answers(read: Callable[[FileChoices], Read], choices: FileChoices) -> Read:
    """Return what `read` returns, with the answers to its questions added to `choices`."""
    while True:
        try:
            return read(choices)
        except OpenQuestionsError as error:
            for _, answer in ask_questions(error.questions):
                choices = choices.add(answer)
