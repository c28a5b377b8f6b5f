"""The facts about each case, combined from several files, and the recognition of backtests.

The order is cases, predictions, decisions, and within a file its lines. The first value that is not
blank is used; each later value that differs gets a note. Times differ only if their instants do:
10:00 in Vienna and 08:00Z can be equal. A key at two sites stands for two cases, so the files are
refused: an answer of one site must never meet the other's prediction.

In the files of a backtest, cases were predicted after they were decided.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import INSTANT, RecordKind, share_constants
from rollout.engine.evidence.late_senders import LateCounts, count_late
from rollout.engine.evidence.version_uses import DRAWS
from rollout.engine.files.column_map import RECEIVED_AT, ColumnError
from rollout.engine.files.mapped_rows import (
    build_empty_faults,
    build_empty_remarks,
    build_faults,
    find_time_faults,
    find_time_notes,
)
from rollout.engine.files.questions import PredictedAfterwards
from rollout.engine.files.text_formats import convert_to_instants, parse_times
from rollout.engine.records.records import RemarkReason
from rollout.kernel.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rollout.engine.evidence.frames import RecordFrames
    from rollout.engine.files.mapped_rows import MappedRows
    from rollout.engine.files.questions import FileChoices
    from rollout.engine.files.text_formats import SiteZones
    from rollout.kernel.arrays import Ints


class RepeatedKeyError(RolloutError, ValueError):
    """A key stands for cases at two sites."""


CONFLICT_TEXT = "differs from an earlier value for this case; the first is used"


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """The cases, and facts about the case of each row of each file.

    Attributes:
        cases: one row for each case with a site, in the schema of `build_cases_schema`.
        has_case: whether the row's case is in `cases`.
        zone_indices: index in `SiteZones.names` of the zone of the row's site.
        has_repeats: whether the file has other rows of the same case.
        notes: contradictions and doubtful times.
        decided: case_key and decided, when each case was decided first; empty until decisions are
            read.
    """

    cases: pl.DataFrame
    has_case: Mapping[RecordKind, pl.Series]
    zone_indices: Mapping[RecordKind, pl.Series]
    has_repeats: Mapping[RecordKind, pl.Series]
    notes: pl.DataFrame
    decided: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"case_key": pl.String(), "decided": INSTANT})
    )


@dataclass(frozen=True, slots=True)
class _StackedRows:
    """The rows of all files in one sequence, with a case number for each.

    Attributes:
        files: in their order; outcomes, which do not describe cases, are last.
        ids: case number of each row; rows without a key share the number `blank`.
        blank: the highest case number.
        cases: numbers of the cases with a site, in order of first mention.
        position: by case number the index in `cases`, or -1.
        first_mention: by case number the first row with it, or -1.
        whole: of what the files are a part, if they are.
    """

    files: Sequence[MappedRows]
    ids: Ints
    blank: int
    cases: Ints
    position: Ints
    first_mention: Ints
    whole: WholeFiles | None = None

    def get_texts(self, name: str) -> pl.Series:
        """Return the column of all files; case facts in outcomes are null.

        Receipts are those of the first file that has any: predictions and decisions have their own.
        """
        texts = _collect_texts(self.files, name)
        if name != RECEIVED_AT or texts.null_count() == texts.len():
            return texts
        parts = self.split_by_file(texts)
        first = next(kind for kind, part in parts.items() if part.null_count() < part.len())
        chosen = first if self.whole is None else self.whole.receipts
        return pl.concat(
            [part if kind is chosen else part.clear(part.len()) for kind, part in parts.items()]
        )

    def build_remarks(self, fault_frame: pl.DataFrame) -> pl.DataFrame:
        """Convert faults by row of the stack to notes."""
        parts, start = [build_empty_remarks()], 0
        for file in self.files:
            end = start + file.cells.height
            file_faults = fault_frame.filter((pl.col("row") >= start) & (pl.col("row") < end))
            parts.append(file.build_remarks(file_faults.with_columns(pl.col("row") - start)))
            start = end
        return pl.concat(parts)

    def split_by_file(self, column: pl.Series) -> dict[RecordKind, pl.Series]:
        """Split a column of the stack by file."""
        parts, start = {}, 0
        for file in self.files:
            parts[file.kind] = column.slice(start, file.cells.height)
            start += file.cells.height
        return parts


@dataclass(frozen=True, slots=True)
class _CaseFact:
    """One fact of all cases, such as the site.

    Attributes:
        texts: the text in each row of the stack.
        values: the text used for each case.
        agreeing: rows with exactly the text of their case.
        conflicting: rows with another text.
    """

    name: str
    texts: pl.Series
    values: pl.Series
    agreeing: Ints
    conflicting: Ints


@dataclass(frozen=True, slots=True)
class WholeFiles:
    """What a part of files can't tell of the whole.

    Attributes:
        versions: all that predict; a reviewer of such a name is no human.
        receipts: the first kind of file that says when any case was received; None if none does.
    """

    versions: frozenset[str]
    receipts: RecordKind | None


def gather_cases(
    files: Sequence[MappedRows], zones: SiteZones, whole: WholeFiles | None = None
) -> CaseFacts:
    """Return the cases of all files, or of a part of the whole.

    `files` are in the order of `RecordKind`; a cases file must have each key once.

    Raises:
        RepeatedKeyError: a key has two sites.
        ColumnError: a draw can't be read.
    """
    stack = replace(_build_stack(files), whole=whole)
    site, episode = _collect_fact(stack, "site"), _collect_fact(stack, "episode")
    _check_unique_keys(stack, site)
    zone_indices = zones.find_zone_indices(site.values)
    occurred, occurred_notes = _collect_time(stack, "occurred_at", zone_indices, zones.names)
    received, received_notes = _collect_time(stack, "received_at", zone_indices, zones.names)
    draws = _collect_fact(stack, DRAWS)
    _check_draws(draws.values)
    names = dict.fromkeys(name for file in files for name in file.attributes)
    attributes = [_collect_fact(stack, name) for name in names]
    cases = pl.DataFrame(
        [
            stack.get_texts("case_key").gather(stack.first_mention[stack.cases]).alias("case_key"),
            site.values.alias("site"),
            occurred["at"].alias("occurred_at"),
            occurred["text"].alias("occurred_text"),
            occurred["hour"].alias("hour_written"),
            episode.values.alias("episode"),
            received["at"].alias("received_at"),
            received["at"].clear(received.height).alias("known_at"),
            draws.values.alias(DRAWS),
            *(attribute.values.alias(attribute.name) for attribute in attributes),
        ]
    )
    cases = share_constants(cases)
    note_frames = [
        _find_contradictions(episode),
        *(_find_varying(stack, fact) for fact in attributes),
        *(occurred_notes, received_notes, _find_timeless(stack, occurred["text"])),
    ]
    position = stack.position[stack.ids]
    zone_by_row = pl.Series(zone_indices.to_numpy()[position] if cases.height else position * 0)
    return CaseFacts(
        cases=cases,
        has_case=stack.split_by_file(pl.Series(position >= 0)),
        zone_indices=stack.split_by_file(zone_by_row.cast(pl.Int32)),
        has_repeats=_find_repeats(stack),
        notes=stack.build_remarks(pl.concat(note_frames)),
    )


def _check_draws(texts: pl.Series) -> None:
    """Raise ColumnError if a text names no draws of versions."""
    for text in texts.drop_nulls().unique():
        try:
            is_readable = all(isinstance(drawn, bool) for drawn in json.loads(text).values())
        except (AttributeError, ValueError):
            is_readable = False
        if not is_readable:
            example = '{"v1": false}'
            advice = f"write JSON such as {example}, or leave it blank where all versions run"
            raise ColumnError([f"{text!r} in the column `{DRAWS}` names no draws; {advice}"])


def _check_unique_keys(stack: _StackedRows, site: _CaseFact) -> None:
    """Raise RepeatedKeyError if rows of one key have different sites."""
    if site.conflicting.size:
        keys = stack.get_texts("case_key")
        check_unique_keys(
            pl.DataFrame({"case_key": keys, "site": site.texts}).filter(
                keys.is_in(keys.gather(site.conflicting).implode())
            )
        )


def check_unique_keys(rows: pl.DataFrame) -> None:
    """Raise RepeatedKeyError if a key in the columns case_key and site has two sites."""
    sites = rows.drop_nulls().unique(maintain_order=True)
    sites = sites.group_by("case_key", maintain_order=True).agg("site")
    repeated = sites.filter(pl.col("site").list.len() > 1)
    if repeated.height:
        key, (first, second, *_) = repeated.row(0)
        raise RepeatedKeyError(
            f"the key {key!r} stands for cases at two sites, {first} and {second}, as do"
            f" {repeated.height:,} keys in all: a key is unique in a rollout. Write the site into"
            f" the key of both files, as {first}/{key}"
        )


def _collect_texts(files: Sequence[MappedRows], name: str) -> pl.Series:
    is_case_fact = name != "case_key"
    return pl.concat(
        [
            pl.repeat(None, file.cells.height, dtype=pl.String, eager=True)
            if is_case_fact and file.kind is RecordKind.OUTCOMES
            else file.get_texts(name)
            for file in files
        ]
    )


def _build_stack(files: Sequence[MappedRows]) -> _StackedRows:
    keys = _collect_texts(files, "case_key")
    # Categories of their own are freed with the numbers; those that all columns share are not.
    codes = keys.cast(pl.Categorical(pl.Categories.random())).to_physical()
    blank = int(cast("int | None", codes.max()) or 0) + 1
    ids = codes.cast(pl.Int64).fill_null(blank).to_numpy()
    first_mention = _find_first_rows(ids, np.flatnonzero(ids != blank), blank)
    has_site = np.zeros(blank + 1, dtype=np.bool_)
    has_site[ids[_collect_texts(files, "site").is_not_null().to_numpy()]] = True
    # Rows without a key are never a first mention.
    cases = ids[(first_mention[ids] == np.arange(ids.size)) & has_site[ids]]
    position = np.full(blank + 1, -1, dtype=np.int64)
    position[cases] = np.arange(cases.size)
    return _StackedRows(files, ids, blank, cases, position, first_mention)


def _find_first_rows(ids: Ints, rows: Ints, blank: int) -> Ints:
    """Return by case number the first of `rows` with it, or -1."""
    first = np.full(blank + 1, -1, dtype=np.int64)
    # For repeated indices NumPy keeps the last assignment.
    first[ids[rows][::-1]] = rows[::-1]
    return first


def _collect_fact(stack: _StackedRows, name: str) -> _CaseFact:
    texts = stack.get_texts(name)
    has_value = texts.is_not_null().to_numpy() & (stack.position[stack.ids] >= 0)
    rows = np.flatnonzero(has_value)
    first = _find_first_rows(stack.ids, rows, stack.blank)
    later = rows[first[stack.ids[rows]] != rows]
    differs = (texts.gather(later) != texts.gather(first[stack.ids[later]])).to_numpy()
    conflicting = later[differs]
    has_value[conflicting] = False
    first_rows = first[stack.cases]
    indices = pl.Series(first_rows).set(pl.Series(first_rows < 0), None)
    return _CaseFact(name, texts, texts.gather(indices), np.flatnonzero(has_value), conflicting)


def _collect_time(
    stack: _StackedRows, name: str, zone_indices: pl.Series, zones: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return `at`, `hour` and `text` of the cases, and notes by row."""
    fact = _collect_fact(stack, name)
    times = parse_times(fact.values)
    placed_times = convert_to_instants(times, zone_indices, zones)
    doubtful_times = pl.concat(
        [
            find_time_faults(fact.values, name, times),
            find_time_notes(fact.values, name, placed_times),
        ]
    )
    agreeing = pl.DataFrame(
        {"row": fact.agreeing, "case": stack.position[stack.ids[fact.agreeing]]}
    )
    note_frame = agreeing.join(doubtful_times.rename({"row": "case"}), on="case").drop("case")
    case_times = pl.DataFrame([placed_times["at"], times["hour"], fact.values.alias("text")])
    return case_times, pl.concat(
        [note_frame, _find_other_times(stack, fact, placed_times["at"], zone_indices, zones)]
    )


