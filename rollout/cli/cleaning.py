"""`rollout clean`: what stands out, as a list to fill in, and the choices that come back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.recorded import (
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
from rollout.cli.refusing import refusals
from rollout.cli.replay import PolicyFile
from rollout.services.cleaning_files import list_of_files, list_text
from rollout.services.writing import write_whole

app = typer.Typer(no_args_is_help=True, help="Look again at what stands out: relabel, drop, keep.")
To = Annotated[Path | None, typer.Option(help="a file to write to; by default it is printed")]


@app.callback()
def group() -> None:
    """Look again at what stands out, for the next training. A choice is never evidence."""


@app.command("files")
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
    """Write the list of recorded files as CSV, the dearest case first.

    Where the model was sure and wrong, people differ, or a person may have slipped. Fill in
    `choice` (relabel, drop, keep), with relabel also `label`, and give the file to
    `rollout training files`.

    Example: `rollout clean files policy.yaml --predictions p.csv --decisions d.csv --out list.csv`
    """
    with refusals():
        found = found_in(policy, predictions, decisions, cases, outcomes, columns, mapped)
        made = chosen_in(choices, found, datetime.now(UTC))
        text = list_text(list_of_files(found, made))
        write_or_print(text, out)


def write_or_print(text: str, out: Path | None) -> None:
    """Write text to a file, or to the terminal."""
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out.parent, {out.name: text.encode()})


def choices_text(answers: list[Any]) -> str:
    """Say what became of choices: how many were kept, and each that was refused."""
    counts = dict.fromkeys(("saved", "unchanged", "rejected"), 0)
    for answer in answers:
        counts[answer["status"]] += 1
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    refused = [a for a in answers if a["status"] == "rejected"]
    return "\n".join([told, *(f"  {a['key']}: {a['reason']}" for a in refused)])
