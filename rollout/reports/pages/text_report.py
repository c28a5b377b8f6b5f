"""The report as text for a terminal: summary, timeline, cells, funnel."""

from collections.abc import Iterable, Iterator
from textwrap import wrap as _wrap

from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.funnel import FileRowCounts, Funnel, RowExample
from rollout.reports.pages.cell_rows import find_leading_evidence, list_cell_evidence
from rollout.reports.pages.summary import describe_results, format_headline
from rollout.reports.text.event_kinds import is_in_timeline
from rollout.reports.text.formatting import (
    NO_BREAK_SPACE,
    format_cell_name,
    format_count,
    format_day,
    format_percent,
    format_quantity,
    prevent_breaks,
    to_sentence,
)
from rollout.tally.frames import UNREADABLE_REASONS

DEFAULT_WIDTH = 80
MAX_ROWS = 40  # of a list; report.html has more
MAX_REJECTED_ROWS = 5
INDENT = "    "


def render_text_report(facts: ReportFacts, width: int = DEFAULT_WIDTH) -> str:
    """Return the report as plain text, wrapped at `width` characters."""
    return "\n".join(_render_lines(facts, width)) + "\n"


def wrap_lines(
    text: str, width: int, *, initial_indent: str = "", subsequent_indent: str = ""
) -> list[str]:
    """Return the wrapped lines of a text, without breaks before a per cent sign."""
    lines = _wrap(
        prevent_breaks(text),
        width,
        initial_indent=initial_indent,
        subsequent_indent=subsequent_indent,
    )
    return [line.replace(NO_BREAK_SPACE, " ") for line in lines]


def _render_lines(facts: ReportFacts, width: int) -> Iterator[str]:
    yield from _render_title(facts, width)
    for line in describe_results(facts):
        yield from wrap_lines(f"- {line}", width, subsequent_indent="  ")
    yield from _render_heading("What happened (times at the site)", width)
    yield from _render_timeline(facts, width)
    yield from _render_heading("Where each cell stands, and what decides next", width)
    yield from _render_cells(facts, width)
    yield from _render_heading("Where the records went", width)
    for file in facts.files:
        yield from wrap_lines(_describe_file(file), width, subsequent_indent=INDENT)
    for row in [row for row in facts.examples if row.reason in UNREADABLE_REASONS][
        :MAX_REJECTED_ROWS
    ]:
        yield from wrap_lines(f"  {_describe_row(row)}", width, subsequent_indent=INDENT)
    for funnel in facts.funnels:
        yield from wrap_lines(_describe_funnel(funnel), width, subsequent_indent=INDENT)


def _render_title(facts: ReportFacts, width: int) -> Iterator[str]:
    identity = facts.identity
    first, last = identity.first_case or identity.first, identity.last_case or identity.last
    zone = identity.timezone
    yield f"{identity.rollout}, {format_day(first, zone)} to {format_day(last, zone)}"
    yield from wrap_lines(format_headline(facts) + ".", width)
    if identity.simulated:
        yield from wrap_lines(
            "Replay: every approval here is simulated; nobody has allowed it.", width
        )
    yield ""


def _render_heading(title: str, width: int) -> Iterator[str]:
    yield ""
    yield title
    yield "-" * min(len(title), width)


def _render_timeline(facts: ReportFacts, width: int) -> Iterator[str]:
    rows = [
        event for event in facts.timeline if is_in_timeline(event) and event.kind != "PolicyApplied"
    ]
    cell_width = max((len(format_cell_name(event.site, event.window)) for event in rows), default=0)
    time_width = max((len(event.local) for event in rows), default=0)
    for row in rows[:MAX_ROWS]:
        prefix = (
            f"{row.local:>{time_width}} "
            f" {format_cell_name(row.site, row.window):<{min(cell_width, 30)}}  "
        )
        yield from wrap_lines(prefix + row.brief, width, subsequent_indent=" " * (len(prefix) + 2))
    if len(rows) > MAX_ROWS:
        yield f"... and {format_quantity(len(rows) - MAX_ROWS, 'more event')}, in report.html"


def _render_cells(facts: ReportFacts, width: int) -> Iterator[str]:
    """Yield the lines of each cell with evidence: its leading version and next step."""
    rows = list(_list_leading_evidence(facts))
    for evidence in rows[:MAX_ROWS]:
        prefix = (
            f"{format_cell_name(evidence.site, evidence.window)}: {evidence.stage},"
            f" {evidence.version}"
        )
        yield from wrap_lines(
            f"{prefix}. {to_sentence(evidence.decides_next)}", width, subsequent_indent=INDENT
        )
    if len(rows) > MAX_ROWS:
        yield f"... and {format_quantity(len(rows) - MAX_ROWS, 'more cell')}, in report.html"
    silent_count = len(facts.stages) - len(rows)
    if silent_count:
        yield from wrap_lines(
            f"{format_quantity(silent_count, 'cell')} without any evidence: shadow.", width
        )


def _list_leading_evidence(facts: ReportFacts) -> Iterator[EvidenceFacts]:
    for cell in facts.stages:
        leading = find_leading_evidence(list_cell_evidence(facts, cell))
        if leading is not None and leading.closed:
            yield leading


def _describe_file(file: FileRowCounts) -> str:
    text = f"{file.file}: {format_quantity(file.rows, 'row')} read, {format_count(file.used)} used"
    return (
        text + _format_reasons("set aside", file.set_aside) + _format_reasons("noted", file.notes)
    )


def _describe_row(row: RowExample) -> str:
    """Describe one rejected row: file, line, column, reason and detail."""
    location = row.file if row.line is None else f"{row.file}:{row.line}"
    problem = row.reason if row.column is None else f"{row.column}: {row.reason}"
    return f"{location}: {problem}: {row.detail}"


def _format_reasons(title: str, counts: dict[str, int]) -> str:
    if not counts:
        return ""
    rows: Iterable[str] = (f"{format_count(n)} {reason}" for reason, n in counts.items())
    return f"; {title}: {', '.join(rows)}"


def _describe_funnel(funnel: Funnel) -> str:
    """Describe the funnel of a version; steps without a loss are skipped."""
    steps = [step for step in funnel.steps if step.lost or step is funnel.steps[0]]
    steps_text = " > ".join(f"{format_count(step.left)} {step.name}" for step in steps)
    agreement = (
        f"{format_count(funnel.agreement.count)} agree, {format_percent(funnel.agreement.rate)}"
    )
    return f"{funnel.version}: {steps_text} > {agreement}"