def _find_other_times(
    stack: _StackedRows,
    fact: _CaseFact,
    case_instants: pl.Series,
    zone_indices: pl.Series,
    zones: Sequence[str],
) -> pl.DataFrame:
    """Return notes on rows with another time than their case."""
    text = fact.texts.gather(fact.conflicting)
    cases = stack.position[stack.ids[fact.conflicting]]
    times = parse_times(text)
    placed_times = convert_to_instants(times, zone_indices.gather(cases), zones)
    is_same = (placed_times["at"] == case_instants.gather(cases)).fill_null(value=False)
    fault_frames = [
        build_faults(~is_same, fact.name, RemarkReason.CONFLICT, CONFLICT_TEXT, text),
        find_time_faults(text, fact.name, times),
        find_time_notes(text, fact.name, placed_times),
    ]
    rows = pl.Series(fact.conflicting)
    return pl.concat(frame.with_columns(row=rows.gather(frame["row"])) for frame in fault_frames)


def _find_contradictions(fact: _CaseFact) -> pl.DataFrame:
    text = fact.texts.gather(fact.conflicting)
    conflicts = build_faults(
        text.is_not_null(), fact.name, RemarkReason.CONFLICT, CONFLICT_TEXT, text
    )
    return conflicts.with_columns(row=pl.Series(fact.conflicting, dtype=pl.Int64))


