"""Cases, put together from what several files say of them.

Files speak in the order cases, predictions, decisions; within a file the lines do. Of each fact
the first that is not blank is kept, and whoever says otherwise later is noted. A time says
otherwise only when it is another instant: 10:00 in Vienna and 08:00Z may be one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from rollout.formats.records.rejected_rows import faults, no_faults, no_remarks
from rollout.formats.records.times import instants, read_times
from rollout.formats.records.values import time_faults, time_notes
from rollout.tally.frames import Kind, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from rollout.formats.records.mapped_rows import NamedRows
    from rollout.formats.records.times import Zones

    Indices = npt.NDArray[np.int64]

KEPT = "is not what was said of this case before; the first is kept"
"""Detail of a note on a row that contradicts its case."""


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """The cases, and for each row of each file which case it belongs to.

    Args:
        cases: as `cases_schema` says, one row per case whose site is known.
        described: for each row of each file: does its case stand in `cases`?
        places: for each row of each file the index of its site's zone in `Zones.names`.
        again: for each row of each file: has the file other rows of the same case?
        notes: contradictions and doubtful times.
    """

    cases: pl.DataFrame
    described: Mapping[Kind, pl.Series]
    places: Mapping[Kind, pl.Series]
    again: Mapping[Kind, pl.Series]
    notes: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Stack:
    """The rows of all files one upon another, with the case of each.

    Args:
        files: the files in their order; outcomes, which say nothing of cases, come last.
        ids: for each row the number of its case; rows without a key share the number `blank`.
        blank: the highest number.
        cases: the numbers of the cases whose site is known, in order of first mention.
        position: for each number its place in `cases`, -1 where it has none.
        mention: for each number the first row that names it, -1 where there is none.
    """

    files: Sequence[NamedRows]
    ids: Indices
    blank: int
    cases: Indices
    position: Indices
    mention: Indices

    def texts(self, name: str) -> pl.Series:
        """Return what all files say under one name; outcomes say nothing of cases."""
        return _texts(self.files, name)

    def remarks(self, found: pl.DataFrame) -> pl.DataFrame:
        """Put faults by row of the stack into the form of notes."""
        parts, start = [no_remarks()], 0
        for file in self.files:
            end = start + file.cells.height
            file_faults = found.filter((pl.col("row") >= start) & (pl.col("row") < end))
            parts.append(file.remarks(file_faults.with_columns(pl.col("row") - start)))
            start = end
        return pl.concat(parts)

    def by_file(self, of_rows: pl.Series) -> dict[Kind, pl.Series]:
        """Cut a column of the stack into the files' parts."""
        parts, start = {}, 0
        for file in self.files:
            parts[file.kind] = of_rows.slice(start, file.cells.height)
            start += file.cells.height
        return parts


@dataclass(frozen=True, slots=True)
class _Fact:
    """One fact of all cases.

    Args:
        name: its name.
        texts: what each row of the stack says.
        kept: for each case what is kept.
        agreeing: rows that say what is kept, letter by letter.
        others: rows that say something else.
    """

    name: str
    texts: pl.Series
    kept: pl.Series
    agreeing: Indices
    others: Indices


def gather_cases(files: Sequence[NamedRows], zones: Zones) -> CaseFacts:
    """Put the cases together.

    Args:
        files: all files, in the order of `Kind`. A cases file must have each key once.
        zones: zones of the sites.
    """
    stack = _stack(files)
    site, episode = _fact(stack, "site"), _fact(stack, "episode")
    zone_indices = zones.places(site.kept)
    occurred, occurred_notes = _time(stack, "occurred_at", zone_indices, zones.names)
    received, received_notes = _time(stack, "received_at", zone_indices, zones.names)
    attributes = [_fact(stack, name) for name in _attributes(files)]
    cases = pl.DataFrame(
        [
            stack.texts("case_key").gather(stack.mention[stack.cases]).alias("case_key"),
            site.kept.alias("site"),
            occurred["at"].alias("occurred_at"),
            occurred["text"].alias("occurred_text"),
            occurred["hour"].alias("hour_written"),
            episode.kept.alias("episode"),
            received["at"].alias("received_at"),
            *(attribute.kept.alias(attribute.name) for attribute in attributes),
        ]
    )
    note_frames = [
        *(_contradictions(fact) for fact in (site, episode)),
        *(_varying(stack, fact) for fact in attributes),
        *(occurred_notes, received_notes, _timeless(stack, occurred["text"])),
    ]
    position = stack.position[stack.ids]
    zone_by_row = pl.Series(zone_indices.to_numpy()[position] if cases.height else position * 0)
    return CaseFacts(
        cases=cases,
        described=stack.by_file(pl.Series(position >= 0)),
        places=stack.by_file(zone_by_row.cast(pl.Int32)),
        again=_again(stack),
        notes=stack.remarks(pl.concat(note_frames)),
    )


def _texts(files: Sequence[NamedRows], name: str) -> pl.Series:
    is_case_fact = name != "case_key"
    return pl.concat(
        [
            _nothing(file) if is_case_fact and file.kind is Kind.OUTCOMES else file.text(name)
            for file in files
        ]
    )


def _nothing(file: NamedRows) -> pl.Series:
    return pl.repeat(None, file.cells.height, dtype=pl.String, eager=True)


