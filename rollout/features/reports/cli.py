"""`rollout report`: create a report, seal it in the ledger, and write it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic_core import to_jsonable_python

from rollout.kernel.errors import RefusalError
from rollout.terminal.remote import (
    JsonFlag,
    RolloutName,
    ServerUrl,
    build_path,
    parse_time,
    print_answer,
    print_refusals,
    request_text,
)
from rollout.terminal.runner import CommandRequest, LocalContext, RequestRunner

ON_DEMAND = "on-demand"
FORMATS: Final = ("csv", "html", "json")
VIEWS: Final = ("operator", "engineer", "auditor")

EXAMPLE_TIME: Final = "2027-06-01T00:00Z"

InstantOption = Annotated[str | None, typer.Option(help=f"time with its offset, as {EXAMPLE_TIME}")]
ViewOption = Annotated[str, typer.Option(help=f"audience: {', '.join(VIEWS)}")]
Format = Annotated[
    str | None,
    typer.Option("--format", help="html, json or csv (all divergences); default: by file name"),
]
OutputFile = Annotated[Path | None, typer.Option(help="file to write", metavar="FILE")]


def create_report(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    since: InstantOption = None,
    until: InstantOption = None,
    view: ViewOption = "operator",
    form: Format = None,
    out: OutputFile = None,
    name: Annotated[
        str, typer.Option(help="name; a report of the same name is its next version")
    ] = ON_DEMAND,
    by: Annotated[
        str, typer.Option(help="acting user, local database only; stored in the ledger")
    ] = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a report on the cases of a span, seal it in the ledger, and write it.

    The default span is everything up to the last tick. A report is PROVISIONAL while cases of its
    span are open. Run it again for the FINAL version, or for a new version with a list of changes.
    If nothing has changed, there is no new version. Without --out and --format, nothing but
    its number, version and seal is printed.

    Example: `rollout report ramps --out ramps.html`

    Every divergence, as CSV: `rollout report ramps --out all.csv`, on a service with `--server URL`
    """
    with print_refusals():
        period = {
            "since": parse_time("--since", since, EXAMPLE_TIME),
            "until": parse_time("--until", until, EXAMPLE_TIME),
        }
        report_format = _select_format(form, out)
        report_options = {"name": name, "view": _check_choice("--view", view, VIEWS), **period}
    created_report, text = _request_report(
        RequestRunner(server, by), rollout, report_options, report_format
    )
    if out is not None:
        with print_refusals():
            out.write_text(text, encoding="utf-8", newline="")
    result = {**created_report, "file": None if out is None else str(out)}
    is_printed = out is None and bool(text)
    print_answer(
        result, text.rstrip("\n") if is_printed else _format_result(result), as_json=as_json
    )


def _request_report(
    runner: RequestRunner, rollout: str, report_options: dict[str, Any], report_format: str
) -> tuple[dict[str, Any], str]:
    """Return the created report and its text in one format; "" without a format."""
    path = build_path(rollout, "reports")
    if runner.server:
        body = {
            key: value.isoformat() if isinstance(value, datetime) else value
            for key, value in report_options.items()
            if value is not None
        }
        (created_report,) = runner.run(CommandRequest("POST", path, lambda _: None, body))
        if not report_format:
            return created_report, ""
        with print_refusals():
            params = {"format": report_format, "view": report_options["view"]}
            return created_report, request_text(
                runner.server, f"{path}/{created_report['id']}", params
            )
    (result,) = runner.run(
        CommandRequest(
            "POST",
            path,
            lambda context: _create_local_report(context, rollout, report_options, report_format),
        )
    )
    return result["made"], result["text"]


def _create_local_report(
    context: LocalContext, rollout: str, report_options: dict[str, Any], report_format: str
) -> dict[str, Any]:
    from rollout.features.reports.archive import (
        format_report,
        load_report,
        request_report,
        summarize_report,
    )
    from rollout.features.reports.builder import ReportOptions

    created_report = request_report(
        context.database,
        context.caller,
        rollout,
        report_options["name"],
        ReportOptions(report_options["since"], report_options["until"], report_options["view"]),
        context.at,
    )
    made = to_jsonable_python(summarize_report(created_report))
    if not report_format:
        return {"made": made, "text": ""}
    report_view = load_report(
        context.database, context.caller, rollout, created_report.number, context.at
    )
    text = format_report(report_view, report_format, report_options["view"]).decode()
    return {"made": made, "text": text}


def _check_choice(option: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise RefusalError(f"{option} {value} does not exist; choose one of {', '.join(choices)}")
    return value


def _select_format(form: str | None, out: Path | None) -> str:
    """Return the format as chosen or as the file's name ends; "" without both."""
    if form is None:
        suffix = "" if out is None else out.suffix.lower().removeprefix(".")
        if out is not None and suffix not in FORMATS:
            endings = ", ".join(f".{name}" for name in FORMATS)
            raise RefusalError(f"--out {out}: end it in {endings}, or add --format")
        return suffix
    return _check_choice("--format", form, FORMATS)


def _format_result(created_report: dict[str, Any]) -> str:
    """Return a line about the report: its file if it is written, version, state and hash."""
    file = f"{created_report['file']}: " if created_report["file"] else ""
    state = created_report["state"].upper()
    until = (
        f"; can be final from {created_report['due']}"
        if created_report["state"] == "provisional"
        else ""
    )
    return (
        f"{file}report {created_report['id']} ({created_report['name']}),"
        f" version {created_report['version']}, {state}{until}; sealed as {created_report['hash']}"
    )