def _find_varying(stack: _StackedRows, fact: _CaseFact) -> pl.DataFrame:
    """Return a note for each file in which an attribute varies within cases."""
    fault_frames, start = [build_empty_faults()], 0
    for file in stack.files:
        end = start + file.cells.height
        file_rows = fact.conflicting[(fact.conflicting >= start) & (fact.conflicting < end)]
        if file_rows.size:
            text = f"varies within cases, in {file_rows.size} rows; the first value of each is used"
            first = build_faults(pl.Series([True]), fact.name, RemarkReason.VARIES, text)
            fault_frames.append(first.with_columns(row=pl.lit(file_rows[0], pl.Int64)))
        start = end
    return pl.concat(fault_frames)


def _find_timeless(stack: _StackedRows, text: pl.Series) -> pl.DataFrame:
    missing_times = build_faults(
        text.is_null(), "occurred_at", RemarkReason.NO_TIME, "no file has the time of this case"
    )
    first_mention = pl.Series(stack.first_mention[stack.cases], dtype=pl.Int64)
    return missing_times.with_columns(row=first_mention.gather(missing_times["row"]))


def _find_repeats(stack: _StackedRows) -> dict[RecordKind, pl.Series]:
    has_repeats = {}
    for kind, ids in stack.split_by_file(pl.Series(stack.ids)).items():
        has_repeats[kind] = pl.Series(np.bincount(ids.to_numpy(), minlength=1)[ids.to_numpy()] > 1)
    return has_repeats


def find_backtest_question(
    file: str, records: RecordFrames, choices: FileChoices
) -> PredictedAfterwards | None:
    """Return a question if a file of predictions looks like a backtest, and no option says it."""
    if choices.backtest is not None:
        return None
    counts = count_late(records)
    if not counts.is_backtest:
        return None
    return PredictedAfterwards(file=file, decided=counts.sent, late=counts.late)


def count_backtest(records: RecordFrames, choices: FileChoices) -> RecordFrames:
    """Return the records; those of a backtest count as predicted when their cases occurred.

    Nobody can tell from files whether the model saw the decisions: who says `--backtest` vouches.
    """
    counts = count_late(records) if choices.backtest else LateCounts()
    return records if counts.is_negligible else clear_prediction_times(records, counts.late)


def clear_prediction_times(records: RecordFrames, late: int) -> RecordFrames:
    """Return the records of a backtest; without a time a prediction has that of its case."""
    untimed = pl.lit(None, INSTANT)
    predictions = records.predictions.with_columns(at=untimed, received_at=untimed)
    return replace(records, predictions=predictions, backtest=late)