def _stack(files: Sequence[NamedRows]) -> _Stack:
    keys = _texts(files, "case_key")
    # Polars numbers the categories by itself; the numbers may have gaps.
    codes = keys.cast(pl.Categorical).to_physical()
    blank = int(cast("int | None", codes.max()) or 0) + 1
    ids = codes.cast(pl.Int64).fill_null(blank).to_numpy()
    first_mention = _first(ids, np.flatnonzero(ids != blank), blank)
    has_site = np.zeros(blank + 1, dtype=np.bool_)
    has_site[ids[_texts(files, "site").is_not_null().to_numpy()]] = True
    # Rows without a key are nobody's first mention.
    cases = ids[(first_mention[ids] == np.arange(ids.size)) & has_site[ids]]
    position = np.full(blank + 1, -1, dtype=np.int64)
    position[cases] = np.arange(cases.size)
    return _Stack(files, ids, blank, cases, position, first_mention)


def _first(ids: Indices, rows: Indices, blank: int) -> Indices:
    """Return for each number the first of `rows` that has it, -1 where none has."""
    first = np.full(blank + 1, -1, dtype=np.int64)
    # Of repeated indices numpy keeps the last that is assigned.
    first[ids[rows][::-1]] = rows[::-1]
    return first


def _fact(stack: _Stack, name: str) -> _Fact:
    texts = stack.texts(name)
    has_value = texts.is_not_null().to_numpy() & (stack.position[stack.ids] >= 0)
    rows = np.flatnonzero(has_value)
    first = _first(stack.ids, rows, stack.blank)
    later = rows[first[stack.ids[rows]] != rows]
    differs = (texts.gather(later) != texts.gather(first[stack.ids[later]])).to_numpy()
    conflicting = later[differs]
    has_value[conflicting] = False
    first_rows = first[stack.cases]
    indices = pl.Series(first_rows).set(pl.Series(first_rows < 0), None)
    return _Fact(name, texts, texts.gather(indices), np.flatnonzero(has_value), conflicting)


def _attributes(files: Sequence[NamedRows]) -> list[str]:
    return list(dict.fromkeys(name for file in files for name in file.attributes))


def _time(
    stack: _Stack, name: str, places: pl.Series, zones: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return `at`, `hour` and `text` of the cases, and what there is to note by row."""
    fact = _fact(stack, name)
    times = read_times(fact.kept)
    placed_times = instants(times, places, zones)
    doubtful_times = pl.concat(
        [time_faults(fact.kept, name, times), time_notes(fact.kept, name, placed_times)]
    )
    agreeing = pl.DataFrame(
        {"row": fact.agreeing, "case": stack.position[stack.ids[fact.agreeing]]}
    )
    note_frame = agreeing.join(doubtful_times.rename({"row": "case"}), on="case").drop("case")
    case_times = pl.DataFrame([placed_times["at"], times["hour"], fact.kept.alias("text")])
    return case_times, pl.concat(
        [note_frame, _other_times(stack, fact, placed_times["at"], places, zones)]
    )


def _other_times(
    stack: _Stack, fact: _Fact, kept: pl.Series, places: pl.Series, zones: Sequence[str]
) -> pl.DataFrame:
    """Return notes on the rows which write another time than their case's."""
    text = fact.texts.gather(fact.others)
    cases = stack.position[stack.ids[fact.others]]
    times = read_times(text)
    placed_times = instants(times, places.gather(cases), zones)
    is_same = (placed_times["at"] == kept.gather(cases)).fill_null(value=False)
    fault_frames = [
        faults(~is_same, fact.name, Reason.CONFLICT, KEPT, text),
        time_faults(text, fact.name, times),
        time_notes(text, fact.name, placed_times),
    ]
    rows = pl.Series(fact.others)
    return pl.concat(frame.with_columns(row=rows.gather(frame["row"])) for frame in fault_frames)


def _contradictions(fact: _Fact) -> pl.DataFrame:
    text = fact.texts.gather(fact.others)
    conflicts = faults(text.is_not_null(), fact.name, Reason.CONFLICT, KEPT, text)
    return conflicts.with_columns(row=pl.Series(fact.others, dtype=pl.Int64))


def _varying(stack: _Stack, fact: _Fact) -> pl.DataFrame:
    """Return one note a file for an attribute that is not the case's but the row's."""
    fault_frames, start = [no_faults()], 0
    for file in stack.files:
        end = start + file.cells.height
        file_rows = fact.others[(fact.others >= start) & (fact.others < end)]
        if file_rows.size:
            text = f"varies within cases, in {file_rows.size} rows; the first value of each is kept"
            first = faults(pl.Series([True]), fact.name, Reason.VARIES, text)
            fault_frames.append(first.with_columns(row=pl.lit(file_rows[0], pl.Int64)))
        start = end
    return pl.concat(fault_frames)


def _timeless(stack: _Stack, text: pl.Series) -> pl.DataFrame:
    missing_times = faults(
        text.is_null(), "occurred_at", Reason.NO_TIME, "no file says when it occurred"
    )
    first_mention = pl.Series(stack.mention[stack.cases], dtype=pl.Int64)
    return missing_times.with_columns(row=first_mention.gather(missing_times["row"]))


def _again(stack: _Stack) -> dict[Kind, pl.Series]:
    has_repeats = {}
    for kind, ids in stack.by_file(pl.Series(stack.ids)).items():
        counts = np.bincount(ids.to_numpy(), minlength=1)
        has_repeats[kind] = pl.Series(counts[ids.to_numpy()] > 1)
    return has_repeats
