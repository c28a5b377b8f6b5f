"""`rollout status`, `proposals`, `incidents`, `acknowledge` and `retire`, for a live rollout."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from rollout.engine.words.evidence_text import (
    VouchedUnits,
    describe_outcome_sources,
    describe_registered_units,
    describe_sources,
    describe_vouched_units,
)
from rollout.engine.words.state_text import describe_unopened_incidents
from rollout.features.cells.overview import load_rollout_overview
from rollout.features.incidents.incidents import load_incidents, record_acknowledgement
from rollout.features.proposals.proposal_details import (
    PROPOSAL_STATES,
    load_proposal,
    load_proposals,
)
from rollout.features.stops.stops import load_stops
from rollout.kernel.facts import StoredReading
from rollout.kernel.policy.evidence_sources import (
    CountedOutcomeSource,
    CountedSource,
    RegisteredUnits,
)
from rollout.kernel.policy.stages import describe_share
from rollout.kernel.units import group_pairs
from rollout.kernel.words import say_rounded
from rollout.live import versions
from rollout.terminal.command_table import exempt_from_collection
from rollout.terminal.remote import (
    ActorName,
    JsonFlag,
    JsonObject,
    PastInstant,
    ReasonText,
    RolloutName,
    ServerUrl,
    build_path,
    print_answer,
)
from rollout.terminal.runner import (
    NO_LIMIT,
    CommandRequest,
    LocalContext,
    RequestRunner,
    build_local_service,
    build_runner,
    change_rollout,
    list_items,
)

UNOPENED_FIELDS = ("kind", "site", "window", "unopened")


def format_status(rollout_status: JsonObject) -> str:
    """Return a status as text: cells with their next steps, proposals and stops."""
    return "\n".join(_iterate_status_lines(rollout_status))


def _iterate_status_lines(rollout_status: JsonObject) -> Iterator[str]:
    rollout_overview = rollout_status["rollout"]
    counting_text = (
        f"last tick {rollout_overview['ticked_at'] or 'never'}, {rollout_overview['pending']:,}"
        " units not counted yet"
    )
    yield (
        f"{rollout_overview['name']}: policy {rollout_overview['policy']}, ledger revision"
        f" {rollout_overview['revision']}, {counting_text}"
    )
    if rollout_overview["undelivered"]:
        yield (
            f"  {rollout_overview['undelivered']} undelivered: see `rollout deliveries"
            f" {rollout_overview['name']}`"
        )
    yield from _iterate_cell_lines(rollout_status["cells"])
    for proposal in rollout_status["proposals"]:
        yield from _format_proposal(proposal)
    for stop in rollout_status["stops"]["items"]:
        cells = ", ".join(_format_cell_name(cell) for cell in stop["cells"])
        drill = " (a drill)" if stop["drill"] else ""
        yield f"  {stop['id']}: stopped by {stop['by']}{drill}: {cells}"


def _iterate_cell_lines(cells: Iterable[JsonObject]) -> Iterator[str]:
    """Yield the state and next step of cells; cells that are equal share their lines."""
    names_by_text = group_pairs(
        ((_format_cell_state(cell), cell["next_step"]), _format_cell_name(cell)) for cell in cells
    )
    for (state, next_step), names in names_by_text.items():
        yield f"  {', '.join(names)}: {state}"
        yield f"      {next_step}"


def _format_cell_name(cell: JsonObject) -> str:
    return f"{cell['site']} · {cell['window']}"


def _format_cell_state(cell: JsonObject) -> str:
    version_text = f" by {cell['version']}" if cell["version"] else ""
    withholding_texts = ["suspended"] if cell["suspended_by"] else []
    withholding_texts += ["stopped"] if cell["stops"] else []
    withholding_texts += [f"until {cell['until']}"] if cell["until"] else []
    floor, share = cell["confidence_floor"], cell["model_share"]
    floor_texts = [f"for cases of confidence {floor:g} or more"] if floor else []
    state_text = " ".join([f"{cell['stage']}{version_text}", *floor_texts])
    share_texts = [] if share in {None, 1} else [describe_share(cell["version"], share)]
    return "; ".join([state_text, *share_texts, *withholding_texts])


def format_proposals(proposals: list[Any]) -> str:
    """Return proposals as text, three lines each."""
    lines = [line for proposal in proposals for line in _format_proposal(proposal)]
    return "\n".join(lines) or "no proposal needs approval"


def _format_proposal(proposal: JsonObject) -> Iterator[str]:
    cell = _format_cell_name(proposal) if proposal["site"] else proposal["about"]
    summary = f"{proposal['kind']} of {cell} {proposal['version']} {proposal['to']}".rstrip()
    approvers = ", ".join(approval["by"] for approval in proposal["approvals"]) or "no one yet"
    state = (
        f"{proposal['state']} until {proposal['expires_at']}"
        if proposal["state"] == "open"
        else proposal["state"]
    )
    groups = proposal["required_approvals"]
    needs = f"needs {len(groups)} approval{'s' if len(groups) != 1 else ''} ({', '.join(groups)})"
    yield f"  {proposal['id']}: {summary}; {needs}; approved by {approvers}; {state}"
    yield f"      {proposal['allows']}"
    for wait in proposal.get("waits_for", ()):
        yield f"      waits for the {wait['text']}"
    yield f"      --evidence-hash {proposal['evidence_hash']}"


def format_proposal_details(proposal: JsonObject, *, is_caller_known: bool) -> str:
    """Return a proposal with its frozen evidence, and why a known caller can't approve."""
    lines = list(_format_proposal(proposal))
    readings = [StoredReading(**reading) for reading in proposal["readings"]]
    sources = [CountedSource(**source) for source in proposal.get("sources", ())]
    outcome_sources = [CountedOutcomeSource(**s) for s in proposal.get("outcome_sources", ())]
    registered = [RegisteredUnits(**units) for units in proposal.get("registered", ())]
    vouched = [VouchedUnits(**units) for units in proposal.get("vouched", ())]
    texts = (
        *map(say_rounded, readings),
        *proposal["texts"][len(readings) :],
        proposal.get("attempt"),
        describe_sources(sources) if sources else "",
        describe_outcome_sources(outcome_sources) if outcome_sources else "",
        describe_registered_units(registered, proposal["version"]) if registered else "",
        *map(describe_vouched_units, vouched),
        *map(_format_import, proposal["imports"]),
        proposal["closed_reason"],
    )
    lines += [f"      {text}" for text in texts if text]
    if is_caller_known and proposal["state"] == "open" and not proposal["can_approve"]:
        lines.append(f"      you can't approve it: {proposal['cannot_approve_reason']}")
    return "\n".join(lines)


