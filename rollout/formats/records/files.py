"""Records from files: predictions, decisions, and where there are any cases and outcomes.

Rows come in any order, twice, late or never, and some cannot be read. Whatever becomes of a row
is said: rows read = rows used + rows set aside by reason. The rules:

- A file's rows are judged in this order: can it be taken apart, can its cells be read, is its
  case known, does it repeat an earlier row. The first thing found is the one reported.
- A case is known when any file says its site. A row that is set aside for its own content still
  says what it says of its case.
- A case whose time is missing, impossible or unreadable stays, without an instant, and each row
  that says so is noted; a record whose *own* time (`decided_at` and the like) cannot be read is
  set aside, since without one it would count as made when the case occurred.
- A prediction without an answer has failed; one with an error has too, whatever it says beside.
  A decision without an answer for every lever is unsure; one marked unsure has no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.cases import gather_cases
from rollout.formats.records.column_map import DEFAULT, ColumnFault
from rollout.formats.records.csv_rows import read_delimited
from rollout.formats.records.json_rows import read_json_lines
from rollout.formats.records.mapped_rows import ignored_remarks, named_rows, torn_remarks
from rollout.formats.records.parquet_rows import read_parquet
from rollout.formats.records.parts import Part, cases_part, records_part
from rollout.formats.records.rejected_rows import RecordFault, counted, in_order, stop_at_first
from rollout.formats.records.text_rows import TextRows, unpacked
from rollout.formats.records.times import Zones
from rollout.tally.frames import Kind, Records, RowCount, outcomes_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rollout.formats.records.column_map import ColumnMap
    from rollout.formats.records.mapped_rows import NamedRows

    Progress = Callable[[str, int, int], None]

SUFFIXES = ".csv, .tsv, .jsonl or .ndjson, each also packed as .gz, or .parquet"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the records lie; the form of each file follows from its suffix.

    The suffixes are .csv, .tsv, .jsonl, .ndjson, each also with .gz behind it, and .parquet.
    """

    predictions: Path
    decisions: Path
    cases: Path | None = None
    outcomes: Path | None = None

    def files(self) -> Iterator[tuple[Kind, Path]]:
        """Yield the files that there are, in the order in which they describe cases."""
        paths = (self.cases, self.predictions, self.decisions, self.outcomes)
        for kind, path in zip(Kind, paths, strict=True):
            if path is not None:
                yield kind, path


def read_records(
    sources: Sources,
    *,
    levers: Sequence[str],
    zones: Mapping[str, str],
    default_zone: str,
    columns: ColumnMap = DEFAULT,
    strict: bool = False,
    progress: Progress | None = None,
) -> Records:
    """Read all files of a history.

    Args:
        sources: the files.
        levers: ids of the policy's levers, at least one; each has one column of answers.
        zones: site → zone of its local times; sites that are not in it have `default_zone`.
        default_zone: a name of the time zone database, such as Europe/Vienna.
        columns: where the files name their columns otherwise than by default.
        strict: stop at the first thing that cannot be read, impossible times included.
        progress: told of each file its name, the bytes done, and its bytes in all.

    Raises:
        ColumnFault: a column is missing; the message names those found and says how to map.
        RecordFault: a whole file cannot be read; with `strict`, the first row that cannot.
        OSError: a file is not there.
        ValueError: a zone does not exist.
    """
    site_zones = Zones(zones, default_zone)
    texts = {kind: read_rows(path, progress) for kind, path in sources.files()}
    files = {
        kind: named_rows(kind, path.name, texts[kind], columns.of(kind), levers)
        for kind, path in sources.files()
    }
    _refuse_nowhere(list(files.values()), texts)
    cases, parts, notes = _sifted(files, levers, site_zones)
    unparsed = [torn_remarks(kind, files[kind].file, texts[kind]) for kind in files]
    rejected = pl.concat([*unparsed, *(part.set_aside for part in parts.values())])
    rejected, notes = in_order(rejected), in_order(notes)
    if strict:
        stop_at_first([rejected, notes])
    outcomes = pl.DataFrame(schema=outcomes_schema(levers))
    return Records(
        cases=cases,
        predictions=parts[Kind.PREDICTIONS].used,
        decisions=parts[Kind.DECISIONS].used,
        outcomes=parts[Kind.OUTCOMES].used if Kind.OUTCOMES in parts else outcomes,
        set_aside=rejected,
        notes=notes,
        read={
            kind: _row_count(files[kind], texts[kind], part, rejected, notes)
            for kind, part in parts.items()
        },
    )


