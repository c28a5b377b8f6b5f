"""Commands that read a live rollout: its status, proposals, incidents, ledger, deliveries."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.output import (
    JsonFlag,
    format_incidents,
    format_proposal_details,
    format_proposals,
    format_status,
    print_answer,
)
from rollout.cli.remote import ServerUrl, build_path, request_all_pages
from rollout.cli.runner import (
    ActorName,
    CommandRequest,
    LocalContext,
    PastInstant,
    RequestRunner,
    RolloutName,
    build_runner,
)
from rollout.services.cells.cells import load_cells
from rollout.services.cells.overview import load_rollout_overview
from rollout.services.delivery.outbox import load_deliveries, queue_report, requeue_delivery
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


NO_DELIVERIES = "no deliveries yet; `reports` in the policy defines what is sent to which channel"


def manage_deliveries(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    failed: Annotated[bool, typer.Option("--failed", help="only failed deliveries")] = False,
    again: Annotated[int | None, typer.Option("--retry", help="retry this delivery, by id")] = None,
    report: Annotated[int | None, typer.Option("--send", help="send this report, by id")] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="with --send: channel to send to (repeatable)")
    ] = None,
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """List deliveries of reports, retry a failed one, or send a report.

    Example: `rollout deliveries ramps`

    Retry: `rollout deliveries ramps --retry 7 --by ana`

    Send: `rollout deliveries ramps --send 12 --to rangers --by ana`
    """
    if report is not None:
        body = {"report": report, "channels": to or []}
        request = CommandRequest(
            "POST",
            build_path(rollout, "deliveries"),
            lambda context: _queue_report(context, rollout, report, to),
            body,
        )
        (queued_deliveries,) = build_runner(server, by).run(request)
        print_answer(
            queued_deliveries,
            "\n".join(map(format_delivery, queued_deliveries["items"])),
            as_json=as_json,
        )
        return
    if again is not None:
        path = build_path(rollout, "deliveries", str(again), "retry")
        request = CommandRequest(
            "POST",
            path,
            lambda context: requeue_delivery(
                context.database, context.caller, rollout, again, at=context.at
            ),
        )
        (retried_delivery,) = build_runner(server, by).run(request)
        print_answer(retried_delivery, format_delivery(retried_delivery), as_json=as_json)
        return
    state = "failed" if failed else "all"

    def run_locally(context: LocalContext) -> Any:
        state_filter = "failed" if failed else None
        return load_deliveries(
            context.database, context.caller, rollout, state=state_filter, limit=NO_LIMIT
        ).items

    delivery_list = list_items(
        server, build_path(rollout, "deliveries"), {"state": state}, None, run_locally
    )
    print_answer(
        delivery_list,
        "\n".join(map(format_delivery, delivery_list)) or NO_DELIVERIES,
        as_json=as_json,
    )


def _queue_report(
    context: LocalContext, rollout: str, report: int, to: list[str] | None
) -> dict[str, Any]:
    """Queue a report and return its deliveries as the route does."""
    if not to:
        raise ValueError("no channel is named; add --to CHANNEL, as in the policy")
    return {
        "items": queue_report(context.database, context.caller, rollout, report, to, at=context.at)
    }


def format_delivery(delivery: Mapping[str, Any]) -> str:
    """Return a delivery as a line: report, channel and state."""
    summary = (
        f"{delivery['id']} report {delivery['report']} to {delivery['channel']}"
        f" ({delivery['subject']})"
    )
    if delivery["state"] == "sent":
        return f"{summary}: sent {delivery['sent_at']}"
    error_text = f": {delivery['error']}" if delivery["error"] else ""
    attempts = delivery["attempts"]
    attempt_text = (
        f"after {attempts} {'try' if attempts == 1 else 'tries'}" if attempts else "not tried yet"
    )
    if delivery["state"] == "failed":
        return f"{summary}: failed {attempt_text}{error_text}"
    return f"{summary}: next try {delivery['next_at']}, {attempt_text}{error_text}"
