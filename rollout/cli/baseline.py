"""`rollout baseline`: import how often each action was taken before the model."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import ActorName, RolloutName
from rollout.cli.runner import CommandRequest, LocalContext, build_runner
from rollout.core.records.records import BaselineCount
from rollout.services.records.baselines import store_baselines

COLUMNS = ("site", "window", "lever", "action", "n", "since", "until")
BaselineFile = Annotated[
    Path, typer.Argument(help=f"CSV with columns {', '.join(COLUMNS)}", metavar="FILE")
]


def import_baseline(
    rollout: RolloutName,
    file: BaselineFile,
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Import how often each action was taken before the model, from a CSV file.

    A row is a cell, an action and a span, with its count in column `n`. All rows are stored, or
    none. Repeating an import changes nothing; a row with a new count replaces the old one. The
    ledger records who imported the file. The action of a set of labels is written `a;b`.

    Example: `rollout baseline ramps manual-2026.csv --by ada`
    """
    with print_refusals():
        baseline_counts = _read_counts(file)
    items = [
        {column: _to_plain(getattr(baseline_count, column)) for column in COLUMNS}
        for baseline_count in baseline_counts
    ]

    def run_locally(context: LocalContext) -> dict[str, int]:
        return {
            "new": store_baselines(
                context.database, context.caller, rollout, baseline_counts, context.at
            )
        }

    path = build_path(rollout, "baselines")
    (result,) = build_runner(server, by).run(
        CommandRequest("POST", path, run_locally, {"items": items})
    )
    print_answer(result, f"{result['new']} of {len(baseline_counts)} rows are new", as_json=as_json)


def _to_plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _read_counts(file: Path) -> list[BaselineCount]:
    """Return the rows of a file.

    Raises:
        ValueError: a column is missing or a line is invalid.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        missing_columns = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing_columns:
            raise ValueError(
                f"{file}: column {', '.join(missing_columns)} is missing; required columns:"
                f" {', '.join(COLUMNS)}"
            )
        return [_parse_count(file, rows.line_num, row) for row in rows]


def _parse_count(file: Path, line: int, row: dict[str, str]) -> BaselineCount:
    try:
        since, until = (datetime.fromisoformat(row[column]) for column in ("since", "until"))
        names = {column: row[column] for column in COLUMNS[:4]}
        return BaselineCount(**names, n=int(row["n"]), since=since, until=until)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}, line {line}: {error}") from error
