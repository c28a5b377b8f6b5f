"""The rows of a file that belong to one side, split into used rows, rejected rows and notes.

The rules are those in `files`, in that order.

A condition chooses the rows that hold one side's records, as `identified_by!=Computer vision`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.frames import (
    CONTENT,
    OUTCOME_PREFIX,
    SAMPLED_ARM,
    VALUE_PREFIX,
    RecordKind,
    Schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
    share_constants,
    unify_spellings,
)
from rollout.engine.files.cases import check_unique_keys
from rollout.engine.files.column_map import RECEIVED_AT, REQUIRED_COLUMNS, ColumnError
from rollout.engine.files.mapped_rows import (
    build_empty_faults,
    build_empty_remarks,
    build_faults,
    list_remaining_rows,
    parse_cells,
    select_first_per_row,
)
from rollout.engine.records.records import RemarkReason
from rollout.engine.records.reviews import find_reviewer_fault, fold_name
from rollout.kernel.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rollout.engine.files.cases import CaseFacts
    from rollout.engine.files.file_rows import TextRows
    from rollout.engine.files.mapped_rows import MappedRows


DUPLICATE_TEXT = "repeats an earlier row"
CONFLICT_TEXT = "differs from an earlier row of the same key; the first is used"
OTHER_TIME_TEXT = "another row is used: the last one before the case's first decision, or the first"
UNCLEAR_TEXT = "this version gave it different answers, no time says which came first; none is used"
UNKNOWN_CASE = "no file has the site of this case"
OTHER_SOURCE_TEXT = "its source is not among the chosen ones"
EMPTY_OUTCOME = "neither an answer nor a value nor a harm"
IGNORED_ANSWER_TEXTS = {
    RecordKind.PREDICTIONS: "the prediction has an error, so it counts as failed",
    RecordKind.DECISIONS: "the decision is marked unsure, so it counts as unsure",
}


class UnknownSourceError(RolloutError, ValueError):
    """No decision is of a source that was asked for; the text lists those that there are."""


@dataclass(frozen=True, slots=True)
class FileRecords:
    """Records of one file; `used` has the schema of its kind, but cases stay text."""

    used: pl.DataFrame
    rejected: pl.DataFrame
    notes: pl.DataFrame


def split_case_rows(rows: MappedRows) -> tuple[MappedRows, FileRecords]:
    """Split a cases file: each row needs a key and a site, and each key counts once.

    Raises:
        RepeatedKeyError: a key has two sites.

    Returns:
        the used rows under our names, and the records of the file.
    """
    check_unique_keys(pl.DataFrame([rows.get_texts(name) for name in ("case_key", "site")]))
    blank_faults = [
        build_faults(rows.get_texts(name).is_null(), name, RemarkReason.MISSING_VALUE, "blank")
        for name in ("case_key", "site")
    ]
    rejected = select_first_per_row(blank_faults)
    remaining = list_remaining_rows(rows.cells.height, rejected)
    repeated = find_repeats(rows.cells[remaining], ["case_key"])
    rejected = select_first_per_row(
        [rejected, repeated.with_columns(row=remaining.gather(repeated["row"]))]
    )
    used_rows = rows.select_rows(list_remaining_rows(rows.cells.height, rejected))
    return used_rows, FileRecords(
        used_rows.cells, rows.build_remarks(rejected), build_empty_remarks()
    )


def split_record_rows(
    rows: MappedRows,
    facts: CaseFacts,
    levers: Sequence[str],
    zones: Sequence[str],
    chosen_sources: Collection[str] = (),
    outcomes: Sequence[str] = (),
    versions: Collection[str] = (),
) -> FileRecords:
    """Split a file of predictions, decisions or outcomes.

    Of several predictions of a case by one version the one is used that a service would count.

    Decisions in the name of one of `versions` are rejected: a model is no human.

    Decisions of other sources than `chosen_sources`, if any, are rejected before rows are compared
    with each other.

    Raises:
        UnknownSourceError: no decision is of a chosen source.
    """
    own_outcomes = outcomes if rows.kind is RecordKind.OUTCOMES else ()
    cells = parse_cells(rows, levers, facts.zone_indices[rows.kind], zones, own_outcomes)
    typed, dropped_answers = _drop_ignored_answers(rows.kind, cells.typed, levers)
    if rows.kind is RecordKind.DECISIONS:
        typed = _fill_sources(typed, rows.file, is_needed=bool(chosen_sources))
    unknown_cases = build_faults(
        ~facts.has_case[rows.kind], None, RemarkReason.NO_CASE_YET, UNKNOWN_CASE
    )
    rejected = select_first_per_row(
        [
            cells.faults,
            *_find_empty_outcomes(rows.kind, typed, levers, own_outcomes),
            unknown_cases,
            *_find_model_reviewers(rows.kind, typed, versions),
            *_find_other_sources(rows, typed, chosen_sources),
        ]
    )
    remaining = list_remaining_rows(typed.height, rejected)
    repeated_rows = remaining.filter(facts.has_repeats[rows.kind].gather(remaining))
    repeated = _find_repeats(rows.kind, typed[repeated_rows], levers, facts.decided)
    rejected = select_first_per_row(
        [rejected, repeated.with_columns(row=repeated_rows.gather(repeated["row"]))]
    )
    remaining = list_remaining_rows(typed.height, rejected)
    notes = pl.concat([dropped_answers, *_find_missing_answers(rows.kind, typed, levers)])
    notes = notes.filter(pl.col("row").is_in(remaining.implode()))
    return FileRecords(
        used=_apply_schema(
            rows.kind,
            typed if remaining.len() == typed.height else typed[remaining],
            levers,
            own_outcomes,
        ),
        rejected=rows.build_remarks(rejected),
        notes=rows.build_remarks(pl.concat([cells.notes, notes])),
    )


def _drop_ignored_answers(
    kind: RecordKind, typed: pl.DataFrame, levers: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows without answers next to an error or "unsure", and notes on these."""
    if kind is RecordKind.OUTCOMES:
        return typed, build_faults(
            pl.Series([], dtype=pl.Boolean), None, RemarkReason.DROPPED_ANSWER, ""
        )
    names = [VALUE_PREFIX + lever for lever in levers]
    is_ignored = pl.col("error").is_not_null()
    if kind is RecordKind.DECISIONS:
        is_ignored = pl.col("unsure").fill_null(value=False)
    has_answer = pl.any_horizontal(pl.col(name).is_not_null() for name in names)
    has_both = typed.select(is_ignored & has_answer).to_series()
    cleaned = typed.with_columns(
        pl.when(~is_ignored).then(pl.col(name)).alias(name) for name in names
    )
    if kind is RecordKind.DECISIONS:
        is_unsure = pl.any_horizontal(pl.col(name).is_null() for name in names)
        cleaned = cleaned.with_columns(
            unsure=is_unsure, exposure=pl.col("exposure").fill_null("unknown")
        )
    return cleaned, build_faults(
        has_both, None, RemarkReason.DROPPED_ANSWER, IGNORED_ANSWER_TEXTS[kind]
    )


