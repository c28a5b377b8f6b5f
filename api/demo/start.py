"""The start of the live demo: a second process builds the history while this one imports."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rollout.features.demo.catalog import ExampleSystem, find_example, find_history_folders

PREPARING: Final = "Preparing the live demo's history, once. It takes about ten seconds."
MODULE: Final = "api.demo.start"
INTERRUPTED: Final = 130
END_SECONDS: Final = 5.0


def start_live(
    example: ExampleSystem, port: int, speed: int, out: Path, *, auto_approve: bool
) -> None:
    """Play an example live until Ctrl-C; see `play_live`.

    Raises:
        ValueError: the speed is out of range.
    """
    with build_ahead(out, example.name) as wait_for_history:
        # imported here: it takes two seconds, in which the history is under way
        from api.demo.live import play_live

        play_live(
            example,
            port,
            speed,
            out,
            auto_approve=auto_approve,
            wait_for_history=wait_for_history,
        )


@contextmanager
def build_ahead(out: Path, name: str) -> Iterator[Callable[[], object]]:
    """Build a history in another process within the block; yield what waits for its end.

    It is only ahead: whoever waited builds what is missing, so its failures need no report. If a
    history of the example is there, maybe an outdated one, nothing is started.
    """
    if find_history_folders(out, name):
        yield lambda: None
        return
    sys.stdout.write(f"{PREPARING}\n")  # typer would take the builder a tenth of a second
    sys.stdout.flush()
    command = [sys.executable, "-m", MODULE, str(out), name]
    builder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        yield builder.wait
    finally:
        if builder.poll() is None:
            builder.terminate()
        with suppress(subprocess.TimeoutExpired):
            builder.wait(END_SECONDS)


def build(out: str, name: str) -> None:
    """Build an example's history in a folder, if it isn't there."""
    gc.disable()  # the process ends soon
    # imported here: whoever starts the process needs none of it yet
    from rollout.features.demo.recorded_cases import load_cases
    from rollout.features.demo.stage import build_case_records, prepare_history

    example = find_example(name)
    # the later cases are played live; they took half a second
    cases = load_cases(example, until=example.serve_at)
    records = build_case_records(example)
    prepare_history(Path(out), example, records, cases, lambda: None)


if __name__ == "__main__":
    try:
        build(*sys.argv[1:])
    except KeyboardInterrupt:  # Ctrl-C reaches both processes
        sys.exit(INTERRUPTED)
    os._exit(0)  # freeing all cases one by one took a tenth of a second
