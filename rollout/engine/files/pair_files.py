"""Files of two sides: pairs of answers in a row, and whether the sides are what they seem.

Pairs: each row has a human and a model answer for a case. Unlike records (`files`), pairs are
streamed and never all in memory. So rows are not rejected one by one, and times are not read.

Recorded files: the two sides must share keys and labels. Two sides that agree everywhere raise a
question: one side read twice looks like a perfect model. So do texts that differ in form only, such
as 1 and 1.0, TRUE and true, or `["bear"]` and bear.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from errno import ENOENT
from importlib.util import find_spec
from io import BytesIO
from os import strerror
from typing import TYPE_CHECKING, Final

import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordKind
from rollout.engine.files.file_rows import convert_to_utf8, read_unpacked
from rollout.engine.files.label_set_texts import list_set_labels, rewrite_sets
from rollout.engine.files.mapped_rows import PLACEHOLDERS
from rollout.engine.files.questions import EqualSides, FormPair, ReadingQuestion, SameForm
from rollout.kernel.errors import RolloutError
from rollout.kernel.policy.evidence_sources import FileReading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import duckdb

    from rollout.engine.files.mapped_rows import MappedRows
    from rollout.engine.files.questions import FileChoices

    FileRows = Mapping[RecordKind, MappedRows]


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
    texts = {text for side in SIDES for text in _collect_texts(pairs, side)}
    labels = list_set_labels(texts)
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
    own_mappings = [f"{name}={column}" for name, column in reading.columns.items()]
    return _find_columns(path, list(schema), [*own_mappings, *mappings])


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
        raise ValueError("\n".join([*faults, f"found: {', '.join(file_columns) or 'no columns'}"]))
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


MIN_PAIRS = 50
_SAMPLE = 1000
"""Pairs that are compared first, because sides that differ do so early."""


def find_equal_sides(
    predictions: MappedRows, decisions: MappedRows, levers: Sequence[str]
) -> EqualSides | None:
    """Return a question if the answers to 50 cases or more are all equal on every lever.

    Cases without an answer on a side don't count.
    """
    names = [VALUE_PREFIX + lever for lever in levers]
    predicted, decided = (
        pl.DataFrame([rows.get_texts(name) for name in ("case_key", *names)]).drop_nulls()
        for rows in (predictions, decisions)
    )
    if _count_equal(predicted.head(_SAMPLE), decided, names) is None:
        return None
    pairs = _count_equal(predicted, decided, names)
    if pairs is None or pairs < MIN_PAIRS:
        return None
    return EqualSides(file=f"{predictions.file} and {decisions.file}", pairs=pairs)


def _count_equal(
    predicted: pl.DataFrame, decided: pl.DataFrame, names: Sequence[str]
) -> int | None:
    """Return the number of pairs, or None if some differ."""
    pairs = predicted.join(decided, on="case_key", suffix=" decided")
    is_equal = pl.all_horizontal(pl.col(name) == pl.col(f"{name} decided") for name in names)
    return pairs.height if pairs.select(is_equal.all()).item() else None


_QUOTED = r'^"([^"\\]*)"$'
_ONE_OF_LIST = r"^\[\s*([^\[\],]*?)\s*\]$"
_CHOICES = r'^\{\s*"choices"\s*:\s*(\[.*\])\s*\}$'
_WHOLE_DECIMAL = r"^([+-]?\d+)\.0+$"


def normalize_forms(texts: pl.Series) -> pl.Series:
    r"""Return texts without what only their form says.

    >>> normalize_forms(pl.Series(["1.0", "TRUE", '{"choices": ["Bear"]}', "a\u00a0 b"])).to_list()
    ['1', 'true', 'bear', 'a b']
    """
    column = pl.col("text").str.normalize("NFC").str.replace_all(r"[\s\x{a0}\x{202f}]+", " ")
    column = column.str.strip_chars()
    for pattern in (_CHOICES, _ONE_OF_LIST, _QUOTED):
        column = column.str.replace(pattern, "$1")
    column = column.str.to_lowercase().str.replace(_WHOLE_DECIMAL, "$1")
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(column).to_series()


def pair_forms(texts: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Return for texts that `others` lack the one of them that differs in form only.

    >>> pair_forms(["0.0", "deer"], ["0", "1", "deer"])
    {'0.0': '0'}
    """
    names = sorted({*others})
    unmatched = sorted({*texts} - {*names})
    by_form = dict(zip(reversed(normalize_forms(_build(names))), reversed(names), strict=True))
    forms = zip(unmatched, normalize_forms(_build(unmatched)), strict=True)
    return {text: by_form[form] for text, form in forms if form in by_form}


