"""`rollout doctor`: check the database."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.features.access.users import load_local_caller
from rollout.features.ledger.cli import PublicKeyOption, load_checkpoints
from rollout.features.process.health_checks import clear_checked_damage, run_health_checks
from rollout.live.checkpoint_keys import find_checkpoint_targets
from rollout.settings import read_settings
from rollout.terminal.local_database import open_database, open_unchecked_database
from rollout.terminal.output import JsonFlag, print_refusals
from rollout.terminal.rollout_options import ActorName, ReasonText


def run_doctor(
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="recompute hashes, units, sums and e-values, and compare; changes nothing",
        ),
    ] = False,
    heads: Annotated[
        Path | None,
        typer.Option(help="file of signed checkpoints; the ledgers must have the rows in it"),
    ] = None,
    public_key: PublicKeyOption = None,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear-damage", help="if all checks pass, let the model decide again after damage"
        ),
    ] = False,
    by: ActorName = "",
    reason: ReasonText = "",
    as_json: JsonFlag = False,
) -> None:
    """Check the database: tables, triggers, ledgers, reports. Exit 1 if a check fails.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db). Nothing is changed.
    --rebuild reads the whole history. A ledger that was rewritten or set back lacks a row that
    `rollout serve` signed; --heads with --public-key compares a copy of what it signed.
    --clear-damage runs all checks, and ends the damage that replicas have found, as an event with
    the name of an admin and the reason.

    Example: `rollout doctor --rebuild`
    """
    if clear:
        _clear_damage(by, reason)
        return
    with print_refusals():
        checkpoints = load_checkpoints(heads, public_key)
        targets = find_checkpoint_targets(read_settings(os.environ))
    check_results = []
    with open_unchecked_database() as database:
        for check in run_health_checks(
            database, rebuilds=rebuild, checkpoints=checkpoints, targets=targets
        ):
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


def _clear_damage(by: str, reason: str) -> None:
    with open_database() as database:
        if not by:
            raise ValueError("no acting user; add --by NAME of an admin")
        caller = load_local_caller(database, by)
        rollouts = clear_checked_damage(database, caller, reason, at=datetime.now(UTC))
    names = ", ".join(rollouts)
    typer.echo(f"damage cleared: {names}" if names else "no damage was found by any replica")
