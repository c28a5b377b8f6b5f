"""The flags by which commands are given recorded files, and reading them."""

import getpass
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.progress import progress_bar
from rollout.core.cleaning import Choice
from rollout.formats.record_files import Sources
from rollout.services.cleaning_files import (
    RecordedFiles,
    choices_of_rows,
    read_files,
    read_filled,
)
from rollout.services.replaying import Order

Predictions = Annotated[Path, typer.Option(help="what the model said, CSV or JSON lines")]
Decisions = Annotated[Path, typer.Option(help="what people decided")]
OwnCases = Annotated[
    Path | None, typer.Option("--cases", help="sites, times, attributes of the cases")
]
Outcomes = Annotated[Path | None, typer.Option(help="what turned out to be true, later")]
Columns = Annotated[Path | None, typer.Option(help="YAML: our column names to yours")]
Mapped = Annotated[
    list[str] | None, typer.Option("--map", help="one column: predictions.case_key=image")
]
Choices = Annotated[Path | None, typer.Option(help="a list that was filled in")]


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
    order = Order(policy, sources, columns=columns, mapped=tuple(mapped or ()))
    with progress_bar() as told:
        return read_files(order, told)


def chosen_in(file: Path | None, found: RecordedFiles, at: datetime) -> Sequence[Choice]:
    """Return the choices of a filled list; none where no file is given."""
    if file is None:
        return ()
    return choices_of_rows(file, read_filled(file), found, getpass.getuser(), at)
