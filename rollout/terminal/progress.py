"""A progress bar on standard error, shown only in a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function for progress reports: task name, steps done, steps in all."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    # imported here: a bar is seldom shown, and Rich takes a twentieth of a second
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks_by_name: dict[str, object] = {}

        def report_progress(task_name: str, done: int, total: int) -> None:
            if task_name not in tasks_by_name:
                tasks_by_name[task_name] = bar.add_task(task_name, total=total)
            bar.update(tasks_by_name[task_name], completed=done, total=total)  # type: ignore[arg-type]

        yield report_progress
