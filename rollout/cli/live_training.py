"""`rollout clean` and `rollout training` of a live rollout: on a database, or of a service."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli import cleaning, training
from rollout.cli.cleaning import To, choices_text, write_or_print
from rollout.cli.questions import (
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
from rollout.cli.refusing import refusals
from rollout.cli.remote import Server, path_of
from rollout.cli.telling import tell
from rollout.cli.training import From, Out, form_of, said_of, write_export
from rollout.reports.label_sources import PEOPLES
from rollout.services.cleaning import Wish, choose, work_list
from rollout.services.cleaning_files import list_text, read_filled
from rollout.services.counted_losses import counted_losses
from rollout.services.training import Wanted
from rollout.services.training import training as rows_of

Since = Annotated[str | None, typer.Option(help="when the first cases occurred, 2027-06-01T00:00Z")]
Until = Annotated[str | None, typer.Option(help="before when the last ones did; by default now")]
AT_ONCE = 1_000  # choices of one request


def register() -> None:
    """Put these commands beside those that read files."""
    cleaning.app.command("list")(list_work)
    cleaning.app.command("apply")(apply)
    training.app.command("export")(export)


NOTHING = (
    "nothing stands out among the cases of the span (--since, --until): answers without a"
    " confidence never do, and cases that people still judge are kept back; `rollout report"
    " --form csv` has every divergence"
)

NONE_COUNTED = (
    "no case was counted on which people said otherwise and the model said how sure it was; cases"
    " are counted when they close"
)


def list_work(
    rollout: Name,
    since: Since = None,
    until: Until = None,
    every: Annotated[
        bool, typer.Option("--all", help="those about which somebody has chosen, too")
    ] = False,
    counted: Annotated[
        bool, typer.Option("--counted", help="instead the largest losses of all that was counted")
    ] = False,
    most: Annotated[int, typer.Option(min=1, max=1_000, help="how many, with --counted")] = 20,
    out: To = None,
) -> None:
    """Write the list of a live rollout on the local database as CSV, the dearest case first.

    Of cases that occurred in the last 30 days, or from --since to --until. No case that people
    still judge is on it. Of a service ask GET cleanings: it notes who was shown what.

    With --counted no records of a span are read: it takes as long for ten cases as for ten
    million, and lists where people said otherwise and the model was surest.

    Example: `rollout clean list ramps --out list.csv`
    """
    if counted and (since or until):
        raise typer.BadParameter("--counted is of all that was counted; leave --since and --until")
    chosen, at = None if every else False, instant_of(None)
    with opened() as database:
        if counted:
            items = counted_losses(database, WHOEVER, rollout, at, chosen=chosen, most=most)
        else:
            ends = {"since": _instant(since), "until": _instant(until)}
            items = work_list(database, WHOEVER, rollout, at, chosen=chosen, **ends)
        write_or_print(list_text(items), out)
    if not items:
        typer.echo(NONE_COUNTED if counted else NOTHING, err=True)


def apply(
    rollout: Name,
    file: Annotated[Path, typer.Argument(help="a list that was filled in", metavar="FILE")],
    by: By = "",
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Keep the choices of a filled list. Each is answered; one that is refused fails no other.

    They change what training is given and nothing else: no record, no gate, no guard.

    Example: `rollout clean apply ramps list.csv --by mia`
    """
    with refusals():
        rows = read_filled(file)
    wishes = [
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
    parts = [wishes[start : start + AT_ONCE] for start in range(0, len(wishes), AT_ONCE)]
    asked = [_question(rollout, part) for part in parts]
    found = [one for answer in person(server, by).answer(*asked) for one in answer["items"]]
    tell({"items": found}, choices_text(found), as_json=as_json)
    if any(answer["status"] == "rejected" for answer in found):
        raise typer.Exit(1)


def _question(rollout: str, wishes: list[dict[str, Any]]) -> Question:
    def here(me: Here) -> dict[str, Any]:
        wanted = [Wish(**one) for one in wishes]
        return {"items": choose(me.database, me.caller, rollout, wanted, me.at)}

    return Question("POST", path_of(rollout, "cleanings"), here, {"items": wishes})


def export(
    rollout: Name, out: Out, since: Since = None, until: Until = None, source: From = None
) -> None:
    """Write a row for each closed case and lever of a live rollout on the local database.

    Beside the file stands its manifest. No case that people still judge is in it. Of a service
    ask GET training: it notes who was shown what.

    Example: `rollout training export ramps --out training.parquet`
    """
    with opened() as database:
        form = form_of(out)
        wanted = Wanted(tuple(source or PEOPLES), _instant(since), _instant(until))
        found = rows_of(database, WHOEVER, rollout, wanted, instant_of(None))
        write_export(found, out, form)
    typer.echo(said_of(found, out))


def _instant(text: str | None) -> datetime | None:
    return None if text is None else instant_of(text)
