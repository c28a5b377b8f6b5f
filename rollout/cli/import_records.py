"""Options for recorded files, shared by commands, and how they are read."""

import getpass
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.progress import progress_bar
from rollout.core.records.label_cleaning import Choice
from rollout.formats.records.files import Sources
from rollout.services.replay.replay import Order
from rollout.services.training.cleaning_files import (
    RecordedFiles,
    choices_of_rows,
    read_files,
    read_filled,
)

Predictions = Annotated[
    Path, typer.Option(help="predictions of the model: CSV, JSON lines or Parquet")
]
Decisions = Annotated[Path, typer.Option(help="human decisions")]
OwnCases = Annotated[
    Path | None, typer.Option("--cases", help="sites, times and attributes of the cases")
]
Outcomes = Annotated[Path | None, typer.Option(help="outcomes that became known later")]
Columns = Annotated[Path | None, typer.Option(help="YAML file that maps our column names to yours")]
Mapped = Annotated[
    list[str] | None,
    typer.Option("--map", help="map one column, as predictions.case_key=image (repeatable)"),
]
Choices = Annotated[Path | None, typer.Option(help="list with the column choice filled in")]


def found_in(
    policy: Path,
    predictions: Path,
    decisions: Path,
    cases: Path | None,
    outcomes: Path | None,
    columns: Path | None,
    mapped: list[str] | None,
) -> RecordedFiles:
    """Read a policy and recorded files."""
    sources = Sources(predictions, decisions, cases, outcomes)
    request = Order(policy, sources, columns=columns, mapped=tuple(mapped or ()))
    with progress_bar() as report_progress:
        return read_files(request, report_progress)


def chosen_in(file: Path | None, found: RecordedFiles, at: datetime) -> Sequence[Choice]:
    """Return the choices of a filled list; none where no file is given."""
    if file is None:
        return ()
    return choices_of_rows(file, read_filled(file), found, getpass.getuser(), at)
