"""`rollout replay`, a policy over recorded history, and `rollout compare`, figures of pairs.

Neither needs a server. `rollout compare` needs no policy, either.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from rollout.engine.files.files import RecordPaths
from rollout.engine.files.questions import FileChoices
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.words.formatting import (
    format_count,
    format_decimal,
    format_percent,
    format_ratio,
)
from rollout.features.lake.counting import (
    describe_pairs,
    list_stages,
    read_counts,
    replay_counts,
)
from rollout.features.replay.compare import PairComparison, PairLoss
from rollout.features.replay.compare import compare as compare_file
from rollout.features.replay.replay import build_report, format_ledger
from rollout.features.replay.replay import replay_files as run_replay
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.comparison import Comparison
from rollout.features.reports.inputs.divergences import escape_frame
from rollout.features.reports.pages.text_report import (
    render_comparison,
    render_table,
    render_text_report,
)
from rollout.kernel.atomic_files import check_folder, write_files_atomically
from rollout.kernel.policy_files.fields import read_duration
from rollout.kernel.policy_files.reader import load_policy
from rollout.terminal.remote import (
    Backtest,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsWhere,
    EqualSides,
    JsonFlag,
    Labels,
    OutcomesFile,
    PlantedFile,
    PolicyFile,
    PredictionsWhere,
    SameForm,
    TrainingCutoffs,
    VersionContents,
    build_choices,
    get_text_width,
    parse_salts,
    parse_training_cutoff,
    parse_version_content,
    print_refusals,
    read_with_answers,
    show_progress,
)


def replay(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    policy: PolicyFile,
    predictions: Annotated[
        Path | None, typer.Option(help="predictions of the model: CSV, JSON lines or Parquet")
    ] = None,
    decisions: Annotated[Path | None, typer.Option(help="human decisions")] = None,
    cases: CasesFile = None,
    outcomes: OutcomesFile = None,
    counts: Annotated[
        Path | None,
        typer.Option(help="counts of `rollout count` instead of records: ledger and pairs"),
    ] = None,
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

    Of more records than fit into memory: `rollout replay policy.yaml --counts counts.parquet`

    Default columns: case_key, site, occurred_at, model_version, label, confidence, reviewer,
    decided_at, episode. A time without offset is in the time zone of its site.
    """
    with print_refusals():
        options = ReplayOptions(
            *parse_salts(salt), approval_delay=parse_approval_delay(approve_after)
        )
        if counts is not None:
            _check_counts_options(context)
            _replay_counts(policy, counts, options, out)
            return
        if predictions is None or decisions is None:
            raise ValueError("give --predictions and --decisions, or --counts of `rollout count`")
        request = ReplayRequest(
            policy=policy,
            sources=RecordPaths(predictions, decisions, cases, outcomes),
            columns=columns,
            column_mappings=tuple(mapped or ()),
            options=options,
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
            facts, files = build_report(replayed_files, report_progress)
        if out is not None:
            write_files_atomically(out, files)
    typer.echo(
        files["report.json"].decode() if as_json else render_text_report(facts, get_text_width())
    )
    if out is not None and not as_json:
        typer.echo(f"Written: {', '.join(sorted(files))}\nOpen {out / 'report.html'}")


WITH_COUNTS = frozenset({"policy", "counts", "out", "salt", "approve_after"})
"""Parameters of a replay of counts: the others say how records are read."""


def _check_counts_options(context: typer.Context) -> None:
    """Raise ValueError for an option that would say how records are read."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in WITH_COUNTS and source is not None and source.name == "COMMANDLINE":
            raise ValueError(
                f"{parameter.opts[0]} is about records, and counts have none; give it to"
                " `rollout count`"
            )


def _replay_counts(policy: Path, counts: Path, options: ReplayOptions, out: Path | None) -> None:
    rules = load_policy(policy)
    if out is not None:
        check_folder(out)
    unit_counts = read_counts(counts, rules, options)
    result, pairs = replay_counts(unit_counts, rules, options), unit_counts.count_pairs()
    stages = render_table([("cell", "since", "stage"), *list_stages(result)], 3)
    typer.echo("\n".join([*stages, "", *describe_pairs(pairs)]))
    if out is not None:
        files = {
            "ledger.jsonl": format_ledger(result, options.salt).encode(),
            "pairs.csv": escape_frame(pairs).write_csv().encode(),
        }
        write_files_atomically(out, files)
        typer.echo(f"Written: {', '.join(files)}. Report and lists of cases need the records")


def parse_approval_delay(text: str) -> timedelta | None:
    """Read `--approve-after`: a duration, or `never`.

    Raises:
        ValueError: the text is neither.
    """
    try:
        return None if text == "never" else read_duration(text)
    except ValueError as error:
        raise ValueError(f"--approve-after {text}: {error}; or `never`") from None


def compare(  # noqa: PLR0913, PLR0917 - one parameter for each option
    pairs: Annotated[
        Path, typer.Argument(help="file of pairs: Parquet, CSV or JSON lines", metavar="PAIRS")
    ],
    policy: Annotated[
        Path | None, typer.Option(help="policy with costs, actions and the order of labels")
    ] = None,
    lever: Annotated[str, typer.Option(help="lever of the policy that the answers are for")] = "",
    tolerance: Annotated[
        str, typer.Option(help="how near numbers must be to agree: 5% of the human's, or 2")
    ] = "",
    overlap: Annotated[
        str,
        typer.Option(help="share of their labels that sets must have in common to agree: 60%"),
    ] = "",
    mapped: Annotated[
        list[str] | None,
        typer.Option("--map", help="column name in the file, for example human=answer"),
    ] = None,
    unsure: Annotated[
        list[str] | None,
        typer.Option(help='text that means "no answer"; "" if none does (repeatable)'),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="text such as none that is a label, not a missing answer (repeatable)"),
    ] = None,
    same_form: SameForm = None,
    equal_sides: EqualSides = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare human answers with the model's on a file of pairs.

    Prints the confusion matrix, figures by label and cell, and top losses; of numbers bias, limits
    of agreement and concordance instead of a matrix; of sets of labels (`a;b`, or a list of JSON)
    recall and precision by label, and alpha by MASI distance. A row is a case.
    Required columns: human, model. Optional columns: case_key, model_version, site, window,
    confidence (0 to 1). Rows are streamed, so ten million are fine. No policy, rollout or service
    is needed. The figures are not evidence: `rollout replay` shows what a policy would do.

    Example: `rollout compare pairs.parquet`

    With costs: `rollout compare pairs.csv --policy policy.yaml --map human=answer`

    Numbers: `rollout compare prices.csv --tolerance 5%`

    Sets: `rollout compare logos.csv --overlap 60%`
    """
    with print_refusals():
        loaded_policy = None if policy is None else load_policy(policy)
        comparison = read_with_answers(
            lambda choices: compare_file(
                pairs,
                policy=loaded_policy,
                lever=lever,
                tolerance=tolerance,
                overlap=overlap,
                mapped=mapped or (),
                choices=choices,
            ),
            FileChoices(
                label=tuple(label or ()),
                unsure=tuple(unsure or ()),
                same_form=same_form,
                equal_sides=equal_sides,
            ),
        )
    plain_comparison = to_jsonable_python(comparison)
    typer.echo(
        json.dumps(plain_comparison, ensure_ascii=False)
        if as_json
        else "\n".join(_format_comparison(comparison))
    )


def _format_comparison(comparison: PairComparison) -> Iterator[str]:
    yield f"{comparison.file}: {format_count(comparison.rows)} rows"
    yield fill(comparison.basis, get_text_width())
    if comparison.missing:
        counts = ", ".join(f"{text!r} ({n:,})" for text, n in comparison.missing.items())
        yield f"Read as missing: {counts}"
    none = (None,) * len(comparison.comparisons)
    figures = (comparison.numbers or none, comparison.sets or none)
    for version_comparison, numbers, sets in zip(comparison.comparisons, *figures, strict=True):
        yield from ("", render_comparison(version_comparison, numbers, sets))
    yield from map(_describe_answered, comparison.answered)
    yield ""
    if not comparison.with_confidence:
        yield "Top losses: not available, because the file has no confidences"
        return
    yield "Top losses: humans disagreed with a confident model; loss = −ln(1 − confidence), × cost"
    header = ("case", "where", "human", "model", "confidence", "loss", "cost")
    yield from render_table([header, *map(_format_loss, comparison.top_losses)], left_aligned=4)


def _describe_answered(comparison: Comparison) -> str:
    """Return the agreement of cases in which both have an answer."""
    kappa = comparison.kappa
    kappa_text = "" if kappa is None else f", kappa {format_decimal(kappa.value)}"
    name = "" if comparison.version is None else f"{comparison.version}: "
    return (
        f"{name}where the model has an answer too, {format_ratio(comparison.agreement)} pairs agree"
        f" ({format_percent(comparison.agreement.rate)}{kappa_text})"
    )


def _format_loss(loss: PairLoss) -> tuple[str, ...]:
    location = " · ".join(part for part in (loss.version, loss.site, loss.window) if part)
    figures = (f"{loss.confidence:g}", format_decimal(loss.loss, 2), f"{loss.cost:g}")
    return (loss.case_key, location, loss.human, loss.model, *figures)
