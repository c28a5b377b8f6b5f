"""`rollout ledger`: verify an exported ledger."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rollout.cli.errors import print_refusals
from rollout.services.ledger.ledger_verification import verify_ledger_file

app = typer.Typer(no_args_is_help=True)
CHANGED = "An entry there or just before was changed, removed or added after it was written."
HEAD_MISSING = (
    "Entries were removed at the end, every hash was recomputed, or the expected hash is of another"
    " ledger. Compare the head's revision and rollout with your notes first."
)
NO_LEDGER = """\
This file is not an exported ledger, or its first line is damaged. Export one:
`rollout ledger export NAME > ledger.jsonl`. `rollout replay` writes ledger.jsonl too."""
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


@app.command("seal")
def print_report_seal(
    file: Annotated[Path, typer.Argument(help="a report as JSON", metavar="FILE")],
) -> None:
    """Print the seal of a report: the hash in the ledger's entry `ReportSealed`.

    It stays the same when an erasure takes rows or texts from the report.

    Example: `rollout ledger seal week.json`
    """
    from rollout.reports.figures.report_seal import compute_seal  # noqa: PLC0415 - slow to import

    with print_refusals():
        text = file.read_text(encoding="utf-8")
        try:
            typer.echo(compute_seal(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no report as JSON: {error}") from error


@app.command("verify")
def verify_file(
    file: Annotated[
        Path, typer.Argument(help="exported ledger, one entry per line", metavar="FILE")
    ],
    head: Annotated[
        str | None,
        typer.Option(help="hash that you stored outside this system; an entry must have it"),
    ] = None,
) -> None:
    """Verify a ledger: recompute every hash. Exit 1 and name the first bad line.

    The hashes show edited, deleted and swapped entries. To find entries removed at the end, or a
    ledger whose hashes were all recomputed, store the head (the last hash) elsewhere and pass it as
    `--head`. With --rollout it must be the last hash; in a file it may be an earlier one.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`
    """
    with print_refusals():
        verification = verify_ledger_file(file, head)
    if not verification.is_ledger:
        typer.echo(f"{file}: {verification.fault}\n{NO_LEDGER}", err=True)
        raise typer.Exit(1)
    if verification.fault:
        report_fault(str(file), verification.fault, is_head_missing=verification.is_chain_intact)
    erased = (
        ""
        if not verification.erased
        else f"; {verification.erased} texts erased, their hashes remain"
    )
    later = (
        f"; {verification.later_rows} entries follow the expected head"
        if verification.later_rows
        else ""
    )
    typer.echo(
        f"{file}: {verification.rows} entries, intact{erased}{later}; head {verification.head}"
    )


def report_fault(name: str, fault: str, *, is_head_missing: bool) -> NoReturn:
    """Print the first fault of a ledger and what to do next, and exit with code 1."""
    cause = HEAD_MISSING if is_head_missing else CHANGED
    typer.echo(f"{name}: not intact: {fault}\n{cause}\n{FAULT_ADVICE}", err=True)
    raise typer.Exit(1)
