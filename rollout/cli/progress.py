"""A bar on standard error for what takes long; nothing where no person watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rollout.cli.errors import to_terminal

Told = Callable[[str, int, int], None]


@contextmanager
def progress_bar() -> Iterator[Told]:
    """Yield a function that is told what is being done, how far, of how much."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not to_terminal()
    ) as bar:
        tasks_by_name: dict[str, object] = {}

        def told(what: str, done: int, of: int) -> None:
            if what not in tasks_by_name:
                tasks_by_name[what] = bar.add_task(what, total=of)
            bar.update(tasks_by_name[what], completed=done, total=of)  # type: ignore[arg-type]

        yield told
