"""`rollout demo`: play an example and write its report."""

import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from rollout.features.demo.catalog import (
    MAIL_ROOM,
    ExampleSystem,
    find_example,
    format_catalog,
    render_catalog_json,
)
from rollout.kernel.atomic_files import check_folder, write_files_atomically
from rollout.terminal.remote import print_refusals, show_progress
from rollout.terminal.serve import load_service_command


def demo(  # noqa: PLR0913, PLR0917 - one parameter for each option
    name: Annotated[
        str, typer.Argument(help="the example to play; see --list", show_default=True)
    ] = MAIL_ROOM,
    out: Annotated[
        Path,
        typer.Option(
            help="folder for report.html, report.json, ledger and divergences; with --serve, for "
            "the prepared history"
        ),
    ] = Path("rollout-demo"),
    list_: Annotated[bool, typer.Option("--list", help="list the examples")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --list: as JSON")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="play it live through the service")
    ] = False,
    port: Annotated[int, typer.Option(help="with --serve: port to listen on")] = 8000,
    speed: Annotated[
        int,
        typer.Option(
            help="with --serve: times faster than the clock (360: an hour takes 10 s)",
            min=1,
            max=3600,
        ),
    ] = 360,
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="with --serve: approve proposals automatically")
    ] = False,
) -> None:
    """Play an example system: a policy, its records, and what the controller does with them.

    Without a name it is the mail room: four sorting offices, six weeks, two versions of a digit
    reader. Each example has one cell that must not be widened, and isn't.

    Example: `rollout demo bears --out rollout-demo`, then open rollout-demo/report.html

    All examples: `rollout demo --list`

    Live: `rollout demo --serve`, then open one of the links that it prints
    """
    if list_:
        typer.echo(render_catalog_json() if as_json else format_catalog())
        return
    if serve:
        with print_refusals(interrupted_text="the demo has ended"):
            example = find_example(name)
            check_folder(out)
            gc.disable()  # until the service is up: collections took a tenth of a start
            try:
                play_live = load_service_command("demo-live")
                play_live(example, port, speed, out, auto_approve=auto_approve)
            finally:
                gc.enable()
        return
    with print_refusals():
        example = find_example(name)
        check_folder(out)
        story, files = _play_once(example)
        write_files_atomically(out, files)
    typer.echo(story)
    typer.echo(f"Written: {', '.join(sorted(files))}\nOpen {out / 'report.html'}")


def _play_once(example: ExampleSystem) -> tuple[str, dict[str, bytes]]:
    """Return the terminal text and files of an example, for little CPU."""
    # before Polars is imported: an example's frames are so small that threads only wait
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    gc.disable()  # the process ends soon, and collections walk over everything imported
    try:
        # imported here: a list of the examples needs no engine
        from rollout.features.demo.story import play_example

        with show_progress() as report_progress:
            return play_example(example, report_progress)
    finally:
        gc.enable()
