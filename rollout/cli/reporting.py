"""`rollout report`: create a report, seal it in the ledger, and write it."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic_core import to_jsonable_python

from rollout.cli.errors import refusals
from rollout.cli.output import tell
from rollout.cli.plan_and_status import AsJson, Asker, Here, Name, Question
from rollout.cli.remote import Server, path_of, text_of_server
from rollout.core.errors import Refusal

ON_DEMAND = "on-demand"
ENDINGS: Final = {
    ".html": "html",
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".markdown": "markdown",
}
VIEWS: Final = ("operator", "engineer", "auditor")

Of = Annotated[str | None, typer.Option(help="time with its offset, as 2027-06-01T00:00Z")]
View = Annotated[str, typer.Option(help=f"audience: {', '.join(VIEWS)}")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="html, json, csv (all divergences) or markdown (default: by file name)"
    ),
]
Out = Annotated[Path | None, typer.Option(help="file to write (default: print)", metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    since: Of = None,
    until: Of = None,
    view: View = "operator",
    form: Format = None,
    out: Out = None,
    name: Annotated[
        str, typer.Option(help="name; a report of the same name is its next version")
    ] = ON_DEMAND,
    by: Annotated[
        str, typer.Option(help="acting user, local database only; stored in the ledger")
    ] = "",
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Create a report on the cases of a span, seal it in the ledger, and write it.

    The default span is everything up to the last tick. A report is PROVISIONAL while cases of its
    span are open. Run it again for the FINAL version, or for a new version with a list of changes.
    If nothing has changed, there is no new version. Without --out, a Markdown summary is printed.

    Example: `rollout report ramps --out ramps.html`

    A week, for a ticket: `rollout report ramps --since 2027-06-07T00:00Z --until 2027-06-14T00:00Z`

    Every divergence, as CSV: `rollout report ramps --out all.csv`, on a service with `--server URL`
    """
    with refusals():
        period = {"since": _instant("--since", since), "until": _instant("--until", until)}
        report_format = _form(form, out)
        report_options = {"name": name, "view": _view(view), **period}
    created_report, text = _asked(Asker(server, by), rollout, report_options, report_format)
    if out is not None:
        with refusals():
            out.write_text(text, encoding="utf-8", newline="")
    result = {**created_report, "file": None if out is None else str(out)}
    tell(result, text.rstrip("\n") if out is None else _line(result), as_json=as_json)


def _asked(
    asker: Asker, rollout: str, asked: dict[str, Any], form: str
) -> tuple[dict[str, Any], str]:
    """Return what was made, and its text in one form."""
    path = path_of(rollout, "reports")
    if asker.server:
        body = {key: _written(value) for key, value in asked.items() if value is not None}
        (created_report,) = asker.answer(Question("POST", path, lambda _: None, body))
        with refusals():
            params = {"format": form, "view": asked["view"]}
            return created_report, text_of_server(
                asker.server, f"{path}/{created_report['id']}", params
            )
    (result,) = asker.answer(
        Question("POST", path, lambda context: _here(context, rollout, asked, form))
    )
    return result["made"], result["text"]


def _here(me: Here, rollout: str, asked: dict[str, Any], form: str) -> dict[str, Any]:
    from rollout.services.reports.archive import ask_report, brief, report_of, written  # noqa: PLC0415 - what draws is slow to import
    from rollout.services.reports.builder import Asked  # noqa: PLC0415

    parsed_options = Asked(asked["since"], asked["until"], asked["view"])
    created_report = ask_report(
        me.database, me.caller, rollout, asked["name"], parsed_options, me.at
    )
    report_view = report_of(me.database, me.caller, rollout, created_report.number, me.at)
    text = written(report_view, form, asked["view"]).decode()
    return {"made": to_jsonable_python(brief(created_report)), "text": text}


def _instant(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        parsed_time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} {text} is no time; write it as 2027-06-01T00:00Z") from None
    if parsed_time.tzinfo is None:
        raise ValueError(f"{option} {text} has no offset; add one, Z for UTC")
    return parsed_time


def _view(view: str) -> str:
    if view not in VIEWS:
        raise Refusal(f"--view {view} does not exist; choose one of {', '.join(VIEWS)}")
    return view


def _form(form: str | None, out: Path | None) -> str:
    known_formats = sorted(set(ENDINGS.values()))
    if form is None:
        suffix = ".md" if out is None else out.suffix.lower()
        if suffix not in ENDINGS:
            raise Refusal(f"--out {out}: end it in {', '.join(ENDINGS)}, or add --format")
        return ENDINGS[suffix]
    if form not in known_formats:
        raise Refusal(f"--format {form} does not exist; choose one of {', '.join(known_formats)}")
    return form


def _written(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _line(made: dict[str, Any]) -> str:
    """Say what was written where."""
    state = made["state"].upper()
    until = f"; can be final from {made['due']}" if made["state"] == "provisional" else ""
    return (
        f"{made['file']}: report {made['id']} ({made['name']}), version {made['version']}, "
        f"{state}{until}; sealed as {made['hash']}"
    )
