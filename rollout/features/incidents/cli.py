"""Commands that retire versions and acknowledge incidents."""

from typing import Annotated

import typer

from rollout.features.incidents import incidents
from rollout.live import versions
from rollout.terminal.output import JsonFlag
from rollout.terminal.remote import ServerUrl, build_path
from rollout.terminal.rollout_options import ActorName, PastInstant, ReasonText, RolloutName
from rollout.terminal.runner import build_runner, change_rollout


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
        lambda context: incidents.record_acknowledgement(
            context.database, context.caller, rollout, incident, at=context.at, note=note
        ),
        {"note": note},
        as_json=as_json,
    )
