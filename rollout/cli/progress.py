"""A progress bar on standard error, shown only in a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ProgressReporter = Callable[[str, int, int], None]


@contextmanager
def show_progress() -> Iterator[ProgressReporter]:
    """Yield a function for progress reports: task name, steps done, steps in all."""
    console = Console(stderr=True)
    is_hidden = not sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=is_hidden,
    ) as bar:
        tasks_by_name: dict[str, object] = {}

        def report_progress(task_name: str, done: int, total: int) -> None:
            if task_name not in tasks_by_name:
                tasks_by_name[task_name] = bar.add_task(task_name, total=total)
            bar.update(tasks_by_name[task_name], completed=done, total=total)  # type: ignore[arg-type]

        yield report_progress
