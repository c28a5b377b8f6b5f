"""Commands on a whole database: check it (`rollout doctor`), back it up and restore it."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.data.database.migrations import check_revision_known
from rollout.features.access.users import load_local_caller
from rollout.features.backups.backups import (
    RestoreRequest,
    RolloutEra,
    accept_restore,
    back_up,
    parse_head,
    restore,
)
from rollout.features.erasure.erasure_replay import AppliedErasures
from rollout.features.ledger.cli import PublicKeyOption, load_checkpoints
from rollout.features.process.health_checks import clear_checked_damage, run_health_checks
from rollout.kernel.errors import RefusalError
from rollout.live.checkpoint_keys import find_checkpoint_targets
from rollout.settings import read_settings
from rollout.terminal.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    convert_store_errors,
    open_database,
    open_unchecked_database,
)
from rollout.terminal.remote import ActorName, ExpectedHeads, JsonFlag, ReasonText, print_refusals

BackupFile = Annotated[Path, typer.Argument(help="the backup", metavar="FILE")]
AdminName = Annotated[str, typer.Option("--by", help="the admin who restores")]
RestoreReason = Annotated[str, typer.Option("--reason", help="reason, stored in every ledger")]


def back_up_database(file: BackupFile) -> None:
    """Write a backup of the database in ROLLOUT_DATABASE_URL; replicas may run.

    SQLite: a copy as one file, by SQLite's online backup. PostgreSQL: a dump by `pg_dump`; without
    it, the command to run where it is installed. Keep the printed heads elsewhere: with them,
    `rollout ledger verify` finds a database that was rewritten.

    Example: `rollout db backup monday.db`
    """
    url = os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
    with print_refusals(), convert_store_errors():
        with open_unchecked_database() as database:
            check_revision_known(database)  # a backup is also made before an upgrade
        heads = back_up(url, file)
    typer.echo(f"backup: {file} ({file.stat().st_size:,} bytes)")
    for name, head in sorted(heads.items()):
        typer.echo(f"{name}: at least revision {head.revision}, hash {head.hash}")


def restore_database(
    file: BackupFile,
    by: AdminName,
    reason: RestoreReason,
    discard_newer: Annotated[
        bool,
        typer.Option(
            "--discard-newer",
            help="replace a database whose ledgers have entries that the backup lacks",
        ),
    ] = False,
    ledger: Annotated[
        list[Path] | None,
        typer.Option(
            "--ledger",
            metavar="EXPORT",
            help="newest exported ledger, of a rollout or the access ledger, whose erasures are"
            " applied (repeatable)",
        ),
    ] = None,
    head: ExpectedHeads = None,
) -> None:
    """Replace the database in ROLLOUT_DATABASE_URL by a backup; everything starts stopped.

    Stop every replica first. The backup is copied, upgraded and verified first; then the copy
    replaces the database. What was erased or revoked in the replaced one is so again, and all
    sessions end. If that one is lost, name the newest exports by `--ledger`, and heads of them that
    you kept by `--head`: exports are not signed. Every rollout begins
    an era: all cells are stopped until a resume is approved, open proposals end, and earlier
    permits and snapshots are invalid. On PostgreSQL the role must be allowed to create databases;
    run `rollout db grant ROLE` afterwards.

    Example: `rollout db restore monday.db --by ana --reason "the disk failed"`
    """
    with print_refusals(), convert_store_errors():
        request = RestoreRequest(
            url=os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL),
            source=file,
            user_name=by,
            reason=_check_reason(reason),
            at=datetime.now(UTC),
            discards_newer=discard_newer,
            ledgers=tuple(ledger or ()),
            expected_heads=frozenset(map(parse_head, head or ())),
        )
        restored = restore(request)
    for export in restored.exports:
        typer.echo(export.text)
    for change in restored.access_changes:
        typer.echo(change)
    if restored.exports or restored.erased != AppliedErasures(0, 0):
        typer.echo(restored.erased.text)
    _print_eras(restored.eras)


def accept_restored_database(by: AdminName, reason: RestoreReason) -> None:
    """Declare that the database in ROLLOUT_DATABASE_URL was restored on purpose.

    For copies that were put back without `rollout db restore`, such as a snapshot of a disk. Run it
    before the first replica starts: otherwise the first client stops everything with an incident.
    Every rollout begins an era, as after `rollout db restore`.

    Example: `rollout db accept-restored --by ana --reason "snapshot of Monday"`
    """
    checked_reason = _check_reason(reason)
    with open_database() as database:
        eras = accept_restore(database, by, checked_reason, at=datetime.now(UTC))
    _print_eras(eras)


def _check_reason(reason: str) -> str:
    with print_refusals():
        if not reason.strip():
            raise RefusalError("--reason is empty; say why the database was restored")
    return reason.strip()


def _print_eras(eras: tuple[RolloutEra, ...]) -> None:
    for era in eras:
        stops = ", ".join(era.stops) or "none"
        typer.echo(f"{era.rollout}: era {era.era}, every cell is stopped (stops: {stops})")
    typer.echo(
        "Next: repeat lost stops, and removals of users and keys not named above, start the"
        " replicas, then `rollout resume`; exports of the ledgers name them"
        if eras
        else "no rollouts: nothing to stop"
    )


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
