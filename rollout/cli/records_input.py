"""Commands that read a live rollout: its status, proposals, incidents and ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.errors import refusals
from rollout.cli.ledger import verify_file
from rollout.cli.output import incidents_text, proposal_text, proposals_text, status_text, tell
from rollout.cli.plan_and_status import (
    WHOEVER,
    AsJson,
    Asker,
    At,
    Here,
    Name,
    Question,
    opened,
    service_of,
)
from rollout.cli.remote import Server, lines_of_server, pages_of_server, path_of
from rollout.services.cells.cells import cells_of
from rollout.services.cells.overview import overview
from rollout.services.incidents.incidents import incidents_of
from rollout.services.ledger.ledger_pages import ledger_lines, verification
from rollout.services.proposals.proposal_details import STATES, listing, one
from rollout.services.stops.stops import stops_of
from rollout.store.database.rollouts import HOUSE_CHAIN
from rollout.store.ledger.ledger import Ledger

ALL = 1_000_000  # a local list needs no pages


def status(rollout: Name, server: Server = None, at: At = None, as_json: AsJson = False) -> None:
    """Show the stage and next step of each cell, open proposals with their hashes, and stops.

    Example: `rollout status ramps`

    On a service: `ROLLOUT_API_KEY=ro_… rollout status ramps --server URL`
    """
    path = path_of(rollout)
    overview_request = Question(
        "GET", path, lambda context: overview(context.database, context.caller, rollout)
    )
    stops_request = Question(
        "GET",
        f"{path}/stops",
        lambda context: stops_of(context.service, context.caller, rollout, at=context.at),
    )
    rollout_overview, stops = Asker(server, at=at).answer(overview_request, stops_request)
    result = {
        "rollout": rollout_overview,
        "cells": _cells(server, rollout, at),
        "proposals": _proposals(server, rollout, at, ["open", "approved"]),
        "stops": stops,
    }
    tell(result, status_text(result), as_json=as_json)


def proposals(
    rollout: Name,
    proposal: Annotated[
        str | None, typer.Argument(help="show this proposal, as P-1", metavar="[PROPOSAL]")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(STATES)} (repeatable; default: open, approved)"),
    ] = None,
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List proposals that need approval, or show one with its evidence.

    Example: `rollout proposals ramps`

    One proposal: `rollout proposals ramps P-1`
    """
    if proposal is None:
        result = _proposals(server, rollout, at, state or ["open", "approved"])
        tell(result, proposals_text(result), as_json=as_json)
        return
    request = Question(
        "GET",
        path_of(rollout, "proposals", proposal),
        lambda context: one(context.service, context.caller, rollout, proposal, at=context.at),
    )
    (proposal_details,) = Asker(server, at=at).answer(request)
    tell(proposal_details, proposal_text(proposal_details, known=bool(server)), as_json=as_json)


def incidents(
    rollout: Name,
    every: Annotated[bool, typer.Option("--all", help="include acknowledged incidents")] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List incidents that are not acknowledged.

    Example: `rollout incidents ramps`
    """
    path, params = path_of(rollout, "incidents"), {"state": "all" if every else "open"}

    def here(me: Here) -> Any:
        acknowledged = None if every else False
        return incidents_of(
            me.service, me.caller, rollout, acknowledged=acknowledged, limit=ALL
        ).items

    incident_list = listed(server, path, params, None, here)
    tell(incident_list, incidents_text(incident_list, every=every), as_json=as_json)


def export(rollout: Name, server: Server = None) -> None:
    """Print the ledger of a rollout, a row a line. `rollout ledger verify` reads it.

    Example: `rollout ledger export ramps > ledger.jsonl`
    """
    if server:
        with refusals():
            lines = lines_of_server(server, path_of(rollout, "ledger"))
        typer.echo("\n".join(lines))
        return
    with opened() as database:
        for line in ledger_lines(service_of(database), WHOEVER, rollout):
            typer.echo(line)


def export_access() -> None:
    """Print the access ledger (users, roles, keys), a row a line.

    It is read from the database in ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if
    ROLLOUT_SERVER is set. `rollout ledger verify` reads it.

    Example: `rollout ledger export-access > access.jsonl`
    """
    with opened() as database, database.reading() as transaction:
        for line in Ledger(transaction, HOUSE_CHAIN).lines():
            typer.echo(line)


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="exported ledger, a row a line", metavar="[FILE]")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="expected hash of the last row, which you kept elsewhere"),
    ] = None,
    rollout: Annotated[
        str | None, typer.Option(help="verify the stored ledger of this rollout, instead of a file")
    ] = None,
    server: Server = None,
) -> None:
    """Verify a ledger: recompute every hash. Exit 1 and name the first bad line.

    The hashes show edited, deleted and swapped rows. Rows cut off at the end, or a ledger whose
    hashes were all made anew, show only against a hash that you kept elsewhere: pass it as
    `--head`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`

    The stored ledger: `rollout ledger verify --rollout ramps`
    """
    with refusals():
        if (file is None) == (rollout is None):
            raise ValueError("name one ledger: FILE, or --rollout NAME for the stored one")
    if file is not None:
        verify_file(file, head)
        return
    request = Question(
        "GET",
        path_of(str(rollout), "ledger", "verification"),
        lambda context: verification(context.service, context.caller, str(rollout)),
    )
    (verification_result,) = Asker(server).answer(request)
    fault = verification_result["fault"]
    if not fault and head is not None and head.strip().lower() != verification_result["head"]:
        fault = f"the last hash is {verification_result['head']}, expected {head}"
    if fault:
        typer.echo(f"{rollout}: {fault}", err=True)
        raise typer.Exit(1)
    typer.echo(
        f"{rollout}: {verification_result['rows']} rows, intact; head {verification_result['head']}"
    )


def _cells(server: str | None, rollout: str, at: str | None) -> list[Any]:
    def here(me: Here) -> Any:
        return cells_of(me.service, me.caller, rollout, at=me.at, limit=ALL).items

    return listed(server, path_of(rollout, "cells"), {}, at, here)


def _proposals(server: str | None, rollout: str, at: str | None, states: list[str]) -> list[Any]:
    def here(me: Here) -> Any:
        page = listing(me.service, me.caller, rollout, at=me.at, states=states, limit=ALL)
        return page.items

    return listed(server, path_of(rollout, "proposals"), {"state": states}, at, here)


def listed(
    server: str | None,
    path: str,
    params: dict[str, Any],
    at: str | None,
    here: Callable[[Here], Any],
) -> list[Any]:
    """Return a whole list, of a service page by page."""
    if server:
        with refusals():
            return pages_of_server(server, path, params)
    items: list[Any]
    (items,) = Asker(at=at).answer(Question("GET", path, here))
    return items
