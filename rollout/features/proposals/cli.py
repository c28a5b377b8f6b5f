"""Commands that approve or reject proposals."""

from typing import Annotated

import typer

from rollout.features.proposals import proposals
from rollout.terminal.output import JsonFlag, print_answer
from rollout.terminal.remote import ServerUrl, build_path
from rollout.terminal.rollout_options import (
    ActorName,
    GroupNames,
    PastInstant,
    ReasonText,
    RolloutName,
)
from rollout.terminal.runner import build_runner, change_rollout

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
    result = build_runner(server, by, group, at).post(
        path,
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
