"""`rollout clean` and `rollout training` of a live rollout."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.engine.records.reviews import CleaningChoiceRequest
from rollout.features.divergences.case_explanation import load_costliest_counted_pairs
from rollout.features.reports.figures.label_sources import HUMAN_SOURCES
from rollout.features.training.cleaning import (
    TrainingOptions,
    export_training_rows,
    load_label_issues,
    store_choices,
)
from rollout.features.training.cli import (
    AllCases,
    OutputFile,
    SourceNames,
    TrainingFile,
    clean_app,
    find_format,
    format_choice_results,
    format_export,
    format_work_list,
    read_filled_rows,
    shorten_work_list,
    training_app,
    write_export,
    write_or_print,
)
from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    ActorName,
    JsonFlag,
    RolloutName,
    ServerUrl,
    build_path,
    parse_instant,
    print_answer,
    print_refusals,
)
from rollout.terminal.runner import LOCAL_READER, CommandRequest, build_runner

Since = Annotated[str | None, typer.Option(help="first time of occurrence, as 2027-06-01T00:00Z")]
Until = Annotated[str | None, typer.Option(help="end of the span, exclusive (default: now)")]
CHOICES_PER_REQUEST = 1_000  # choices of one request


def extend_clean() -> None:
    """Add the commands for live rollouts to those for files."""
    clean_app.command("list")(list_work)
    clean_app.command("apply")(apply_choices)


def extend_training() -> None:
    """Add the command for live rollouts to those for files."""
    training_app.command("export")(export_rows)


NOTHING_LISTED = (
    "no case of the span (--since, --until) stands out, or each has a choice (--with-choices lists"
    " those too); cases with open review tasks are not listed"
)

NO_COUNTED_CASES = (
    "no counted case has a human decision that differs from a prediction with a confidence; cases"
    " are counted when they close"
)


def list_work(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    since: Since = None,
    until: Until = None,
    every: AllCases = False,
    with_choices: Annotated[
        bool, typer.Option("--with-choices", help="include cases that already have a choice")
    ] = False,
    top_losses: Annotated[
        bool, typer.Option("--top-losses", help="list the largest losses of all counted cases")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000, help="with --top-losses: number of cases")
    ] = 20,
    out: OutputFile = None,
) -> None:
    """List cases of a live rollout to look at again, as CSV.

    The list has cases of the last 30 days, or from --since to --until, from the local database.
    Cases with open review tasks are excluded. The largest cost times loss comes first; the loss is
    -ln of the model's probability of the human label. Without --all the first 200 are listed, and
    the number of all is printed. On a service, use GET cleanings, which records who has seen which
    case.

    With --top-losses it has the counted cases where the human decision differs and the model was
    most confident. That takes as long for ten cases as for ten million.

    Example: `rollout clean list ramps --out list.csv`
    """
    if top_losses and (since or until):
        raise typer.BadParameter("--top-losses covers all counted cases; omit --since and --until")
    has_choice, at, note = None if with_choices else False, parse_instant(None), ""
    with open_database() as database:
        if top_losses:
            items = load_costliest_counted_pairs(
                database, LOCAL_READER, rollout, at, has_choice=has_choice, limit=limit
            )
        else:
            period = {
                "since": _parse_bound("--since", since),
                "until": _parse_bound("--until", until),
            }
            items = load_label_issues(
                database, LOCAL_READER, rollout, at, has_choice=has_choice, **period
            )
            items, note = shorten_work_list(items, is_complete=every)
        write_or_print(format_work_list(items), out)
    if not items:
        note = NO_COUNTED_CASES if top_losses else NOTHING_LISTED
    if note:
        typer.echo(note, err=True)


def apply_choices(
    rollout: RolloutName,
    file: Annotated[
        Path, typer.Argument(help="list with the column choice filled in", metavar="FILE")
    ],
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Store the choices of a filled list. A refused choice does not affect the others.

    Choices change training exports only: no record, gate or guard.

    Example: `rollout clean apply ramps list.csv --by mia`
    """
    with print_refusals():
        rows = read_filled_rows(file)
    choice_requests = [row.request for row in rows]
    batches = [
        choice_requests[start : start + CHOICES_PER_REQUEST]
        for start in range(0, len(choice_requests), CHOICES_PER_REQUEST)
    ]
    requests = [_build_request(rollout, batch) for batch in batches]
    results = [
        result for answer in build_runner(server, by).run(*requests) for result in answer["items"]
    ]
    print_answer({"items": results}, format_choice_results(results), as_json=as_json)
    if any(answer["status"] == "rejected" for answer in results):
        raise typer.Exit(1)


def _build_request(rollout: str, choice_requests: list[CleaningChoiceRequest]) -> CommandRequest:
    return CommandRequest(
        "POST",
        build_path(rollout, "cleanings"),
        lambda context: {
            "items": store_choices(
                context.database, context.caller, rollout, choice_requests, context.at
            )
        },
        {"items": [asdict(choice_request) for choice_request in choice_requests]},
    )


def export_rows(
    rollout: RolloutName,
    out: TrainingFile,
    since: Since = None,
    until: Until = None,
    source: SourceNames = None,
) -> None:
    """Export training rows of a live rollout, one for each closed case and lever.

    The rows come from the local database; a manifest is written next to the file. Cases with open
    review tasks are excluded. On a service, use GET training, which records who has seen which
    case.

    Example: `rollout training export ramps --out training.parquet`
    """
    with open_database() as database:
        file_format = find_format(out)
        options = TrainingOptions(
            tuple(source or HUMAN_SOURCES),
            _parse_bound("--since", since),
            _parse_bound("--until", until),
        )
        training_export = export_training_rows(
            database, LOCAL_READER, rollout, options, parse_instant(None)
        )
        write_export(training_export, out, file_format)
    typer.echo(format_export(training_export, out))


def _parse_bound(option: str, text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text, option)
