"""The review plan as text, for a terminal and the console alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rollout.core.statistics.opening_simulation import HORIZON, RUNS
from rollout.reports.figures.review_plan import (
    HOPELESS_CHANCE,
    CellReviewPlan,
    ChangedSetting,
    Outlook,
    ReviewChange,
    ReviewPlan,
)
from rollout.reports.pages.comparison_text import render_table
from rollout.reports.text.formatting import (
    NO_BREAK_SPACE,
    format_cell_name,
    format_count,
    format_percent,
    format_quantity,
    format_rounded_count,
    wrap_text,
)

COLUMNS: Final = (
    "cell",
    "next stage",
    "outlook",
    "decisions (50 %)",
    "decisions (90 %)",
    "days (50 %)",
    "ever opens",
    "decisions per opening",
    "planned decisions",
)
OUTLOOK_TEXTS: Final[dict[Outlook, str]] = {
    "met": "gate is met",
    "on course": "on course",
    "uncertain": "uncertain",
    "hopeless": "hopeless",
    "waits": "needs no review",
    "no data": "no data",
}
SETTING_TEXTS: Final[dict[ChangedSetting, str]] = {
    "blind share": "a blind share",
    "planted cases": "planted cases",
}
SLOW_DAYS: Final = 365
"""Days beyond which a cell that opens at the present rate isn't called on course."""
MIN_WHOLE_PERCENT: Final = 0.01
SLOW_TEXT: Final = "over a year"
_NONE: Final = "–"


@dataclass(frozen=True, slots=True)
class ReviewPlanRow:
    """One cell of a review plan as text: its table row, and sentences about it."""

    name: str
    cells: tuple[str, ...]
    reason: str
    changes: tuple[str, ...]


def describe_review_plan(plan: ReviewPlan) -> Iterator[str]:
    """Yield sentences about a review plan: what its decisions are expected to open, and how."""
    used = plan.decisions - plan.unplanned
    if not plan.cells:
        yield "No cell has a next stage."
    else:
        yield (
            f"The next {format_quantity(plan.decisions, 'decision')}: {format_count(used)} planned,"
            f" in the cheapest order; they are expected to open {plan.expected_openings:.1f} of"
            f" {format_quantity(len(plan.cells), 'cell')}."
        )
    if plan.cells and plan.unplanned:
        yield (
            f"{format_quantity(plan.unplanned, 'decision')} not planned: by then more evidence is"
            " known, so plan again."
        )
    if plan.closed_cells:
        yield f"No gate leads further in {format_quantity(plan.closed_cells, 'cell')}."


def describe_method() -> Iterator[str]:
    """Yield what the figures of a review plan mean."""
    yield (
        f"Each figure is of {RUNS} simulated runs, with true shares as likely as the evidence makes"
        " them. 50 %: half of the runs have opened by then; 90 %: nine of ten. Ever opens: share of"
        " the runs. Decisions per opening: spent for each cell that opens, if you stop where more"
        " of them help least; the order follows it."
    )
    yield (
        f"On course: half of the runs open within {SLOW_DAYS} days. Hopeless: opens with a chance"
        f" of less than {HOPELESS_CHANCE * 100:.0f} %, at the present rate. A run ends after"
        f" {format_count(HORIZON)} records. Stops, suspensions, freezes,"
        " waves and approvals are not included."
    )


def build_plan_row(row: CellReviewPlan) -> ReviewPlanRow:
    """Return a cell's row as text; a gate that is met needs no figures."""
    floor = f", {row.floor}" if row.floor else ""
    figures: tuple[str, ...] = (
        _format_decisions(row.decisions_p50),
        _format_decisions(row.decisions_p90),
        _format_days(row.days),
        _NONE if row.ever_chance is None else _format_share(row.ever_chance),
        _NONE
        if row.decisions_per_opening is None
        else format_rounded_count(round(row.decisions_per_opening)),
        format_count(row.planned) if row.planned else _NONE,
    )
    if row.outlook == "met":
        figures = (_NONE,) * len(figures)
    name = f"{format_cell_name(row.site, row.window)} ({row.version})"
    cells = (f"{row.to}{floor}", _describe_outlook(row), *figures)
    return ReviewPlanRow(name, cells, row.reason, tuple(map(describe_change, row.changes)))


def _describe_outlook(row: CellReviewPlan) -> str:
    is_slow = row.outlook == "on course" and row.days is not None and row.days > SLOW_DAYS
    return SLOW_TEXT if is_slow else OUTLOOK_TEXTS[row.outlook]


def describe_change(change: ReviewChange) -> str:
    """Describe what another setting would change."""
    needs = f"about {_format_decisions(change.decisions)} decisions"
    if change.decisions is None:
        needs = f"more than {format_count(HORIZON)} records"
    if change.days is not None:
        needs += f", {_format_days(change.days)} day{'' if change.days < 1.5 else 's'}"
    if change.decisions == 0:
        needs = "no further decision"
    if change.setting == "planted cases":
        return (
            f"if the gate took its recall of {change.label} from planted cases:"
            f" {format_quantity(change.planted, 'planted case')} if the model gets each right, and"
            f" {needs} for the rest"
        )
    other = "" if change.other_share is None else format_percent(change.other_share, 0)
    now = "" if change.share is None else f" instead of {format_percent(change.share, 0)}"
    return f"with {SETTING_TEXTS[change.setting]} of {other}{now}: {needs}"


def format_review_plan(plan: ReviewPlan) -> str:
    """Format a review plan for a terminal, without a newline at the end."""
    return "\n".join(_list_lines(plan)).replace(NO_BREAK_SPACE, " ")


def _list_lines(plan: ReviewPlan) -> Iterator[str]:
    for sentence in describe_review_plan(plan):
        yield from wrap_text(sentence)
    if not plan.cells:
        return
    rows = [build_plan_row(row) for row in plan.cells]
    yield ""
    table = [COLUMNS, *((row.name, *row.cells) for row in rows)]
    yield from render_table(table, left_aligned=3)
    yield ""
    for row in rows:
        if row.reason or row.changes:
            yield from wrap_text(f"{row.name}: {row.reason}", indent="  ")
            for change in row.changes:
                yield from wrap_text(change, indent="    ")
    yield ""
    for sentence in describe_method():
        yield from wrap_text(sentence)


def _format_decisions(decisions: int | None) -> str:
    return _NONE if decisions is None else format_rounded_count(decisions)


def _format_days(days: float | None) -> str:
    if days is None:
        return _NONE
    return format_rounded_count(round(days)) if days >= 1 or not days else "under 1"


def _format_share(share: float) -> str:
    """Return a share of the runs in per cent; only all of them are 100 %."""
    if 0 < share < MIN_WHOLE_PERCENT or 1 - MIN_WHOLE_PERCENT < share < 1:
        return f"{'under 1' if share < MIN_WHOLE_PERCENT else 'over 99'}{NO_BREAK_SPACE}%"
    return format_percent(share, 0)
