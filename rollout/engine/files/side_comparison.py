"""Two sides compared: whether they are equal, share keys and labels, and differ in form only.

The two sides must share keys and labels. Two sides that agree everywhere raise a question: one side
read twice looks like a perfect model. So do texts that differ in form only, such as 1 and 1.0, TRUE
and true, or `["bear"]` and bear.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordKind
from rollout.engine.files.questions import EqualSides, FormPair, ReadingQuestion, SameForm
from rollout.kernel.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rollout.engine.files.mapped_rows import MappedRows
    from rollout.engine.files.questions import FileChoices

    FileRows = Mapping[RecordKind, MappedRows]


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
