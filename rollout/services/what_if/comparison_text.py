"""The words of a comparison: what opens earlier or later, figures with ranges, what is unknown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from rollout.core.calendar.sites import SHADOW
from rollout.reports.inputs.stages import StageInterval
from rollout.reports.text.formatting import (
    describe_duration,
    format_count,
    format_percent,
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.services.what_if.comparison import (
    CellPair,
    WhatIfRange,
    WhatIfResult,
    WhatIfTotals,
)
from rollout.services.what_if.replayed_policy import APPROVAL_DELAY, CellReplay

APPROVAL_TEXT: Final = describe_duration(APPROVAL_DELAY)
NO_FIGURE: Final = "unknown"
MAX_CELLS: Final = 3  # named in a sentence
ESTIMATED: Final = frozenset({"wrong", "cost"})
EFFECT_WORDS: Final = {
    "wider": "Wider",
    "narrower": "Narrower",
    "other": "Differs",
    "same": "Same",
    "unknown": "Unknown",
}


@dataclass(frozen=True, slots=True)
class FigureRow:
    """A figure of the policy in force and of the draft, with their ranges and the difference."""

    name: str
    current: str
    current_range: str
    draft: str
    draft_range: str
    difference: str


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell: its effect, what changes, and the figures of both policies."""

    name: str
    site: str
    window: str
    effect: str
    changes: tuple[str, ...]
    model: str
    wrong: str
    is_dashed: bool


def describe_coverage(result: WhatIfResult) -> tuple[str, ...]:
    """Return for how many cases a human answer exists, before any figure."""
    open_text = (
        f" {format_quantity(result.open_cases, 'case')} of these days can still be reviewed,"
        " and are not counted."
        if result.open_cases
        else ""
    )
    cases_text = (
        f"{format_count(result.cases)} closed cases; humans answered"
        f" {format_count(result.answered)} of them without seeing the model's answer.{open_text}"
    )
    needed_text = (
        f"Both policies begin in shadow; approvals are simulated after {APPROVAL_TEXT}. The one in"
        f" force needs {_describe_needed(result.current)}; the draft needs"
        f" {_describe_needed(result.draft)}. Rejected decisions hold no widening here."
    )
    return cases_text, needed_text


def _describe_needed(totals: WhatIfTotals) -> str:
    return (
        f"{format_quantity(totals.needed, 'answer')}, of which"
        f" {format_count(totals.answered)} exist"
    )


def describe_result(result: WhatIfResult) -> str:
    """Return the first sentence: what the draft would have changed."""
    known_cells = [
        pair
        for pair in result.cells
        if all(side is not None and side.figures is not None for side in (pair.current, pair.draft))
    ]
    if not known_cells:
        return "What the draft would have changed can't be known from these records."
    count, current, draft = len(result.cells), result.current, result.draft
    where = (
        "The model"
        if len(known_cells) == count
        else f"In the {len(known_cells)} of {count} cells that can be known under both, the model"
    )
    return (
        f"{where} would have decided {format_figure('model', draft)} cases instead of"
        f" {format_figure('model', current)}, and differed in {format_figure('wrong', draft)}"
        f" instead of {format_figure('wrong', current)}."
    )


def list_figures(result: WhatIfResult) -> tuple[FigureRow, ...]:
    """Return the figures of all cells that can be known under both policies."""
    current, draft = result.current, result.draft
    names = (
        ("model", "Decided by the model"),
        ("wrong", "Divergences of the model"),
        ("cost", "Cost of these divergences"),
        ("human", "Decisions of humans"),
    )
    return tuple(
        FigureRow(
            label,
            format_figure(name, current),
            _format_range(getattr(current, f"{name}_range")),
            format_figure(name, draft),
            _format_range(getattr(draft, f"{name}_range")),
            _format_difference(getattr(current.figures, name), getattr(draft.figures, name)),
        )
        for name, label in names
    )


def format_figure(name: str, side: WhatIfTotals | CellReplay) -> str:
    """Return a figure; with "about" or "probably" unless nothing in it is unknown or estimated.

    No divergence among the judged cases is no estimate of 0: it says so, and of how many.
    """
    figures = side.figures
    value: float | None = None if figures is None else getattr(figures, name)
    if figures is None or value is None:
        return NO_FIGURE
    if round(value):
        return f"{'' if side.is_sure else 'about '}{format_count(round(value))}"
    if name in ESTIMATED and figures.is_estimated and not value:
        return f"none in {format_count(figures.known)} known"
    return f"{'' if side.is_sure else 'probably '}{'less than 1' if value else '0'}"


def _format_range(span: WhatIfRange | None) -> str:
    if span is None:
        return ""
    return f"{format_count(round(span.least))}–{format_count(round(span.most))}"


def _format_difference(current: float | None, draft: float | None) -> str:
    if current is None or draft is None:
        return NO_FIGURE
    difference = draft - current
    if difference and not round(difference):
        return "less than 1"
    return format_signed_count(round(difference))


