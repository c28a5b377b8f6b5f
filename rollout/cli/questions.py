"""Ask the open questions about recorded files in a terminal; elsewhere refuse."""

import sys
from collections.abc import Sequence

import typer

from rollout.formats.records.question_texts import describe_question, format_refusal
from rollout.formats.records.questions import ReadingQuestion

NO_LABEL = "no label"


def is_terminal() -> bool:
    """Return whether a user can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_questions(questions: Sequence[ReadingQuestion]) -> list[tuple[ReadingQuestion, str]]:
    """Ask all questions and return each with its answer.

    Raises:
        ValueError: nobody can answer here; the text names the options that do.
    """
    if not is_terminal():
        raise ValueError(format_refusal(questions))
    return [(question, _ask(question)) for question in questions]


def _ask(question: ReadingQuestion) -> str:
    """Ask a question until the answer is one of its choices."""
    names = {choice or NO_LABEL: choice for choice in question.choices}
    typer.echo(describe_question(question), err=True)
    prompt = f"{question.option.removeprefix('--')} ({', '.join(names)}): "
    # Not typer.prompt: it writes a space to standard output, where the policy goes.
    while True:
        typer.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise ValueError(format_refusal([question]))
        if (answer := line.strip()) in names:
            return names[answer]
        typer.echo(f"{answer!r} is none of {', '.join(names)}", err=True)
