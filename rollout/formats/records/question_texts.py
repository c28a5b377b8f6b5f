"""The sentences of questions about recorded files, and the options that answer them."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from rollout.formats.records.questions import (
    CertainConfidences,
    CompactTimes,
    DayOrder,
    DecimalQuestion,
    DelimiterQuestion,
    DoubtfulLabel,
    EqualSides,
    FormPair,
    MissingLabels,
    MixedConfidences,
    OtherScale,
    PredictedAfterwards,
    ReadingQuestion,
    RowsOfSide,
    SameForm,
    SignedConfidences,
    UnsureLabel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@singledispatch
def describe_question(question: ReadingQuestion) -> str:
    """Return what is open, with examples."""
    raise NotImplementedError(type(question).__name__)


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
def _(question: SignedConfidences) -> str:
    example = question.confidence
    return f"{question.file}: some confidences have a percent sign ({example}) and some have none"


@describe_question.register
def _(question: CertainConfidences) -> str:
    return f"{question.file}: every confidence is 0 or 1, which can be 1 of 1 or 1 %"


@describe_question.register
def _(question: MixedConfidences) -> str:
    share = f"{question.above:,} of {question.total:,} confidences are above 1"
    return f"{question.file}: {share} (as {question.confidence:g}), the others from 0 to 1"


@describe_question.register
def _(question: OtherScale) -> str:
    return (
        f"{question.file}: confidences run from {question.low:g} to {question.high:g}, which fills"
        " neither 0 to 1 nor 0 to 100; rename the column if they are scores on another scale"
    )


@describe_question.register
def _(question: CompactTimes) -> str:
    return (
        f"{question.file}: times such as {question.time} can be Unix seconds or year, month, day"
        " and time"
    )


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
def _(question: UnsureLabel) -> str:
    return (
        f"{question.file}: {question.label!r} can mean that the reviewer was unsure, or be a label,"
        " because the model predicts it too"
    )


@describe_question.register
def _(question: DoubtfulLabel) -> str:
    return f"{question.file}: {question.label!r} can be a label, or mean that there is no answer"


@describe_question.register
def _(question: RowsOfSide) -> str:
    return (
        f"{question.file} is given for both sides, so that answers would agree with themselves; the"
        f" {question.records} seem to be its {question.rows:,} rows with {question.condition}"
    )


@describe_question.register
def _(question: EqualSides) -> str:
    return (
        f"{question.file}: humans and model agree in all {question.pairs:,} rows, as one side read"
        " twice does"
    )


@describe_question.register
def _(question: MissingLabels) -> str:
    return (
        f"{question.file}: {question.without:,} of {question.predicted:,} predicted cases have no"
        " decision; either a sample was labelled, and only labelled cases count, or decisions are"
        " missing, and such cases count against the model"
    )


@describe_question.register
def _(question: PredictedAfterwards) -> str:
    return (
        f"{question.file}: {question.late:,} of {question.decided:,} decided cases were predicted"
        " after they were decided; either this is a backtest of a model that did not see the"
        " decisions, and they count, or they count against the model"
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
            sign = "--no-" if choice.value == "false" else "--"
            yield sign + choice.option.removeprefix("--")
        else:
            is_plain = choice.value.replace("-", "").isalnum()
            quoted = choice.value if is_plain else f"'{choice.value}'"
            yield f"{choice.option} {quoted}"


def format_refusal(questions: Sequence[ReadingQuestion]) -> str:
    """Return a line for each open question, with the options that decide."""
    return "\n".join(
        f"{describe_question(question)}; decide with {' or '.join(list_options(question))}"
        for question in questions
    )


class OpenQuestionsError(ValueError):
    """Questions are open; the text has a line for each, with the options that decide."""

    def __init__(self, questions: Sequence[ReadingQuestion]) -> None:
        super().__init__(format_refusal(questions))
        self.questions = tuple(questions)
