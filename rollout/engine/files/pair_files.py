"""Files of pairs: the answers of two sides in a row, as a stream.

Each row has a human and a model answer for a case. Unlike records (`files`), pairs are
streamed and never all in memory. So rows are not rejected one by one, and times are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import ENOENT
from importlib.util import find_spec
from io import BytesIO
from os import strerror
from typing import TYPE_CHECKING, Final

import polars as pl

from rollout.engine.files.file_rows import convert_to_utf8, read_unpacked
from rollout.engine.files.label_set_texts import list_set_labels, rewrite_sets
from rollout.engine.files.mapped_rows import PLACEHOLDERS
from rollout.kernel.policy.evidence_sources import FileReading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import duckdb


SIDES = ("human", "model")


def rewrite_set_pairs(pairs: pl.LazyFrame, labels: Collection[str]) -> pl.LazyFrame:
    """Return streamed pairs with canonical texts of sets; what is no set of the labels stays."""
    columns = [
        (side, texts, rewrite_sets(texts, labels))
        for side in SIDES
        for texts in [_collect_texts(pairs, side)]
    ]
    replaced = [pl.col(side).replace(texts, sets) for side, texts, sets in columns if len(texts)]
    return pairs.with_columns(replaced)


def replace_answers(pairs: pl.LazyFrame, replacements: Mapping[str, str | None]) -> pl.LazyFrame:
    """Return streamed pairs with other texts for some answers."""
    texts, others = list(replacements), list(replacements.values())
    return pairs.with_columns(pl.col(side).replace(texts, others) for side in SIDES)


def clear_pair_placeholders(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Return streamed pairs without the answers that stand for a missing one."""
    words = list(PLACEHOLDERS)
    return pairs.with_columns(
        pl.when(~pl.col(side).str.strip_chars().str.to_lowercase().is_in(words))
        .then(side)
        .alias(side)
        for side in SIDES
    )


def list_pair_labels(pairs: pl.LazyFrame) -> tuple[str, ...]:
    """Return the labels of all sets in streamed pairs.

    Raises:
        ValueError: a label is blank.
    """
    labels = list_set_labels({text for side in SIDES for text in _collect_texts(pairs, side)})
    if labels is None:
        raise ValueError(
            "a label of a set is blank; join the labels of a set with one `;`, each once, and write"
            " [] for none of them"
        )
    return labels


def _collect_texts(pairs: pl.LazyFrame, side: str) -> pl.Series:
    """Return the different answers of one side, without blank ones."""
    answer = pl.col(side)
    texts = pairs.select(answer.filter(answer.str.strip_chars() != "").unique())
    return texts.collect(engine="streaming").to_series().sort()


REQUIRED_COLUMNS = ("human", "model")
KNOWN_COLUMNS = ("case_key", "model_version", "site", "window", *REQUIRED_COLUMNS, "confidence")
"""Our column names; only `REQUIRED_COLUMNS` are required."""
RENAMED_COLUMNS = {"model_version": "version"}  # as in counted pairs
ROW_NUMBER = "row number"
DEFAULT_READING = FileReading()
COUNT_COLUMN: Final = "n"
GLOB_SIGNS = frozenset("*?[]{}")  # DuckDB would look for other files
DUCKDB_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "temp_directory": "",  # nothing is written beside the file
    "autoinstall_known_extensions": False,  # and nothing downloaded
    "autoload_known_extensions": False,
}
ONE_COLUMN = "\nthat is one column: separate columns by commas, or by tabs in a file .tsv"
SUFFIXES = ".parquet, .csv, .tsv, .jsonl or .ndjson; a .csv or .tsv also packed as .gz"


def scan_pairs(
    path: Path, mappings: Iterable[str] = (), reading: FileReading = DEFAULT_READING
) -> pl.LazyFrame:
    """Return a lazy frame of the pairs in a file.

    It has the text columns case_key (default: `row 17`), version, site, window, human and model,
    and the number confidence (NaN: none), as far as the file has them.

    Args:
        path: the file; its suffix sets the format.
        mappings: column names as `human=answer`; they override those of `reading`.
        reading: how the file is written. Only UTF-8 is streamed.

    Raises:
        ValueError: the suffix is unknown, the file is damaged, or a column is missing.
    """
    frame = _scan_file(path, reading)
    schema = _read_schema(frame, path)
    columns = _list_mapped_columns(path, schema, mappings, reading)
    selected = [
        _build_column(name, file_column, schema[file_column], reading)
        for name, file_column in columns.items()
    ]
    if "case_key" in columns:
        return frame.select(selected)
    case_keys = pl.format("row {}", pl.col(ROW_NUMBER)).alias("case_key")
    return frame.with_row_index(ROW_NUMBER, offset=1).select(case_keys, *selected)


