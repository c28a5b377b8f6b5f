"""Why a row of records was rejected, and notes on rows that are used."""

from enum import StrEnum


class RemarkReason(StrEnum):
    """Why a row was rejected, or the note on a used row."""

    # Rejected: the row can't be read.
    BAD_ENCODING = "bad-encoding"  # bytes that are not UTF-8
    BAD_QUOTING = "bad-quoting"  # a quote that is not closed, or inside an unquoted field
    FIELD_COUNT = "field-count"  # more or fewer fields than the header
    BAD_JSON = "bad-json"  # not a JSON object, or with a duplicate key
    MISSING_VALUE = "missing-value"  # a required value is blank
    BAD_NUMBER = "bad-number"
    BAD_WORD = "bad-word"  # not one of the column's allowed words
    # Rejected for a record's own time; a note for the case's time.
    IMPOSSIBLE_TIME = "impossible-time"  # valid form, but no such date or hour: 30 February
    UNREADABLE_TIME = "unreadable-time"  # not a time
    # Rejected: the row can be read, but is not used.
    NO_CASE_YET = "no case yet"  # no file has the case's site
    DUPLICATE = "duplicate"  # repeats an earlier row
    CONFLICT = "conflict"  # key of an earlier row, other content; as a note: of the case
    OTHER_SOURCE = "other-source"  # a decision of a source that a replay leaves out
    MODEL_REVIEWER = "model-reviewer"  # a decision in the name of a version
    SEVERAL_LABELS = "several-labels"  # one reviewer, one case, different answers
    # Notes: the row is used.
    NO_TIME = "no-time"  # no file has the case's time
    GAP_TIME = "gap-time"  # a local time skipped by the change to summer time
    AMBIGUOUS_TIME = "ambiguous-time"  # a local time that occurs twice at the change to winter time
    FAILED = "failed"  # a prediction without an answer
    UNSURE = "unsure"  # a decision without an answer
    DROPPED_ANSWER = "dropped-answer"  # an answer together with an error or "unsure"
    VARIES = "varies"  # an attribute with several values within one case; the first is kept
    PLACEHOLDER = "placeholder"  # a text such as `nan`, read as missing
    IGNORED = "ignored"  # an unused column


UNREADABLE_REASONS = frozenset(
    {
        RemarkReason.BAD_ENCODING,
        RemarkReason.BAD_QUOTING,
        RemarkReason.FIELD_COUNT,
        RemarkReason.BAD_JSON,
        RemarkReason.MISSING_VALUE,
        RemarkReason.BAD_NUMBER,
        RemarkReason.BAD_WORD,
        RemarkReason.IMPOSSIBLE_TIME,
        RemarkReason.UNREADABLE_TIME,
    }
)
"""Reasons at which strict reading stops: a part of the row is unreadable."""
