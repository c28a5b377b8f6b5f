"""Recorded files with planted cases: declared in a file, before their answers.

A replay trusts the file's own times, as it trusts all of its files. A service doesn't: see
`rollout.services.records.planted_imports`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from rollout.formats.records.planted_rows import read_planted_rows
from rollout.tally.frames import INSTANT, RecordFrames
from rollout.tally.populations import split_populations


class LateDeclarationError(ValueError):
    """A case was declared as planted when its answers could be known."""


@dataclass(frozen=True, slots=True)
class LateDeclaration:
    """The first case of those that were declared after an answer to them."""

    key: str
    declared_at: datetime
    answered_at: datetime


def split_declared_cases(records: RecordFrames, file: Path | None) -> RecordFrames:
    """Return the records of files, with those of the cases that `file` declares set apart.

    Raises:
        LateDeclarationError: a case was declared after an answer to it.
        RecordError: a row of the file can't be used.
    """
    if file is None:
        return records
    declared = {declaration.key: declaration.declared_at for declaration in read_planted_rows(file)}
    late = find_late_declaration(records, declared)
    if late is not None:
        raise LateDeclarationError(
            f"{file.name}: case {late.key} was declared as planted at"
            f" {late.declared_at:%Y-%m-%d %H:%M} UTC, after an answer of"
            f" {late.answered_at:%Y-%m-%d %H:%M} UTC. A case that was planted when answers could be"
            " known would be a choice of results; remove its row, so that it counts as all others"
        )
    return split_populations(records, declared.keys())


def find_late_declaration(
    records: RecordFrames, declared: Mapping[str, datetime]
) -> LateDeclaration | None:
    """Return a case that was declared after a prediction, decision or outcome of it, if any.

    An answer without a time is as old as its case.
    """
    declarations = pl.DataFrame(
        list(declared.items()),
        schema={"case_key": pl.String(), "declared_at": INSTANT},
        orient="row",
    )
    frames = (records.predictions, records.decisions, records.outcomes)
    answers = pl.concat([frame.select("case_key", "at") for frame in frames])
    timed = answers.join(declarations, on="case_key").join(
        records.cases.select("case_key", "occurred_at"), on="case_key", how="left"
    )
    late = (
        timed.with_columns(pl.coalesce("at", "occurred_at").alias("at"))
        .filter(pl.col("at") <= pl.col("declared_at"))
        .sort("case_key", "at")
    )
    rows = late.select("case_key", "declared_at", "at").head(1).rows()
    return LateDeclaration(*rows[0]) if rows else None
