"""`rollout plan` and `rollout init`: what a policy will ask for; a first policy from files."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.channels import configured
from rollout.cli.errors import refusals
from rollout.cli.output import changes_text
from rollout.cli.remote import Server, ask_server
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.files import Sources
from rollout.services.policies.planning import draft as draft_text
from rollout.services.policies.planning import plan as plan_of
from rollout.services.policies.planning import plan_text
from rollout.services.policies.traffic import recorded_traffic
from rollout.services.replay.replay import Order, records_of

Columns = Annotated[Path | None, typer.Option(help="YAML file that maps our column names to yours")]
Mapped = Annotated[
    list[str] | None,
    typer.Option("--map", help="map one column, as predictions.case_key=image (repeatable)"),
]


def plan(
    policy: Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")],
    predictions: Annotated[Path | None, typer.Option(help="recorded traffic")] = None,
    decisions: Annotated[Path | None, typer.Option(help="recorded traffic")] = None,
    cases: Annotated[Path | None, typer.Option(help="recorded traffic")] = None,
    columns: Columns = None,
    mapped: Mapped = None,
    server: Server = None,
) -> None:
    """Print how many decisions and days a policy needs, and what it would miss.

    Rates come from the policy's `expect`, or from recorded files. With --server it also prints
    what the policy would change there; for the local database use `rollout apply --dry-run`.

    Example: `rollout plan config/policies/mail-room.yaml`
    """
    with refusals():
        loaded_policy = read_policy(policy)
        if server and not (predictions or decisions):
            text = policy.read_text(encoding="utf-8")
            preview = ask_server(server, "POST", "/v1/plan", text=text)
            typer.echo(f"{preview['text']}\n\n{changes_text(preview)}")
            return
        traffic = None
        if predictions is not None and decisions is not None:
            sources = Sources(predictions, decisions, cases)
            request = Order(policy, sources, columns=columns, mapped=tuple(mapped or ()))
            traffic = recorded_traffic(records_of(request, loaded_policy), loaded_policy)
        elif (predictions or decisions) is not None:
            raise ValueError("recorded traffic needs both files: --predictions and --decisions")
        typer.echo(plan_text(plan_of(loaded_policy, traffic, channels=configured())))


def draft(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="predictions of the model: CSV, JSON lines or Parquet", metavar="PREDICTIONS"
        ),
    ],
    decisions: Annotated[Path, typer.Argument(help="human decisions", metavar="DECISIONS")],
    rollout: Annotated[str, typer.Option(help="name of the rollout")] = "my-rollout",
    timezone: Annotated[str, typer.Option(help="time zone of times without offset")] = "UTC",
    cases: Annotated[
        Path | None, typer.Option(help="sites, times and attributes of the cases")
    ] = None,
    columns: Columns = None,
    mapped: Mapped = None,
) -> None:
    """Print a minimal policy for two recorded files, with comments on what to change first.

    Example: `rollout init predictions.csv decisions.csv --timezone Europe/Vienna > policy.yaml`
    """
    with refusals():
        sources = Sources(predictions, decisions, cases)
        text = draft_text(
            sources,
            rollout=rollout,
            timezone=timezone,
            columns=columns,
            mapped=tuple(mapped or ()),
        )
        typer.echo(text, nl=False)