def _fill_sources(typed: pl.DataFrame, file: str, *, is_needed: bool) -> pl.DataFrame:
    """Return decisions with the file's name as source where a row has none.

    Without any source they stay without, unless it is needed.
    """
    if not is_needed and typed["source"].null_count() == typed.height:
        return typed
    return typed.with_columns(pl.col("source").fill_null(file))


def _find_other_sources(
    rows: MappedRows, typed: pl.DataFrame, chosen_sources: Collection[str]
) -> list[pl.DataFrame]:
    """Return faults for decisions that are of none of the chosen sources."""
    if rows.kind is not RecordKind.DECISIONS or not chosen_sources:
        return []
    sources = typed["source"]
    counts = dict(sources.value_counts().sort("source").iter_rows())
    unknown = [source for source in chosen_sources if source not in counts]
    if unknown:
        names = ", ".join(f"{source} ({count:,})" for source, count in counts.items()) or "none"
        raise UnknownSourceError(
            f"{rows.file}: no decision is of the source {unknown[0]}; its sources, with their"
            f" decisions: {names}. Rows say it in a column `source`, or are of the file's name"
        )
    is_other = ~sources.is_in(list(chosen_sources))
    return [build_faults(is_other, None, RemarkReason.OTHER_SOURCE, OTHER_SOURCE_TEXT)]


def _find_model_reviewers(
    kind: RecordKind, typed: pl.DataFrame, versions: Collection[str]
) -> list[pl.DataFrame]:
    """Return faults for decisions whose reviewer has the name of a version."""
    if kind is not RecordKind.DECISIONS:
        return []
    folded, names = {*map(fold_name, versions)}, typed["reviewer"].unique().drop_nulls()
    return [
        build_faults(typed["reviewer"] == name, "reviewer", RemarkReason.MODEL_REVIEWER, fault)
        for name in names
        if (fault := find_reviewer_fault(name, folded, ()))
    ]


