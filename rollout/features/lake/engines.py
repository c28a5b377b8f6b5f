"""Split a history by unit on DuckDB or Spark, so that each part fits into memory.

An engine only brings the records of a unit together. What a unit is, and what it counts, is the
same program as everywhere, run once for each part; so counts can't depend on the engine.

A unit is a case, or an episode. Where the policy makes episodes of a site's clock spans, all cases
of a site that name no episode are in one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

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
ROW, PART, KEY, UNIT, KIND, SITE = (
    f"{PREFIX}{name}" for name in ("row", "part", "key", "unit", "kind", "site")
)
"""Columns that a split adds, and takes out again."""
ROWS_A_PART: Final = 250_000
DUCKDB_MEMORY: Final = "400MB"
Tables = Mapping[RecordKind, Any]
CountPart = Callable[[RecordPaths], bytes]
CountParts = Callable[[CountPart], Iterable[bytes]]
SplitHistory = tuple[WholeFiles | None, CountParts]
"""What the whole says beyond its parts, None if there is one part; and what counts each part."""


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

    def get_text(
        self, kind: RecordKind, name: str, columns: Sequence[str], quote: Callable[[str], str]
    ) -> str | None:
        """Return the SQL of the text of one of our columns, null where it is blank; None without.

        Raises:
            LakeError: the table has no column of keys.
        """
        layout = self.columns.get_file(kind)
        if name in layout.constants:
            return "'{}'".format(layout.constants[name].replace("'", "''"))
        column = layout.columns.get(name, name)
        if column not in columns:
            if name == "case_key":
                raise LakeError(
                    f"{kind.value}: no column {column!r}; there are {', '.join(columns)}"
                )
            return None
        text = f"CAST({quote(column)} AS STRING)"
        return f"CASE WHEN trim({text}) <> '' THEN {text} END"

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


def find_receipts(has_receipts: Callable[[RecordKind], bool], tables: Tables) -> RecordKind | None:
    """Return the first kind that says when any case was received."""
    kinds = [kind for kind in RecordKind if kind in tables and kind is not RecordKind.OUTCOMES]
    return next(filter(has_receipts, kinds), None)


def quote_spark(name: str) -> str:
    """Return a column's name as Spark reads it.

    >>> quote_spark("case key")
    '`case key`'
    """
    return "`" + name.replace("`", "``") + "`"


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
    tables = {}
    for kind, address in addresses.items():
        separator, files = find_form(address)
        reading = readings[kind]
        try:
            if separator is None:
                tables[kind] = connection.read_parquet(files, union_by_name=True)
                continue
            tables[kind] = connection.read_csv(
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
        except (duckdb.Error, OSError) as error:
            raise LakeError(f"{address}: DuckDB can't read it: {error}") from error
    return tables


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
    tables = {}
    for kind, address in addresses.items():
        separator, files = find_form(address)
        reading = readings[kind]
        try:
            if separator is None:
                tables[kind] = session.read.option("mergeSchema", True).parquet(files)
                continue
            options = {
                "header": True,
                "sep": reading.delimiter or separator,
                "encoding": reading.encoding or "utf-8",
                "quote": '"',
                "escape": '"',
                "multiLine": True,
            }
            tables[kind] = session.read.options(**options).csv(files)
        except PySparkException as error:
            raise LakeError(f"{address}: Spark can't read it: {error}") from error
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


def split_on_duckdb(tables: Tables, split: UnitSplit, folder: Path) -> SplitHistory:
    """Split relations of one connection of DuckDB, and return what counts each part.

    Each relation is written once, in parts, to `folder`.

    Raises:
        LakeError: DuckDB can't read the records.
    """
    import duckdb

    try:
        for kind, table in tables.items():
            split.check_columns(kind, table.columns)
        whole = WholeFiles(
            _list_duckdb_texts(tables, split, RecordKind.PREDICTIONS, "model_version"),
            find_receipts(
                lambda kind: bool(_list_duckdb_texts(tables, split, kind, RECEIVED_AT)), tables
            ),
        )
        parts = split.count_parts(len(tables[RecordKind.PREDICTIONS]))
        for kind, table in _add_duckdb_parts(tables, split, parts).items():
            table.write_parquet(str(folder / kind.value), partition_by=[PART])
        empty = {kind: _list_columns(table) for kind, table in tables.items()}
    except duckdb.Error as error:
        raise LakeError(f"DuckDB can't read the records: {error}") from error
    return whole, lambda count_part: (
        count_part(_write_part(folder, part, empty)) for part in range(parts)
    )


def _list_duckdb_texts(
    tables: Tables, split: UnitSplit, kind: RecordKind, name: str
) -> frozenset[str]:
    """Return the different texts of a column; of receipts at most one, as only some matter."""
    text = split.get_text(kind, name, tables[kind].columns, quote_column)
    if text is None:
        return frozenset()
    texts = tables[kind].project(f"{text} AS text").filter("text IS NOT NULL")
    texts = texts.limit(1) if name == RECEIVED_AT else texts.distinct()
    return frozenset(text for (text,) in texts.fetchall())


def _add_duckdb_parts(tables: Tables, split: UnitSplit, parts: int) -> Tables:
    key, unit, row, site = map(quote_column, (KEY, UNIT, ROW, SITE))

    def find(kind: RecordKind, name: str) -> str | None:
        return split.get_text(kind, name, tables[kind].columns, quote_column)

    rows = {
        kind: table.project(f"*, row_number() OVER () AS {row}, {find(kind, 'case_key')} AS {key}")
        for kind, table in tables.items()
    }
    if split.by_episode:
        mentions = []
        for place, kind in enumerate(kind for kind in RecordKind if kind in rows):
            episode_text, site_text = find(kind, "episode"), find(kind, "site")
            mention = rows[kind].project(
                f"{key}, CAST({episode_text or 'NULL'} AS STRING) AS {unit},"
                f" CAST({site_text or 'NULL'} AS STRING) AS {site}, {place} AS turn, {row}"
            )
            if kind is RecordKind.CASES:  # the first row with a site is the case
                firsts = (f"arg_min_null({name}, {row}) AS {name}" for name in (unit, site))
                columns = f"{key}, {', '.join(firsts)}, 0 AS turn, min({row}) AS {row}"
                mention = mention.filter(f"{site} IS NOT NULL").aggregate(columns, key)
            if kind is not RecordKind.OUTCOMES:
                mentions.append(mention)
        firsts = (
            f"min_by({name}, (turn, {row})) FILTER (WHERE {name} IS NOT NULL)"
            for name in (unit, site)
        )
        union = mentions[0]
        for mention in mentions[1:]:
            union = union.union(mention)
        units = union.aggregate(f"{key} AS rollout_k, coalesce({', '.join(firsts)}) AS {unit}", key)
        units = units.set_alias("units")
        rows = {
            kind: table.set_alias("records").join(
                units, f"records.{key} = units.rollout_k", how="left"
            )
            for kind, table in rows.items()
        }
    basis, dropped = (unit, f"{key}, {unit}, rollout_k") if split.by_episode else (key, key)
    hashed = f"CAST(hash(coalesce({basis}, '')) % {parts} AS INTEGER) AS {quote_column(PART)}"
    return {kind: table.project(f"* EXCLUDE ({dropped}), {hashed}") for kind, table in rows.items()}


def _list_columns(table: Any) -> pl.DataFrame:
    return pl.DataFrame(ArrowStream(table.limit(0)))


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
    return None, lambda count_part: [count_part(write_frames(frames, folder))]


def split_on_spark(tables: Tables, split: UnitSplit, _: Path) -> SplitHistory:
    """Split data frames of one Spark session, and return what counts each part where it is.

    Its workers need this program and Polars.
    """
    from pyspark.sql import functions as sql

    for kind, table in tables.items():
        split.check_columns(kind, table.columns)
    whole = WholeFiles(
        _list_spark_texts(tables, split, RecordKind.PREDICTIONS, "model_version"),
        find_receipts(
            lambda kind: bool(_list_spark_texts(tables, split, kind, RECEIVED_AT)), tables
        ),
    )
    parts = split.count_parts(tables[RecordKind.PREDICTIONS].count())
    tall = None
    for kind, table in _add_spark_parts(tables, split, parts).items():
        own = [sql.col(quote_spark(n)).alias(f"{kind.value}:{n}") for n in tables[kind].columns]
        rows = table.select(sql.lit(kind.value).alias(KIND), PART, ROW, *own)
        tall = rows if tall is None else tall.unionByName(rows, allowMissingColumns=True)
    assert tall is not None  # noqa: S101 - there are predictions

    tall = tall.groupBy(PART)
    kinds = list(tables)

    def count_parts(count_part: CountPart) -> Iterator[bytes]:
        counted = tall.applyInArrow(
            lambda group: _count_group(group, kinds, count_part), "packed binary, refusal string"
        )
        for packed, refusal in counted.toLocalIterator():
            if refusal:
                raise LakeError(refusal)
            yield bytes(packed)

    return whole, count_parts


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


def _list_spark_texts(
    tables: Tables, split: UnitSplit, kind: RecordKind, name: str
) -> frozenset[str]:
    text = split.get_text(kind, name, tables[kind].columns, quote_spark)
    if text is None:
        return frozenset()
    texts = tables[kind].selectExpr(f"{text} AS text").filter("text IS NOT NULL")
    texts = texts.limit(1) if name == RECEIVED_AT else texts.distinct()
    return frozenset(row[0] for row in texts.collect())


def _add_spark_parts(tables: Tables, split: UnitSplit, parts: int) -> Tables:
    from pyspark.sql import functions as sql

    def find(kind: RecordKind, name: str) -> Any:
        text = split.get_text(kind, name, tables[kind].columns, quote_spark)
        return sql.expr(text or "NULL").cast("string")

    rows = {
        kind: table.withColumn(KEY, find(kind, "case_key")).withColumn(
            ROW, sql.monotonically_increasing_id()
        )
        for kind, table in tables.items()
    }
    if split.by_episode:
        mentions = []
        for place, kind in enumerate(kind for kind in RecordKind if kind in rows):
            texts = find(kind, "episode").alias(UNIT), find(kind, "site").alias(SITE)
            mention = rows[kind].select(KEY, *texts, sql.struct(sql.lit(place), ROW).alias("turn"))
            if kind is RecordKind.CASES:  # the first row with a site is the case
                case_rows = mention.filter(sql.col(SITE).isNotNull()).groupBy(KEY)
                firsts = (sql.min_by(name, "turn").alias(name) for name in (UNIT, SITE))
                mention = case_rows.agg(*firsts, sql.min("turn").alias("turn"))
            if kind is not RecordKind.OUTCOMES:
                mentions.append(mention)
        union = mentions[0]
        for mention in mentions[1:]:
            union = union.union(mention)
        first_texts = [
            sql.min_by(name, sql.when(sql.col(name).isNotNull(), sql.col("turn")))
            for name in (UNIT, SITE)
        ]
        units = union.groupBy(KEY).agg(sql.coalesce(*first_texts).alias(UNIT))
        rows = {kind: table.join(units, KEY, "left") for kind, table in rows.items()}
    basis = sql.col(UNIT if split.by_episode else KEY)
    part = sql.pmod(sql.hash(sql.coalesce(basis, sql.lit(""))), sql.lit(parts))
    return {kind: table.withColumn(PART, part) for kind, table in rows.items()}
