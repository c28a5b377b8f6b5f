"""Commands that approve or reject proposals, narrow and stop cells, and resume them."""

from typing import Annotated, Any

import typer

from rollout.engine.decide.stops import StopTarget
from rollout.features.proposals import proposals
from rollout.features.stops import stops
from rollout.features.stops.stops import narrow_at_once, stop_at_once
from rollout.terminal.remote import (
    ActorName,
    GroupNames,
    JsonFlag,
    PastInstant,
    ReasonText,
    RolloutName,
    ServerUrl,
    build_path,
    print_answer,
    print_refusals,
)
from rollout.terminal.runner import build_local_service, build_runner, change_rollout

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
    result = build_runner(server, by, group, at).send(
        "POST",
        build_path(rollout, "proposals", proposal, "approvals"),
        lambda context: proposals.approve_proposal(
            context.database, context.caller, rollout, proposal, evidence_hash, at=context.at
        ),
        {"evidence_hash": evidence_hash},
    )
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
    change_rollout(
        build_runner(server, by, group, at),
        build_path(rollout, "proposals", proposal, "rejection"),
        lambda context: proposals.reject_proposal(
            context.database, context.caller, rollout, proposal, at=context.at, reason=reason
        ),
        {"reason": reason},
        as_json=as_json,
    )


Sites = Annotated[
    list[str] | None, typer.Option("--site", help="site or pattern with * (repeatable)")
]
Windows = Annotated[
    list[str] | None, typer.Option("--window", help="window or pattern with * (repeatable)")
]
EveryCell = Annotated[bool, typer.Option("--all", help="all cells")]


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
    change_rollout(
        build_runner(server, by, None, at),
        build_path(rollout, "narrowings"),
        lambda context: narrow_at_once(
            build_local_service(context.database),
            context.caller,
            rollout,
            target,
            to,
            at=context.at,
            reason=reason,
        ),
        {**_build_body(target), "to": to, "reason": reason},
        as_json=as_json,
    )


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
    change_rollout(
        build_runner(server, by, None, at),
        build_path(rollout, "stops"),
        lambda context: stop_at_once(
            build_local_service(context.database),
            context.caller,
            rollout,
            target,
            at=context.at,
            reason=reason,
            is_drill=drill,
        ),
        {**_build_body(target), "reason": reason, "drill": drill},
        as_json=as_json,
    )


def attempt(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    version: Annotated[str, typer.Option(help="version whose evidence begins anew")],
    by: ActorName = "",
    site: Sites = None,
    window: Windows = None,
    every: EveryCell = False,
    reason: ReasonText = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Begin a version's next attempt in cells: at the next share of the year's risk.

    Example: `rollout attempt ramps --version v2 --site ramp-a --reason "box offline" --by ana`
    """
    target = _build_target(site, window, every=every)
    change_rollout(
        build_runner(server, by, None, at),
        build_path(rollout, "attempts"),
        lambda context: stops.begin_next_attempt(
            context.database,
            context.caller,
            rollout,
            target,
            version,
            at=context.at,
            reason=reason,
        ),
        {**_build_body(target), "version": version, "reason": reason},
        as_json=as_json,
    )


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
    change_rollout(
        build_runner(server, by, None, at),
        build_path(rollout, "stops", stopped, "resume"),
        lambda context: stops.propose_resume(
            context.database, context.caller, rollout, stopped, at=context.at
        ),
        as_json=as_json,
    )


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
