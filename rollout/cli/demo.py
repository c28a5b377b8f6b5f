"""`rollout demo`: play the mail room and write its report."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.progress import show_progress
from rollout.cli.serve import load_service_command
from rollout.services.reports.demo_records import run_demo
from rollout.services.support.atomic_files import check_folder, write_files_atomically


def demo(
    out: Annotated[
        Path,
        typer.Option(
            help="folder for report.html, report.json, ledger and divergences; with --serve, for "
            "the prepared history"
        ),
    ] = Path("rollout-demo"),
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
    """Play the mail room: four sorting offices, six weeks, two versions of a digit reader.

    Real: the digit images, the classifier and its mistakes. Simulated: offices, hours, scanners,
    a new form, clerks and approvals.

    Example: `rollout demo --out rollout-demo`, then open rollout-demo/report.html

    Live: `rollout demo --serve`, then open one of the links that it prints
    """
    if serve:
        with print_refusals(interrupted_text="the demo has ended"):
            check_folder(out)
            load_service_command("demo-live")(port, speed, out, auto_approve=auto_approve)
        return
    with print_refusals():
        check_folder(out)
        with show_progress() as report_progress:
            story, files = run_demo(report_progress)
        write_files_atomically(out, files)
    typer.echo(story)
    typer.echo(f"Written: {', '.join(sorted(files))}\nOpen {out / 'report.html'}")
