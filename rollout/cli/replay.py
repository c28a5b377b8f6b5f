"""`rollout replay`: a policy over recorded history, in simulated time, with no server."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import refusals, width
from rollout.cli.progress import progress_bar
from rollout.formats.policy.scalars import duration
from rollout.formats.records.files import Sources
from rollout.replay.engine import Course
from rollout.services.replay.replay import Order
from rollout.services.replay.replay import replay as replay_order
from rollout.services.replay.replay_output import facts_of_replay, report_files, terminal_text
from rollout.services.support.atomic_files import check_folder, write_whole

PolicyFile = Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")]


def replay(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    policy: PolicyFile,
    predictions: Annotated[
        Path, typer.Option(help="predictions of the model: CSV, JSON lines or Parquet")
    ],
    decisions: Annotated[Path, typer.Option(help="human decisions")],
    cases: Annotated[
        Path | None, typer.Option(help="sites, times and attributes of the cases")
    ] = None,
    outcomes: Annotated[Path | None, typer.Option(help="outcomes that became known later")] = None,
    columns: Annotated[
        Path | None, typer.Option(help="YAML file that maps our column names to yours")
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="map one column, as predictions.case_key=image; := sets a constant"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the report, ledger and divergences")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print report.json and nothing else")
    ] = False,
    approve_after: Annotated[
        str, typer.Option(help="delay of simulated approvals, as 4h, or `never`")
    ] = "4h",
    trained_until: Annotated[
        list[str] | None,
        typer.Option(help="VERSION=TIME: cases up to this time are no evidence for the version"),
    ] = None,
    salt: Annotated[str, typer.Option(help="hex salt of the sampling values")] = "00" * 32,
    strict: Annotated[bool, typer.Option(help="stop at the first row that can't be read")] = False,
) -> None:
    """Replay recorded history: report when and where a policy would have widened and narrowed.

    It runs the live engine in simulated time, without a server. Above shadow the engine gets only
    the decisions that the stage would have asked for. Simulated approvals are marked.

    Example:
    `rollout replay policy.yaml --predictions model.csv --decisions people.csv --out replay/`

    Default columns: case_key, site, occurred_at, model_version, label, confidence, reviewer,
    decided_at, episode. A time without offset is in the time zone of its site.
    """
    with refusals():
        request = Order(
            policy=policy,
            sources=Sources(predictions, decisions, cases, outcomes),
            columns=columns,
            mapped=tuple(mapped or ()),
            course=Course(salt=salt_of(salt), approve_after=approval_delay(approve_after)),
            trained_until=dict(trained(text) for text in trained_until or ()),
            strict=strict,
        )
        if out is not None:
            check_folder(out)
        with progress_bar() as report_progress:
            replayed_files = replay_order(request, report_progress)
            facts = facts_of_replay(replayed_files)
            files = report_files(replayed_files, facts)
        if out is not None:
            write_whole(out, files)
    typer.echo(files["report.json"].decode() if as_json else terminal_text(facts, width()))


def approval_delay(text: str) -> timedelta | None:
    """Read `--approve-after`: a duration, or `never`.

    Raises:
        ValueError: it is neither.
    """
    try:
        return None if text == "never" else duration(text)
    except ValueError as error:
        raise ValueError(f"--approve-after {text}: {error}; or `never`") from None


def salt_of(text: str) -> bytes:
    """Read `--salt`.

    Raises:
        ValueError: it is not hexadecimal.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(
            f"--salt {text} is not hexadecimal; write an even number of hex digits"
        ) from None


def trained(text: str) -> tuple[str, datetime]:
    """Read one `--trained-until`.

    Raises:
        ValueError: it is not VERSION=TIME, or the time has no offset.
    """
    version, _, at = text.rpartition("=")
    try:
        instant = datetime.fromisoformat(at)
    except ValueError:
        instant = None
    if not version or instant is None or instant.tzinfo is None:
        raise ValueError(
            f"--trained-until {text} is not VERSION=TIME; write it as v2=2025-10-23T23:00Z"
        )
    return version, instant
