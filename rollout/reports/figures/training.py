"""The export of training rows: CSV, JSON lines or Parquet, and the manifest that goes with it.

The canonical form is the JSON lines: a row a line in the order of case key and lever, its fields
in the order of `COLUMNS`, instants in UTC with six digits of seconds. The manifest's `sha256` is
of these lines, so it is the same whatever form the rows were written in, `sha256sum` of the JSON
lines gives it, and the same records give it again.
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
from rollout.core.records.label_cleaning import CHOICES, DROP, Choice
from rollout.reports.figures.label_sources import ASSIGNED, COLUMNS, SOURCES, chosen_rows, labelled
from rollout.tally.frames import Records

SCHEMA = "rollout-training/1"
FORMS = ("jsonl", "csv", "parquet")
AT_ONCE = 5_000  # rows that are written as text at once
EMPTY = pl.DataFrame(schema=COLUMNS)
WRITTEN = "%Y-%m-%dT%H:%M:%S%.6fZ"

NO_LABEL, DROPPED, OTHER_SOURCE, OPEN = "no label", "dropped", "not asked for", "open for review"
"""Why a case and lever is in no row."""


@dataclass(frozen=True, slots=True)
class SourceCount:
    """How many rows have their label from one source, and what they weigh together."""

    source: str
    rows: int
    weight: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export holds, so that anybody can say what a version was trained on.

    Attributes:
        schema: name and version of this form.
        rollout, policy: whose rows, and the hash of the policy that they were read under.
        versions: whose predictions the records hold.
        sources: which were asked for, with what came from each.
        first, last: when the first and the last case occurred; None without times.
        rows, cases: how many.
        weight: of all rows together.
        excluded: cases and levers that are in no row, by reason.
        cleaned: rows, and dropped ones, by what people chose about them.
        columns: of each row, in order.
        sha256: of the rows in their canonical form.
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
class Export:
    """Training rows with their manifest."""

    rows: pl.DataFrame
    manifest: Manifest


def export_of(
    labelled: pl.DataFrame,
    *,
    rollout: str,
    policy: str,
    versions: Collection[str],
    sources: Sequence[str],
    left_out: int = 0,
) -> Export:
    """Return the rows to train on, of `labelled`, and the manifest.

    Args:
        labelled: every case and lever with what is known of it.
        rollout: its name.
        policy: hash of the policy.
        versions: whose predictions the records hold.
        sources: from where labels may come.
        left_out: cases and levers that are kept back because people still judge them.

    Raises:
        ValueError: a source is none that there is.
    """
    rows = chosen_rows(labelled, sources)
    return Export(
        rows,
        Manifest(
            schema=SCHEMA,
            rollout=rollout,
            policy=policy,
            versions=tuple(sorted(versions)),
            sources=tuple(source_counts(rows, [source for source in SOURCES if source in sources])),
            first=_end(rows["occurred_at"].min()),
            last=_end(rows["occurred_at"].max()),
            rows=rows.height,
            cases=rows["case_key"].n_unique(),
            weight=float(rows["weight"].sum()),
            excluded=_left_out(labelled, sources, left_out),
            cleaned={choice: int((labelled["cleaned"] == choice).sum()) for choice in CHOICES},
            columns=tuple(COLUMNS),
            sha256=digest(rows),
        ),
    )


def export_of_records(
    policy: Policy,
    records: Records,
    cases: pl.DataFrame,
    *,
    sources: Sequence[str],
    assigned: pl.DataFrame | None = None,
    choices: Iterable[Choice] = (),
    kept_back: int = 0,
) -> Export:
    """Return the rows to train on, of a history or of a live rollout's closed cases.

    Args:
        policy: for levers, and its hash.
        records: what was said.
        cases: those that could be placed.
        sources: from where labels may come.
        assigned: who decided; None where nobody knows, as in recorded files.
        choices: what people chose, in the order in which they did.
        kept_back: cases that are left out since people still judge them.

    Raises:
        ValueError: a source is none that there is.
    """
    assignments = pl.DataFrame(schema=ASSIGNED) if assigned is None else assigned
    return export_of(
        labelled(records, policy, cases, assignments, choices),
        rollout=policy.rollout,
        policy=policy.hash,
        versions=records.predictions["version"].unique().to_list(),
        sources=sources,
        left_out=kept_back * len(policy.levers),
    )


def source_counts(rows: pl.DataFrame, sources: Sequence[str]) -> Iterator[SourceCount]:
    """Yield for each source how many rows are from it, those without any too."""
    for source in sources:
        source_rows = rows.filter(pl.col("source") == source)
        yield SourceCount(source, source_rows.height, float(source_rows["weight"].sum()))


def _end(found: object) -> datetime | None:
    return found if isinstance(found, datetime) else None


def _left_out(labelled: pl.DataFrame, sources: Sequence[str], kept_back: int) -> dict[str, int]:
    is_dropped = pl.col("cleaned").fill_null("") == DROP
    has_no_label = pl.col("label").is_null()
    is_other_source = ~is_dropped & ~has_no_label & ~pl.col("source").is_in(list(sources))
    counts = {
        NO_LABEL: labelled.filter(has_no_label & ~is_dropped).height,
        DROPPED: labelled.filter(is_dropped).height,
        OTHER_SOURCE: labelled.filter(is_other_source).height,
        OPEN: kept_back,
    }
    return {reason: n for reason, n in counts.items() if n}


# Forms


def lines(rows: pl.DataFrame) -> Iterator[bytes]:
    """Yield the rows in their canonical form, some lines at a time."""
    for part in _texts(rows).iter_slices(AT_ONCE):
        yield "".join(_line(row) for row in part.iter_rows(named=True)).encode()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _texts(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(*COLUMNS).with_columns(pl.col("occurred_at").dt.strftime(WRITTEN))


def digest(rows: pl.DataFrame) -> str:
    """Return the SHA-256 of the rows in their canonical form."""
    digest = sha256()
    for part in lines(rows):
        digest.update(part)
    return digest.hexdigest()


def written(rows: pl.DataFrame, form: str) -> Iterator[bytes]:
    """Yield the rows as a file of one of the `FORMS`.

    Raises:
        ValueError: there is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"no form {form}; there is {', '.join(FORMS)}")
    return {"jsonl": lines, "csv": _csv, "parquet": _parquet}[form](rows)


