"""`rollout proposals`: list proposals of a live rollout, or show one."""

from typing import Annotated, Any

import typer

from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import PastInstant, RolloutName
from rollout.cli.runner import NO_LIMIT, CommandRequest, LocalContext, RequestRunner, list_items
from rollout.cli.status_text import (
    format_proposal_details,
    format_proposals,
)
from rollout.services.proposals.proposal_details import (
    PROPOSAL_STATES,
    load_proposal,
    load_proposals,
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
