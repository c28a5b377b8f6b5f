"""`rollout status`: print the state of a live rollout.

`rollout incidents`: list incidents of a live rollout.

`rollout proposals`: list proposals of a live rollout, or show one.
"""

from typing import Annotated, Any

import typer

from rollout.cli.command_table import exempt_from_collection
from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import PastInstant, RolloutName
from rollout.cli.runner import NO_LIMIT, CommandRequest, LocalContext, RequestRunner, list_items
from rollout.cli.status_text import (
    format_incidents,
    format_proposal_details,
    format_proposals,
    format_status,
)
from rollout.features.cells.overview import load_rollout_overview
from rollout.features.incidents.incidents import load_incidents
from rollout.features.proposals.proposal_details import (
    PROPOSAL_STATES,
    load_proposal,
    load_proposals,
)
from rollout.features.stops.stops import load_stops


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
        result = list_proposals(server, rollout, at, state or ["open", "approved"])
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


def list_proposals(
    server: str | None, rollout: str, at: str | None, states: list[str]
) -> list[Any]:
    """Return the proposals in these states, newest first."""

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
        "proposals": list_proposals(server, rollout, at, ["open", "approved"]),
        "stops": stops,
    }
    print_answer(result, format_status(result), as_json=as_json)


def _list_cells(server: str | None, rollout: str, at: str | None) -> list[Any]:
    def run_locally(context: LocalContext) -> Any:
        with exempt_from_collection():
            from rollout.features.cells.cells import load_cells  # noqa: PLC0415 - half a second

        return load_cells(
            build_local_service(context.database),
            context.caller,
            rollout,
            at=context.at,
            limit=NO_LIMIT,
        ).items

    return list_items(server, build_path(rollout, "cells"), {}, at, run_locally)


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
