"""`rollout db` on existing tables: grant a role what it needs, print their revision.

`rollout doctor`: check the database.

`rollout db upgrade`: create or upgrade the tables.
"""

import json
import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.ledger import PublicKeyOption, load_checkpoints
from rollout.cli.output import JsonFlag
from rollout.cli.rollout_options import ActorName, ReasonText
from rollout.cli.runner import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    connect_database,
    convert_store_errors,
    open_database,
    open_unchecked_database,
)
from rollout.data.database.errors import StoreError
from rollout.data.database.migrations import (
    check_newest,
    check_schema_current,
    find_head_revision,
    find_schema_revision,
    finish_upgrade,
    grant_backup,
    grant_privileges,
    load_current_revision,
    upgrade,
)
from rollout.data.database.session import Database
from rollout.features.access.users import load_local_caller
from rollout.features.process.health_checks import clear_checked_damage, run_health_checks
from rollout.live.checkpoint_keys import find_checkpoint_targets
from rollout.settings import read_settings


def grant_role(
    role: Annotated[
        str,
        typer.Argument(help="PostgreSQL role that `rollout serve` connects as", metavar="ROLE"),
    ],
    is_backup: Annotated[
        bool,
        typer.Option(
            "--backup", help="the role takes backups instead: it reads all, writes nothing"
        ),
    ] = False,
) -> None:
    """Grant a PostgreSQL role what the service needs, without ownership of the tables.

    The owner of a table can drop the triggers that keep it append-only, so the service should not
    own its tables. Create the role with PostgreSQL's tools, and run this after each upgrade. A role
    that only takes backups gets `--backup`, once, by a role that may grant `pg_read_all_data`.

    Example: `rollout db grant rollout_service`
    """
    with print_refusals(), convert_store_errors(), connect_database() as database:
        if database.engine.dialect.name == "sqlite":
            raise ValueError("SQLite has no roles: protect the file by its permissions instead")
        with database.begin_write() as transaction:
            (grant_backup if is_backup else grant_privileges)(transaction, role)
    task, command = ("take backups", "db backup") if is_backup else ("run the service", "serve")
    typer.echo(
        f"{role} can {task}: set ROLLOUT_DATABASE_URL with this role for `rollout {command}`"
    )


def show_table_revision() -> None:
    """Print the revision of the tables; exit 1 if this program needs another.

    Example: `rollout db current`
    """
    with open_unchecked_database() as database:
        revision = find_schema_revision(database)
        typer.echo(f"tables: {revision or 'none'}; needed by this program: {find_head_revision()}")
        try:
            check_schema_current(database)
        except StoreError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


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


def upgrade_tables(
    is_last_step: Annotated[
        bool,
        typer.Option("--finish", help="all replicas are replaced: let no older program run again"),
    ] = False,
) -> None:
    """Create the tables, or upgrade them to this version of the program; all or nothing.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db). Replicas of the program
    before go on, and can be started again, until none has written for an hour or an admin finishes
    the upgrade. Then entries that they could not read are written.

    Example: `rollout db upgrade`, and when all replicas are replaced `rollout db upgrade --finish`
    """
    with print_refusals(), convert_store_errors():
        url = os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
        if is_last_step:
            _finish(url)
            return
        upgrade(url)
        typer.echo(f"tables are at revision {load_current_revision(url)}")


def _finish(url: str) -> None:
    with closing(Database(url)) as database:
        check_schema_current(database)
        check_newest(database)
        with database.begin_write() as transaction:
            finish_upgrade(transaction)
    typer.echo("the upgrade is finished: no older program works on these tables")
