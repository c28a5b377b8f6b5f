"""`rollout compare`: figures of a file of pairs, without a policy or a service."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from rollout.cli.errors import get_text_width, print_refusals
from rollout.cli.output import JsonFlag
from rollout.cli.record_options import EqualSides, SameForm, read_with_answers
from rollout.engine.files.questions import FileChoices
from rollout.engine.words.formatting import (
    format_count,
    format_decimal,
    format_percent,
    format_ratio,
)
from rollout.features.replay.compare import PairComparison, PairLoss
from rollout.features.replay.compare import compare_pair_file as compare_file
from rollout.features.reports.figures.comparison import Comparison
from rollout.features.reports.pages.comparison_text import render_comparison, render_table

PairFile = Annotated[
    Path, typer.Argument(help="file of pairs: Parquet, CSV or JSON lines", metavar="PAIRS")
]


def compare(  # noqa: PLR0913, PLR0917 - one parameter for each option
    pairs: PairFile,
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
        comparison = read_with_answers(
            lambda choices: compare_file(
                pairs,
                policy=policy,
                lever=lever,
                tolerance=tolerance,
                overlap=overlap,
                column_mappings=tuple(mapped or ()),
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
