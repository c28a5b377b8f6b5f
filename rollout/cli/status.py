"""`rollout status`: print the state of a live rollout."""

from typing import Any

from rollout.cli.command_table import exempt_from_collection
from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.proposals import list_proposals
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import PastInstant, RolloutName
from rollout.cli.runner import NO_LIMIT, CommandRequest, LocalContext, RequestRunner, list_items
from rollout.cli.status_text import (
    format_status,
)
from rollout.services.cells.overview import load_rollout_overview
from rollout.services.stops.stops import load_stops


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
            from rollout.services.cells.cells import load_cells  # noqa: PLC0415 - half a second

        return load_cells(
            build_local_service(context.database),
            context.caller,
            rollout,
            at=context.at,
            limit=NO_LIMIT,
        ).items

    return list_items(server, build_path(rollout, "cells"), {}, at, run_locally)