def _read_schema(frame: pl.LazyFrame, path: Path) -> pl.Schema:
    try:
        return frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path}: can't be read: {format_polars_error(error)}") from error


def _list_mapped_columns(
    path: Path, schema: pl.Schema, mappings: Iterable[str], reading: FileReading
) -> Mapping[str, str]:
    return _find_columns(
        path,
        list(schema),
        [*(f"{name}={column}" for name, column in reading.columns.items()), *mappings],
    )


@dataclass(frozen=True, slots=True)
class FileCounts:
    """What DuckDB counted in a file of pairs.

    Attributes:
        combinations: the text columns of `scan_pairs` without case_key, and n, how often each
            combination of them occurs.
        confidences: number, smallest and largest of the confidences, as the file's footer has
            them: NaN are in the number. None without confidences, or if they are no plain numbers.
    """

    combinations: pl.DataFrame
    confidences: tuple[int, float | None, float | None] | None


def count_file(
    path: Path, mappings: Iterable[str] = (), reading: FileReading = DEFAULT_READING
) -> FileCounts | None:
    """Return the counts of the pairs in a Parquet file, by DuckDB.

    DuckDB groups by the numbers that the file has instead of repeated texts, in half the time of
    Polars. None if it isn't installed, if a column isn't text as it stands there, or if names
    differ by case alone.

    Raises:
        ValueError: as in `scan_pairs`.
    """
    if not path.name.lower().endswith(".parquet") or find_spec("duckdb") is None:
        return None
    if reading.unsure or set(str(path)) & GLOB_SIGNS:
        return None
    schema = _read_schema(_scan_file(path, reading), path)
    columns = _list_mapped_columns(path, schema, mappings, reading)
    if len({name.lower() for name in schema}) < len(schema):
        return None  # DuckDB would read "human" from "Human", the first of the two
    texts = [name for name in columns if name not in {"case_key", "confidence"}]
    if any(schema[columns[name]] != pl.String for name in texts):
        return None
    confidence = columns.get("confidence")
    if confidence is not None and (reading.percent or not schema[confidence].is_float()):
        confidence = None
    text_columns = {RENAMED_COLUMNS.get(name, name): columns[name] for name in texts}
    return _count_by_duckdb(path, text_columns, confidence)


def _count_by_duckdb(
    path: Path, columns: Mapping[str, str], confidence: str | None
) -> FileCounts | None:
    """Return the rows of each combination of columns, under our names; None if it can't.

    Polars then does the same, or says what is wrong with the file.
    """
    import duckdb  # noqa: PLC0415 - optional

    texts = ", ".join(
        f"{quote_column(column)} AS {quote_column(name)}" for name, column in columns.items()
    )
    pairs = "FROM read_parquet($path, hive_partitioning = false)"
    groups = f"SELECT {texts}, count(*) AS {COUNT_COLUMN} {pairs} GROUP BY ALL"
    schema = pl.Schema({**dict.fromkeys(columns, pl.String), COUNT_COLUMN: pl.UInt32})
    parameters, summary = {"path": str(path)}, None
    try:
        with duckdb.connect(config=DUCKDB_SETTINGS) as connection:
            counted = ArrowStream(connection.sql(groups, params=parameters))
            frame = pl.DataFrame(counted).cast(schema)
            if confidence is not None:
                number = quote_column(confidence)
                ends = f"SELECT count({number}), min({number}), max({number}) {pairs}"
                summary = connection.execute(ends, parameters).fetchone()
    except duckdb.Error:
        return None
    return FileCounts(frame, summary)


class ArrowStream:
    """A relation of DuckDB as a stream of Arrow's columns, for which pyarrow isn't needed.

    Polars remembers the class of what it was given, and DuckDB complains at the process's end if
    somebody still holds one of its classes.
    """

    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self._relation = relation

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._relation.__arrow_c_stream__(requested_schema)


