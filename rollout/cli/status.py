"""Commands that read a live rollout: its status, proposals, incidents."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.remote import ServerUrl, build_path, request_all_pages
from rollout.cli.rollout_options import PastInstant, RolloutName
from rollout.cli.runner import CommandRequest, LocalContext, RequestRunner
from rollout.cli.status_text import (
    format_incidents,
    format_proposal_details,
    format_proposals,
    format_status,
)
from rollout.services.cells.overview import load_rollout_overview
from rollout.services.incidents.incidents import load_incidents
from rollout.services.proposals.proposal_details import (
    PROPOSAL_STATES,
    load_proposal,
    load_proposals,
)
from rollout.services.stops.stops import load_stops

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
        lambda context: load_stops(
            build_local_service(context.database), context.caller, rollout, at=context.at
        ),
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
            build_local_service(context.database), context.caller, rollout, proposal, at=context.at
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
            build_local_service(context.database),
            context.caller,
            rollout,
            acknowledged=acknowledged,
            limit=NO_LIMIT,
        ).items

    incident_list = list_items(server, path, params, None, run_locally)
    print_answer(incident_list, format_incidents(incident_list, every=every), as_json=as_json)


def _list_cells(server: str | None, rollout: str, at: str | None) -> list[Any]:
    def run_locally(context: LocalContext) -> Any:
        from rollout.services.cells.cells import load_cells  # noqa: PLC0415 - half a second

        return load_cells(
            build_local_service(context.database),
            context.caller,
            rollout,
            at=context.at,
            limit=NO_LIMIT,
        ).items

    return list_items(server, build_path(rollout, "cells"), {}, at, run_locally)


def _list_proposals(
    server: str | None, rollout: str, at: str | None, states: list[str]
) -> list[Any]:
    def run_locally(context: LocalContext) -> Any:
        page = load_proposals(
            build_local_service(context.database),
            context.caller,
            rollout,
            at=context.at,
            states=states,
            limit=NO_LIMIT,
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
