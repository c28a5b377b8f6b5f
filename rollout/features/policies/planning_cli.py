"""`rollout plan`: preview what a policy needs."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.engine.files.files import RecordPaths
from rollout.features.delivery.channels_cli import list_configured_names
from rollout.features.policies.planning import plan as plan_policy
from rollout.features.replay.replay import plan_recorded_reviews
from rollout.features.replay.requests import RecordedHistory, ReplayRequest, read_request_records
from rollout.features.reports.figures.review_plan import MAX_DECISIONS, ReviewPlan
from rollout.features.reports.pages.text_report import format_review_plan
from rollout.kernel.policy_files.reader import parse_policy, read_policy_text
from rollout.terminal.remote import (
    KEY_VARIABLE,
    SERVER_VARIABLE,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    JsonFlag,
    Labels,
    PlantedFile,
    PolicyFile,
    SameForm,
    build_choices,
    format_changes,
    print_answer,
    print_refusals,
    request_json,
)

PlanServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar=SERVER_VARIABLE,
        help="URL of a service: print also what the policy would change there, with the API key in"
        f" {KEY_VARIABLE} (default: none)",
    ),
]


NextDecisions = Annotated[
    int | None,
    typer.Option(
        "--next",
        min=1,
        max=MAX_DECISIONS,
        help="plan this many reviews instead: what each cell needs for its next stage, cheapest"
        " first, from recorded files or the service of --server",
    ),
]


def plan(  # noqa: PLR0913, PLR0917 - one parameter for each option
    policy: PolicyFile,
    predictions: Annotated[
        Path | None, typer.Option(help="recorded predictions, for rates (with --decisions)")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="recorded human decisions, for rates (with --predictions)")
    ] = None,
    cases: CasesFile = None,
    planted: PlantedFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    same_form: SameForm = None,
    labels: Labels = None,
    server: PlanServerUrl = None,
    next_decisions: NextDecisions = None,
    as_json: JsonFlag = False,
) -> None:
    """Print how many decisions and days a policy needs, and what it would miss.

    Rates come from the policy's `expect`, or from recorded files. With --server it also prints
    what the policy would change there; for the local database use `rollout apply --dry-run`.
    With --next it plans reviews instead.

    Example: `rollout plan policy.yaml --predictions predictions.csv --decisions decisions.csv`
    """
    with print_refusals():
        text = read_policy_text(policy)
        loaded_policy = parse_policy(text, name=policy.name)
        request = None
        if predictions is not None and decisions is not None:
            request = ReplayRequest(
                policy,
                RecordPaths(predictions, decisions, cases),
                columns=columns,
                column_mappings=tuple(mapped or ()),
                planted=planted,
                choices=build_choices(same_form=same_form, labels=labels, equal_sides=True),
            )
        elif (predictions or decisions) is not None:
            raise ValueError(
                "rates need both files; add --predictions or --decisions, whichever is missing"
            )
        if next_decisions is not None:
            review_plan = _plan_reviews(loaded_policy.rollout, request, server, next_decisions)
            print_answer(
                to_jsonable_python(review_plan), format_review_plan(review_plan), as_json=as_json
            )
            return
        if as_json:
            raise ValueError("--json prints the review plan alone; add --next, as --next 1000")
        if server and request is None:
            preview = request_json(server, "POST", "/v1/plan", text=text)
            typer.echo(f"{preview['text']}\n\n{format_changes(preview)}")
            return
        history = (
            None
            if request is None
            else RecordedHistory(request, read_request_records(request, loaded_policy))
        )
        typer.echo(str(plan_policy(loaded_policy, history, channels=list_configured_names())))


def _plan_reviews(
    rollout: str, request: ReplayRequest | None, server: str | None, decisions: int
) -> ReviewPlan:
    """Return the review plan of recorded files, or else that of a service."""
    if request is not None:
        return plan_recorded_reviews(request, decisions)
    if server is None:
        raise ValueError(
            "--next needs evidence: add --predictions and --decisions, or --server for a running"
            " rollout"
        )
    path = f"/v1/rollouts/{rollout}/review-plan"
    answer = request_json(server, "GET", path, params={"next": decisions})
    return TypeAdapter(ReviewPlan).validate_python(answer["plan"])
