"""`report.html`: one self-contained page for screens and paper; and pages of stored reports."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from jinja2 import Template
from markupsafe import Markup

from rollout.engine.words import formatting
from rollout.engine.words.event_kinds import AUDITORS_OMITTED_KINDS, is_in_timeline
from rollout.engine.words.state_text import describe_remark
from rollout.features.reports.figures.comparison import ConfusionMatrix, LabelConfusion
from rollout.features.reports.figures.evidence_facts import explain_conditions
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.incident_cause import MAX_COURSES
from rollout.features.reports.inputs.divergence_columns import Loss, select_titled_columns
from rollout.features.reports.inputs.pictures import is_embedded, is_link
from rollout.features.reports.pages.charts import (
    build_report_markers,
    draw_charts,
    draw_figure_charts,
    format_drift_name,
    sample_rows,
)
from rollout.features.reports.pages.findings import rank_findings
from rollout.features.reports.pages.json_report import parse_report_facts
from rollout.features.reports.pages.number_charts import build_detector_view, describe_points
from rollout.features.reports.pages.page_templates import choose_shades, load_templates
from rollout.features.reports.pages.report_tiles import build_cell_rows, build_tiles
from rollout.features.reports.pages.section_summaries import (
    SECTIONS,
    format_loss_kind,
    select_naive_openings,
)
from rollout.features.reports.pages.summary import (
    describe_held_floors,
    format_headline,
    format_span,
    name_method,
    summarize_gains,
)
from rollout.features.reports.pages.text_report import render_message_summary
from rollout.features.reports.pages.timeline_chart import build_timeline_view
from rollout.kernel.errors import format_install
from rollout.kernel.units import group_pairs

READER_NAMES: Final[Mapping[str, str]] = {
    "operator": "operator",
    "engineer": "ML engineer",
    "auditor": "auditor",
}

HEADER_PATTERN = re.compile(r"<thead>(.*?)</thead>", re.DOTALL)
COLUMN_PATTERN = re.compile(r"<th\b[^>]*>(.*?)</th>|<td></td>", re.DOTALL)
BODY_PATTERN = re.compile(r"<tbody>.*?</tbody>", re.DOTALL)
ROW_PATTERN = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL_PATTERN = re.compile(r"<(td|th)\b")


def label_cells(tables: str) -> Markup:
    """Return HTML whose table cells carry the name of their column; matrices stay as they are.

    >>> header = "<table><thead><tr><th>Cell</th><th>Units</th></tr></thead>"
    >>> table = header + "<tbody><tr><th>a</th><td>3</td></tr></tbody></table>"
    >>> str(label_cells(table)).removeprefix(header)
    '<tbody><tr><th>a</th><td data-label="Units">3</td></tr></tbody></table>'
    """
    parts = re.split(r"(?=<table\b)", str(tables))
    # `tables` is markup already: a template rendered and escaped it
    return Markup("".join(_label_table(part) for part in parts))  # noqa: S704


def _label_table(table: str) -> str:
    header = HEADER_PATTERN.search(table)
    if header is None or table.startswith('<table class="matrix"'):
        return table
    columns = [
        re.sub(r"<[^>]*>", "", column).replace('"', "&quot;")
        for column in COLUMN_PATTERN.findall(header[1])
    ]
    return BODY_PATTERN.sub(
        lambda body: ROW_PATTERN.sub(lambda row: _label_row(row[0], columns), body[0]), table
    )


def _label_row(row: str, columns: list[str]) -> str:
    names = iter(columns)

    def add_label(cell: re.Match[str]) -> str:
        name = next(names, "")
        return f'<td data-label="{name}"' if cell[1] == "td" and name else cell[0]

    return CELL_PATTERN.sub(add_label, row)


MAX_ROWS = 60  # of one table; report.json has all


def format_page(body: Mapping[str, Any], report_format: str, view: str | None) -> str:
    """Return the values of a stored report as `html` or `summary`, made of them alone.

    Raises:
        UnreadableReportError: the report can't be shown so.
    """
    facts = parse_report_facts(body)
    if report_format == "summary":
        return render_message_summary(facts, view)
    return render_html_report(facts, view)


def render_html_report(
    facts: ReportFacts, view: str | None = None, example: str | None = None
) -> str:
    """Return the page; without vl-convert it has tables but no charts.

    `view` selects the part for `operator`, `engineer` or `auditor`; by default all three. `example`
    is the shipped example whose replay this is.
    """
    readers = (view,) if view else tuple(READER_NAMES)
    return formatting.prevent_breaks(
        _load_template().render(
            facts=facts,
            view=view,
            example=example,
            readers=readers,
            reader_names=READER_NAMES,
            sections={
                id_: section for id_, section in SECTIONS.items() if section.reader in readers
            },
            tiles={reader: build_tiles(facts, reader) for reader in readers},
            findings={reader: rank_findings(facts, reader) for reader in readers},
            proposals=facts.open_proposals,
            markers=build_report_markers(facts),
            charts=draw_charts(facts),
            figures=draw_figure_charts(facts),
            headline=format_headline(facts),
            next_line=_describe_next(facts),
            cells=list(build_cell_rows(facts))[:MAX_ROWS],
            open_cells=10,  # of the operator's table; the others are one fold deeper
            open_actions=8,  # the largest changes; the others are one fold deeper
            more_cells=max(0, len(facts.stages) - MAX_ROWS),
            timeline=[event for event in facts.events if is_in_timeline(event)],
            timeline_views=[
                build_timeline_view(timeline, f"tl{number}", column_width=96)
                for number, timeline in enumerate(facts.cell_timelines, start=1)
            ],
            max_courses=MAX_COURSES,
            detector_views=[
                build_detector_view(item.course, item.timezone, f"det{number}")
                for number, item in enumerate(facts.detector_courses, start=1)
            ],
            ledger=[event for event in facts.events if event.kind not in AUDITORS_OMITTED_KINDS],
            held_floors=list(describe_held_floors(facts)),
            hidden=[item for item in facts.visible_agreements if item.sampled.n < item.all.n],
            plain_rules=select_naive_openings(facts),
            span=format_span(facts.identity),
            loss_count=5,
            most=MAX_ROWS,
            install=format_install("charts"),
            condition_terms=explain_conditions(evidence.gate for evidence in facts.evidence),
        )
    )


@cache
def _load_template() -> Template:
    environment = load_templates("rollout.features.reports")
    environment.filters.update(
        between=formatting.format_interval,
        change_between=formatting.format_change_interval,
        counts=formatting.format_ratio,
        local=formatting.format_local_time,
        titled_columns=select_titled_columns,
        took=formatting.describe_duration,
        remark=describe_remark,
        drawing=Markup,
        luck=formatting.format_chance,
        drift_name=format_drift_name,
        kind_name=format_loss_kind,
        bound=lambda condition: formatting.format_bound_value(
            condition.measure, condition.bound, condition.threshold, at_least=condition.at_least
        ),
        some=sample_rows,
        slice_kinds=slice_kinds,
        confused=find_confusions,
        by_change=lambda rows: sorted(rows, key=lambda row: -abs(row.change.per_100 or 0)),
        label_cells=label_cells,
        measure=formatting.format_number_value,
        ends=formatting.format_number_interval,
        points_drawn=describe_points,
        way=name_method,
        written=formatting.format_value,
        gain_counts=summarize_gains,
        capitalize_first=lambda text: text[:1].upper() + text[1:],
    )
    environment.tests.update(link=is_link, drawn=is_embedded)
    environment.globals.update(
        cell_name=formatting.format_cell_name,
        several=formatting.format_quantity,
        shades=choose_shades,
        truth_words=formatting.choose_words,
        opening_note=formatting.OPENING_NOTE,
    )
    return environment.get_template("report.html.j2")


def _describe_next(facts: ReportFacts) -> str:
    """Describe in one sentence what needs an approval."""
    proposals = facts.open_proposals
    if not proposals:
        return "No proposal needs an approval."
    if len(proposals) > 1:
        return f"{formatting.format_count(len(proposals))} proposals need approvals."
    (proposal,) = proposals
    needed = formatting.format_quantity(proposal.needed, "more approval")
    return f"One {proposal.kind} ({proposal.cell_name}) needs {needed}."


def slice_kinds(rows: Sequence[Loss], start: int, stop: int | None = None) -> list[Loss]:
    """Return the rows of each kind from `start` up to `stop`."""
    kinds = group_pairs((row.kind, row) for row in rows)
    return [row for kind_rows in kinds.values() for row in kind_rows[start:stop]]


def find_confusions(matrix: ConfusionMatrix, count: int) -> list[LabelConfusion]:
    """Return the most frequent confusions, the first `count`.

    >>> find_confusions(ConfusionMatrix(("bear", "elk"), ((7, 1), (2, 9))), 1)
    [LabelConfusion(human='elk', model='bear', times=2, human_total=11)]
    """
    return sorted(matrix.list_confusions(), key=lambda pair: -pair.times)[:count]
