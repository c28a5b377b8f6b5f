"""`rollout compare`: the figures of one file of pairs, before there is a policy or a service."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from rollout.cli.errors import refusals, width
from rollout.reports.pages.comparison_text import comparison_text, table_text
from rollout.reports.text.formatting import decimal, number
from rollout.services.replay.compare import Compared, TopLoss
from rollout.services.replay.compare import compare as compare_file

File = Annotated[
    Path, typer.Argument(help="file of pairs: Parquet, CSV or JSON lines", metavar="PAIRS")
]


def compare(
    pairs: File,
    policy: Annotated[
        Path | None, typer.Option(help="policy with costs, actions and the order of labels")
    ] = None,
    lever: Annotated[str, typer.Option(help="lever of the policy that the answers are for")] = "",
    mapped: Annotated[
        list[str] | None,
        typer.Option("--map", help="column name in the file, for example human=answer"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
) -> None:
    """Compare human answers with the model's on a file of pairs.

    Prints the confusion matrix, figures by label and cell, and top losses. A row is a case.
    Required columns: human, model. Optional columns: case_key, model_version, site, window,
    confidence (0 to 1). Rows are streamed, so ten million are fine. No policy, rollout or service
    is needed. The figures are not evidence: `rollout replay` shows what a policy would do.

    Example: `rollout compare pairs.parquet`

    With what mistakes cost: `rollout compare pairs.csv --policy policy.yaml --map human=answer`
    """
    with refusals():
        comparison = compare_file(pairs, policy=policy, lever=lever, mapped=tuple(mapped or ()))
    plain_comparison = to_jsonable_python(comparison)
    typer.echo(
        json.dumps(plain_comparison, ensure_ascii=False)
        if as_json
        else "\n".join(_lines(comparison))
    )


def _lines(found: Compared) -> Iterator[str]:
    yield f"{found.file}: {number(found.rows)} rows"
    yield fill(found.basis, width())
    for version_comparison in found.comparisons:
        yield from ("", comparison_text(version_comparison))
    yield ""
    if not found.with_confidence:
        yield "Top losses: not available, because the file has no confidences"
        return
    yield "Top losses: the model was confident and humans disagreed (loss in nats × cost)"
    header = ("case", "where", "human", "model", "confidence", "loss", "cost")
    yield from table_text([header, *map(_row, found.top_losses)], left=4)


def _row(loss: TopLoss) -> tuple[str, ...]:
    location = " · ".join(part for part in (loss.version, loss.site, loss.window) if part)
    figures = (f"{loss.confidence:g}", decimal(loss.loss, 2), f"{loss.cost:g}")
    return (loss.case_key, location, loss.human, loss.model, *figures)
