"""`rollout ledger`: recompute a written chain."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.refusing import refusals
from rollout.services.verifying import verify

app = typer.Typer(
    no_args_is_help=True, help="Look at the chain of everything that changed a scope."
)


@app.callback()
def group() -> None:
    """Look at the chain of everything that ever changed a scope."""


@app.command("verify")
def verify_file(
    file: Annotated[Path, typer.Argument(help="a ledger.jsonl", metavar="FILE")],
    head: Annotated[
        str | None,
        typer.Option(
            help="hash of the last row, kept elsewhere: shows a chain cut short or remade"
        ),
    ] = None,
) -> None:
    """Recompute every link of a ledger; exit 1 names the first bad line.

    A chain shows edits, deletions and swaps. That its end was cut off, or that every hash was
    made anew, only a head kept elsewhere can show: give it by `--head`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`
    """
    with refusals():
        found = verify(file, head)
    if found.fault:
        typer.echo(f"{file}: {found.fault}", err=True)
        raise typer.Exit(1)
    erased = "" if not found.erased else f"; {found.erased} texts erased, their hashes stand"
    typer.echo(f"{file}: {found.rows} rows, whole{erased}; head {found.head}")
