"""One file of pairs: what people said beside what the model said, a row a case.

Unlike records (`record_files`), pairs are never held: a file is only described here, and streams
by whoever counts it. So nothing is set aside row by row, and no time is read.
"""

from __future__ import annotations

from errno import ENOENT
from os import strerror
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

NEEDED = ("human", "model")
KNOWN = ("case_key", "model_version", "site", "window", *NEEDED, "confidence")
"""Our names of the columns; all but `NEEDED` may be left out."""
OURS = {"model_version": "version"}  # what counted pairs call it
ROW = "row number"
SUFFIXES = ".parquet, .csv, .tsv, .jsonl or .ndjson; a .csv or .tsv also packed as .gz"


def scan_pairs(path: Path, mapped: Iterable[str] = ()) -> pl.LazyFrame:
    """Return the pairs of a file, not read yet.

    Columns, where the file has them: case_key (`row 17` where it has none), version, site, window,
    human, model, all as text; confidence as a number. Other columns are left alone.

    Args:
        path: the file; its form follows from its suffix.
        mapped: other names of columns, `human=answer`.

    Raises:
        ValueError: the suffix is unknown, the file is damaged, or a column is missing; it says
            which there are and how to map.
    """
    frame = _scanned(path)
    try:
        schema = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path}: can't be read: {plainly(error)}") from error
    columns = _columns(path, list(schema), mapped)
    selected = [
        _column(name, file_column, schema[file_column]) for name, file_column in columns.items()
    ]
    if "case_key" in columns:
        return frame.select(selected)
    case_keys = pl.format("row {}", pl.col(ROW)).alias("case_key")
    return frame.with_row_index(ROW, offset=1).select(case_keys, *selected)


def _column(name: str, theirs: str, kind: pl.DataType) -> pl.Expr:
    """Return a column under our name: a number for confidence, text for all others."""
    column = pl.col(theirs).alias(OURS.get(name, name))
    if name == "confidence":
        return column.cast(pl.Float64).fill_nan(None)
    return column if kind == pl.String else column.cast(pl.String)


def _scanned(path: Path) -> pl.LazyFrame:
    name = path.name.lower()
    if not path.exists():
        raise FileNotFoundError(ENOENT, strerror(ENOENT), str(path))
    if name.endswith(".parquet"):
        return pl.scan_parquet(path, low_memory=True)
    if name.endswith((".jsonl", ".ndjson")):
        return pl.scan_ndjson(path)
    for ending, separator in ((".csv", ","), (".tsv", "\t")):
        if name.removesuffix(".gz").endswith(ending):
            return pl.scan_csv(path, separator=separator, infer_schema=False, low_memory=True)
    raise ValueError(f"{path}: what form is it? The name must end in {SUFFIXES}")


def _columns(path: Path, there: Sequence[str], mapped: Iterable[str]) -> Mapping[str, str]:
    """Return by our name what the file calls each column that it has."""
    mapped_columns = dict(_entry(mapping) for mapping in mapped)
    columns = {name: name for name in KNOWN if name in there} | mapped_columns
    faults = [
        f"{path}: no column {file_column!r}, which is mapped to {our_name!r}"
        for our_name, file_column in mapped_columns.items()
        if file_column not in there
    ]
    faults += [
        f"{path}: no column for {name!r}; name yours, `--map {name}=COLUMN`"
        for name in NEEDED
        if name not in columns
    ]
    if faults:
        raise ValueError("\n".join([*faults, f"found: {', '.join(there) or 'no columns'}"]))
    return columns


def _entry(text: str) -> tuple[str, str]:
    our_name, _, file_column = text.partition("=")
    if our_name not in KNOWN or not file_column:
        raise ValueError(f"--map {text}: write NAME=COLUMN; names: {', '.join(KNOWN)}")
    return our_name, file_column


def plainly(error: pl.exceptions.PolarsError) -> str:
    r"""Say what Polars found, without its advice to programmers.

    >>> plainly(pl.exceptions.ComputeError("odd\n\nOriginal error: ```invalid csv file```"))
    'invalid csv file'
    """
    text = str(error)
    message = text.partition("Original error:")[2] or text
    return " ".join(message.strip().strip("`").split())
