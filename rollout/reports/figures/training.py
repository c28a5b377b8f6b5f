"""Export of training rows as JSON lines, CSV or Parquet, with a manifest.

The canonical format is JSON lines: one row per line, sorted by case key and lever, fields in the
order of `TRAINING_SCHEMA`, instants in UTC with microseconds. The manifest's `sha256` is that of
the JSON lines in every format, so that it can be reproduced with `sha256sum`.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import CHOICES, DROP, CleaningChoice
from rollout.reports.figures.label_sources import (
    ASSIGNMENT_SCHEMA,
    SOURCES,
    TRAINING_SCHEMA,
    build_labelled_rows,
    select_training_rows,
)
from rollout.tally.frames import RecordFrames

SCHEMA = "rollout-training/1"
FORMATS = ("jsonl", "csv", "parquet")
ROWS_PER_CHUNK = 5_000
EMPTY_ROWS = pl.DataFrame(schema=TRAINING_SCHEMA)
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%.6fZ"

NO_LABEL = "no label"
DROPPED = "dropped"
SOURCE_NOT_REQUESTED = "not asked for"
OPEN_FOR_REVIEW = "open for review"
"""Reasons why a case and lever has no row."""


@dataclass(frozen=True, slots=True)
class SourceCount:
    """Number and total weight of the rows from one source."""

    source: str
    rows: int
    weight: float


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """The content of an export, as the provenance of a trained version.

    Attributes:
        schema: name and version of this format.
        rollout, policy: the rollout, and the hash of its policy.
        versions: versions with predictions in the records.
        sources: the requested sources, with their rows.
        first, last: times of the first and the last case; None without times.
        rows, cases: their numbers.
        weight: total weight of the rows.
        excluded: cases and levers without a row, by reason.
        cleaned: rows and dropped cases by cleaning choice.
        columns: names in order.
        sha256: of the rows in canonical format.
    """

    schema: str
    rollout: str
    policy: str
    versions: tuple[str, ...]
    sources: tuple[SourceCount, ...]
    first: datetime | None
    last: datetime | None
    rows: int
    cases: int
    weight: float
    excluded: Mapping[str, int]
    cleaned: Mapping[str, int]
    columns: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class TrainingExport:
    """Training rows with their manifest."""

    rows: pl.DataFrame
    manifest: ExportManifest


def build_export(
    labelled_rows: pl.DataFrame,
    *,
    rollout: str,
    policy: str,
    versions: Collection[str],
    sources: Sequence[str],
    withheld_count: int = 0,
) -> TrainingExport:
    """Return the training rows and the manifest of labelled rows.

    Args:
        labelled_rows: the rows of `build_labelled_rows`.
        rollout: its name.
        policy: hash of the policy.
        versions: versions with predictions in the records.
        sources: permitted sources of labels.
        withheld_count: cases and levers withheld because they are open for review.

    Raises:
        ValueError: a source is none of `SOURCES`.
    """
    rows = select_training_rows(labelled_rows, sources)
    return TrainingExport(
        rows,
        ExportManifest(
            schema=SCHEMA,
            rollout=rollout,
            policy=policy,
            versions=tuple(sorted(versions)),
            sources=tuple(count_sources(rows, [source for source in SOURCES if source in sources])),
            first=_to_datetime(rows["occurred_at"].min()),
            last=_to_datetime(rows["occurred_at"].max()),
            rows=rows.height,
            cases=rows["case_key"].n_unique(),
            weight=float(rows["weight"].sum()),
            excluded=_count_excluded(labelled_rows, sources, withheld_count),
            cleaned={choice: int((labelled_rows["cleaned"] == choice).sum()) for choice in CHOICES},
            columns=tuple(TRAINING_SCHEMA),
            sha256=compute_digest(rows),
        ),
    )


def build_export_from_records(
    policy: Policy,
    records: RecordFrames,
    cases: pl.DataFrame,
    *,
    sources: Sequence[str],
    assigned_cases: pl.DataFrame | None = None,
    choices: Iterable[CleaningChoice] = (),
    withheld_count: int = 0,
) -> TrainingExport:
    """Return the training rows of a history or of a live rollout's closed cases.

    Args:
        policy: gives levers and hash.
        records: all records of the cases.
        cases: the cases in a cell.
        sources: permitted sources of labels.
        assigned_cases: columns of `ASSIGNMENT_SCHEMA`; None for recorded files.
        choices: cleaning choices in order of time.
        withheld_count: cases withheld because they are open for review.

    Raises:
        ValueError: a source is none of `SOURCES`.
    """
    assignments = (
        pl.DataFrame(schema=ASSIGNMENT_SCHEMA) if assigned_cases is None else assigned_cases
    )
    return build_export(
        build_labelled_rows(records, policy, cases, assignments, choices),
        rollout=policy.rollout,
        policy=policy.hash,
        versions=records.predictions["version"].unique().to_list(),
        sources=sources,
        withheld_count=withheld_count * len(policy.levers),
    )


def count_sources(rows: pl.DataFrame, sources: Sequence[str]) -> Iterator[SourceCount]:
    """Yield the row count of each source, also of empty ones."""
    for source in sources:
        source_rows = rows.filter(pl.col("source") == source)
        yield SourceCount(source, source_rows.height, float(source_rows["weight"].sum()))


def _to_datetime(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _count_excluded(
    labelled_rows: pl.DataFrame, sources: Sequence[str], withheld_count: int
) -> dict[str, int]:
    is_dropped = pl.col("cleaned").fill_null("") == DROP
    has_no_label = pl.col("label").is_null()
    is_other_source = ~is_dropped & ~has_no_label & ~pl.col("source").is_in(list(sources))
    counts = {
        NO_LABEL: labelled_rows.filter(has_no_label & ~is_dropped).height,
        DROPPED: labelled_rows.filter(is_dropped).height,
        SOURCE_NOT_REQUESTED: labelled_rows.filter(is_other_source).height,
        OPEN_FOR_REVIEW: withheld_count,
    }
    return {reason: n for reason, n in counts.items() if n}


def format_lines(rows: pl.DataFrame) -> Iterator[bytes]:
    """Yield the rows in canonical format, in chunks."""
    for part in _format_times(rows).iter_slices(ROWS_PER_CHUNK):
        yield "".join(_format_line(row) for row in part.iter_rows(named=True)).encode()


def _format_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _format_times(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(*TRAINING_SCHEMA).with_columns(
        pl.col("occurred_at").dt.strftime(TIME_FORMAT)
    )


def compute_digest(rows: pl.DataFrame) -> str:
    """Return the SHA-256 of the rows in canonical format."""
    digest = sha256()
    for part in format_lines(rows):
        digest.update(part)
    return digest.hexdigest()


def format_rows(rows: pl.DataFrame, file_format: str) -> Iterator[bytes]:
    """Yield the rows as a file of one of the `FORMATS`.

    Raises:
        ValueError: the format is none of `FORMATS`.
    """
    if file_format not in FORMATS:
        raise ValueError(f"no form {file_format}; there is {', '.join(FORMATS)}")
    return {"jsonl": format_lines, "csv": _format_csv, "parquet": _format_parquet}[file_format](
        rows
    )


def _format_csv(rows: pl.DataFrame) -> Iterator[bytes]:
    yield f"{','.join(TRAINING_SCHEMA)}\n".encode()
    for part in _format_times(rows).iter_slices(ROWS_PER_CHUNK):
        text = StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(part.iter_rows())
        yield text.getvalue().encode()


def _format_parquet(rows: pl.DataFrame) -> Iterator[bytes]:
    file = BytesIO()
    rows.select(*TRAINING_SCHEMA).write_parquet(file)
    yield file.getvalue()


def render_manifest(manifest: ExportManifest) -> str:
    """Return the manifest as JSON, the same for the same rows."""
    body = build_manifest_values(manifest)
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


def build_manifest_values(manifest: ExportManifest) -> dict[str, Any]:
    """Return the manifest as plain values."""
    values = {name: getattr(manifest, name) for name in ExportManifest.__dataclass_fields__}
    times = {
        name: None if values[name] is None else values[name].isoformat()
        for name in ("first", "last")
    }
    counts = [
        {"source": source_count.source, "rows": source_count.rows, "weight": source_count.weight}
        for source_count in manifest.sources
    ]
    lists = {name: list(values[name]) for name in ("versions", "columns")}
    return values | times | lists | {"sources": counts}


def read_manifest_hash(file: Path) -> str:
    """Return the hash of the rows that a manifest names.

    Raises:
        ValueError: the file is no manifest.
    """
    try:
        value = json.loads(file.read_text("utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: is no manifest of training rows") from None
    return str(value)


def read_training_rows(file: Path) -> pl.DataFrame:
    """Return the rows of an exported file; its suffix is the format.

    Raises:
        ValueError: the suffix is unknown, or a column is missing.
    """
    file_format = file.suffix.removeprefix(".")
    if file_format not in FORMATS:
        raise ValueError(f"{file}: name it .{', .'.join(FORMATS)}")
    frame = _read_frame(file, file_format)
    missing = [name for name in TRAINING_SCHEMA if name not in frame.columns]
    if missing:
        raise ValueError(f"{file}: no column {missing[0]}; it is no export of training rows")
    return frame.select(*TRAINING_SCHEMA).cast(pl.Schema(TRAINING_SCHEMA))


def _read_frame(file: Path, file_format: str) -> pl.DataFrame:
    if file_format == "parquet":
        return pl.read_parquet(file)
    if file_format == "csv":
        frame = pl.read_csv(file, infer_schema=False)
    else:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
        frame = pl.DataFrame(rows, infer_schema_length=None) if rows else EMPTY_ROWS
    if "occurred_at" in frame.columns and frame.schema["occurred_at"] == pl.String:
        frame = frame.with_columns(
            pl.col("occurred_at").str.to_datetime("%+", time_unit="us", time_zone="UTC")
        )
    return frame
