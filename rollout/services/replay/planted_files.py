"""Recorded files with planted cases: declared in a file, before their answers."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from rollout.core.records.planted_cases import PlantedDeclaration
from rollout.formats.records.planted_rows import read_planted_rows
from rollout.tally.frames import INSTANT, RecordFrames
from rollout.tally.populations import split_populations


class LateDeclarationError(ValueError):
    """A case was declared as planted when its answers could be known."""


def split_declared_cases(records: RecordFrames, file: Path | None) -> RecordFrames:
    """Return the records of files, with those of the cases that `file` declares set apart.

    Raises:
        LateDeclarationError: a case was declared after an answer to it.
        RecordError: a row of the file can't be used.
    """
    if file is None:
        return records
    declarations = read_planted_rows(file)
    check_declarations(records, declarations, file.name)
    return split_populations(records, {declaration.key for declaration in declarations})


def check_declarations(
    records: RecordFrames, declarations: Sequence[PlantedDeclaration], file: str
) -> None:
    """Raise an error unless each case was declared before its first prediction or decision.

    An answer without a time is as old as its case.

    Raises:
        LateDeclarationError: a case was declared after an answer to it.
    """
    declared = pl.DataFrame(
        [(declaration.key, declaration.declared_at) for declaration in declarations],
        schema={"case_key": pl.String(), "declared_at": INSTANT},
        orient="row",
    )
    frames = (records.predictions, records.decisions, records.outcomes)
    answers = pl.concat([frame.select("case_key", "at") for frame in frames])
    timed = answers.join(declared, on="case_key").join(
        records.cases.select("case_key", "occurred_at"), on="case_key", how="left"
    )
    late = (
        timed.with_columns(pl.coalesce("at", "occurred_at").alias("at"))
        .filter(pl.col("at") <= pl.col("declared_at"))
        .sort("case_key", "at")
    )
    for row in late.head(1).iter_rows(named=True):
        raise LateDeclarationError(
            f"{file}: case {row['case_key']} was declared as planted at"
            f" {row['declared_at']:%Y-%m-%d %H:%M} UTC, after an answer of"
            f" {row['at']:%Y-%m-%d %H:%M} UTC. A case that was planted when answers could be known"
            " would be a choice of results; remove its row, so that it counts as all others"
        )
