"""`rollout doctor`: is everything as it should be?"""

import json
from typing import Annotated

import typer

from rollout.cli.questions import unchecked
from rollout.services.doctoring import checks


def doctor(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="recompute every derived table, and compare")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, nothing else")] = False,
) -> None:
    """Check the database at ROLLOUT_DATABASE_URL; exit 1 if anything is not as it should be.

    By default that is sqlite:///rollout.db. Nothing is changed. With --rebuild the whole history
    is read.

    Example: `rollout doctor --rebuild`
    """
    found = []
    with unchecked() as database:
        for check in checks(database, rebuilt=rebuild):
            found.append({"check": check.what, "faults": list(check.faults)})
            if not as_json:
                typer.echo(f"{'no' if check.faults else 'ok':4}{check.what}")
                for fault in check.faults:
                    typer.echo(f"      {fault}")
    if as_json:
        typer.echo(json.dumps(found))
    if any(check["faults"] for check in found):
        raise typer.Exit(1)
