"""`rollout ledger` on a database or a service: export, verify and sign stored ledgers."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.data.database.rollouts import ACCESS_CHAIN
from rollout.data.ledger.ledger import Ledger
from rollout.engine.words.formatting import format_quantity
from rollout.features.ledger.cli import report_fault
from rollout.features.ledger.ledger_reader import (
    append_checkpoints,
    iterate_ledger_lines,
    sign_heads,
    verify_stored_ledger,
)
from rollout.live.checkpoint_keys import open_checkpoint_targets
from rollout.settings import read_settings
from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    RolloutName,
    ServerUrl,
    build_path,
    print_refusals,
    request_lines,
)
from rollout.terminal.runner import LOCAL_READER, RequestRunner, build_local_service


def export(rollout: RolloutName, server: ServerUrl = None) -> None:
    """Print the ledger of a rollout, one entry per line. `rollout ledger verify` reads it.

    Example: `rollout ledger export ramps > ledger.jsonl`
    """
    if server:
        with print_refusals():
            lines = request_lines(server, build_path(rollout, "ledger"))
        typer.echo("\n".join(lines))
        return
    with open_database() as database:
        for line in iterate_ledger_lines(build_local_service(database), LOCAL_READER, rollout):
            typer.echo(line)


def export_access() -> None:
    """Print the access ledger (users, roles, keys), one entry per line.

    It is read from the database in ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if
    ROLLOUT_SERVER is set. `rollout ledger verify` reads it.

    Example: `rollout ledger export-access > access.jsonl`
    """
    with open_database() as database, database.begin_read() as transaction:
        for line in Ledger(transaction, ACCESS_CHAIN).list_lines():
            typer.echo(line)


def sign_checkpoint(
    out: Annotated[
        Path | None, typer.Option(help="file to append to; by default it is printed")
    ] = None,
) -> None:
    """Sign the heads of all ledgers in the database, to be kept elsewhere.

    The key is the file in ROLLOUT_CHECKPOINT_KEY_FILE, or the one that `rollout serve` made. With
    `--out` only heads that have changed are appended. A ledger that was rewritten no longer has a
    row that a checkpoint signed: `rollout ledger verify --checkpoint` and `rollout doctor --heads`
    find that.

    Example: `rollout ledger checkpoint --out /mnt/elsewhere/checkpoints.jsonl`
    """
    with open_database() as database, print_refusals():
        signer = open_checkpoint_targets(read_settings(os.environ)).require_signer()
        checkpoints = sign_heads(database, signer, datetime.now(UTC))
        if out is None:
            typer.echo("\n".join(checkpoint.format() for checkpoint in checkpoints))
            return
        new = append_checkpoints(out, checkpoints)
    typer.echo(f"{out}: {format_quantity(len(new), 'checkpoint')} appended")


def verify_rollout(rollout: str, head: str | None, server: str | None) -> None:
    """Verify the stored ledger of a rollout, and print the result."""
    verification_result = RequestRunner(server).send(
        "GET",
        build_path(rollout, "ledger", "verification"),
        lambda context: verify_stored_ledger(
            build_local_service(context.database), context.caller, rollout
        ),
    )
    fault = verification_result["fault"]
    if not fault and head is not None and head.strip().lower() != verification_result["head"]:
        fault = (
            f"the hash of the last entry is {verification_result['head']}, expected {head}. If you"
            " stored the head earlier, export the ledger and verify the file with --head"
        )
    if fault:
        report_fault(rollout, fault, is_head_missing=not verification_result["fault"])
    typer.echo(
        f"{rollout}: {verification_result['rows']} entries, intact; head"
        f" {verification_result['head']}"
    )
