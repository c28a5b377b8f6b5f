"""Print errors as a message with an exit code, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

import typer

from rollout.kernel.errors import RefusalError

EXIT_INTERRUPTED = 130
EXIT_REFUSED = 2
MIN_WIDTH, MAX_WIDTH = 40, 80


@contextmanager
def print_refusals(interrupted_text: str = "nothing was written") -> Iterator[None]:
    """Print refusals and unreadable files on standard error and exit with code 2.

    `interrupted_text` states the result of Ctrl-C, which exits with code 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; {interrupted_text}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        file_text = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"{file_text}{_format_os_error(error)}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    except (RefusalError, ValueError) as error:
        notes = getattr(error.__cause__, "__notes__", ())  # details for the local terminal only
        typer.echo("\n".join([str(error) or type(error).__name__, *notes]), err=True)
        raise typer.Exit(EXIT_REFUSED) from None


def _format_os_error(error: OSError) -> str:
    """Return the text of a system error without number and quotes, in lower case."""
    error_text = error.strerror or str(error) or type(error).__name__
    hint = "; check the path" if isinstance(error, FileNotFoundError) else ""
    return f"{error_text[:1].lower()}{error_text[1:]}{hint}"


def get_text_width() -> int:
    """Return the width for text: that of the terminal, from 40 to 80 columns."""
    return max(MIN_WIDTH, min(MAX_WIDTH, get_terminal_size((MAX_WIDTH, 24)).columns))
