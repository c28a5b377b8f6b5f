"""`rollout plant`: declare planted cases before they are sent."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import ActorName, RolloutName
from rollout.cli.runner import CommandRequest, LocalContext, build_runner
from rollout.services.records.planted_cases import PlantingRequest, declare_planted_cases


def plant(
    rollout: RolloutName,
    file: Annotated[Path, typer.Argument(help="keys of the cases, one a line", metavar="FILE")],
    reason: Annotated[str, typer.Option(help="what the cases are for")],
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Declare cases as planted, before they are sent (safe to repeat).

    Planted cases are scenarios and seeded rare events. They take the same way as all others, and
    no figure, gate or guard about the cases that occur counts them; gates require them with
    `of: planted`. A case of which a record is stored can't be declared.

    Example: `rollout plant ramps bears.txt --reason "40 recorded bears" --by ada`
    """
    with print_refusals():
        keys = list(dict.fromkeys(filter(None, file.read_text(encoding="utf-8-sig").split("\n"))))

    def run_locally(context: LocalContext) -> Any:
        request = PlantingRequest(frozenset(keys), reason)
        result = declare_planted_cases(
            context.database, context.caller, rollout, request, context.at
        )
        return {"new": result.new, "repeated": result.repeated}

    body = {"keys": keys, "reason": reason}
    path = build_path(rollout, "planted-cases")
    (result,) = build_runner(server, by).run(CommandRequest("POST", path, run_locally, body))
    text = f"{result['new']} cases declared as planted, {result['repeated']} were before"
    print_answer(result, text, as_json=as_json)
