"""`rollout rules`: what newer counting rules would change, and the proposal to apply them."""

from typing import Annotated

import typer

from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, format_command_result, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import ActorName, PastInstant, RolloutName
from rollout.cli.runner import CommandRequest, RequestRunner, build_runner
from rollout.services.policies.rules_plan import load_rules_plan, propose_rules

rules_app = typer.Typer(no_args_is_help=True)


@rules_app.callback()
def describe_rules_commands() -> None:
    """Plan and propose the newest counting rules of a rollout.

    Example: `rollout rules plan ramps`
    """


@rules_app.command("plan")
def plan_rules(rollout: RolloutName, server: ServerUrl = None, as_json: JsonFlag = False) -> None:
    """Print what the newest counting rules would change, cell by cell. Nothing is written.

    Example: `rollout rules plan ramps`
    """
    request = CommandRequest(
        "GET",
        build_path(rollout, "rules"),
        lambda context: load_rules_plan(
            build_local_service(context.database), context.caller, rollout, at=context.at
        ),
    )
    (plan,) = RequestRunner(server).run(request)
    print_answer(plan, plan["text"], as_json=as_json)


@rules_app.command("propose")
def propose_newest_rules(
    rollout: RolloutName,
    evidence_hash: Annotated[str, typer.Option(help="hash from `rollout rules plan`")],
    by: ActorName = "",
    server: ServerUrl = None,
    at: PastInstant = None,
    as_json: JsonFlag = False,
) -> None:
    """Propose the newest counting rules, as an admin. An operator's approval applies them at once.

    Example: `rollout rules propose ramps --evidence-hash HASH --by zoe`
    """
    request = CommandRequest(
        "POST",
        build_path(rollout, "rules"),
        lambda context: propose_rules(
            build_local_service(context.database),
            context.caller,
            rollout,
            evidence_hash,
            at=context.at,
        ),
        {"evidence_hash": evidence_hash},
    )
    (result,) = build_runner(server, by, None, at).run(request)
    print_answer(result, format_command_result(result), as_json=as_json)
