"""`rollout doctor`: check the database."""

import json
from typing import Annotated

import typer

from rollout.cli.plan_and_status import unchecked
from rollout.services.process.health_checks import checks


def doctor(
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="recompute every derived table and compare; changes nothing"
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
) -> None:
    """Check the database: tables, triggers, ledgers, reports. Exit 1 if a check fails.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db). Nothing is changed.
    --rebuild reads the whole history.

    Example: `rollout doctor --rebuild`
    """
    check_results = []
    with unchecked() as database:
        for check in checks(database, rebuilt=rebuild):
            check_results.append({"check": check.what, "faults": list(check.faults)})
            if not as_json:
                typer.echo(f"{'FAIL' if check.faults else 'ok':6}{check.what}")
                for fault in check.faults:
                    typer.echo(f"      {fault}")
    if as_json:
        typer.echo(json.dumps(check_results))
    if any(check["faults"] for check in check_results):
        raise typer.Exit(1)
