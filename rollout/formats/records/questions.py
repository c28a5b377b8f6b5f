"""Questions about recorded files that only a user can answer.

A question holds facts. `question_texts` has the sentence of each kind; a terminal asks all open
questions, and elsewhere one refusal names them with the options that decide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from rollout.tally.frames import RecordKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingQuestion(ABC):
    """Several readings fit the rows of a file, or none does.

    Attributes:
        option: the option that decides, such as `--date-format`.
        file: name of the file, or of both files.
        records: the kind of records in the file; None for both files.
    """

    option: ClassVar[str]
    file: str
    records: RecordKind | None = None

    @property
    @abstractmethod
    def choices(self) -> tuple[str, ...]:
        """The values that the option can have here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelimiterQuestion(ReadingQuestion):
    """Several characters can separate the columns; `columns` has how many by each."""

    option = "--delimiter"
    columns: tuple[tuple[str, int], ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """The delimiters."""
        return tuple(delimiter for delimiter, _ in self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecimalQuestion(ReadingQuestion):
    """A comma in a number can be a decimal comma; `point` is a number with a point, if any."""

    option = "--decimal"
    comma: str
    point: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The decimal signs."""
        return (".", ",")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleQuestion(ReadingQuestion):
    """Confidences can be shares or percent."""

    option = "--percent"

    @property
    def choices(self) -> tuple[str, ...]:
        """Percent or shares."""
        return ("true", "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedConfidences(ScaleQuestion):
    """Some confidences have a percent sign, such as `confidence`, and some have none."""

    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertainConfidences(ScaleQuestion):
    """Every confidence is 0 or 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedConfidences(ScaleQuestion):
    """Some of `total` confidences are above 1, such as `confidence`; the others are not."""

    above: int
    total: int
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactTimes(ReadingQuestion):
    """Times such as `time` can be Unix seconds, or date and time in ten digits."""

    option = "--date-format"
    time: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The forms of times."""
        return ("unix-seconds", "%y%m%d%H%M")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOrder(ReadingQuestion):
    """Dates can have the day or the month first, or no order fits all.

    Attributes:
        time: a time that can be both.
        day_first, month_first: times that contradict each other, if any.
    """

    option = "--date-format"
    time: str
    day_first: str | None = None
    month_first: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The orders."""
        return ("day-first", "month-first")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsureLabel(ReadingQuestion):
    """A label of both sides can mean that a reviewer was unsure."""

    option = "--unsure"
    label: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The label, or none for a label like the others."""
        return (self.label, "")
