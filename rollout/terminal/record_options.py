"""Options that several commands share, and what reads them.

Options of commands that read recorded files, and readers for them.

Ask the open questions about recorded files in a terminal; elsewhere refuse.

Options of commands on a rollout, and a reader of times.

Options of commands that read a policy file, and a reader of salts.

The setting of second factors, for commands that change accounts.
"""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from rollout.engine.files.questions import (
    Choice,
    FileChoices,
    OpenQuestionsError,
    ReadingQuestion,
    describe_question,
    map_rows_of,
)
from rollout.kernel.policy.stages import parse_content
from rollout.settings import read_settings

RolloutName = Annotated[str, typer.Argument(help="name of the rollout", metavar="ROLLOUT")]
ActorName = Annotated[
    str, typer.Option(help="acting user, local database only (a service takes it from the API key)")
]
GroupNames = Annotated[
    list[str] | None,
    typer.Option(help="act for this group only (repeatable; default: all groups of the user)"),
]
PastInstant = Annotated[
    str | None, typer.Option(help="act as of this past time, as 2027-06-01T12:00Z (default: now)")
]
ReasonText = Annotated[str, typer.Option(help="reason, stored in the ledger (optional)")]
ExpectedHeads = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        metavar="REVISION:HASH",
        help="head kept elsewhere, which one of the exported ledgers must have (repeatable)",
    ),
]


def parse_time(option: str, text: str | None, example: str) -> datetime | None:
    """Return the time of an option; None without one.

    Raises:
        ValueError: the text is not a time, or has no offset.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} {text} is no time; write it as {example}") from None
    if at.tzinfo is None:
        raise ValueError(f"{option} {text} has no offset; add one, Z for UTC")
    return at


def parse_instant(text: str | None, option: str = "--at") -> datetime:
    """Return the past time of an option, by default now.

    Raises:
        ValueError: the text is not a time, has no offset, or is in the future.
    """
    now = datetime.now(UTC)
    at = parse_time(option, text, "2027-06-01T12:00Z") or now
    if at > now:
        raise ValueError(f"{option} {text} is in the future; name a past time, or leave it out")
    return at


PolicyFile = Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")]


def parse_salt(text: str) -> bytes:
    """Read `--salt`.

    Raises:
        ValueError: the text is not hexadecimal.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(
            f"--salt {text} is not hexadecimal; write an even number of hex digits"
        ) from None


def parse_salts(text: str) -> tuple[bytes, bytes]:
    """Read `--salt` of a replay: a rollout's salt and its service's; b"" for the same one.

    Raises:
        ValueError: a part is not hexadecimal.
    """
    salt, _, audit_salt = text.partition(",")
    return parse_salt(salt), parse_salt(audit_salt)


FACTOR_VARIABLE = "ROLLOUT_REQUIRE_SECOND_FACTOR"


def is_second_factor_required() -> bool:
    """Return the setting of second factors in this process's environment.

    Other settings are not read: a faulty one must not keep an admin from removing a user.
    """
    variables = (
        {FACTOR_VARIABLE: os.environ[FACTOR_VARIABLE]} if FACTOR_VARIABLE in os.environ else {}
    )
    return read_settings(variables).require_second_factor


PredictionsFile = Annotated[
    Path, typer.Option(help="predictions of the model: CSV, JSON lines or Parquet")
]
DecisionsFile = Annotated[Path, typer.Option(help="human decisions")]
CasesFile = Annotated[
    Path | None, typer.Option("--cases", help="sites, times and attributes of the cases")
]
OutcomesFile = Annotated[Path | None, typer.Option(help="outcomes that became known later")]
ActionsFile = Annotated[
    Path | None,
    typer.Option(help="actions taken: case_key, lever, action, by, at, model_version, permit"),
]
PlantedFile = Annotated[
    Path | None,
    typer.Option(
        "--planted",
        help="cases that were planted: case_key, and declared_at before their first answer",
    ),
]
ColumnFile = Annotated[
    Path | None, typer.Option(help="YAML file that maps our column names to yours")
]
ColumnMappings = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="map one column, as predictions.case_key=image; := sets a constant (repeatable)",
    ),
]
PredictionsWhere = Annotated[
    str | None,
    typer.Option(help="only rows of the predictions with COLUMN=TEXT, or COLUMN!=TEXT"),
]
DecisionsWhere = Annotated[
    str | None,
    typer.Option(help="only rows of the decisions with COLUMN=TEXT, or COLUMN!=TEXT"),
]
SameForm = Annotated[
    bool | None,
    typer.Option(help="labels, sites and keys such as 1 and 1.0, or TRUE and true, are the same"),
]


