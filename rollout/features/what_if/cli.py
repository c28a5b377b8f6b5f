"""`rollout what-if`: a policy draft against the policy in force, over recorded cases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_jsonable_python

from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    JsonFlag,
    RolloutName,
    get_text_width,
    print_answer,
    show_progress,
)
from rollout.terminal.runner import LOCAL_READER

if TYPE_CHECKING:
    from rollout.features.what_if.comparison import FigureRow, WhatIfResult


HASH_LENGTH = 12


def what_if(
    rollout: RolloutName,
    draft: Annotated[Path, typer.Argument(help="the draft, YAML or JSON", metavar="DRAFT")],
    days: Annotated[int, typer.Option(help="recorded days: 30 or 90")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Compare a policy draft with the policy in force, on the local database.

    Both policies are replayed over the closed cases of the last days, as `rollout replay` does,
    with the rollout's salt and ten others. An answer that a policy needs and nobody gave is
    unknown: a cell with too many of them has no figures. Nothing is written.

    Example: `rollout what-if ramps draft.yaml --days 90`
    """
    # frames are slow to import
    from rollout.features.what_if.comparison import compare_policies
    from rollout.features.what_if.runs import WhatIfRequest, load_what_if_inputs

    with open_database() as database:
        request = WhatIfRequest(rollout, draft.read_text(encoding="utf-8"), days)
        inputs = load_what_if_inputs(database, LOCAL_READER, request, at=datetime.now(UTC))
        with show_progress() as report_progress:
            result = compare_policies(
                inputs, lambda _, done, of: report_progress("replays", done, of)
            )
    text = "\n".join(_format_result(result, get_text_width()))
    print_answer(to_jsonable_python(result), text, as_json=as_json)


def _format_result(result: "WhatIfResult", width: int) -> Iterator[str]:
    from rollout.features.reports.pages.text_report import render_table
    from rollout.features.what_if.comparison import (
        describe_coverage,
        describe_ranges,
        describe_result,
        list_cells,
        list_changes,
        list_figures,
    )

    hashes = result.draft_hash[:HASH_LENGTH], result.current_hash[:HASH_LENGTH]
    yield fill(
        f"{result.rollout}: draft {hashes[0]} against policy {hashes[1]} at revision"
        f" {result.revision}, cases from {result.since:%Y-%m-%d %H:%M} to"
        f" {result.until:%Y-%m-%d %H:%M} UTC",
        width,
    )
    for sentence in (*describe_coverage(result), describe_result(result)):
        yield fill(sentence, width)
    yield ""
    header = ("", "in force", "draft", "difference")
    rows = [_format_row(row) for row in list_figures(result)]
    yield from render_table([header, *rows], left_aligned=1)
    yield fill(describe_ranges(result), width)
    changes = list(list_changes(result))
    if changes:
        yield "\nEach change alone"
        titles = ("section", "decided by the model", "divergences")
        yield from render_table([titles, *changes], left_aligned=1)
    yield ""
    for row in list_cells(result):
        yield f"{row.name}: {row.effect}; decided by the model {row.model}, divergences {row.wrong}"
        for sentence in row.changes:
            yield fill(sentence, width, initial_indent="  ", subsequent_indent="  ")


def _format_row(row: "FigureRow") -> tuple[str, ...]:
    sides = ((row.current, row.current_range), (row.draft, row.draft_range))
    texts = (f"{figure} ({span})" if span else figure for figure, span in sides)
    return (row.name, *texts, row.difference)
