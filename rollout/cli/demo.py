"""`rollout demo`: the mail room, told as a story with its own figures."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.entry import entry
from rollout.cli.progress import progress_bar
from rollout.cli.refusing import refusals
from rollout.services.mail_room import play
from rollout.services.writing import check_folder, write_whole


def demo(
    out: Annotated[
        Path, typer.Option(help="folder for report.html, report.json, ledger, divergences")
    ] = Path("rollout-demo"),
    serve: Annotated[
        bool, typer.Option("--serve", help="play it as live traffic through the service instead")
    ] = False,
    port: Annotated[int, typer.Option(help="with --serve: where to listen")] = 8000,
    day: Annotated[float, typer.Option(help="with --serve: seconds that a day takes")] = 60.0,
    hands_off: Annotated[
        bool, typer.Option("--hands-off", help="with --serve: others approve, you just watch")
    ] = False,
) -> None:
    """Play the mail room: four sorting offices, six weeks, two versions of a digit reader.

    Real: the digit images, the classifier, its mistakes. Simulated: offices, hours, scanners, a
    new form, clerks, and the approvals.

    Example: `rollout demo --out rollout-demo`, then open rollout-demo/report.html

    Live: `rollout demo --serve`, and approve and stop from another terminal
    """
    if serve:
        with refusals(stopped="nothing is left behind"):
            entry("demo-live")(port, day, hands_off=hands_off)
        return
    with refusals():
        check_folder(out)
        with progress_bar() as told:
            story, files = play(told)
        write_whole(out, files)
    typer.echo(story)
    typer.echo(f"Written: {', '.join(sorted(files))}\nOpen {out / 'report.html'}")
