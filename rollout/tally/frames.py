"""The records of a history as typed frames, and the account of every row that was read.

Whoever reads records (files, imports, a store) ends here, and whoever counts starts here. A frame
holds only rows that are used; rows that are not stand in `set_aside`, each with its reason; rows
that are used with a reserve stand in both their frame and `notes`. For each kind of record
rows read = rows used + rows set aside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VALUE = "value:"
"""Prefix of a lever's answer in predictions, decisions and outcomes: `value:alarm`."""
ATTRIBUTE = "attribute:"
"""Prefix of a case's attribute in cases: `attribute:camera`."""

RIGHT = "right:"
"""Prefix of a lever's right answer in known cases: `right:alarm`."""

INSTANT = pl.Datetime("us", "UTC")
EXPOSURES = ("blind", "assisted", "revealed", "unknown")

Schema = dict[str, pl.DataType]


class Kind(StrEnum):
    """What a file holds; the order is the order in which files may describe a case."""

    CASES = "cases"
    PREDICTIONS = "predictions"
    DECISIONS = "decisions"
    OUTCOMES = "outcomes"


class Reason(StrEnum):
    """Why a row was set aside, or what a note says of a row that is used."""

    # Set aside: the row cannot be read.
    BAD_ENCODING = "bad-encoding"  # bytes that are not UTF-8
    BAD_QUOTING = "bad-quoting"  # a quote that is never closed, or stands inside a bare field
    FIELD_COUNT = "field-count"  # more or fewer fields than the header
    BAD_JSON = "bad-json"  # no JSON object, or one that names a key twice
    MISSING_VALUE = "missing-value"  # a blank where a record must have something
    BAD_NUMBER = "bad-number"
    BAD_WORD = "bad-word"  # none of the few words that the column may hold
    # Set aside when a record's own time is meant, a note when it is the case's.
    IMPOSSIBLE_TIME = "impossible-time"  # of the right form, but no such date or hour: 29 February
    UNREADABLE_TIME = "unreadable-time"  # not of the form of a time
    # Set aside: the row can be read, and is not used.
    NO_CASE_YET = "no case yet"  # no file says at which site the case was
    DUPLICATE = "duplicate"  # says again what an earlier row says
    CONFLICT = "conflict"  # same key as an earlier row, other content; as a note: of its case
    SEVERAL_LABELS = "several-labels"  # one reviewer, one case, different answers
    # Notes: the row is used.
    NO_TIME = "no-time"  # no file says when the case occurred
    GAP_TIME = "gap-time"  # a local time that the spring change leaves out
    AMBIGUOUS_TIME = "ambiguous-time"  # a local time that the autumn change holds twice
    FAILED = "failed"  # a prediction without an answer
    UNSURE = "unsure"  # a decision without an answer
    DROPPED_ANSWER = "dropped-answer"  # an answer beside an error, or beside "unsure"
    VARIES = "varies"  # an attribute with several values within one case; the first is kept
    IGNORED = "ignored"  # a column that nothing uses


UNREADABLE = frozenset(
    {
        Reason.BAD_ENCODING,
        Reason.BAD_QUOTING,
        Reason.FIELD_COUNT,
        Reason.BAD_JSON,
        Reason.MISSING_VALUE,
        Reason.BAD_NUMBER,
        Reason.BAD_WORD,
        Reason.IMPOSSIBLE_TIME,
        Reason.UNREADABLE_TIME,
    }
)
"""Reasons at which strict reading stops: something in the row could not be read."""

REMARK_SCHEMA: Schema = {
    "records": pl.String(),  # a Kind
    "file": pl.String(),  # its name, without folders
    "line": pl.Int64(),  # 1-based physical line (Parquet: row); null when of a whole column
    "column": pl.String(),  # as the file calls it; null when of the whole row
    "reason": pl.String(),  # a Reason
    "detail": pl.String(),  # the text that was found, or a sentence
    "case_key": pl.String(),  # null when it could not be read
}
"""Schema of `Records.set_aside` and `Records.notes`."""