def _row_count(
    rows: NamedRows, text: TextRows, part: Part, set_aside: pl.DataFrame, notes: pl.DataFrame
) -> RowCount:
    return RowCount(
        file=rows.file,
        rows=text.count,
        used=part.used.height,
        set_aside=counted(set_aside, rows.kind),
        notes=counted(notes, rows.kind),
    )


def read_rows(path: Path, progress: Progress | None = None) -> TextRows:
    """Read one file as text, by its suffix.

    Raises:
        RecordFault: the suffix is unknown, or the whole file cannot be read.
        OSError: the file is not there.
    """
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    is_packed = path.name.lower().endswith(".gz")
    if suffix not in ("csv", "tsv", "jsonl", "ndjson", "parquet") or (
        is_packed and suffix == "parquet"
    ):
        raise RecordFault(path.name, None, None, "suffix", f"unknown; files end in {SUFFIXES}")
    size = path.stat().st_size

    def tell(share: float) -> None:
        if progress is not None:
            progress(path.name, round(share * size), size)

    tell(0.0)
    rows = _rows(unpacked(path), suffix, path.name, tell)
    tell(1.0)
    return rows


def _rows(content: bytes, suffix: str, file: str, tell: Callable[[float], None]) -> TextRows:
    match suffix:
        case "csv" | "tsv":
            separator = "," if suffix == "csv" else "\t"
            return read_delimited(content, file=file, separator=separator)
        case "parquet":
            return read_parquet(content, file=file)
        case _:
            return read_json_lines(content, progress=tell)


def _sifted(
    files: Mapping[Kind, NamedRows], levers: Sequence[str], zones: Zones
) -> tuple[pl.DataFrame, dict[Kind, Part], pl.DataFrame]:
    """Return the cases, what each file gives, and all notes."""
    parts: dict[Kind, Part] = {}
    described_files = dict(files)
    if Kind.CASES in files:
        described_files[Kind.CASES], parts[Kind.CASES] = cases_part(files[Kind.CASES])
    facts = gather_cases(list(described_files.values()), zones)
    for kind, rows in files.items():
        if kind is not Kind.CASES:
            parts[kind] = records_part(rows, facts, levers, zones.names)
    ignored = [ignored_remarks(rows) for rows in files.values()]
    notes = [*ignored, facts.notes, *(part.notes for part in parts.values())]
    return facts.cases, parts, pl.concat(notes)


def _refuse_nowhere(files: Sequence[NamedRows], texts: Mapping[Kind, TextRows]) -> None:
    """Raise where no file says of any case at which site and when it occurred.

    It is a ColumnFault, or where a file of JSON lines has no columns since not one of its lines
    can be read, the RecordFault of its first line.
    """
    described_files = [
        file for file in files if file.kind is not Kind.OUTCOMES and file.cells.width
    ]
    names = ", ".join(
        file.file if file.cells.width else f"{file.file} (which holds no row)"
        for file in files
        if file.kind is not Kind.OUTCOMES
    )
    missing = [
        f"none of {names} has a column {name!r}; name it in the column map of one of them, "
        f"`{Kind.PREDICTIONS}: {{{name}: THEIR_COLUMN}}`, or give a file of cases"
        for name in ("site", "occurred_at")
        if described_files and not any(name in file.cells.columns for file in described_files)
    ]
    for file in files if missing else ():
        for unparsed in texts[file.kind].torn.head(1).iter_rows(named=True):
            if not file.cells.width:
                raise RecordFault(
                    file.file, unparsed["line"], None, unparsed["reason"], unparsed["detail"]
                )
    if missing:
        raise ColumnFault(missing)
