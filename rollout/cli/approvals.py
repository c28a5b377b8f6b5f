"""Commands that change a live rollout: approvals, narrowings, stops, pauses of evidence."""

from typing import Annotated, Any

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.output import JsonFlag, format_command_result, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.runner import (
    ActorName,
    CommandRequest,
    GroupNames,
    PastInstant,
    ReasonText,
    RolloutName,
    build_runner,
)
from rollout.core.calendar.sites import Cell
from rollout.core.scope.stop_targets import StopTarget
from rollout.services.cells.evidence_pauses import CellEvidenceMode, set_cell_evidence
from rollout.services.engine import versions
from rollout.services.incidents import incidents
from rollout.services.proposals import proposals
from rollout.services.stops import stops
from rollout.services.stops.immediate_narrowings import narrow_at_once
from rollout.services.stops.immediate_stops import stop_at_once

Sites = Annotated[
    list[str] | None, typer.Option("--site", help="site or pattern with * (repeatable)")
]
Windows = Annotated[
    list[str] | None, typer.Option("--window", help="window or pattern with * (repeatable)")
]
EveryCell = Annotated[bool, typer.Option("--all", help="all cells")]
ProposalId = Annotated[
    str, typer.Argument(help="id from `rollout proposals`, as P-1", metavar="PROPOSAL")
]


def approve(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    proposal: ProposalId,
    evidence_hash: Annotated[str, typer.Option(help="hash from `rollout proposals`")],
    by: ActorName = "",
    group: GroupNames = None,
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Approve a proposal. After the last approval, the next tick applies it.

    Example: `rollout approve ramps P-1 --by ana --evidence-hash HASH`

    On a service: `ROLLOUT_API_KEY=ro_… rollout approve ramps P-1 --evidence-hash HASH --server
    URL`
    """
    path = build_path(rollout, "proposals", proposal, "approvals")
    request = CommandRequest(
        "POST",
        path,
        lambda context: proposals.approve_proposal(
            context.database, context.caller, rollout, proposal, evidence_hash, at=context.at
        ),
        {"evidence_hash": evidence_hash},
    )
    (result,) = build_runner(server, by, group, at).run(request)
    approval_text = f"{result['at']} Approved {result['proposal']}\n{result['text']}"
    print_answer(result, approval_text, as_json=as_json)


def reject(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    proposal: ProposalId,
    by: ActorName = "",
    group: GroupNames = None,
    reason: ReasonText = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Reject a proposal. A similar one is raised again only after the policy's quiet time.

    Example: `rollout reject ramps P-1 --by ana --reason "after the holidays"`
    """
    request = CommandRequest(
        "POST",
        build_path(rollout, "proposals", proposal, "rejection"),
        lambda context: proposals.reject_proposal(
            context.database, context.caller, rollout, proposal, at=context.at, reason=reason
        ),
        {"reason": reason},
    )
    _print_result(build_runner(server, by, group, at).run(request), as_json=as_json)


def narrow(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    to: Annotated[str, typer.Option(help="highest stage that stays, or shadow")],
    by: ActorName = "",
    site: Sites = None,
    window: Windows = None,
    every: EveryCell = False,
    reason: ReasonText = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Narrow cells to a stage at once: end every grant above it.

    Example: `rollout narrow ramps --to shadow --site ramp-a --by ana`
    """
    target = _build_target(site, window, every=every)
    request = CommandRequest(
        "POST",
        build_path(rollout, "narrowings"),
        lambda context: narrow_at_once(
            context.service, context.caller, rollout, target, to, at=context.at, reason=reason
        ),
        {**_build_body(target), "to": to, "reason": reason},
    )
    _print_result(build_runner(server, by, None, at).run(request), as_json=as_json)


def stop(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    by: ActorName = "",
    site: Sites = None,
    window: Windows = None,
    every: EveryCell = False,
    drill: Annotated[
        bool, typer.Option(help="mark the stop as a drill; it takes effect all the same")
    ] = False,
    reason: ReasonText = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop cells at once: humans decide every case until a resume is approved.

    Example: `rollout stop ramps --all --by ana`
    """
    target = _build_target(site, window, every=every)
    request = CommandRequest(
        "POST",
        build_path(rollout, "stops"),
        lambda context: stop_at_once(
            context.service,
            context.caller,
            rollout,
            target,
            at=context.at,
            reason=reason,
            is_drill=drill,
        ),
        {**_build_body(target), "reason": reason, "drill": drill},
    )
    _print_result(build_runner(server, by, None, at).run(request), as_json=as_json)


def resume(
    rollout: RolloutName,
    stopped: Annotated[
        str, typer.Argument(help="id from `rollout status`, as S-12", metavar="STOP")
    ],
    by: ActorName = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Propose to end a stop. Other users approve it with the hash from `rollout proposals`.

    Example: `rollout resume ramps S-12 --by ana`
    """
    request = CommandRequest(
        "POST",
        build_path(rollout, "stops", stopped, "resume"),
        lambda context: stops.propose_resume(
            context.database, context.caller, rollout, stopped, at=context.at
        ),
    )
    _print_result(build_runner(server, by, None, at).run(request), as_json=as_json)


def evidence(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    mode: Annotated[CellEvidenceMode, typer.Argument(help="watch to pause it, count to resume it")],
    site: Annotated[str, typer.Option(help="site of the cell")],
    window: Annotated[str, typer.Option(help="window of the cell")],
    by: ActorName = "",
    reason: ReasonText = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Pause the evidence of a cell in shadow, or resume it in a new attempt.

    Example: `rollout evidence ramps watch --site ramp-a --window day --by ana`
    """
    request = CommandRequest(
        "PUT",
        build_path(rollout, "cells", site, window, "evidence"),
        lambda context: set_cell_evidence(
            context.database,
            context.caller,
            rollout,
            Cell(site, window),
            mode,
            at=context.at,
            reason=reason,
        ),
        {"evidence": mode, "reason": reason},
    )
    _print_result(build_runner(server, by, None, at).run(request), as_json=as_json)


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
    request = CommandRequest(
        "POST",
        build_path(rollout, "versions", version, "retirement"),
        lambda context: versions.retire_model_version(
            context.database, context.caller, rollout, version, at=context.at, reason=reason
        ),
        {"reason": reason},
    )
    _print_result(build_runner(server, by, None, at).run(request), as_json=as_json)


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
    request = CommandRequest(
        "POST",
        build_path(rollout, "incidents", incident, "acknowledgement"),
        lambda context: incidents.record_acknowledgement(
            context.database, context.caller, rollout, incident, at=context.at, note=note
        ),
        {"note": note},
    )
    _print_result(build_runner(server, by, None, at).run(request), as_json=as_json)


def _build_target(site: list[str] | None, window: list[str] | None, *, every: bool) -> StopTarget:
    with print_refusals():
        if not (site or window or every):
            raise ValueError("no cells are named; add --site NAME, --window NAME or --all")
    return StopTarget((), tuple(site or ()), tuple(window or ()), every)


def _build_body(target: StopTarget) -> dict[str, Any]:
    return {
        "sites": list(target.sites),
        "windows": list(target.windows),
        "all": target.is_everything,
    }


def _print_result(answers: list[Any], *, as_json: bool) -> None:
    (result,) = answers
    print_answer(result, format_command_result(result), as_json=as_json)
