"""Commands that read a live rollout: its status, proposals, incidents and ledger."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.ledger import (
    CheckpointOption,
    HeadOption,
    PublicKeyOption,
    report_fault,
    verify_file,
)
from rollout.cli.output import (
    JsonFlag,
    format_incidents,
    format_proposal_details,
    format_proposals,
    format_status,
    print_answer,
)
from rollout.cli.remote import ServerUrl, build_path, request_all_pages, request_lines
from rollout.cli.runner import (
    LOCAL_READER,
    CommandRequest,
    LocalContext,
    PastInstant,
    RequestRunner,
    RolloutName,
    build_local_service,
    open_database,
)
from rollout.reports.text.formatting import format_quantity
from rollout.services.cells.cells import load_cells
from rollout.services.cells.overview import load_rollout_overview
from rollout.services.incidents.incidents import load_incidents
from rollout.services.ledger.checkpoints import append_checkpoints, sign_heads
from rollout.services.ledger.ledger_reader import iterate_ledger_lines, verify_stored_ledger
from rollout.services.proposals.proposal_details import (
    PROPOSAL_STATES,
    load_proposal,
    load_proposals,
)
from rollout.services.stops.stops import load_stops
from rollout.services.support.checkpoint_keys import open_checkpoint_targets
from rollout.settings import read_settings
from rollout.store.database.rollouts import ACCESS_CHAIN
from rollout.store.ledger.ledger import Ledger

NO_LIMIT = 1_000_000  # a local list needs no pages


def status(
    rollout: RolloutName,
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the stage and next step of each cell, open proposals with their hashes, and stops.

    Example: `rollout status ramps`

    On a service: `ROLLOUT_API_KEY=ro_… rollout status ramps --server URL`
    """
    path = build_path(rollout)
    overview_request = CommandRequest(
        "GET",
        path,
        lambda context: load_rollout_overview(context.database, context.caller, rollout),
    )
    stops_request = CommandRequest(
        "GET",
        f"{path}/stops",
        lambda context: load_stops(context.service, context.caller, rollout, at=context.at),
    )
    rollout_overview, stops = RequestRunner(server, at=at).run(overview_request, stops_request)
    result = {
        "rollout": rollout_overview,
        "cells": _list_cells(server, rollout, at),
        "proposals": _list_proposals(server, rollout, at, ["open", "approved"]),
        "stops": stops,
    }
    print_answer(result, format_status(result), as_json=as_json)


def proposals(
    rollout: RolloutName,
    proposal: Annotated[
        str | None, typer.Argument(help="show this proposal, as P-1", metavar="[PROPOSAL]")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(PROPOSAL_STATES)} (repeatable; default: open, approved)"),
    ] = None,
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """List proposals that need approval, or show one with its evidence.

    Example: `rollout proposals ramps`

    One proposal: `rollout proposals ramps P-1`
    """
    if proposal is None:
        result = _list_proposals(server, rollout, at, state or ["open", "approved"])
        print_answer(result, format_proposals(result), as_json=as_json)
        return
    request = CommandRequest(
        "GET",
        build_path(rollout, "proposals", proposal),
        lambda context: load_proposal(
            context.service, context.caller, rollout, proposal, at=context.at
        ),
    )
    (proposal_details,) = RequestRunner(server, at=at).run(request)
    print_answer(
        proposal_details,
        format_proposal_details(proposal_details, is_caller_known=bool(server)),
        as_json=as_json,
    )


