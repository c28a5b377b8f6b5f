"""How a live rollout stands: its cells, proposals, incidents, and its ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.ledger import verify_file
from rollout.cli.questions import (
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
from rollout.cli.refusing import refusals
from rollout.cli.remote import Server, lines_of_server, pages_of_server, path_of
from rollout.cli.telling import (
    incidents_text,
    proposal_text,
    proposals_text,
    status_text,
    tell,
)
from rollout.services.cells import cells_of
from rollout.services.incidents import incidents_of
from rollout.services.ledgers import ledger_lines, verification
from rollout.services.overview import overview
from rollout.services.proposal_views import STATES, listing, one
from rollout.services.stopping import stops_of

ALL = 1_000_000  # of a local list, which needs no pages


def status(rollout: Name, server: Server = None, at: At = None, as_json: AsJson = False) -> None:
    """Show stages and what comes next, open proposals with the hash to approve them by, stops.

    Example: `rollout status ramps`

    Of a service: `ROLLOUT_KEY=ro_… rollout status ramps --server URL`
    """
    path = path_of(rollout)
    known = Question("GET", path, lambda me: overview(me.database, me.caller, rollout))
    held = Question(
        "GET", f"{path}/stops", lambda me: stops_of(me.service, me.caller, rollout, at=me.at)
    )
    about, stops = Asker(server, at=at).answer(known, held)
    found = {
        "rollout": about,
        "cells": _cells(server, rollout, at),
        "proposals": _proposals(server, rollout, at, ["open", "approved"]),
        "stops": stops,
    }
    tell(found, status_text(found), as_json=as_json)


def proposals(
    rollout: Name,
    proposal: Annotated[
        str | None, typer.Argument(help="one, with its evidence", metavar="[PROPOSAL]")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(STATES)}; by default open and approved"),
    ] = None,
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List what waits for people, or show one proposal with its frozen evidence.

    Example: `rollout proposals ramps`, `rollout proposals ramps P-1`
    """
    if proposal is None:
        found = _proposals(server, rollout, at, state or ["open", "approved"])
        tell(found, proposals_text(found), as_json=as_json)
        return
    question = Question(
        "GET",
        path_of(rollout, "proposals", proposal),
        lambda me: one(me.service, me.caller, rollout, proposal, at=me.at),
    )
    (shown,) = Asker(server, at=at).answer(question)
    tell(shown, proposal_text(shown, known=bool(server)), as_json=as_json)


def incidents(
    rollout: Name,
    every: Annotated[bool, typer.Option("--all", help="those that were seen, too")] = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List incidents that nobody has acknowledged.

    Example: `rollout incidents ramps`
    """
    path, params = path_of(rollout, "incidents"), {"state": "all" if every else "open"}

    def here(me: Here) -> Any:
        which = None if every else False
        return incidents_of(me.service, me.caller, rollout, acknowledged=which, limit=ALL).items

    found = listed(server, path, params, None, here)
    tell(found, incidents_text(found, every=every), as_json=as_json)


def export(rollout: Name, server: Server = None) -> None:
    """Print a rollout's ledger as `rollout ledger verify` reads it.

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


def verify(
    file: Annotated[Path | None, typer.Argument(help="a ledger.jsonl", metavar="[FILE]")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="hash of the last row, kept elsewhere: shows a chain cut short or remade"
        ),
    ] = None,
    rollout: Annotated[
        str | None, typer.Option(help="the stored chain of a rollout, in place of a file")
    ] = None,
    server: Server = None,
) -> None:
    """Recompute every link of a ledger; exit 1 names the first bad line.

    A chain shows edits, deletions and swaps. That its end was cut off, or that every hash was
    made anew, only a head kept elsewhere can show: give it by `--head`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`, or
    `rollout ledger verify --rollout ramps`
    """
    with refusals():
        if (file is None) == (rollout is None):
            raise ValueError("name a FILE, or a rollout by --rollout")
    if file is not None:
        verify_file(file, head)
        return
    question = Question(
        "GET",
        path_of(str(rollout), "ledger", "verification"),
        lambda me: verification(me.service, me.caller, str(rollout)),
    )
    (found,) = Asker(server).answer(question)
    fault = found["fault"]
    if not fault and head is not None and head.strip().lower() != found["head"]:
        fault = f"its head is {found['head']}, not {head}"
    if fault:
        typer.echo(f"{rollout}: {fault}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{rollout}: {found['rows']} rows, whole; head {found['head']}")


def _cells(server: str | None, rollout: str, at: str | None) -> list[Any]:
    def here(me: Here) -> Any:
        return cells_of(me.service, me.caller, rollout, at=me.at, limit=ALL).items

    return listed(server, path_of(rollout, "cells"), {}, at, here)


def _proposals(server: str | None, rollout: str, at: str | None, states: list[str]) -> list[Any]:
    def here(me: Here) -> Any:
        found = listing(me.service, me.caller, rollout, at=me.at, states=states, limit=ALL)
        return found.items

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
    found: list[Any]
    (found,) = Asker(at=at).answer(Question("GET", path, here))
    return found