def _build(texts: Sequence[str]) -> pl.Series:
    return pl.Series(texts, dtype=pl.String)


MIN_SHARED = 0.05
"""Share of the smaller side's keys or labels that must occur on the other side."""
MIN_COMPARED = 10
"""Keys or answers of a side from which on it is compared."""
PREDICTIONS, DECISIONS = RecordKind.PREDICTIONS, RecordKind.DECISIONS


class NothingSharedError(RolloutError, ValueError):
    """The two sides share no keys, or no labels."""


@dataclass(frozen=True, slots=True)
class ComparedSides:
    """The rows of all files in one form, and what only a user can say about them."""

    rows: FileRows
    questions: tuple[ReadingQuestion, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedNames:
    """What both sides answer with.

    Attributes:
        levers: those with labels, neither numbers nor sets.
        listed: by column the texts that a policy lists.
    """

    levers: Sequence[str]
    listed: Mapping[str, Collection[str]] = field(default_factory=dict)


def compare_sides(
    rows: FileRows, levers: Sequence[str], names: SharedNames, choices: FileChoices
) -> ComparedSides:
    """Return the rows in one form, if that is chosen, or the questions that are open.

    Raises:
        NothingSharedError: the sides have too few keys or labels in common.
    """
    replacements = {} if choices.same_form is False else _find_forms(rows, names)
    if replacements and choices.same_form is None:
        pairs = tuple(
            FormPair(name, text, other)
            for name, texts in replacements.items()
            for text, other in texts.items()
        )
        return ComparedSides(rows, (SameForm(file=_name_sides(rows), pairs=pairs),))
    rows = {kind: _replace_texts(file, replacements) for kind, file in rows.items()}
    _check_shared_keys(rows)
    for lever in names.levers:
        _check_shared_labels(rows, VALUE_PREFIX + lever, names)
    if choices.equal_sides:
        return ComparedSides(rows)
    equal = find_equal_sides(rows[PREDICTIONS], rows[DECISIONS], levers)
    return ComparedSides(rows, () if equal is None else (equal,))


def _name_sides(rows: FileRows) -> str:
    return f"{rows[PREDICTIONS].file} and {rows[DECISIONS].file}"


def _find_forms(rows: FileRows, names: SharedNames) -> dict[str, dict[str, str]]:
    """Return by column the texts to replace by one that differs in form only."""
    columns = ["site", *(VALUE_PREFIX + lever for lever in names.levers)]
    replacements = {column: _pair_names(rows, column, names) for column in columns}
    replacements["case_key"] = _pair_keys(rows)
    return {column: pairs for column, pairs in replacements.items() if pairs}


def _pair_names(rows: FileRows, column: str, names: SharedNames) -> dict[str, str]:
    """Return texts of one side with the text of the policy, or else of the other side."""
    texts = {kind: {*file.get_texts(column).unique().drop_nulls()} for kind, file in rows.items()}
    listed = names.listed.get(column)
    if listed:
        return pair_forms(set[str]().union(*texts.values()), listed)
    kinds = [kind for kind in RecordKind if texts.get(kind)]
    pairs: dict[str, str] = {}
    if len(kinds) < 2:
        return pairs
    first = PREDICTIONS if texts[PREDICTIONS] else kinds[0]
    for kind in kinds:
        if kind is not first:
            pairs |= pair_forms(texts[kind], texts[first])
            pairs |= pair_forms(texts[first], texts[kind] - pairs.keys())
    return pairs


def _pair_keys(rows: FileRows) -> dict[str, str]:
    """Return keys without an equal one among the predictions, with one of another form."""
    predicted = rows[PREDICTIONS].get_texts("case_key")
    pairs: dict[str, str] = {}
    for kind, file in rows.items():
        keys = file.get_texts("case_key")
        if kind is not PREDICTIONS and keys.len():
            unmatched = keys.filter(~keys.is_in(predicted.implode()))
            if unmatched.len():
                free = predicted.filter(~predicted.is_in(keys.implode()))
                pairs |= pair_forms(unmatched.unique().drop_nulls(), free.unique().drop_nulls())
    return pairs


def _list_keys(rows: MappedRows) -> pl.Series:
    return rows.get_texts("case_key").unique().drop_nulls()


def _replace_texts(rows: MappedRows, replacements: Mapping[str, Mapping[str, str]]) -> MappedRows:
    columns = [
        rows.cells[name].replace(list(texts), list(texts.values()))
        for name, texts in replacements.items()
        if name in rows.cells.columns
    ]
    return replace(rows, cells=rows.cells.with_columns(columns)) if columns else rows


def _check_shared_keys(rows: FileRows) -> None:
    sample = rows[DECISIONS].get_texts("case_key").drop_nulls()
    sample = sample.gather_every(max(1, sample.len() // _SAMPLE)).unique()
    matched = rows[PREDICTIONS].get_texts("case_key").is_in(sample.implode()).sum()
    if matched >= 2 * MIN_SHARED * _SAMPLE:  # so many that the rest need not be looked at
        return
    predicted = _list_keys(rows[PREDICTIONS])
    decided = _list_keys(rows[DECISIONS])
    shared = int(decided.is_in(predicted.implode()).sum())
    if min(predicted.len(), decided.len()) < MIN_COMPARED:
        return
    if shared >= MIN_SHARED * min(predicted.len(), decided.len()):
        return
    key, other, cause = _find_key_cause(decided, predicted)
    raise NothingSharedError(
        f"{rows[DECISIONS].file}: {shared:,} of {decided.len():,} keys occur in"
        f" {rows[PREDICTIONS].file}; such as `{key}`, there `{other}`"
        + (f": {cause}?" if cause else "; map the column that has the same keys in both files")
    )


KEY_CAUSES = {
    "leading zeros": r"^0+(\d)",
    "another ending of the file": r"\.[A-Za-z0-9]{1,5}$()",
    "a folder before the name": r"^.*[/\\]()",
    "something before the number": r"^\D+0*(\d)",
}
"""What two keys may differ by, as the part that goes."""


def _find_key_cause(decided: pl.Series, predicted: pl.Series) -> tuple[str, str, str]:
    """Return a key of each side, and what they differ by, or ""."""
    decided, predicted = decided.sort(), predicted.sort()
    # a number that is written out says more than a 0
    plain = decided.str.strip_chars("0")
    decided = pl.concat([decided.filter(plain != ""), decided.filter(plain == "")])
    for cause, pattern in KEY_CAUSES.items():
        sides = [
            pl.DataFrame({"key": keys, "plain": keys.str.replace(pattern, "$1")})
            for keys in (decided, predicted)
        ]
        matches = sides[0].join(sides[1], on="plain", suffix=" there", maintain_order="left")
        if matches.height:
            return matches["key"][0], matches["key there"][0], cause
    return decided[0], predicted[0], ""


def _check_shared_labels(rows: FileRows, column: str, names: SharedNames) -> None:
    answers = [rows[kind].get_texts(column).drop_nulls() for kind in (PREDICTIONS, DECISIONS)]
    if min(map(len, answers)) < MIN_COMPARED:
        return
    predicted, decided = ({*texts.unique()} for texts in answers)
    shared, smaller = len(predicted & decided), min(len(predicted), len(decided))
    if shared >= MIN_SHARED * smaller or {*names.listed.get(column, ())} >= predicted | decided:
        return
    example, other = min(decided - predicted), min(predicted - decided)
    raise NothingSharedError(
        f"{_name_sides(rows)} have {shared} of {smaller:,} labels in common: humans answer such as"
        f" {example!r}, the model such as {other!r}; map the columns that have the same labels, or"
        " write the labels alike"
    )
