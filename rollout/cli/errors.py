"""Errors as a user sees them: a message, an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

import typer

from rollout.core.errors import Refusal

INTERRUPTED = 130
REFUSED = 2
NARROW, WIDE = 40, 80


@contextmanager
def refusals(stopped: str = "nothing was written") -> Iterator[None]:
    """Turn refusals and unreadable files into a message on standard error and exit code 2.

    Args:
        stopped: what is so after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; {stopped}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        file_text = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"{file_text}{_plain(error)}", err=True)
        raise typer.Exit(REFUSED) from None
    except (Refusal, ValueError) as error:
        notes = getattr(error.__cause__, "__notes__", ())  # what only this machine may be told
        typer.echo("\n".join([str(error) or type(error).__name__, *notes]), err=True)
        raise typer.Exit(REFUSED) from None


def _plain(error: OSError) -> str:
    """Return what the system says is wrong, without number and quotes; begins in lower case."""
    error_text = error.strerror or str(error) or type(error).__name__
    return error_text[:1].lower() + error_text[1:]


def width() -> int:
    """Return how many columns text may have: those of the terminal, between 40 and 80."""
    return max(NARROW, min(WIDE, get_terminal_size((WIDE, 24)).columns))


def to_terminal() -> bool:
    """Say whether a person is watching standard error."""
    return sys.stderr.isatty()
