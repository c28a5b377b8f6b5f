"""`rollout compare`: the figures of one file of pairs, before there is a policy or a service."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from rollout.cli.refusing import refusals, width
from rollout.reports.comparison_text import comparison_text, table_text
from rollout.reports.words import decimal, number
from rollout.services.comparing import Compared, TopLoss
from rollout.services.comparing import compare as compare_file

File = Annotated[Path, typer.Argument(help="Parquet, CSV or JSON lines", metavar="PAIRS")]


def compare(
    pairs: File,
    policy: Annotated[
        Path | None, typer.Option(help="gives costs, actions, the order of labels")
    ] = None,
    lever: Annotated[str, typer.Option(help="which of the policy's levers is answered")] = "",
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help="one column: human=verdict")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, nothing else")] = False,
) -> None:
    """Compare people with the model on one file of pairs: confusion, labels, cells, top losses.

    A row a case. Columns: human, model; where there are any case_key, model_version, site, window,
    confidence (0 to 1). Rows stream by and are never held: ten million are fine. No policy,
    rollout or service is needed. Nothing here is evidence: `rollout replay` says what a policy
    would do.

    Example: `rollout compare pairs.parquet`

    With what mistakes cost: `rollout compare pairs.csv --policy policy.yaml --map human=verdict`
    """
    with refusals():
        found = compare_file(pairs, policy=policy, lever=lever, mapped=tuple(mapped or ()))
    plain = to_jsonable_python(found)
    typer.echo(json.dumps(plain, ensure_ascii=False) if as_json else "\n".join(_lines(found)))


def _lines(found: Compared) -> Iterator[str]:
    yield f"{found.file}: {number(found.rows)} rows"
    yield fill(found.basis, width())
    for one in found.comparisons:
        yield from ("", comparison_text(one))
    yield ""
    if not found.with_confidence:
        yield "Top losses: none can be told, the file has no confidences"
        return
    yield "Top losses: the model was sure and people said otherwise (loss in nats, times cost)"
    head = ("case", "where", "people", "model", "confidence", "loss", "cost")
    yield from table_text([head, *map(_row, found.top_losses)], left=4)


def _row(loss: TopLoss) -> tuple[str, ...]:
    where = " · ".join(part for part in (loss.version, loss.site, loss.window) if part)
    figures = (f"{loss.confidence:g}", decimal(loss.loss, 2), f"{loss.cost:g}")
    return (loss.case_key, where, loss.human, loss.model, *figures)