def _format_import(evidence_import: JsonObject) -> str:
    files = ", ".join(evidence_import["files"])
    return (
        f"{evidence_import['cases']:,} cases are imported from {files}: "
        f"{evidence_import['by']} vouches for when they were received, "
        f"{evidence_import['received_since'][:10]} to {evidence_import['received_until'][:10]}"
    )


def format_incidents(incidents: list[Any], *, every: bool) -> str:
    """Return incidents as text, a line each."""
    empty_text = "no incidents" if every else "no open incidents; --all lists acknowledged ones too"
    lines = [f"  {_format_incident(incident)}" for incident in incidents]
    lines += dict.fromkeys(
        f"  {describe_unopened_incidents(*(incident[name] for name in UNOPENED_FIELDS))}"
        for incident in incidents
        if incident["unopened"]
    )
    return "\n".join(lines) or empty_text


def _format_incident(incident: JsonObject) -> str:
    names = (_format_cell_name(incident), incident["version"]) if incident["site"] else ()
    place = "".join(f", {name}" for name in names if name)
    acknowledgement = ": ".join(filter(None, (incident["acknowledged_by"], incident["note"])))
    return (
        f"{incident['id']} {incident['opened_at']} {incident['kind']}{place}:"
        f" {incident['effect']}: {incident['reason']}"
        + (f"; acknowledged by {acknowledgement}" if incident["acknowledged_by"] else "")
    )


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
    proposal_details = RequestRunner(server, at=at).send(
        "GET",
        build_path(rollout, "proposals", proposal),
        lambda context: load_proposal(
            build_local_service(context.database), context.caller, rollout, proposal, at=context.at
        ),
    )
    print_answer(
        proposal_details,
        format_proposal_details(proposal_details, is_caller_known=bool(server)),
        as_json=as_json,
    )


def list_proposals(
    server: str | None, rollout: str, at: str | None, states: list[str]
) -> list[Any]:
    """Return the proposals in these states, newest first."""
    return list_items(
        server,
        build_path(rollout, "proposals"),
        {"state": states},
        at,
        lambda context: load_proposals(
            build_local_service(context.database),
            context.caller,
            rollout,
            at=context.at,
            states=states,
            limit=NO_LIMIT,
        ),
    )


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
            from rollout.features.cells.cells import load_cells

        return load_cells(
            build_local_service(context.database),
            context.caller,
            rollout,
            at=context.at,
            limit=NO_LIMIT,
        )

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
    incident_list = list_items(
        server,
        build_path(rollout, "incidents"),
        {"state": "all" if every else "open"},
        None,
        lambda context: load_incidents(
            build_local_service(context.database),
            context.caller,
            rollout,
            acknowledged=None if every else False,
            limit=NO_LIMIT,
        ),
    )
    print_answer(incident_list, format_incidents(incident_list, every=every), as_json=as_json)


def retire(
    rollout: RolloutName,
    version: Annotated[str, typer.Argument(help="model version to retire", metavar="VERSION")],
    by: ActorName = "",
    reason: ReasonText = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Retire a model version everywhere: its grants end and it gets no new ones.

    Example: `rollout retire ramps v1 --by ana`
    """
    change_rollout(
        build_runner(server, by, None, at),
        build_path(rollout, "versions", version, "retirement"),
        lambda context: versions.retire_model_version(
            context.database, context.caller, rollout, version, at=context.at, reason=reason
        ),
        {"reason": reason},
        as_json=as_json,
    )


def acknowledge(
    rollout: RolloutName,
    incident: Annotated[
        str, typer.Argument(help="id from `rollout incidents`, as I-1", metavar="INCIDENT")
    ],
    by: ActorName = "",
    note: Annotated[str, typer.Option(help="what you found, stored in the ledger")] = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Acknowledge an incident. This restores no grant.

    Example: `rollout acknowledge ramps I-1 --by ana --note "snow on the lens"`
    """
    change_rollout(
        build_runner(server, by, None, at),
        build_path(rollout, "incidents", incident, "acknowledgement"),
        lambda context: record_acknowledgement(
            context.database, context.caller, rollout, incident, at=context.at, note=note
        ),
        {"note": note},
        as_json=as_json,
    )