def _find_empty_outcomes(
    kind: RecordKind, typed: pl.DataFrame, levers: Sequence[str], outcomes: Sequence[str]
) -> list[pl.DataFrame]:
    """Return faults for outcomes without answer, value and harm."""
    if kind is not RecordKind.OUTCOMES:
        return []
    columns = ["harm", *(VALUE_PREFIX + lever for lever in levers)]
    columns += [OUTCOME_PREFIX + outcome for outcome in outcomes]
    is_empty = typed.select(
        pl.all_horizontal(pl.col(name).is_null() for name in columns)
    ).to_series()
    return [build_faults(is_empty, None, RemarkReason.MISSING_VALUE, EMPTY_OUTCOME)]


def _find_repeats(
    kind: RecordKind, typed: pl.DataFrame, levers: Sequence[str], decided: pl.DataFrame
) -> pl.DataFrame:
    key, answer = REQUIRED_COLUMNS[kind], [VALUE_PREFIX + lever for lever in levers]
    if kind is RecordKind.DECISIONS:
        one_spelling = typed.with_columns(unify_spellings(typed["reviewer"]))
        return find_label_conflicts(one_spelling, key, answer)
    if kind is RecordKind.PREDICTIONS:
        return find_other_predictions(typed, key, answer, decided)
    return find_repeats(typed, key)


def _find_missing_answers(
    kind: RecordKind, typed: pl.DataFrame, levers: Sequence[str]
) -> list[pl.DataFrame]:
    """Return notes on levers without an answer in a prediction or decision."""
    reasons = {
        RecordKind.PREDICTIONS: RemarkReason.FAILED,
        RecordKind.DECISIONS: RemarkReason.UNSURE,
    }
    if kind not in reasons:
        return []
    names = [VALUE_PREFIX + lever for lever in levers]
    return [build_faults(typed[name].is_null(), name, reasons[kind], "no answer") for name in names]


def _apply_schema(
    kind: RecordKind, typed: pl.DataFrame, levers: Sequence[str], outcomes: Sequence[str]
) -> pl.DataFrame:
    """Return the columns with the names, order and types of the kind's schema."""
    schemas = {
        RecordKind.PREDICTIONS: build_predictions_schema,
        RecordKind.DECISIONS: build_decisions_schema,
    }
    schema: Schema = (
        build_outcomes_schema(levers, outcomes)
        if kind is RecordKind.OUTCOMES
        else schemas[kind](levers)
    )
    names = {"model_version": "version", "task_number": "seat"} | dict.fromkeys(
        ("predicted_at", "decided_at", "outcome_at"), "at"
    )
    if kind is RecordKind.PREDICTIONS:
        optional = [n for n in (SAMPLED_ARM, CONTENT) if typed[n].null_count() < typed.height]
        schema = schema | {name: pl.String() for name in optional}
    renamed = typed.rename({name: names[name] for name in typed.columns if name in names})
    if "known_at" in schema:  # known to services only
        renamed = renamed.with_columns(known_at=pl.lit(None))
    typed = renamed.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    return share_constants(typed)


