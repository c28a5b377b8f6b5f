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


NO_LABEL = "no label"
"""What is typed for `--unsure ""`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer to a question: an option with its value, and what is typed at a prompt."""

    option: str
    value: str
    name: str


def offer(option: str, *values: str) -> tuple[Choice, ...]:
    """Return a choice for each value of an option, by its own name."""
    return tuple(Choice(option, value, value) for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingQuestion(ABC):
    """Several readings fit the rows of a file, or none does.

    Attributes:
        title: what the choices are about, as a prompt has it.
        file: name of the file, or of both files.
        records: the kind of records in the file; None for both files.
    """

    title: ClassVar[str]
    file: str
    records: RecordKind | None = None

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """The possible answers, at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelimiterQuestion(ReadingQuestion):
    """Several characters can separate the columns; `columns` has how many by each."""

    title = "delimiter"
    columns: tuple[tuple[str, int], ...]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The delimiters."""
        return offer("--delimiter", *(delimiter for delimiter, _ in self.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecimalQuestion(ReadingQuestion):
    """A comma in a number can be a decimal comma; `point` is a number with a point, if any."""

    title = "decimal"
    comma: str
    point: str | None = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The decimal signs."""
        return offer("--decimal", ".", ",")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleQuestion(ReadingQuestion):
    """Confidences can be shares or percent."""

    title = "percent"

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Percent or shares."""
        return offer("--percent", "true", "false")


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
class OtherScale(ScaleQuestion):
    """Confidences are beyond 1 and don't fill 0 to 100."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactTimes(ReadingQuestion):
    """Times such as `time` can be Unix seconds, or date and time in ten digits."""

    title = "date-format"
    time: str

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The forms of times."""
        return offer("--date-format", "unix-seconds", "%y%m%d%H%M")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOrder(ReadingQuestion):
    """Dates can have the day or the month first, or no order fits all.

    Attributes:
        time: a time that can be both.
        day_first, month_first: times that contradict each other, if any.
    """

    title = "date-format"
    time: str
    day_first: str | None = None
    month_first: str | None = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The orders."""
        return offer("--date-format", "day-first", "month-first")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsureLabel(ReadingQuestion):
    """A label of both sides can mean that a reviewer was unsure."""

    title = "unsure"
    label: str

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The label, or none for a label like the others."""
        return (*offer("--unsure", self.label), Choice("--unsure", "", NO_LABEL))


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulLabel(ReadingQuestion):
    """Both sides answer with a text, such as `none`, that can mean a missing answer."""

    title = "meaning"
    label: str

    @property
    def choices(self) -> tuple[Choice, ...]:
        """A label, or no answer."""
        return (
            Choice("--label", self.label, "label"),
            Choice("--unsure", self.label, "no answer"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsOfSide(ReadingQuestion):
    """One file holds both sides, and nothing says which rows are this side's.

    Attributes:
        condition: the rows that seem to be, as `identified_by=Computer vision`.
        rows: how many those are.
    """

    title = "rows"
    condition: str
    rows: int

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The proposal."""
        return (Choice(f"--{self.records}-where", self.condition, "yes"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualSides(ReadingQuestion):
    """Model and humans gave the same answer in each of `pairs` rows."""

    title = "equal sides"
    pairs: int

    @property
    def choices(self) -> tuple[Choice, ...]:
        """They are two sides."""
        return (Choice("--equal-sides", "true", "yes"),)


@dataclass(frozen=True, slots=True)
class FormPair:
    """A text of a column and one of the other side that differs in form only."""

    column: str
    text: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SameForm(ReadingQuestion):
    """Texts of the two sides differ in form only, such as 1 and 1.0."""

    title = "same form"
    pairs: tuple[FormPair, ...]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The same, or different ones."""
        return (Choice("--same-form", "true", "yes"), Choice("--same-form", "false", "no"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingLabels(ReadingQuestion):
    """Many of the `predicted` cases have no decision."""

    title = "labels"
    predicted: int
    without: int

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Labels of a sample, or of all cases."""
        return offer("--labels", "sampled", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedAfterwards(ReadingQuestion):
    """Of the `decided` cases `late` were predicted after they were decided, as in a backtest."""

    title = "backtest"
    decided: int
    late: int

    @property
    def choices(self) -> tuple[Choice, ...]:
        """They count, or are missing."""
        return (Choice("--backtest", "true", "yes"), Choice("--backtest", "false", "no"))
