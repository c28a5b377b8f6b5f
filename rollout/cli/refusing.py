"""What a person sees when something can't be done: the sentences, an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from rollout.core.errors import Refusal

INTERRUPTED = 130
REFUSED = 2


@contextmanager
def refusals() -> Iterator[None]:
    """Turn refusals and unreadable files into a message on standard error and exit code 2."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nstopped; nothing was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (Refusal, ValueError, OSError) as error:
        typer.echo(str(error) or type(error).__name__, err=True)
        raise typer.Exit(REFUSED) from None


def to_terminal() -> bool:
    """Say whether a person is watching standard error."""
    return sys.stderr.isatty()
