"""`report.html`: one self-contained page for screens and paper."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Template
from markupsafe import Markup

from rollout.reports.figures.confusion import ConfusionMatrix
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.naive_baselines import NaiveOpening
from rollout.reports.inputs.losses import Loss
from rollout.reports.inputs.pictures import is_embedded, is_link
from rollout.reports.pages.cell_rows import build_cell_rows
from rollout.reports.pages.charts import draw_charts
from rollout.reports.pages.figure_charts import draw_figure_charts, format_drift_name, sample_rows
from rollout.reports.pages.page_templates import load_templates
from rollout.reports.pages.summary import describe_results, format_headline
from rollout.reports.pages.svg import MAX_STAGE_PATTERN
from rollout.reports.text import formatting
from rollout.reports.text.event_text import EventDescription, is_in_timeline

MAX_ROWS = 60  # of one table; report.json has all
FIRST_LOSSES = 5
INSTALL = "pip install 'rollout-controller[charts]'"
SHADES = 4


def render_html_report(facts: ReportFacts, view: str | None = None) -> str:
    """Return the page; without vl-convert it has tables but no charts.

    `view` selects the part for `operator`, `engineer` or `auditor`; by default all three.
    """
    page = _load_template().render(
        facts=facts,
        view=view,
        charts=draw_charts(facts),
        figures=draw_figure_charts(facts),
        headline=format_headline(facts),
        sentences=describe_results(facts, view),
        cells=list(build_cell_rows(facts))[:MAX_ROWS],
        more_cells=max(0, len(facts.stages) - MAX_ROWS),
        timeline=[event for event in facts.timeline if is_in_timeline(event)],
        ledger=[event for event in facts.timeline if _is_for_auditors(event)],
        hidden=[item for item in facts.sighted if item.shown.n < item.all.n],
        plain_rules=_select_naive_openings(facts),
        span=_format_span(facts),
        loss_count=FIRST_LOSSES,
        most=MAX_ROWS,
        install=INSTALL,
    )
    return formatting.prevent_breaks(page)


@cache
def _load_template() -> Template:
    environment = load_templates("rollout.reports")
    environment.filters.update(
        between=formatting.format_interval,
        change_between=formatting.format_change_interval,
        counts=formatting.format_ratio,
        spans_in_words=formatting.describe_durations,
        local=formatting.format_local_time,
        took=formatting.describe_duration,
        drawing=Markup,
        luck=formatting.format_chance,
        drift_name=format_drift_name,
        some=sample_rows,
        leading=take_leading,
        beyond=take_remaining,
        confused=find_confusions,
    )
    environment.tests.update(link=is_link, drawn=is_embedded)
    environment.globals.update(
        cell_name=formatting.format_cell_name,
        several=formatting.format_quantity,
        shade=choose_shade,
        rung_of=find_stage_pattern,
    )
    return environment.get_template("report.html.j2")


def find_stage_pattern(stage: str, stages: tuple[str, ...]) -> int:
    """Return the pattern number of a stage: its level, up to the last pattern."""
    return min(stages.index(stage), MAX_STAGE_PATTERN)


def take_leading(rows: Sequence[Loss], count: int) -> list[Loss]:
    """Return the first `count` rows of each kind."""
    return [row for kind in _group_by_kind(rows) for row in kind[:count]]


def take_remaining(rows: Sequence[Loss], count: int) -> list[Loss]:
    """Return the rows after those of `take_leading`."""
    return [row for kind in _group_by_kind(rows) for row in kind[count:]]


def _group_by_kind(rows: Sequence[Loss]) -> list[list[Loss]]:
    kinds = dict.fromkeys(row.kind for row in rows)
    return [[row for row in rows if row.kind == kind] for kind in kinds]


class LabelConfusion(NamedTuple):
    """A human label with a different model label: its count, and the total of the former."""

    human: str
    model: str
    times: int
    human_total: int


def find_confusions(matrix: ConfusionMatrix, count: int) -> list[LabelConfusion]:
    """Return the most frequent confusions, the first `count`.

    >>> find_confusions(ConfusionMatrix(("bear", "elk"), ((7, 1), (2, 9))), 1)
    [LabelConfusion(human='elk', model='bear', times=2, human_total=11)]
    """
    confusions = [
        LabelConfusion(human, model, times, sum(counts))
        for human, counts in zip(matrix.labels, matrix.counts, strict=True)
        for model, times in zip(matrix.labels, counts, strict=True)
        if human != model and times
    ]
    return sorted(confusions, key=lambda pair: -pair.times)[:count]


def choose_shade(matrix: ConfusionMatrix, row: int, column: int) -> str:
    """Return the shade class of a cell: labels by share of the row, actions by cost.

    Empty for zero counts and zero costs.
    """
    count = matrix.counts[row][column]
    if matrix.costs is None:
        return _format_shade("h", count, sum(matrix.counts[row]))
    cost = [
        n * c
        for counts, costs in zip(matrix.counts, matrix.costs, strict=True)
        for n, c in zip(counts, costs, strict=True)
    ]
    return _format_shade("l", count * matrix.costs[row][column], max(cost))


def _format_shade(kind: str, part: float, total: float) -> str:
    if not part or not total:
        return ""
    return f"{kind}{min(SHADES, 1 + int(SHADES * part / total))}"


def _format_span(facts: ReportFacts) -> str:
    identity = facts.identity
    first, last = identity.first_case or identity.first, identity.last_case or identity.last
    return (
        f"{formatting.format_day(first, identity.timezone)} to"
        f" {formatting.format_day(last, identity.timezone)}"
    )


def _is_for_auditors(event: EventDescription) -> bool:
    return event.kind not in {"RolloutCreated", "VersionFirstUsed", "IncidentOpened"}


def _select_naive_openings(facts: ReportFacts) -> list[NaiveOpening]:
    """Return the naive openings of cells that never left shadow."""
    shadow_cells = {(cell.site, cell.window) for cell in facts.stages if not cell.widened}
    return [opening for opening in facts.naive if (opening.site, opening.window) in shadow_cells]
