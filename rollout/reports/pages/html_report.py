"""`report.html`: one page without outside parts, for a screen of any width and for paper."""

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Template
from markupsafe import Markup

from rollout.reports.figures.confusion import ConfusionMatrix
from rollout.reports.figures.facts import Facts
from rollout.reports.figures.naive_baselines import NaiveOpening
from rollout.reports.figures.slices import luck_words
from rollout.reports.inputs.losses import Loss
from rollout.reports.inputs.pictures import is_inside, is_link
from rollout.reports.pages.cell_rows import cell_rows
from rollout.reports.pages.charts import charts_of
from rollout.reports.pages.figure_charts import drift_name, figure_charts, some
from rollout.reports.pages.page_templates import page_templates
from rollout.reports.pages.summary import headline, sentences
from rollout.reports.pages.svg import DEEPEST
from rollout.reports.text import formatting
from rollout.reports.text.event_text import Happening, shown

MOST = 60  # rows of one table; what is beyond stands in report.json
FIRST_LOSSES = 5
INSTALL = "pip install 'rollout-controller[charts]'"
SHADES = 4


def html_report(facts: Facts, view: str | None = None) -> str:
    """Return the page. Without vl-convert it keeps its tables and says how to get charts.

    Args:
        facts: what it says.
        view: the part for one reader, `operator`, `engineer` or `auditor`; by default all three.
    """
    page = _page().render(
        facts=facts,
        view=view,
        charts=charts_of(facts),
        figures=figure_charts(facts),
        headline=headline(facts),
        sentences=sentences(facts, view),
        cells=list(cell_rows(facts))[:MOST],
        more_cells=max(0, len(facts.stages) - MOST),
        timeline=[event for event in facts.timeline if shown(event)],
        ledger=[event for event in facts.timeline if _for_auditors(event)],
        hidden=[item for item in facts.sighted if item.shown.n < item.all.n],
        plain_rules=_plain_rules(facts),
        span=_span(facts),
        loss_count=FIRST_LOSSES,
        most=MOST,
        install=INSTALL,
    )
    return formatting.unbroken(page)


def _page() -> Template:
    environment = page_templates("rollout.reports")
    environment.filters.update(
        between=formatting.between,
        change_between=formatting.change_between,
        counts=formatting.of,
        spans_in_words=formatting.spans_in_words,
        local=formatting.local,
        took=formatting.span_text,
        drawing=Markup,
        luck=luck_words,
        drift_name=drift_name,
        some=some,
        leading=leading,
        beyond=beyond,
        confused=confused,
    )
    environment.tests.update(link=is_link, drawn=is_inside)
    environment.globals.update(
        cell_name=formatting.cell_name, several=formatting.several, shade=shade, rung_of=rung_of
    )
    return environment.get_template("report.html.j2")


def rung_of(stage: str, stages: tuple[str, ...]) -> int:
    """Return the pattern of a stage: its rung, the highest patterns shared."""
    return min(stages.index(stage), DEEPEST)


def leading(rows: Sequence[Loss], count: int) -> list[Loss]:
    """Return the first so many rows of each kind, in their order."""
    return [row for kind in _kinds(rows) for row in kind[:count]]


def beyond(rows: Sequence[Loss], count: int) -> list[Loss]:
    """Return the rows that `leading` leaves."""
    return [row for kind in _kinds(rows) for row in kind[count:]]


def _kinds(rows: Sequence[Loss]) -> list[list[Loss]]:
    kinds = dict.fromkeys(row.kind for row in rows)
    return [[row for row in rows if row.kind == kind] for kind in kinds]


class Confused(NamedTuple):
    """What people called one thing and the model another: how often, of how many of people's."""

    human: str
    model: str
    times: int
    of: int


def confused(matrix: ConfusionMatrix, count: int) -> list[Confused]:
    """Return the pairs of labels most often taken for each other, the commonest first.

    >>> confused(ConfusionMatrix(("bear", "elk"), ((7, 1), (2, 9))), 1)
    [Confused(human='elk', model='bear', times=2, of=11)]
    """
    confusions = [
        Confused(human, model, times, sum(counts))
        for human, counts in zip(matrix.labels, matrix.counts, strict=True)
        for model, times in zip(matrix.labels, counts, strict=True)
        if human != model and times
    ]
    return sorted(confusions, key=lambda pair: -pair.times)[:count]


def shade(matrix: ConfusionMatrix, row: int, column: int) -> str:
    """Return how dark a cell of a matrix is: labels by share of the row, actions by cost.

    Empty where nothing was counted, and where a cell of an action matrix costs nothing.
    """
    count = matrix.counts[row][column]
    if matrix.costs is None:
        return _step("h", count, sum(matrix.counts[row]))
    cost = [
        n * c
        for counts, costs in zip(matrix.counts, matrix.costs, strict=True)
        for n, c in zip(counts, costs, strict=True)
    ]
    return _step("l", count * matrix.costs[row][column], max(cost))


def _step(kind: str, part: float, whole: float) -> str:
    if not part or not whole:
        return ""
    return f"{kind}{min(SHADES, 1 + int(SHADES * part / whole))}"


def _span(facts: Facts) -> str:
    identity = facts.identity
    first, last = identity.first_case or identity.first, identity.last_case or identity.last
    return (
        f"{formatting.day_text(first, identity.timezone)} to"
        f" {formatting.day_text(last, identity.timezone)}"
    )


def _for_auditors(happening: Happening) -> bool:
    return happening.kind not in {"RolloutCreated", "VersionFirstUsed", "IncidentOpened"}


def _plain_rules(facts: Facts) -> list[NaiveOpening]:
    """Return the openings of cells that the engine held in shadow all the time."""
    shadow_cells = {(cell.site, cell.window) for cell in facts.stages if not cell.widened}
    return [opening for opening in facts.naive if (opening.site, opening.window) in shadow_cells]
