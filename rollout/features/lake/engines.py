"""Split a history by unit on DuckDB or Spark, so that each part fits into memory.

An engine only brings the records of a unit together. What a unit is, and what it counts, is the
same program as everywhere, run once for each part; so counts can't depend on the engine.

A unit is a case, or an episode. Where the policy makes episodes of a site's clock spans, all cases
of a site that name no episode are in one part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import polars as pl

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.cases import WholeFiles
from rollout.engine.files.column_map import RECEIVED_AT
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.pair_files import ArrowStream, quote_column
from rollout.kernel.errors import RolloutError

if TYPE_CHECKING:
    from rollout.engine.files.column_map import ColumnMap
    from rollout.kernel.policy.evidence_sources import FileReading

DUCKDB, SPARK, POLARS = "duckdb", "spark", "polars"
PREFIX: Final = "rollout_"
ROW, PART, KEY, UNIT, KIND, SITE, TURN = (
    f"{PREFIX}{name}" for name in ("row", "part", "key", "unit", "kind", "site", "turn")
)
"""Columns that a split adds, and takes out again."""
BLANKS: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""All white space: what readers of files take for blank, where `trim` of SQL knows spaces alone."""
ROWS_A_PART: Final = 250_000
DUCKDB_MEMORY: Final = "400MB"
Tables = Mapping[RecordKind, Any]
CountPart = Callable[[RecordPaths], bytes]
CountParts = Callable[[CountPart], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class SplitHistory:
    """A history in parts.

    Attributes:
        count_parts: yields what a count returns for each part that has records.
        parts: at most so many have some.
        whole: what the whole says beyond its parts; None if there is one part.
    """

    count_parts: CountParts
    parts: int = 1
    whole: WholeFiles | None = None


class LakeError(RolloutError, ValueError):
    """An engine can't read or split what it was given."""


@dataclass(frozen=True, slots=True)
class UnitSplit:
    """How the records of a unit are brought together.

    Attributes:
        columns: names of the columns by kind.
        by_episode: whether units are episodes.
        parts: number of parts; None for as many as `ROWS_A_PART` asks for.
    """

    columns: ColumnMap
    by_episode: bool = False
    parts: int | None = None

    def count_parts(self, rows: int) -> int:
        """Return the number of parts of a history with so many predictions.

        Raises:
            LakeError: a number of parts was asked for that is none.
        """
        if self.parts is not None and self.parts < 1:
            raise LakeError(f"parts={self.parts}: give 1 or more, or leave it out")
        return self.parts or -(-max(rows, 1) // ROWS_A_PART)

    def get_text(self, kind: RecordKind, name: str, table: EngineTable) -> str:
        """Return the SQL of the text of one of our columns, null where it is blank or missing.

        Raises:
            LakeError: the table has no column of keys.
        """
        layout = self.columns.get_file(kind)
        if name in layout.constants:
            return "'{}'".format(layout.constants[name].replace("'", "''"))
        column = layout.columns.get(name, name)
        if column not in table.columns:
            if name == "case_key":
                raise LakeError(
                    f"{kind.value}: no column {column!r}; there are {', '.join(table.columns)}"
                )
            return "CAST(NULL AS STRING)"
        text = f"CAST({table.quote(column)} AS STRING)"
        return f"CASE WHEN translate({text}, '{BLANKS}', '') <> '' THEN {text} END"

    def check_columns(self, kind: RecordKind, columns: Sequence[str]) -> None:
        """Refuse what no part could be read like the whole.

        Raises:
            LakeError: names are ours or differ by case alone, or a policy chooses rows.
        """
        ours = [name for name in columns if name.lower().startswith(PREFIX)]
        twins = [name for name in columns if sum(n.lower() == name.lower() for n in columns) > 1]
        if ours or twins:
            raise LakeError(
                f"{kind.value}: rename the columns {', '.join(ours or twins)}; names that begin"
                f" with {PREFIX} are this program's, and others must differ by more than capitals"
            )
        if self.columns.get_file(kind).where:
            raise LakeError(f"{kind.value}: the import's `where` chooses rows; hand in those alone")


class EngineTable(ABC):
    """Records as an engine has them, asked in the SQL that both engines read.

    Attributes:
        columns: their names.
        row: SQL of a row's number; later rows have greater ones.
        pair: SQL function of a pair that sorts by its first, then by its second.
        first: SQL aggregate of a column at the least of another, which may be null.
        part: SQL of the part of `{unit}`, of `{parts}`.
    """

    row: ClassVar[str]
    pair: ClassVar[str]
    first: ClassVar[str]
    part: ClassVar[str]

    def __init__(self, native: Any) -> None:
        self.native = native
        self.columns: list[str] = [*native.columns]

    @staticmethod
    @abstractmethod
    def quote(name: str) -> str:
        """Return a column's name as the engine reads it."""

    @abstractmethod
    def select(self, *columns: str) -> Self:
        """Return a table of these columns."""

    @abstractmethod
    def group(self, *columns: str) -> Self:
        """Return a row for each of the first column, with aggregates of the others."""

    def filter(self, condition: str) -> Self:
        """Return the rows of which a condition holds."""
        return type(self)(self.native.filter(condition))

    def union(self, other: Self) -> Self:
        """Return the rows of both tables, whose columns are in one order."""
        return type(self)(self.native.union(other.native))

    def join(self, other: Self, column: str) -> Self:
        """Return these rows with the columns of the other table's row of an equal column."""
        return type(self)(self.native.join(other.native, column, "left"))

    @abstractmethod
    def list_rows(self) -> Iterable[Sequence[Any]]:
        """Return all rows."""


class DuckdbTable(EngineTable):
    """A relation of DuckDB."""

    row = "row_number() OVER ()"
    pair = "row"
    first = "arg_min_null"
    part = "CAST(hash({unit}) % {parts} AS INTEGER)"

    @staticmethod
    def quote(name: str) -> str:  # noqa: D102 - as of its base
        return quote_column(name)

    def select(self, *columns: str) -> Self:  # noqa: D102
        return type(self)(self.native.project(", ".join(columns)))

    def group(self, *columns: str) -> Self:  # noqa: D102
        # a join needs two names
        return type(self)(self.native.aggregate(", ".join(columns), columns[0]).set_alias("groups"))

    def list_rows(self) -> Iterable[Sequence[Any]]:  # noqa: D102
        return [*self.native.fetchall()]


class SparkTable(EngineTable):
    """A data frame of Spark."""

    row = "monotonically_increasing_id()"
    pair = "struct"
    first = "min_by"
    part = "pmod(hash({unit}), {parts})"

    @staticmethod
    def quote(name: str) -> str:  # noqa: D102 - as of its base
        return "`" + name.replace("`", "``") + "`"

    def select(self, *columns: str) -> Self:  # noqa: D102
        return type(self)(self.native.selectExpr(*columns))

    def group(self, *columns: str) -> Self:  # noqa: D102
        from pyspark.sql import functions as sql

        return type(self)(self.native.groupBy(columns[0]).agg(*map(sql.expr, columns[1:])))

    def list_rows(self) -> Iterable[Sequence[Any]]:  # noqa: D102
        return [*self.native.collect()]


def open_on_duckdb(
    addresses: Mapping[RecordKind, str], readings: Mapping[RecordKind, FileReading], folder: Path
) -> Tables:
    """Return relations of files, folders, globs and addresses that DuckDB can open.

    It writes to `folder` what its memory doesn't hold.

    Raises:
        LakeError: a file is missing, is damaged, or has another form than CSV or Parquet.
    """
    import duckdb

    connection = duckdb.connect(
        config={"memory_limit": DUCKDB_MEMORY, "temp_directory": str(folder)}
    )

    def open_files(files: str, separator: str | None, reading: FileReading) -> Any:
        if separator is None:
            return connection.read_parquet(files, union_by_name=True)
        return connection.read_csv(
            files,
            all_varchar=True,
            header=True,
            delimiter=reading.delimiter or separator,
            quotechar='"',
            escapechar='"',
            skiprows=0,
            union_by_name=True,
            encoding=reading.encoding or "utf-8",
        )

    return _open_each(addresses, readings, open_files, "DuckDB", (duckdb.Error, OSError))


def open_on_spark(
    addresses: Mapping[RecordKind, str], readings: Mapping[RecordKind, FileReading], remote: str
) -> Tables:
    """Return data frames of files, folders and addresses in the current session, or a remote one.

    Raises:
        LakeError: Spark isn't there, can't read a file, or its form is neither CSV nor Parquet.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    session = (builder.remote(remote) if remote else builder).getOrCreate()

    def open_files(files: str, separator: str | None, reading: FileReading) -> Any:
        if separator is None:
            return session.read.option("mergeSchema", True).parquet(files)
        options = {
            "header": True,
            "sep": reading.delimiter or separator,
            "encoding": reading.encoding or "utf-8",
            "quote": '"',
            "escape": '"',
            "multiLine": True,
        }
        return session.read.options(**options).csv(files)

    return _open_each(addresses, readings, open_files, "Spark", (PySparkException,))


def _open_each(
    addresses: Mapping[RecordKind, str],
    readings: Mapping[RecordKind, FileReading],
    open_files: Callable[[str, str | None, FileReading], Any],
    engine: str,
    errors: tuple[type[Exception], ...],
) -> Tables:
    tables = {}
    for kind, address in addresses.items():
        separator, files = find_form(address)
        try:
            tables[kind] = open_files(files, separator, readings[kind])
        except errors as error:
            raise LakeError(f"{address}: {engine} can't read it: {error}") from error
    return tables


def find_form(address: str) -> tuple[str | None, str]:
    """Return the separator of texts, None of Parquet, and what an engine is asked to open.

    Raises:
        LakeError: the ending is of neither.

    >>> find_form("s3://lake/predictions/")
    (None, 's3://lake/predictions/**/*.parquet')
    >>> find_form("day-*.csv.gz")
    (',', 'day-*.csv.gz')
    """
    name = address.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return None, address
    if name.endswith((".csv", ".tsv")):
        return ("," if name.endswith(".csv") else "\t"), address
    if "." in name.rstrip("/").rpartition("/")[2]:
        raise LakeError(
            f"{address}: DuckDB and Spark read .parquet, .csv and .tsv, and folders of Parquet; for"
            " others leave --engine out, or convert them"
        )
    return None, f"{address.rstrip('/')}/**/*.parquet"


def add_parts(
    tables: Mapping[RecordKind, EngineTable], split: UnitSplit
) -> tuple[WholeFiles, int, Mapping[RecordKind, EngineTable]]:
    """Return what the whole says beyond its parts, their number, and each row with its part.

    Raises:
        LakeError: a table can't be split.
    """
    for kind, table in tables.items():
        split.check_columns(kind, table.columns)
    whole = _describe_whole(tables, split)
    ((rows,),) = tables[RecordKind.PREDICTIONS].select("count(*)").list_rows()
    parts = split.count_parts(rows)
    numbered = {
        kind: table.select(
            *map(table.quote, table.columns),
            f"{table.row} AS {ROW}",
            f"{split.get_text(kind, 'case_key', table)} AS {KEY}",
        )
        for kind, table in tables.items()
    }
    if split.by_episode:
        units = _find_units(numbered, split)
        numbered = {kind: table.join(units, KEY) for kind, table in numbered.items()}
    unit = f"coalesce({UNIT if split.by_episode else KEY}, '')"
    return (
        whole,
        parts,
        {
            kind: numbered[kind].select(
                *map(table.quote, table.columns),
                ROW,
                f"{table.part.format(unit=unit, parts=parts)} AS {PART}",
            )
            for kind, table in tables.items()
        },
    )


def _describe_whole(tables: Mapping[RecordKind, EngineTable], split: UnitSplit) -> WholeFiles:
    def has_receipts(kind: RecordKind) -> bool:
        receipt = split.get_text(kind, RECEIVED_AT, tables[kind])
        return any(text for (text,) in tables[kind].select(f"max({receipt})").list_rows())

    version = split.get_text(
        RecordKind.PREDICTIONS, "model_version", tables[RecordKind.PREDICTIONS]
    )
    sources = (kind for kind in RecordKind if kind in tables and kind is not RecordKind.OUTCOMES)
    return WholeFiles(
        frozenset(
            text
            for text, _ in tables[RecordKind.PREDICTIONS]
            .select(f"{version} AS text")
            .group("text", "count(*)")
            .list_rows()
            if text
        ),
        next(filter(has_receipts, sources), None),
    )


def _find_units(numbered: Mapping[RecordKind, EngineTable], split: UnitSplit) -> EngineTable:
    """Return the unit of each key: the episode, else the site, that its first row says."""
    mentions = []
    for place, kind in enumerate(kind for kind in RecordKind if kind in numbered):
        table = numbered[kind]
        episode, site = (split.get_text(kind, name, table) for name in ("episode", "site"))
        turn = f"{table.pair}({place}, {ROW}) AS {TURN}"
        mention = table.select(KEY, f"{episode} AS {UNIT}", f"{site} AS {SITE}", turn)
        if kind is RecordKind.CASES:  # the first row with a site is the case
            firsts = (f"{table.first}({name}, {TURN}) AS {name}" for name in (UNIT, SITE))
            mention = mention.filter(f"{SITE} IS NOT NULL")
            mention = mention.group(KEY, *firsts, f"min({TURN}) AS {TURN}")
        if kind is not RecordKind.OUTCOMES:
            mentions.append(mention)
    union = mentions[0]
    for mention in mentions[1:]:
        union = union.union(mention)
    firsts = (f"min_by({n}, {TURN}) FILTER (WHERE {n} IS NOT NULL)" for n in (UNIT, SITE))
    return union.group(KEY, f"coalesce({', '.join(firsts)}) AS {UNIT}")


def split_on_duckdb(tables: Tables, split: UnitSplit, folder: Path) -> SplitHistory:
    """Split relations of one connection of DuckDB, and return what counts each part.

    Each relation is written once, in parts, to `folder`.

    Raises:
        LakeError: DuckDB can't read the records.
    """
    import duckdb

    try:
        relations = {kind: DuckdbTable(table) for kind, table in tables.items()}
        whole, parts, rows = add_parts(relations, split)
        for kind, table in rows.items():
            table.native.write_parquet(str(folder / kind.value), partition_by=[PART])
        empty = {kind: pl.DataFrame(ArrowStream(table.limit(0))) for kind, table in tables.items()}
    except duckdb.Error as error:
        raise LakeError(f"DuckDB can't read the records: {error}") from error
    return SplitHistory(
        lambda count_part: (count_part(_write_part(folder, part, empty)) for part in range(parts)),
        parts,
        whole,
    )


def _write_part(folder: Path, part: int, empty: Mapping[RecordKind, pl.DataFrame]) -> RecordPaths:
    """Write the records of a part in their order, and return their files."""
    frames = {}
    for kind, columns in empty.items():
        files = sorted((folder / kind.value / f"{PART}={part}").glob("*.parquet"))
        rows = [pl.read_parquet(file, hive_partitioning=False) for file in files]
        frames[kind] = pl.concat(rows).sort(ROW).drop(ROW) if rows else columns
    return write_frames(frames, folder)


def write_frames(frames: Mapping[RecordKind, pl.DataFrame], folder: Path) -> RecordPaths:
    """Write records of each kind to a file of a folder, and return the files."""
    paths = {kind: folder / f"{kind.value}.parquet" for kind in frames}
    for kind, frame in frames.items():
        frame.write_parquet(paths[kind])
    return RecordPaths(
        paths[RecordKind.PREDICTIONS],
        paths[RecordKind.DECISIONS],
        paths.get(RecordKind.CASES),
        paths.get(RecordKind.OUTCOMES),
    )


def split_on_polars(tables: Tables, _: UnitSplit, folder: Path) -> SplitHistory:
    """Return what counts data frames of Polars, which are the whole."""
    frames = {kind: table.lazy().collect() for kind, table in tables.items()}
    return SplitHistory(lambda count_part: [count_part(write_frames(frames, folder))])


def split_on_spark(tables: Tables, split: UnitSplit, _: Path) -> SplitHistory:
    """Split data frames of one Spark session, and return what counts each part where it is.

    Its workers need this program and Polars.
    """
    whole, parts, rows = add_parts(
        {kind: SparkTable(table) for kind, table in tables.items()}, split
    )
    kinds = list(tables)
    tables_of_kinds = [
        rows[kind]
        .select(
            f"'{kind.value}' AS {KIND}",
            PART,
            ROW,
            *(
                f"{SparkTable.quote(name)} AS {SparkTable.quote(f'{kind.value}:{name}')}"
                for name in tables[kind].columns
            ),
        )
        .native
        for kind in kinds
    ]
    tall = tables_of_kinds[0]
    for table in tables_of_kinds[1:]:
        tall = tall.unionByName(table, allowMissingColumns=True)
    groups = tall.groupBy(PART)

    def count_parts(count_part: CountPart) -> Iterator[bytes]:
        counted = groups.applyInArrow(
            lambda group: _count_group(group, kinds, count_part), "packed binary, refusal string"
        )
        for packed, refusal in counted.toLocalIterator():
            if refusal:
                raise LakeError(refusal)
            yield bytes(packed)

    return SplitHistory(count_parts, parts, whole)


def _count_group(group: Any, kinds: Sequence[RecordKind], count_part: CountPart) -> Any:
    """Return the counts of a part as a table of Arrow, or why it can't be counted."""
    import pyarrow as pa

    rows = pl.DataFrame(pl.from_arrow(group)).sort(ROW)
    frames = {kind: _select_kind(rows, kind) for kind in kinds}
    packed, refusal = b"", ""
    with TemporaryDirectory(prefix="rollout-count-") as folder:
        try:
            packed = count_part(write_frames(frames, Path(folder)))
        except RolloutError as error:  # else the driver would get a page of Spark's own text
            refusal = str(error)
    return pa.table({"packed": [packed], "refusal": [refusal]})


def _select_kind(rows: pl.DataFrame, kind: RecordKind) -> pl.DataFrame:
    prefix = f"{kind.value}:"
    own = {name: name.removeprefix(prefix) for name in rows.columns if name.startswith(prefix)}
    return rows.filter(pl.col(KIND) == kind.value).select(list(own)).rename(own)
