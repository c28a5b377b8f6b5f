"""`rollout incidents`: list incidents of a live rollout."""

from typing import Annotated, Any

import typer

from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, print_answer
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.rollout_options import RolloutName
from rollout.cli.runner import NO_LIMIT, LocalContext, list_items
from rollout.cli.status_text import (
    format_incidents,
)
from rollout.services.incidents.incidents import load_incidents


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