def quote_column(name: str) -> str:
    """Return a column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _build_column(name: str, file_column: str, dtype: pl.DataType, reading: FileReading) -> pl.Expr:
    """Return a column under our name: a number for confidence, text for all others."""
    column, our_name = pl.col(file_column), RENAMED_COLUMNS.get(name, name)
    if name == "confidence":
        return _build_confidence(column, dtype, reading).alias(our_name)
    text = _build_text(column, dtype)
    if reading.unsure and name in REQUIRED_COLUMNS:
        text = pl.when(~text.is_in(reading.unsure)).then(text)
    return text.alias(our_name)


def _build_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a column as text; a list, as of labels, is a list of JSON."""
    if isinstance(dtype, pl.List):
        text = pl.struct(column.alias("list")).struct.json_encode()
        text = text.str.strip_prefix('{"list":').str.strip_suffix("}")
        return pl.when(column.is_not_null()).then(text)
    return column if dtype == pl.String else column.cast(pl.String)


def _build_confidence(column: pl.Expr, dtype: pl.DataType, reading: FileReading) -> pl.Expr:
    if dtype != pl.String:
        number = column if dtype == pl.Float64 else column.cast(pl.Float64)
        return number / 100 if reading.percent else number
    if reading.decimal == ",":
        column = column.str.replace(",", ".", literal=True)
    if reading.percent:
        column = column.str.strip_chars("% ") + "e-2"
    return column.cast(pl.Float64)


def _scan_file(path: Path, reading: FileReading) -> pl.LazyFrame:
    name = path.name.lower()
    if not path.exists():
        raise FileNotFoundError(ENOENT, strerror(ENOENT), str(path))
    if name.endswith(".parquet"):
        return pl.scan_parquet(path, low_memory=True)
    if name.endswith((".jsonl", ".ndjson")):
        return pl.scan_ndjson(path)
    for ending, separator in ((".csv", ","), (".tsv", "\t")):
        if name.removesuffix(".gz").endswith(ending):
            return pl.scan_csv(
                _open_text(path, reading.encoding),
                separator=reading.delimiter or separator,
                infer_schema=False,
                low_memory=True,
            )
    raise ValueError(f"{path}: what form is it? The name must end in {SUFFIXES}")


def _open_text(path: Path, encoding: str | None) -> Path | BytesIO:
    """Return a file that Polars can scan; another encoding than UTF-8 is converted in memory."""
    if encoding is None:
        return path
    return BytesIO(convert_to_utf8(read_unpacked(path), encoding, path.name))


def _find_columns(
    path: Path, file_columns: Sequence[str], mappings: Iterable[str]
) -> Mapping[str, str]:
    """Return the file's column by our name."""
    mapped_columns = dict(_parse_mapping(mapping) for mapping in mappings)
    columns = {name: name for name in KNOWN_COLUMNS if name in file_columns} | mapped_columns
    faults = [
        f"{path}: no column {file_column!r}, which is mapped to {our_name!r}"
        for our_name, file_column in mapped_columns.items()
        if file_column not in file_columns
    ]
    faults += [
        f"{path}: no column for {name!r}; name yours, `--map {name}=COLUMN`"
        for name in REQUIRED_COLUMNS
        if name not in columns
    ]
    if faults:
        raise ValueError(
            "\n".join(faults)
            + f"\nfound: {', '.join(file_columns) or 'no columns'}"
            + (ONE_COLUMN if path.suffix == ".csv" and len(file_columns) == 1 else "")
        )
    return columns


def _parse_mapping(text: str) -> tuple[str, str]:
    our_name, _, file_column = text.partition("=")
    if our_name not in KNOWN_COLUMNS or not file_column:
        raise ValueError(f"--map {text}: write NAME=COLUMN; names: {', '.join(KNOWN_COLUMNS)}")
    return our_name, file_column


def format_polars_error(error: pl.exceptions.PolarsError) -> str:
    r"""Return the error text of Polars without its advice to programmers.

    >>> format_polars_error(
    ...     pl.exceptions.ComputeError("odd\n\nOriginal error: ```invalid csv file```")
    ... )
    'invalid csv file'
    """
    text = str(error)
    message = text.partition("Original error:")[2] or text
    return " ".join(message.strip().strip("`").split())
