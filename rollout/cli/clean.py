"""`rollout clean`: list cases to relabel, drop or keep, and record the choices."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.errors import refusals
from rollout.cli.import_records import (
    Choices,
    Columns,
    Decisions,
    Mapped,
    Outcomes,
    OwnCases,
    Predictions,
    chosen_in,
    found_in,
)
from rollout.cli.replay import PolicyFile
from rollout.services.support.atomic_files import write_whole
from rollout.services.training.cleaning_files import list_of_files, list_text

app = typer.Typer(no_args_is_help=True)
To = Annotated[Path | None, typer.Option(help="file to write (default: print)")]


@app.callback()
def group() -> None:
    """Clean training data: list cases that stand out, and relabel, drop or keep them.

    A choice changes training exports only. It is never evidence.

    Example: `rollout clean list ramps --out list.csv`
    """


@app.command("list-files")
def list_files(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    policy: PolicyFile,
    predictions: Predictions,
    decisions: Decisions,
    cases: OwnCases = None,
    outcomes: Outcomes = None,
    columns: Columns = None,
    mapped: Mapped = None,
    choices: Choices = None,
    out: To = None,
) -> None:
    """List cases of recorded files to look at again, as CSV, costliest first.

    The list has cases where the model was confident and wrong, where reviewers differ, or where a
    reviewer may have made a mistake. Fill in `choice` (relabel, drop, keep), for relabel also
    `label`, and pass the file to `rollout training export-files --choices`.

    Example: `rollout clean list-files policy.yaml --predictions p.csv --decisions d.csv
    --out list.csv`
    """
    with refusals():
        files = found_in(policy, predictions, decisions, cases, outcomes, columns, mapped)
        file_choices = chosen_in(choices, files, datetime.now(UTC))
        text = list_text(list_of_files(files, file_choices))
        write_or_print(text, out)


def write_or_print(text: str, out: Path | None) -> None:
    """Write text to a file, or to the terminal."""
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out.parent, {out.name: text.encode()})


def choices_text(answers: list[Any]) -> str:
    """Return how many choices were stored, and each that was refused."""
    counts = dict.fromkeys(("saved", "unchanged", "rejected"), 0)
    for answer in answers:
        counts[answer["status"]] += 1
    count_text = ", ".join(f"{count} {status}" for status, count in counts.items())
    refusals = [a for a in answers if a["status"] == "rejected"]
    return "\n".join([count_text, *(f"  {a['key']}: {a['reason']}" for a in refusals)])
