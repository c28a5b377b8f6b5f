"""`rollout ledger`: verify an exported ledger."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.services.ledger.ledger_verification import verify_ledger_file

app = typer.Typer(no_args_is_help=True)


@app.callback()
def describe_commands() -> None:
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
    hashes were all recomputed, show only against a hash that you kept elsewhere: pass it as
    `--head`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`
    """
    with print_refusals():
        verification = verify_ledger_file(file, head)
    if verification.fault:
        typer.echo(f"{file}: {verification.fault}", err=True)
        raise typer.Exit(1)
    erased = (
        ""
        if not verification.erased
        else f"; {verification.erased} texts erased, their hashes stand"
    )
    typer.echo(f"{file}: {verification.rows} rows, intact{erased}; head {verification.head}")
