"""`rollout ledger`: verify an exported ledger."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rollout.cli.errors import print_refusals
from rollout.services.ledger.ledger_verification import verify_ledger_file

app = typer.Typer(no_args_is_help=True)
CHANGED = "A row there or just before was changed, removed or added after it was written."
CUT_OFF = (
    "Rows were removed at the end, every hash was recomputed, or the expected hash is of another"
    " ledger."
)
FAULT_ADVICE = """\
Don't use this copy. Verify the stored ledger (`rollout ledger verify --rollout NAME`) and export it
again; if the stored one fails too, keep both for an investigation and restore a backup."""


@app.callback()
def describe_commands() -> None:
    """Export and verify ledgers.

    A rollout's ledger holds every change of its scope; the access ledger holds every change of
    users, roles and keys.

    Example: `rollout ledger export ramps > ledger.jsonl`
    """


@app.command("verify")
def verify_file(
    file: Annotated[Path, typer.Argument(help="exported ledger, one row a line", metavar="FILE")],
    head: Annotated[
        str | None,
        typer.Option(help="hash of the last row, from a place outside this system"),
    ] = None,
) -> None:
    """Verify a ledger: recompute every hash. Exit 1 and name the first bad line.

    The hashes show edited, deleted and swapped rows. To find rows cut off at the end, or a ledger
    whose hashes were all recomputed, keep the head elsewhere and pass it as `--head`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`
    """
    with print_refusals():
        verification = verify_ledger_file(file, head)
    if verification.fault:
        report_fault(str(file), verification.fault, is_cut_off=verification.is_chain_intact)
    erased = (
        ""
        if not verification.erased
        else f"; {verification.erased} texts erased, their hashes remain"
    )
    typer.echo(f"{file}: {verification.rows} rows, intact{erased}; head {verification.head}")


def report_fault(name: str, fault: str, *, is_cut_off: bool) -> NoReturn:
    """Print the first fault of a ledger and what to do next, and exit with code 1."""
    cause = CUT_OFF if is_cut_off else CHANGED
    typer.echo(f"{name}: not intact: {fault}\n{cause}\n{FAULT_ADVICE}", err=True)
    raise typer.Exit(1)
