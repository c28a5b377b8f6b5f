"""Contents of versions in files: the hash of weights and pre-processing in a column `content`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from rollout.engine.evidence.frames import CONTENT, INSTANT, RecordFrames, RecordKind
from rollout.engine.evidence.populations import split_populations
from rollout.engine.files.planted_rows import read_planted_rows
from rollout.kernel.errors import RolloutError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import shorten_content


class LateDeclarationError(RolloutError, ValueError):
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


ADVICE = "give other weights another version name"


def list_file_contents(records: RecordFrames) -> dict[str, str]:
    """Return by version the content that its predictions declare, without those that don't.

    Of several contents of a version, which `check_file_contents` refuses, the first one.
    """
    contents: dict[str, str] = {}
    for version, content in _list_declarations(records):
        contents.setdefault(version, content)
    return contents


def list_declared_contents(
    records: RecordFrames, declared: Mapping[str, str], policy: Policy
) -> dict[str, str]:
    """Return the contents by version of files, of options and of the policy."""
    return {**list_file_contents(records), **declared, **policy.contents_by_version}


def check_file_contents(records: RecordFrames, declared: Mapping[str, str], policy: Policy) -> None:
    """Raise ValueError if a version in the files has another content elsewhere.

    Args:
        records: the files' records.
        declared: contents by version of the option `--content`.
        policy: the policy, which may declare some too.
    """
    sources = {"--content": declared, "the policy": policy.contents_by_version}
    first_contents = list_file_contents(records)
    for version, content in _list_declarations(records):
        first = first_contents[version]
        others = {"another row": content}
        others |= {name: values[version] for name, values in sources.items() if version in values}
        for name, other in others.items():
            if other != first:
                file = records.row_counts[RecordKind.PREDICTIONS].file
                raise ValueError(
                    f"{file}: {version} has the content {shorten_content(first)}, and {name} says"
                    f" {shorten_content(other)}; correct one of them, or {ADVICE}"
                )


def _list_declarations(records: RecordFrames) -> Iterator[tuple[str, str]]:
    """Yield each version with each of its contents, in the order of the file."""
    populations = (records,) if records.planted is None else (records, records.planted)
    for part in populations:
        if CONTENT in part.predictions.columns:
            declared = part.predictions.select("version", CONTENT).drop_nulls()
            yield from declared.unique(maintain_order=True).iter_rows()
