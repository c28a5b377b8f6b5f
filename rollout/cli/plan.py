"""`rollout plan`: preview what a policy needs."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.channels import list_configured_names
from rollout.cli.errors import print_refusals
from rollout.cli.output import format_changes
from rollout.cli.record_options import CasesFile, ColumnFile, ColumnMappings, PolicyFile
from rollout.cli.remote import KEY_VARIABLE, SERVER_VARIABLE, request_json
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.files import RecordPaths
from rollout.services.policies.planning import build_policy_plan as plan_of
from rollout.services.policies.planning import format_plan
from rollout.services.policies.traffic import compute_recorded_traffic
from rollout.services.replay.replay import ReplayRequest, read_request_records

PlanServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar=SERVER_VARIABLE,
        help="URL of a service: print also what the policy would change there, with the API key in"
        f" {KEY_VARIABLE} (default: none)",
    ),
]


def plan(
    policy: PolicyFile,
    predictions: Annotated[
        Path | None, typer.Option(help="recorded predictions, for rates (with --decisions)")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="recorded human decisions, for rates (with --predictions)")
    ] = None,
    cases: CasesFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    server: PlanServerUrl = None,
) -> None:
    """Print how many decisions and days a policy needs, and what it would miss.

    Rates come from the policy's `expect`, or from recorded files. With --server it also prints
    what the policy would change there; for the local database use `rollout apply --dry-run`.

    Example: `rollout plan policy.yaml --predictions predictions.csv --decisions decisions.csv`
    """
    with print_refusals():
        loaded_policy = read_policy(policy)
        if server and not (predictions or decisions):
            text = policy.read_text(encoding="utf-8")
            preview = request_json(server, "POST", "/v1/plan", text=text)
            typer.echo(f"{preview['text']}\n\n{format_changes(preview)}")
            return
        traffic = None
        if predictions is not None and decisions is not None:
            sources = RecordPaths(predictions, decisions, cases)
            request = ReplayRequest(
                policy, sources, columns=columns, column_mappings=tuple(mapped or ())
            )
            traffic = compute_recorded_traffic(
                read_request_records(request, loaded_policy), loaded_policy
            )
        elif (predictions or decisions) is not None:
            raise ValueError(
                "rates need both files; add --predictions or --decisions, whichever is missing"
            )
        typer.echo(format_plan(plan_of(loaded_policy, traffic, channels=list_configured_names())))
