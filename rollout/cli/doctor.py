"""`rollout doctor`: check the database."""

import json
from typing import Annotated

import typer

from rollout.cli.output import JsonFlag
from rollout.cli.runner import open_unchecked_database
from rollout.services.process.health_checks import run_health_checks


def run_doctor(
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="recompute hashes, units, sums and e-values, and compare; changes nothing",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check the database: tables, triggers, ledgers, reports. Exit 1 if a check fails.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db). Nothing is changed.
    --rebuild reads the whole history.

    Example: `rollout doctor --rebuild`
    """
    check_results = []
    with open_unchecked_database() as database:
        for check in run_health_checks(database, rebuilds=rebuild):
            check_results.append({"check": check.title, "faults": list(check.faults)})
            if not as_json:
                typer.echo(f"{'FAIL' if check.faults else 'ok':6}{check.title}")
                for fault in check.faults:
                    typer.echo(f"      {fault}")
    if as_json:
        typer.echo(json.dumps(check_results))
    if any(check["faults"] for check in check_results):
        raise typer.Exit(1)