def format_signed_count(value: int) -> str:
    """Return a whole number with its sign: +1,204, −3, 0."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{format_count(abs(value))}"


def describe_ranges(result: WhatIfResult) -> str:
    """Return what the ranges are of, and the range of the difference."""
    draws = len(result.salts) - 1
    cells = _list_unknown_cells(result.unknown_in_draws)
    if not result.known_draws:
        return (
            f"No ranges are given: each of {draws} other random draws audits other cases, and too"
            f" many of those have no human answer. {cells}"
            if cells
            else "No ranges are given, since no cell can be known under both policies."
        )
    unknown = draws - result.known_draws
    text = f"Ranges are over {result.known_draws} other random draws of the audited cases" + (
        f"; in {unknown} more, too many audited cases have no human answer. {cells}"
        if unknown
        else "."
    )
    span = result.difference_range
    if span is None:
        return text
    least, most = (format_signed_count(round(value)) for value in (span.least, span.most))
    return f"{text} With the draft, divergences change by {least} to {most}."


def _list_unknown_cells(names: Sequence[str]) -> str:
    """Return the sentence of the first cells that some draws leave unknown; "" without any."""
    if not names:
        return ""
    rest = len(names) - MAX_CELLS
    listed = [*names[:MAX_CELLS], *([f"{rest} more"] if rest > 0 else [])]
    return f"This happens in {join_words(listed)}."


def list_changes(result: WhatIfResult) -> Iterator[tuple[str, str, str]]:
    """Yield each changed section alone: its name, cases of the model, divergences."""
    for change in result.changes:
        totals = change.totals
        if totals is None:
            yield change.section, "not valid alone", ""
        elif not change.is_known:
            yield change.section, NO_FIGURE, NO_FIGURE
        else:
            yield (
                change.section,
                format_figure("model", totals),
                format_figure("wrong", totals),
            )


def list_cells(result: WhatIfResult) -> tuple[CellRow, ...]:
    """Return a row a cell; times are on the clock of its site."""
    return tuple(_build_row(pair, result.stages) for pair in result.cells)


def _build_row(pair: CellPair, stages: tuple[str, ...]) -> CellRow:
    sides = pair.current, pair.draft
    return CellRow(
        f"{pair.site} · {pair.window}",
        pair.site,
        pair.window,
        pair.effect,
        tuple(_describe_cell(pair, stages)),
        _format_sides(pair, "model"),
        _format_sides(pair, "wrong"),
        is_dashed=any(side is not None and side.unknown is not None for side in sides),
    )


def _format_sides(pair: CellPair, name: str) -> str:
    texts = [
        "no cell" if side is None else format_figure(name, side)
        for side in (pair.current, pair.draft)
    ]
    return " → ".join(texts)


def _describe_cell(pair: CellPair, stages: tuple[str, ...]) -> Iterator[str]:
    current, draft, timezone = pair.current, pair.draft, pair.timezone
    if current is None or draft is None:
        yield "Only the draft has this cell." if current is None else "The draft has no such cell."
        return
    unknown = [
        (name, side.unknown, side)
        for name, side in (("the policy in force", current), ("the draft", draft))
        if side.unknown is not None
    ]
    for name, start, side in unknown:
        share = format_percent(side.answered / side.cases, 0) if side.cases else "none"
        yield (
            f"Under {name}: can't be known from these records from"
            f" {format_zoned_time(start.at, timezone)} on: {format_count(start.missing)} of the"
            f" {format_quantity(start.needed, 'answer')} needed until then do not exist (humans"
            f" answered {share} of the cases here)."
        )
    if unknown:
        return
    starts = [_find_starts(side.intervals) for side in (current, draft)]
    sentences = [
        _describe_start(stage, starts[0].get(stage), starts[1].get(stage), timezone)
        for stage in dict.fromkeys((*starts[0], *starts[1]))
    ]
    narrowings = [_find_narrowing(side.intervals, stages) for side in (current, draft)]
    if narrowings[0] != narrowings[1]:
        now, instead = (
            "never" if at is None else format_zoned_time(at, timezone) for at in narrowings[::-1]
        )
        sentences.append(f"First narrowed {now} instead of {instead}.")
    changed = [sentence for sentence in sentences if sentence]
    yield from changed
    if not changed:
        yield "Opens and narrows at the same times." if any(starts) else "Stays in shadow."
    if draft.missing or current.missing:
        yield (
            f"{format_quantity(draft.missing, 'answer')} that the draft needs, and"
            f" {format_count(current.missing)} that the policy in force needs, do not exist: times"
            " may differ."
        )


def _find_starts(intervals: tuple[StageInterval, ...]) -> dict[str, datetime]:
    """Return when each stage above shadow first began."""
    starts: dict[str, datetime] = {}
    for interval in intervals:
        if interval.stage != SHADOW:
            starts.setdefault(interval.stage, interval.since)
    return starts


def _find_narrowing(
    intervals: tuple[StageInterval, ...], stages: tuple[str, ...]
) -> datetime | None:
    """Return when a lower stage first followed a higher one; None for never."""
    steps = pairwise(intervals)
    return next(
        (
            later.since
            for earlier, later in steps
            if stages.index(later.stage) < stages.index(earlier.stage)
        ),
        None,
    )


def _describe_start(
    stage: str, current: datetime | None, draft: datetime | None, timezone: str
) -> str:
    name = stage[:1].upper() + stage[1:]
    if current is None or draft is None:
        if draft is None and current is not None:
            return f"Never {stage}, instead of from {format_zoned_time(current, timezone)}."
        if draft is not None:
            return f"{name} from {format_zoned_time(draft, timezone)} instead of never."
    elif current != draft:
        word = "earlier" if draft < current else "later"
        return (
            f"{name} {describe_duration(abs(draft - current))} {word}: from"
            f" {format_zoned_time(draft, timezone)} instead of"
            f" {format_zoned_time(current, timezone)}."
        )
    return ""
