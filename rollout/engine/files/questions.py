"""Questions about recorded files that only a user can answer: their sentences, options and answers.

A question holds facts. A terminal asks all open questions; elsewhere one refusal names them with
the options that decide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import TYPE_CHECKING, Any, ClassVar

from rollout.kernel.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rollout.engine.evidence.frames import RecordKind


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
    choices = offer("--decimal", ".", ",")
    comma: str
    point: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleQuestion(ReadingQuestion):
    """Confidences can be shares or percent."""

    title = "percent"
    choices = offer("--percent", "true", "false")


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
    choices = offer("--date-format", "unix-seconds", "%y%m%d%H%M")
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOrder(ReadingQuestion):
    """Dates can have the day or the month first, or no order fits all.

    Attributes:
        time: a time that can be both.
        day_first, month_first: times that contradict each other, if any.
    """

    title = "date-format"
    choices = offer("--date-format", "day-first", "month-first")
    time: str
    day_first: str | None = None
    month_first: str | None = None


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
    choices = (Choice("--equal-sides", "true", "yes"),)
    pairs: int


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
    choices = (Choice("--same-form", "true", "yes"), Choice("--same-form", "false", "no"))
    pairs: tuple[FormPair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingLabels(ReadingQuestion):
    """Many of the `predicted` cases have no decision."""

    title = "labels"
    choices = offer("--labels", "sampled", "all")
    predicted: int
    without: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedAfterwards(ReadingQuestion):
    """Of the `decided` cases `late` were predicted after they were decided, as in a backtest."""

    title = "backtest"
    choices = (Choice("--backtest", "true", "yes"), Choice("--backtest", "false", "no"))
    decided: int
    late: int


@dataclass(frozen=True, slots=True)
class FileChoices:
    """Answers to questions, by option.

    Attributes:
        label: texts such as `none` that are labels.
        unsure: texts that mean: no answer.
        mappings: rows of a side, as entries of a column map.
        same_form: whether texts that differ in form only are the same; None if nobody said it.
        labels: `sampled` if a sample of the cases was labelled, `all` if decisions are missing.
        equal_sides: whether two sides that agree everywhere are two.
        backtest: whether predictions count that were made after the decisions; None if nobody said
            it.
    """

    label: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    mappings: tuple[str, ...] = ()
    same_form: bool | None = None
    labels: str | None = None
    equal_sides: bool = False
    backtest: bool | None = None

    def add(self, choice: Choice) -> FileChoices:
        """Return these choices with one more."""
        name = choice.option.removeprefix("--").replace("-", "_")
        changes: dict[str, Any]
        match name:
            case "label" | "unsure":
                changes = {name: (*getattr(self, name), choice.value)}
            case "same_form" | "equal_sides" | "backtest":
                changes = {name: choice.value == "true"}
            case "labels":
                changes = {name: choice.value}
            case "predictions_where" | "decisions_where":
                mapping = map_rows_of(choice.option, choice.value)
                changes = {"mappings": (*self.mappings, mapping)}
            case _:
                raise ValueError(f"{choice.option} is no choice about recorded files")
        return replace(self, **changes)

    def list_arguments(self) -> list[str]:
        """Return the options of a command that reads forms and labels in the same way."""
        labels = [] if self.labels is None else ["--labels", self.labels]
        return [*labels, *spell_flag("--same-form", self.same_form)]

    def list_replay_arguments(self) -> list[str]:
        """Return the options of a replay of the same files."""
        sides = spell_flag("--equal-sides", self.equal_sides or None)
        return [*self.list_arguments(), *sides, *spell_flag("--backtest", self.backtest)]


def spell_flag(option: str, value: bool | None) -> list[str]:
    """Return an option that is on or off, as it is typed; [] of None."""
    if value is None:
        return []
    return [option if value else f"--no-{option.removeprefix('--')}"]


NO_CHOICES = FileChoices()


def map_rows_of(option: str, condition: str) -> str:
    """Return the entry of a column map that chooses the rows of a side.

    >>> map_rows_of("--decisions-where", "by!=model")
    'decisions.where=by!=model'
    """
    return f"{option.removeprefix('--').removesuffix('-where')}.where={condition}"


QUESTION_TEXTS: dict[type[ReadingQuestion], str] = {
    SignedConfidences: "some confidences have a percent sign ({question.confidence}) and some have"
    " none",
    CertainConfidences: "every confidence is 0 or 1, which can be 1 of 1 or 1 %",
    MixedConfidences: "{question.above:,} of {question.total:,} confidences are above 1 (as"
    " {question.confidence:g}), the others from 0 to 1",
    OtherScale: "confidences run from {question.low:g} to {question.high:g}, which fills neither 0"
    " to 1 nor 0 to 100; rename the column if they are scores on another scale",
    CompactTimes: "times such as {question.time} can be Unix seconds or year, month, day and time",
    UnsureLabel: "{question.label!r} can mean that the reviewer was unsure, or be a label, because"
    " the model predicts it too",
    DoubtfulLabel: "{question.label!r} can be a label, or mean that there is no answer",
    EqualSides: "humans and model agree in all {question.pairs:,} rows, as one side read twice"
    " does",
    MissingLabels: "{question.without:,} of {question.predicted:,} predicted cases have no"
    " decision; either a sample was labelled, and only labelled cases count, or decisions are"
    " missing, and such cases count against the model",
    PredictedAfterwards: "{question.late:,} of {question.decided:,} decided cases were predicted"
    " after they were decided; either this is a backtest of a model that did not see the"
    " decisions, and they count, or they count against the model",
}
"""What is open, after the file's name, by kinds that have one sentence for it."""


