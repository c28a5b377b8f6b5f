"""One file given for both sides: its rows agree with themselves unless rows are chosen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rollout.formats.records.questions import RowsOfSide
from rollout.formats.records.row_choice import RowCondition, parse_row_condition
from rollout.tally.frames import VALUE_PREFIX, RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rollout.formats.records.column_map import ColumnMap
    from rollout.formats.records.files import RecordPaths
    from rollout.formats.records.mapped_rows import MappedRows
    from rollout.formats.records.text_rows import TextRows

SIDES = (RecordKind.PREDICTIONS, RecordKind.DECISIONS)
MAX_TEXTS = 50
"""Different texts up to which a column can say whose row it is."""
MODEL_WORDS = re.compile(r"\b(computer|machine|model|ai|algorithm|classifier|automatic|vision)\b")


class OneFileError(ValueError):
    """One file was given for both sides."""


def find_open_sides(
    sources: RecordPaths,
    columns: ColumnMap,
    texts: Mapping[RecordKind, TextRows],
    rows: Mapping[RecordKind, MappedRows],
) -> list[RowsOfSide]:
    """Return for each side of one file whose rows aren't chosen a question with a proposal.

    A file in which the answers of both sides are in different columns has two sides.

    Raises:
        OneFileError: nothing in the file says which rows are the model's.
    """
    wheres = [columns.get_file(kind).where for kind in SIDES]
    if wheres[0] != wheres[1] and all(wheres):
        return []
    is_empty = not rows[RecordKind.PREDICTIONS].cells.height
    if is_empty or not _is_one_file(sources) or not _has_one_answer_column(rows):
        return []
    condition = _propose_model_rows(texts, rows, wheres)
    if condition is None:
        name = sources.predictions.name
        raise OneFileError(
            f"{name} is given for both sides, so that each answer would agree with itself; choose"
            " the rows of each: --predictions-where COLUMN=TEXT --decisions-where COLUMN!=TEXT, or"
            " give two files"
        )
    complement = RowCondition(condition.column, condition.text, not condition.is_equal)
    return [
        RowsOfSide(
            file=sources.predictions.name,
            records=kind,
            condition=str(proposal),
            rows=_count_matches(texts[kind], proposal),
        )
        for kind, proposal, where in zip(SIDES, (condition, complement), wheres, strict=True)
        if not where or wheres[0] == wheres[1]
    ]


def _is_one_file(sources: RecordPaths) -> bool:
    first, second = sources.predictions, sources.decisions
    if first.samefile(second):
        return True
    return first.stat().st_size == second.stat().st_size and (
        first.read_bytes() == second.read_bytes()
    )


def _has_one_answer_column(rows: Mapping[RecordKind, MappedRows]) -> bool:
    """Return whether both sides read their answers from the same columns."""
    answers = [
        {
            name: column
            for name, column in rows[kind].layout.columns.items()
            if name.startswith(VALUE_PREFIX)
        }
        for kind in SIDES
    ]
    return answers[0] == answers[1]


def _propose_model_rows(
    texts: Mapping[RecordKind, TextRows],
    rows: Mapping[RecordKind, MappedRows],
    wheres: Sequence[str],
) -> RowCondition | None:
    """Return which rows are the model's; None if no column says it."""
    if wheres[0] and not wheres[1]:
        return parse_row_condition(wheres[0])
    if wheres[1] and not wheres[0]:
        human = parse_row_condition(wheres[1])
        return RowCondition(human.column, human.text, not human.is_equal)
    cells = texts[RecordKind.PREDICTIONS].cells
    layouts = [rows[kind].layout.columns for kind in SIDES]
    first = [layouts[0].get("model_version"), layouts[1].get("reviewer")]
    names = dict.fromkeys([*(name for name in first if name), *cells.columns])
    scored = rows[RecordKind.PREDICTIONS].get_texts("confidence").is_not_null()
    for name in names:
        column = cells[name]
        if not 2 <= column.n_unique() <= MAX_TEXTS:
            continue
        by_score = column.filter(scored).unique().drop_nulls()
        if by_score.len() == 1 and not (column.filter(~scored) == by_score[0]).any():
            return RowCondition(name, by_score[0], is_equal=True)
    return next(_list_named_models(texts, names), None)


def _list_named_models(
    texts: Mapping[RecordKind, TextRows], names: Mapping[str, None]
) -> Iterator[RowCondition]:
    """Yield the texts that are named like a model, alone in their column."""
    cells = texts[RecordKind.PREDICTIONS].cells
    for name in names:
        column = cells[name]
        if column.n_unique() <= MAX_TEXTS:
            words = column.unique().drop_nulls()
            models = words.filter(words.str.to_lowercase().str.contains(MODEL_WORDS.pattern))
            if models.len() == 1 < words.len():
                yield RowCondition(name, models[0], is_equal=True)


def _count_matches(texts: TextRows, condition: RowCondition) -> int:
    is_equal = texts.cells[condition.column].eq_missing(condition.text)
    return int((is_equal if condition.is_equal else ~is_equal).sum())