class LabelPopulation(StrEnum):
    """Which predicted cases are in the population."""

    SAMPLED = "sampled"
    ALL = "all"


Labels = Annotated[
    LabelPopulation | None,
    typer.Option(
        help="sampled: a sample was labelled, only labelled cases count; all: cases without a"
        " decision count against the model"
    ),
]
EqualSides = Annotated[
    bool, typer.Option("--equal-sides", help="humans and model agree in all rows, and are two")
]
Backtest = Annotated[
    bool | None,
    typer.Option(
        help="predictions that were made after the decisions count: the model did not see them"
    ),
]
TrainingCutoffs = Annotated[
    list[str] | None,
    typer.Option(help="VERSION=TIME: cases up to this time are no evidence for the version"),
]
VersionContents = Annotated[
    list[str] | None,
    typer.Option(
        "--content",
        help="VERSION=SHA256: hash of the version's weights and pre-processing, if no column"
        " `content` has it",
    ),
]
ChoicesFile = Annotated[Path | None, typer.Option(help="list with the column choice filled in")]


def build_choices(
    predictions_where: str | None = None,
    decisions_where: str | None = None,
    *,
    same_form: bool | None = None,
    labels: LabelPopulation | None = None,
    equal_sides: bool = False,
    backtest: bool | None = None,
) -> FileChoices:
    """Return what options say about both sides of recorded files."""
    wheres = {"--predictions-where": predictions_where, "--decisions-where": decisions_where}
    mappings = (map_rows_of(option, where) for option, where in wheres.items() if where)
    return FileChoices(
        mappings=tuple(mappings),
        same_form=same_form,
        labels=None if labels is None else labels.value,
        equal_sides=equal_sides,
        backtest=backtest,
    )


def parse_training_cutoff(text: str) -> tuple[str, datetime]:
    """Read one `--trained-until`.

    Raises:
        ValueError: the text is not VERSION=TIME, or the time has no offset.
    """
    version, _, at = text.rpartition("=")
    try:
        instant = datetime.fromisoformat(at)
    except ValueError:
        instant = None
    if not version or instant is None or instant.tzinfo is None:
        raise ValueError(
            f"--trained-until {text} is not VERSION=TIME; write it as v2=2025-10-23T23:00Z"
        )
    return version, instant


def parse_version_content(text: str) -> tuple[str, str]:
    """Read one `--content`.

    Raises:
        ValueError: the text is not VERSION=SHA256.
    """
    version, _, content = text.rpartition("=")
    if not version:
        raise ValueError(f"--content {text} is not VERSION=SHA256; write it as v2=9f86d081…")
    return version, parse_content(content)


Read = TypeVar("Read")


def is_terminal() -> bool:
    """Return whether a user can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_questions(questions: Sequence[ReadingQuestion]) -> list[tuple[ReadingQuestion, Choice]]:
    """Ask all questions and return each with its answer.

    Raises:
        OpenQuestionsError: nobody can answer here; the text names the options that do.
    """
    if not is_terminal():
        raise OpenQuestionsError(questions)
    return [(question, _ask(question)) for question in questions]


def _ask(question: ReadingQuestion) -> Choice:
    """Ask a question until the answer is one of its choices."""
    names = {choice.name: choice for choice in question.choices}
    typer.echo(describe_question(question), err=True)
    prompt = f"{question.title} ({', '.join(names)}): "
    # Not typer.prompt: it writes a space to standard output, where the policy goes.
    while True:
        typer.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise OpenQuestionsError([question])
        if (answer := line.strip()) in names:
            return names[answer]
        typer.echo(f"{answer!r} is none of {', '.join(names)}", err=True)


def read_with_answers(read: Callable[[FileChoices], Read], choices: FileChoices) -> Read:
    """Return what `read` returns, with the answers to its questions added to `choices`."""
    while True:
        try:
            return read(choices)
        except OpenQuestionsError as error:
            for _, answer in ask_questions(error.questions):
                choices = choices.add(answer)