@singledispatch
def describe_question(question: ReadingQuestion) -> str:
    """Return what is open, with examples."""
    return f"{question.file}: {QUESTION_TEXTS[type(question)].format(question=question)}"


@describe_question.register
def _(question: DelimiterQuestion) -> str:
    columns = ", ".join(f"{count} with {delimiter}" for delimiter, count in question.columns)
    return f"{question.file}: several characters can separate the columns ({columns})"


@describe_question.register
def _(question: DecimalQuestion) -> str:
    comma, point = question.comma, question.point
    if point is not None:
        return f"{question.file}: numbers have decimal points ({point}) and commas ({comma})"
    return f"{question.file}: the comma in {comma} can be a decimal comma, or something else"


@describe_question.register
def _(question: DayOrder) -> str:
    if question.day_first is not None and question.month_first is not None:
        return (
            f"{question.file}: no order of day and month fits every time: {question.day_first} has"
            f" the day first, {question.month_first} the month; name the right one, and"
            " the other rows are rejected"
        )
    return (
        f"{question.file}: times such as {question.time} can have the day first or the month first"
    )


@describe_question.register
def _(question: RowsOfSide) -> str:
    return (
        f"{question.file} is given for both sides, so that answers would agree with themselves; the"
        f" {question.records} seem to be its {question.rows:,} rows with {question.condition}"
    )


COLUMN_NAMES = {"case_key": "keys", "site": "sites"}
MAX_EXAMPLES = 3


@describe_question.register
def _(question: SameForm) -> str:
    columns = dict.fromkeys(pair.column for pair in question.pairs)
    texts = (
        _describe_forms(
            COLUMN_NAMES.get(column, "labels"),
            [pair for pair in question.pairs if pair.column == column],
        )
        for column in columns
    )
    return f"{question.file} differ in form only: {'; '.join(texts)}"


def _describe_forms(name: str, pairs: Sequence[FormPair]) -> str:
    examples = ", ".join(f"{p.text!r} and {p.other!r}" for p in pairs[:MAX_EXAMPLES])
    more = f", and {len(pairs) - MAX_EXAMPLES:,} more" if len(pairs) > MAX_EXAMPLES else ""
    return f"{name} {examples}{more}"


def list_options(question: ReadingQuestion) -> Iterator[str]:
    """Yield the options that answer a question, as they are typed."""
    for choice in question.choices:
        if choice.value in {"true", "false"}:
            yield from spell_flag(choice.option, choice.value == "true")
        else:
            is_plain = choice.value.replace("-", "").isalnum()
            quoted = choice.value if is_plain else f"'{choice.value}'"
            yield f"{choice.option} {quoted}"


class OpenQuestionsError(RolloutError, ValueError):
    """Questions are open; the text has a line for each, with the options that decide."""

    def __init__(self, questions: Sequence[ReadingQuestion]) -> None:
        lines = (
            f"{describe_question(question)}; decide with {' or '.join(list_options(question))}"
            for question in questions
        )
        super().__init__("\n".join(lines))
        self.questions = tuple(questions)
