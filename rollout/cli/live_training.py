"""`rollout clean` and `rollout training` of a live rollout."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli import clean, training
from rollout.cli.clean import To, choices_text, write_or_print
from rollout.cli.errors import refusals
from rollout.cli.output import tell
from rollout.cli.plan_and_status import (
    WHOEVER,
    AsJson,
    By,
    Here,
    Name,
    Question,
    instant_of,
    opened,
    person,
)
from rollout.cli.remote import Server, path_of
from rollout.cli.training import From, Out, form_of, said_of, write_export
from rollout.reports.figures.label_sources import PEOPLES
from rollout.services.divergences.top_losses import counted_losses
from rollout.services.training.cleaning import Wish, choose, work_list
from rollout.services.training.cleaning_files import list_text, read_filled
from rollout.services.training.training import Wanted
from rollout.services.training.training import training as rows_of

Since = Annotated[str | None, typer.Option(help="first time of occurrence, as 2027-06-01T00:00Z")]
Until = Annotated[str | None, typer.Option(help="end of the span, exclusive (default: now)")]
AT_ONCE = 1_000  # choices of one request


def register() -> None:
    """Put these commands beside those that read files."""
    clean.app.command("list")(list_work)
    clean.app.command("apply")(apply)
    training.app.command("export")(export)


NOTHING = (
    "no case of the span (--since, --until) stands out: predictions without a confidence and"
    " cases with open review tasks are not listed; `rollout report --format csv` has every"
    " divergence"
)

NONE_COUNTED = (
    "no counted case has a human decision that differs from a prediction with a confidence; cases"
    " are counted when they close"
)


def list_work(
    rollout: Name,
    since: Since = None,
    until: Until = None,
    every: Annotated[
        bool, typer.Option("--all", help="include cases that already have a choice")
    ] = False,
    top_losses: Annotated[
        bool, typer.Option("--top-losses", help="list the largest losses of all counted cases")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000, help="with --top-losses: number of cases")
    ] = 20,
    out: To = None,
) -> None:
    """List cases of a live rollout to look at again, as CSV, costliest first.

    The list has cases of the last 30 days, or from --since to --until, from the local database.
    Cases with open review tasks are excluded. On a service, use GET cleanings, which records who
    has seen which case.

    With --top-losses it has the counted cases where the human decision differs and the model was
    most confident. That takes as long for ten cases as for ten million.

    Example: `rollout clean list ramps --out list.csv`
    """
    if top_losses and (since or until):
        raise typer.BadParameter("--top-losses covers all counted cases; omit --since and --until")
    has_choice, at = None if every else False, instant_of(None)
    with opened() as database:
        if top_losses:
            items = counted_losses(database, WHOEVER, rollout, at, chosen=has_choice, most=limit)
        else:
            period = {"since": _instant(since), "until": _instant(until)}
            items = work_list(database, WHOEVER, rollout, at, chosen=has_choice, **period)
        write_or_print(list_text(items), out)
    if not items:
        typer.echo(NONE_COUNTED if top_losses else NOTHING, err=True)


def apply(
    rollout: Name,
    file: Annotated[
        Path, typer.Argument(help="list with the column choice filled in", metavar="FILE")
    ],
    by: By = "",
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Store the choices of a filled list. A refused choice does not affect the others.

    Choices change training exports only: no record, gate or guard.

    Example: `rollout clean apply ramps list.csv --by mia`
    """
    with refusals():
        rows = read_filled(file)
    choice_requests = [
        {
            "key": row.key,
            "choice": row.choice,
            "lever": row.lever,
            "label": row.label,
            "reason": row.reason,
            "version": row.version,
            "report": row.report,
        }
        for row in rows
    ]
    batches = [
        choice_requests[start : start + AT_ONCE]
        for start in range(0, len(choice_requests), AT_ONCE)
    ]
    requests = [_question(rollout, batch) for batch in batches]
    results = [
        result for answer in person(server, by).answer(*requests) for result in answer["items"]
    ]
    tell({"items": results}, choices_text(results), as_json=as_json)
    if any(answer["status"] == "rejected" for answer in results):
        raise typer.Exit(1)


def _question(rollout: str, wishes: list[dict[str, Any]]) -> Question:
    def here(me: Here) -> dict[str, Any]:
        parsed_requests = [Wish(**choice_request) for choice_request in wishes]
        return {"items": choose(me.database, me.caller, rollout, parsed_requests, me.at)}

    return Question("POST", path_of(rollout, "cleanings"), here, {"items": wishes})


def export(
    rollout: Name, out: Out, since: Since = None, until: Until = None, source: From = None
) -> None:
    """Export training rows of a live rollout, one for each closed case and lever.

    The rows come from the local database; a manifest is written next to the file. Cases with open
    review tasks are excluded. On a service, use GET training, which records who has seen which
    case.

    Example: `rollout training export ramps --out training.parquet`
    """
    with opened() as database:
        file_format = form_of(out)
        options = Wanted(tuple(source or PEOPLES), _instant(since), _instant(until))
        training_export = rows_of(database, WHOEVER, rollout, options, instant_of(None))
        write_export(training_export, out, file_format)
    typer.echo(said_of(training_export, out))


def _instant(text: str | None) -> datetime | None:
    return None if text is None else instant_of(text)