def cases_schema(attributes: Sequence[str] = ()) -> Schema:
    """Columns of `Records.cases`: one row per case, in order of first mention.

    `occurred_at` is null when the time is missing, impossible or unreadable; `occurred_text` is
    as written; `hour_written` is the hour of the day as written (0 to 23, no zone applied), also
    of an impossible date. Such cases count in record-level figures and never in evidence.
    """
    return {
        "case_key": pl.String(),
        "site": pl.String(),
        "occurred_at": INSTANT,
        "occurred_text": pl.String(),
        "hour_written": pl.Int8(),
        "episode": pl.String(),
        "received_at": INSTANT,
        **{ATTRIBUTE + name: pl.String() for name in attributes},
    }


def predictions_schema(levers: Sequence[str]) -> Schema:
    """Columns of `Records.predictions`: one row per case and version.

    A null value is a failed prediction; `confidence` is a share, 0 to 1; `at` null means that
    the record has no time of its own (its case's holds); `latency_ms` is at least 0.
    """
    return {
        "case_key": pl.String(),
        "version": pl.String(),
        **{VALUE + lever: pl.String() for lever in levers},
        "confidence": pl.Float64(),
        "at": INSTANT,
        "latency_ms": pl.Float64(),
        "error": pl.String(),
    }


def decisions_schema(levers: Sequence[str]) -> Schema:
    """Columns of `Records.decisions`: one row per case and reviewer.

    `unsure` is true where any lever has no answer. `exposure` is one of `EXPOSURES`, `unknown`
    where the file does not say; what that means for evidence is the policy's business.
    `started_at` is when the person began on the case, null where nobody noted it or where `at` is
    not known by itself: how long a decision took is `at` less `started_at`.
    """
    return {
        "case_key": pl.String(),
        "reviewer": pl.String(),
        **{VALUE + lever: pl.String() for lever in levers},
        "unsure": pl.Boolean(),
        "exposure": pl.String(),
        "seat": pl.Int16(),
        "at": INSTANT,
        "started_at": INSTANT,
    }


def known_schema(levers: Sequence[str]) -> Schema:
    """Columns of `Records.known`: one row per known case and person who judged it.

    `right:<lever>` is the answer that is known, null on a lever of which none is.
    """
    return {
        "case_key": pl.String(),
        "reviewer": pl.String(),
        **{VALUE + lever: pl.String() for lever in levers},
        **{RIGHT + lever: pl.String() for lever in levers},
        "unsure": pl.Boolean(),
        "at": INSTANT,
        "started_at": INSTANT,
    }


def outcomes_schema(levers: Sequence[str]) -> Schema:
    """Columns of `Records.outcomes`: one row per case; a value, a harm, or both."""
    return {
        "case_key": pl.String(),
        **{VALUE + lever: pl.String() for lever in levers},
        "harm": pl.String(),
        "at": INSTANT,
    }


@dataclass(frozen=True, slots=True)
class RowCount:
    """What became of the rows of one file: `rows` = `used` + the sum of `set_aside`.

    Notes are counted beside this: a row with two notes counts twice, and a row that is set aside
    may have one too.
    """

    file: str
    rows: int
    used: int
    set_aside: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        """Say whether every row read is either used or set aside."""
        return self.rows == self.used + sum(self.set_aside.values())


@dataclass(frozen=True, slots=True)
class Records:
    """A history: its cases, what was said of them, and what became of every row.

    `read` has one entry per file, by `Kind`. No outcomes file gives an empty frame. `known` holds
    verdicts on known cases, which are no records of those cases: a service has them, files don't.
    Of a part of a history `people` says how everybody stands in the whole of it, as
    `rollout.tally.reviewer_checks.standings` gives it; None where that follows from these records.
    """

    cases: pl.DataFrame
    predictions: pl.DataFrame
    decisions: pl.DataFrame
    outcomes: pl.DataFrame
    set_aside: pl.DataFrame
    notes: pl.DataFrame
    read: Mapping[Kind, RowCount]
    known: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=known_schema(())))
    people: pl.DataFrame | None = None

    @property
    def levers(self) -> tuple[str, ...]:
        """Ids of the levers, in the order of the policy."""
        return _named(VALUE, self.predictions)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the cases' attributes, without prefix."""
        return _named(ATTRIBUTE, self.cases)


def _named(prefix: str, frame: pl.DataFrame) -> tuple[str, ...]:
    return tuple(name.removeprefix(prefix) for name in frame.columns if name.startswith(prefix))
