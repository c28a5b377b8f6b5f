"""Ask the open questions about recorded files in a terminal; elsewhere refuse."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from rollout.formats.records.file_choices import FileChoices
from rollout.formats.records.question_texts import OpenQuestionsError, describe_question
from rollout.formats.records.questions import Choice, ReadingQuestion

Read = TypeVar("Read")


def is_terminal() -> bool:
    """Return whether a user can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_questions(questions: Sequence[ReadingQuestion]) -> list[tuple[ReadingQuestion, Choice]]:
    """Ask all questions and return each with its answer.

    Raises:
        OpenQuestionsError: nobody can answer here; the text names the options that do.
    """
    if not is_terminal():
        raise OpenQuestionsError(questions)
    return [(question, _ask(question)) for question in questions]


def _ask(question: ReadingQuestion) -> Choice:
    """Ask a question until the answer is one of its choices."""
    names = {choice.name: choice for choice in question.choices}
    typer.echo(describe_question(question), err=True)
    prompt = f"{question.title} ({', '.join(names)}): "
    # Not typer.prompt: it writes a space to standard output, where the policy goes.
    while True:
        typer.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise OpenQuestionsError([question])
        if (answer := line.strip()) in names:
            return names[answer]
        typer.echo(f"{answer!r} is none of {', '.join(names)}", err=True)


def read_with_answers(read: Callable[[FileChoices], Read], choices: FileChoices) -> Read:
    """Return what `read` returns, with the answers to its questions added to `choices`."""
    while True:
        try:
            return read(choices)
        except OpenQuestionsError as error:
            for _, answer in ask_questions(error.questions):
                choices = choices.add(answer)