def find_repeats(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return faults for all rows of a key after the first: duplicates and conflicts.

    A duplicate equals an earlier row in every column. `row` is an index in `rows`.

    >>> rows = pl.DataFrame({"case_key": ["a", "a", "a"], "label": ["x", "x", "y"]})
    >>> find_repeats(rows, ["case_key"])["reason"].to_list()
    ['duplicate', 'conflict']
    """
    is_repeat = _find_repeated_rows(rows, key)
    if not is_repeat.any():
        return build_empty_faults()
    return select_first_per_row(
        [
            _find_duplicates(rows),
            build_faults(is_repeat, None, RemarkReason.CONFLICT, CONFLICT_TEXT),
        ]
    )


def find_other_predictions(
    rows: pl.DataFrame, key: Sequence[str], answer: Sequence[str], decided: pl.DataFrame
) -> pl.DataFrame:
    """Return faults for the predictions of a key that don't count beside another one.

    As in a service the last one counts that came before the case's first decision, or else the
    first: a later one may know the answer. Rows of one time, or without times, tell no order: if
    their answers differ, none is used, as the rows of a file may stand in any order.
    """
    is_repeat = _find_repeated_rows(rows, key)
    if not is_repeat.any():
        return build_empty_faults()
    at, is_before = pl.coalesce(RECEIVED_AT, "predicted_at"), pl.col("is_before")
    timed = rows.join(decided, on="case_key", how="left", maintain_order="left").with_columns(
        is_before=(at <= pl.col("decided")).fill_null(pl.col("decided").is_null())
    )
    chosen_at = pl.coalesce(at.filter(is_before).max(), at.min())
    is_chosen = (~at.is_not_null().all() | (at == chosen_at)).over(key)
    marked = timed.with_columns(is_chosen=is_chosen).select(
        is_chosen="is_chosen",
        is_unclear=pl.struct(answer).filter("is_chosen").n_unique().over(key) > 1,
        is_later=pl.col("is_chosen").cum_sum().over(key) > 1,
    )
    return select_first_per_row(
        [
            _find_duplicates(rows),
            build_faults(marked["is_unclear"], None, RemarkReason.CONFLICT, UNCLEAR_TEXT),
            build_faults(~marked["is_chosen"], None, RemarkReason.CONFLICT, OTHER_TIME_TEXT),
            build_faults(marked["is_later"], None, RemarkReason.CONFLICT, CONFLICT_TEXT),
        ]
    )


def find_label_conflicts(
    rows: pl.DataFrame, key: Sequence[str], answer: Sequence[str]
) -> pl.DataFrame:
    """Return faults for repeated decisions of one reviewer on one case.

    An exact repeat is a duplicate. If the other rows of a key have different answers, none is
    used, because the intended one is unclear. Rows with equal answers that differ otherwise (such
    as in their time) are conflicts with the first.

    >>> rows = pl.DataFrame({"case_key": ["a", "a", "a"], "label": ["x", "x", "y"]})
    >>> find_label_conflicts(rows, ["case_key"], ["label"])["reason"].to_list()
    ['several-labels', 'duplicate', 'several-labels']
    """
    is_repeat = _find_repeated_rows(rows, key)
    if not is_repeat.any():
        return build_empty_faults()
    answers = rows.select(pl.struct(answer).n_unique().over(key)).to_series()
    detail = "this reviewer gave the case different answers; none is used"
    return select_first_per_row(
        [
            _find_duplicates(rows),
            build_faults(answers > 1, None, RemarkReason.SEVERAL_LABELS, detail),
            build_faults(is_repeat, None, RemarkReason.CONFLICT, CONFLICT_TEXT),
        ]
    )


def _find_duplicates(rows: pl.DataFrame) -> pl.DataFrame:
    return build_faults(
        _find_repeated_rows(rows, rows.columns), None, RemarkReason.DUPLICATE, DUPLICATE_TEXT
    )


def _find_repeated_rows(rows: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Return for each row whether an earlier row equals it in these columns."""
    return ~rows.select(pl.struct(columns).is_first_distinct()).to_series()


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A column of a file, under its own name, that has a text, or another one."""

    column: str
    text: str
    is_equal: bool

    def __str__(self) -> str:
        return f"{self.column}{'=' if self.is_equal else '!='}{self.text}"


def parse_row_condition(text: str) -> RowCondition:
    """Read `COLUMN=TEXT` or `COLUMN!=TEXT`.

    Raises:
        ValueError: the text is neither.

    >>> parse_row_condition("by!=model").is_equal, parse_row_condition("by=a=b").text
    (False, 'a=b')
    """
    column, equals, value = text.partition("=")
    if not (equals and column.removesuffix("!") and value):
        raise ValueError(f"{text!r} chooses no rows; write COLUMN=TEXT or COLUMN!=TEXT")
    return RowCondition(column.removesuffix("!"), value, not column.endswith("!"))


def choose_rows(rows: TextRows, where: str, file: str) -> TextRows:
    """Return the rows that meet a condition; all of them for "".

    Raises:
        ColumnError: the file has no such column, or no row that meets the condition.
        ValueError: the text is no condition.
    """
    if not where:
        return rows
    condition = parse_row_condition(where)
    if condition.column not in rows.cells.columns:
        names = ", ".join(rows.cells.columns) or "no columns"
        raise ColumnError(
            [f"{file}: no column {condition.column!r} to choose rows by; found: {names}"]
        )
    is_equal = rows.cells[condition.column].eq_missing(condition.text)
    is_chosen = is_equal if condition.is_equal else ~is_equal
    if not is_chosen.any():
        raise ColumnError([f"{file}: no row has {condition}; correct the text"])
    return replace(
        rows,
        cells=rows.cells.filter(is_chosen),
        lines=rows.lines.filter(is_chosen),
        others=int((~is_chosen).sum()),
    )