def incidents(
    rollout: RolloutName,
    every: Annotated[bool, typer.Option("--all", help="include acknowledged incidents")] = False,
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """List incidents that are not acknowledged.

    Example: `rollout incidents ramps`
    """
    path, params = build_path(rollout, "incidents"), {"state": "all" if every else "open"}

    def run_locally(context: LocalContext) -> Any:
        acknowledged = None if every else False
        return load_incidents(
            context.service, context.caller, rollout, acknowledged=acknowledged, limit=NO_LIMIT
        ).items

    incident_list = list_items(server, path, params, None, run_locally)
    print_answer(incident_list, format_incidents(incident_list, every=every), as_json=as_json)


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

    The key is the file in ROLLOUT_CHECKPOINT_KEY_FILE. With `--out` only heads that have changed
    are appended. A ledger that was rewritten no longer has a row that a checkpoint signed:
    `rollout ledger verify --checkpoint` and `rollout doctor --heads` find that.

    Example: `rollout ledger checkpoint --out /mnt/elsewhere/checkpoints.jsonl`
    """
    with open_database() as database, print_refusals():
        signer = open_checkpoint_targets(
            read_settings(os.environ).checkpoint_key_file, "", ""
        ).require_signer()
        checkpoints = sign_heads(database, signer, datetime.now(UTC))
        if out is None:
            typer.echo("\n".join(checkpoint.format() for checkpoint in checkpoints))
            return
        new = append_checkpoints(out, checkpoints)
    typer.echo(f"{out}: {format_quantity(len(new), 'checkpoint')} appended")


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="exported ledger, one entry per line", metavar="[FILE]")
    ] = None,
    head: HeadOption = None,
    checkpoint: CheckpointOption = None,
    public_key: PublicKeyOption = None,
    rollout: Annotated[
        str | None, typer.Option(help="verify the stored ledger of this rollout, instead of a file")
    ] = None,
    server: ServerUrl = None,
) -> None:
    """Verify a ledger: recompute every hash. Exit 1 and name the first bad line.

    The hashes show edited, deleted and swapped entries. To find entries removed at the end, or a
    ledger whose hashes were all recomputed, store the head (the last hash) elsewhere and pass it as
    `--head`. With --rollout it must be the last hash; in a file it may be an earlier one. Signed
    heads (`rollout ledger checkpoint`) are compared by `--checkpoint FILE --public-key KEY`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`

    The stored ledger: `rollout ledger verify --rollout ramps`
    """
    with print_refusals():
        if (file is None) == (rollout is None):
            raise ValueError("name one ledger: FILE, or --rollout NAME for the stored one")
        if rollout is not None and checkpoint is not None:
            raise ValueError("`rollout doctor --heads FILE` compares stored ledgers; name it there")
    if file is not None:
        verify_file(file, head, checkpoint, public_key)
        return
    request = CommandRequest(
        "GET",
        build_path(str(rollout), "ledger", "verification"),
        lambda context: verify_stored_ledger(context.service, context.caller, str(rollout)),
    )
    (verification_result,) = RequestRunner(server).run(request)
    fault = verification_result["fault"]
    if not fault and head is not None and head.strip().lower() != verification_result["head"]:
        fault = (
            f"the hash of the last entry is {verification_result['head']}, expected {head}. If you"
            " stored the head earlier, export the ledger and verify the file with --head"
        )
    if fault:
        report_fault(str(rollout), fault, is_head_missing=not verification_result["fault"])
    typer.echo(
        f"{rollout}: {verification_result['rows']} entries, intact; head"
        f" {verification_result['head']}"
    )


def _list_cells(server: str | None, rollout: str, at: str | None) -> list[Any]:
    def run_locally(context: LocalContext) -> Any:
        return load_cells(
            context.service, context.caller, rollout, at=context.at, limit=NO_LIMIT
        ).items

    return list_items(server, build_path(rollout, "cells"), {}, at, run_locally)


def _list_proposals(
    server: str | None, rollout: str, at: str | None, states: list[str]
) -> list[Any]:
    def run_locally(context: LocalContext) -> Any:
        page = load_proposals(
            context.service, context.caller, rollout, at=context.at, states=states, limit=NO_LIMIT
        )
        return page.items

    return list_items(server, build_path(rollout, "proposals"), {"state": states}, at, run_locally)


def list_items(
    server: str | None,
    path: str,
    params: dict[str, Any],
    at: str | None,
    run_locally: Callable[[LocalContext], Any],
) -> list[Any]:
    """Return all items of a list; a service sends them in pages."""
    if server:
        with print_refusals():
            return request_all_pages(server, path, params)
    items: list[Any]
    (items,) = RequestRunner(at=at).run(CommandRequest("GET", path, run_locally))
    return items
