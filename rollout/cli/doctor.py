"""`rollout doctor`: check the database."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.ledger import PublicKeyOption, load_checkpoints
from rollout.cli.output import JsonFlag
from rollout.cli.runner import open_unchecked_database
from rollout.services.process.health_checks import run_health_checks


def run_doctor(
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="recompute every derived table and compare; changes nothing"
        ),
    ] = False,
    heads: Annotated[
        Path | None,
        typer.Option(help="file of signed checkpoints; the ledgers must have the rows in it"),
    ] = None,
    public_key: PublicKeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check the database: tables, triggers, ledgers, reports. Exit 1 if a check fails.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db). Nothing is changed.
    --rebuild reads the whole history. --heads with --public-key finds a ledger that was rewritten
    or set back.

    Example: `rollout doctor --rebuild`
    """
    with print_refusals():
        checkpoints = load_checkpoints(heads, public_key)
    check_results = []
    with open_unchecked_database() as database:
        for check in run_health_checks(database, rebuilds=rebuild, checkpoints=checkpoints):
            check_results.append(
                {"check": check.title, "faults": list(check.faults), "notes": list(check.notes)}
            )
            if not as_json:
                typer.echo(f"{'FAIL' if check.faults else 'ok':6}{check.title}")
                for line in (*check.faults, *check.notes):
                    typer.echo(f"      {line}")
    if as_json:
        typer.echo(json.dumps(check_results))
    if any(check["faults"] for check in check_results):
        raise typer.Exit(1)
