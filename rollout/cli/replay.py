"""`rollout replay`: run a policy over recorded history, without a server."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import get_text_width, print_refusals
from rollout.cli.progress import show_progress
from rollout.cli.record_options import (
    Backtest,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsFile,
    DecisionsWhere,
    EqualSides,
    Labels,
    OutcomesFile,
    PlantedFile,
    PredictionsFile,
    PredictionsWhere,
    SameForm,
    TrainingCutoffs,
    VersionContents,
    build_choices,
    parse_training_cutoff,
    parse_version_content,
    read_with_answers,
)
from rollout.cli.rollout_options import PolicyFile, parse_salts
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import (
    add_whole_cell_replay,
    build_replay_inputs,
    build_report_files,
    format_terminal_report,
)
from rollout.features.replay.replay import replay_files as run_replay
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.kernel.policy_files.fields import read_duration
from rollout.live.atomic_files import check_folder, write_files_atomically


def replay(  # noqa: PLR0913, PLR0917 - one parameter for each option
    policy: PolicyFile,
    predictions: PredictionsFile,
    decisions: DecisionsFile,
    cases: CasesFile = None,
    outcomes: OutcomesFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the report, ledger and divergences")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print report.json and nothing else")
    ] = False,
    approve_after: Annotated[
        str, typer.Option(help="delay of simulated approvals, as 4h, or `never`")
    ] = "4h",
    trained_until: TrainingCutoffs = None,
    contents: VersionContents = None,
    salt: Annotated[
        str,
        typer.Option(help="hex salt of the sampling values; with `A,B` audits are sampled by B"),
    ] = "00" * 32,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="count only decisions of this source, from their column `source` (repeatable)",
            metavar="NAME",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option(help="stop at the first row that can't be read")] = False,
    planted: PlantedFile = None,
    predictions_where: PredictionsWhere = None,
    decisions_where: DecisionsWhere = None,
    same_form: SameForm = None,
    labels: Labels = None,
    equal_sides: EqualSides = False,
    backtest: Backtest = None,
) -> None:
    """Replay recorded history: report when and where a policy would have widened and narrowed.

    It runs the live engine in simulated time, without a server. Above shadow the engine gets only
    the decisions that the stage would have requested. Approvals are simulated and marked so.

    Example:
    `rollout replay policy.yaml --predictions p.csv --decisions d.csv --out replay/`

    Default columns: case_key, site, occurred_at, model_version, label, confidence, reviewer,
    decided_at, episode. A time without offset is in the time zone of its site.
    """
    with print_refusals():
        request = ReplayRequest(
            policy=policy,
            sources=RecordPaths(predictions, decisions, cases, outcomes),
            columns=columns,
            column_mappings=tuple(mapped or ()),
            options=ReplayOptions(
                *parse_salts(salt), approval_delay=parse_approval_delay(approve_after)
            ),
            trained_until=dict(parse_training_cutoff(text) for text in trained_until or ()),
            contents=dict(parse_version_content(text) for text in contents or ()),
            strict=strict,
            chosen_sources=tuple(dict.fromkeys(sources or ())),
            planted=planted,
            choices=build_choices(
                predictions_where,
                decisions_where,
                same_form=same_form,
                labels=labels,
                equal_sides=equal_sides,
                backtest=backtest,
            ),
            asks=True,
        )
        if out is not None:
            check_folder(out)
        with show_progress() as report_progress:
            replayed_files = read_with_answers(
                lambda choices: run_replay(replace(request, choices=choices), report_progress),
                request.choices,
            )
            inputs = add_whole_cell_replay(
                build_replay_inputs(replayed_files), replayed_files, report_progress
            )
            facts = compute_report_facts(inputs)
            files = build_report_files(replayed_files, inputs, facts)
        if out is not None:
            write_files_atomically(out, files)
    typer.echo(
        files["report.json"].decode()
        if as_json
        else format_terminal_report(facts, get_text_width())
    )
    if out is not None and not as_json:
        typer.echo(f"Written: {', '.join(sorted(files))}\nOpen {out / 'report.html'}")


def parse_approval_delay(text: str) -> timedelta | None:
    """Read `--approve-after`: a duration, or `never`.

    Raises:
        ValueError: the text is neither.
    """
    try:
        return None if text == "never" else read_duration(text)
    except ValueError as error:
        raise ValueError(f"--approve-after {text}: {error}; or `never`") from None
