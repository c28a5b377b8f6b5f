"""`rollout baseline`: import how often each action was taken before the model."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import refusals
from rollout.cli.output import tell
from rollout.cli.plan_and_status import AsJson, By, Here, Name, Question, person
from rollout.cli.remote import Server, path_of
from rollout.services.records.baselines import Done, vouch

COLUMNS = ("site", "window", "lever", "action", "n", "since", "until")
File = Annotated[
    Path, typer.Argument(help=f"CSV with columns {', '.join(COLUMNS)}", metavar="FILE")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("baseline")(baseline)


def baseline(
    rollout: Name, file: File, by: By = "", server: Server = None, as_json: AsJson = False
) -> None:
    """Import how often each action was taken before the model, from a CSV file.

    A row is a cell, an action and a span, with its count in column `n`. All rows are stored, or
    none. Repeating an import changes nothing; a row with a new count replaces the old one. The
    ledger records who imported the file.

    Example: `rollout baseline ramps manual-2026.csv --by zoe`
    """
    with refusals():
        baseline_counts = _read(file)
    items = [
        {column: _written(getattr(baseline_count, column)) for column in COLUMNS}
        for baseline_count in baseline_counts
    ]

    def here(me: Here) -> dict[str, int]:
        return {"new": vouch(me.database, me.caller, rollout, baseline_counts, me.at)}

    path = path_of(rollout, "baselines")
    (result,) = person(server, by).answer(Question("POST", path, here, {"items": items}))
    tell(result, f"{result['new']} of {len(baseline_counts)} rows are new", as_json=as_json)


def _written(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _read(file: Path) -> list[Done]:
    """Return the rows of a file.

    Raises:
        ValueError: names the line, and what would be right.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        missing_columns = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing_columns:
            raise ValueError(
                f"{file}: column {', '.join(missing_columns)} is missing; required columns:"
                f" {_needed()}"
            )
        return [_done(file, rows.line_num, row) for row in rows]


def _needed() -> str:
    return ", ".join(COLUMNS)


def _done(file: Path, line: int, row: dict[str, str]) -> Done:
    try:
        since, until = (datetime.fromisoformat(row[column]) for column in ("since", "until"))
        names = {column: row[column] for column in COLUMNS[:4]}
        return Done(**names, n=int(row["n"]), since=since, until=until)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}, line {line}: {error}") from error