def _csv(rows: pl.DataFrame) -> Iterator[bytes]:
    yield f"{','.join(COLUMNS)}\n".encode()
    for part in _texts(rows).iter_slices(AT_ONCE):
        text = StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(part.iter_rows())
        yield text.getvalue().encode()


def _parquet(rows: pl.DataFrame) -> Iterator[bytes]:
    file = BytesIO()
    rows.select(*COLUMNS).write_parquet(file)
    yield file.getvalue()


def manifest_text(manifest: Manifest) -> str:
    """Return the manifest as JSON, the same for the same rows."""
    body = plain_manifest(manifest)
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


def plain_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as plain values."""
    values = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
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


def named_hash(file: Path) -> str:
    """Return the hash of the rows that a manifest names.

    Raises:
        ValueError: it is no manifest.
    """
    try:
        value = json.loads(file.read_text("utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: is no manifest of training rows") from None
    return str(value)


def read_rows(file: Path) -> pl.DataFrame:
    """Return the rows of an exported file of any form, by its ending.

    Raises:
        ValueError: it is no such file, or lacks a column.
    """
    file_format = file.suffix.removeprefix(".")
    if file_format not in FORMS:
        raise ValueError(f"{file}: name it .{', .'.join(FORMS)}")
    frame = _read(file, file_format)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"{file}: no column {missing[0]}; it is no export of training rows")
    return frame.select(*COLUMNS).cast(pl.Schema(COLUMNS))


def _read(file: Path, form: str) -> pl.DataFrame:
    if form == "parquet":
        return pl.read_parquet(file)
    if form == "csv":
        frame = pl.read_csv(file, infer_schema=False)
    else:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
        frame = pl.DataFrame(rows, infer_schema_length=None) if rows else EMPTY
    if "occurred_at" in frame.columns and frame.schema["occurred_at"] == pl.String:
        frame = frame.with_columns(
            pl.col("occurred_at").str.to_datetime("%+", time_unit="us", time_zone="UTC")
        )
    return frame
