"""`rollout ledger`: verify an exported ledger."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.refusing import refusals
from rollout.services.verifying import verify

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Export and verify ledgers.

    A rollout's ledger holds every change of its scope; the access ledger holds every change of
    users, roles and keys.

    Example: `rollout ledger export ramps > ledger.jsonl`
    """


@app.command("verify")
def verify_file(
    file: Annotated[Path, typer.Argument(help="exported ledger, a row a line", metavar="FILE")],
    head: Annotated[
        str | None,
        typer.Option(help="expected hash of the last row, which you kept elsewhere"),
    ] = None,
) -> None:
    """Verify a ledger: recompute every hash. Exit 1 and name the first bad line.

    The hashes show edited, deleted and swapped rows. Rows cut off at the end, or a ledger whose
    hashes were all made anew, show only against a hash that you kept elsewhere: pass it as
    `--head`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`
    """
    with refusals():
        found = verify(file, head)
    if found.fault:
        typer.echo(f"{file}: {found.fault}", err=True)
        raise typer.Exit(1)
    erased = "" if not found.erased else f"; {found.erased} texts erased, their hashes stand"
    typer.echo(f"{file}: {found.rows} rows, intact{erased}; head {found.head}")
