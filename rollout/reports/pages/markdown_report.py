"""The report as Markdown: summary, cells and costliest divergences."""

from collections.abc import Iterable, Iterator
from itertools import islice

from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.report_version import FINAL, ReportVersion
from rollout.reports.inputs.divergences import Divergence
from rollout.reports.pages.cell_rows import CellSummaryRow, build_cell_rows
from rollout.reports.pages.summary import describe_results, format_headline
from rollout.reports.text.formatting import (
    format_cell_name,
    format_count,
    format_day,
    format_local_time,
    format_percent,
    format_quantity,
    to_sentence,
)

MAX_CELLS = 60
MAX_DIVERGENCES = 5
MAX_CHANGES = 10
NO_DATA = "no data"
ESCAPES = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~!&$@"} | {"\n": " ", "\r": " "})


def render_markdown_report(facts: ReportFacts) -> str:
    """Return the report as Markdown for GitHub and GitLab, without images."""
    return "\n".join(_render_lines(facts)) + "\n"


def escape_markdown(text: str) -> str:
    r"""Return a text with Markdown escaped, for untrusted names and labels.

    >>> escape_markdown("a|b <img> @all")
    'a\\|b \\<img\\> \\@all'
    """
    return text.translate(ESCAPES)


def _render_lines(facts: ReportFacts) -> Iterator[str]:
    identity, zone = facts.identity, facts.identity.timezone
    yield f"# {escape_markdown(identity.rollout)}: {escape_markdown(format_headline(facts))}"
    yield ""
    yield (
        f"{format_day(identity.first, zone)} to {format_day(identity.last, zone)}."
        f" {_describe_version(facts.report_version)}"
    )
    if identity.simulated:
        yield "This is a replay: every approval is simulated."
    if facts.sources.choice_text:
        yield escape_markdown(facts.sources.choice_text)
    yield ""
    yield from (f"- {escape_markdown(line)}" for line in describe_results(facts))
    yield from _render_cells(facts)
    yield from _render_divergences(facts)
    yield from _render_changes(facts.report_version)
    yield from _render_identity(facts)


def _describe_version(report_version: ReportVersion) -> str:
    """Describe whether the report can still change, and until when."""
    if not report_version.live:
        return "A replay of recorded history."
    if report_version.state == FINAL:
        return f"Version {report_version.version}, **FINAL**: all cases of the span are closed."
    due = (
        ""
        if report_version.due is None
        else f" It can become final on {report_version.due.isoformat()}."
    )
    pending_text = format_quantity(report_version.uncounted_units, "unit is", "units are")
    return f"Version {report_version.version}, **PROVISIONAL**: {pending_text} still open.{due}"


def _render_cells(facts: ReportFacts) -> Iterator[str]:
    yield from _render_section(
        "Cells",
        ("cell", "stage", "version", "bound", "agreement", "units", "next step"),
        (_render_cell(row) for row in islice(build_cell_rows(facts), MAX_CELLS)),
    )
    if len(facts.stages) > MAX_CELLS:
        yield (
            f"… and {format_quantity(len(facts.stages) - MAX_CELLS, 'more cell')}, in the report"
            " itself."
        )


def _render_cell(row: CellSummaryRow) -> tuple[str, ...]:
    bound = f"{row.bound}, {row.threshold}" if row.threshold else row.bound
    version = row.version or "none"
    units = format_count(row.units)
    return row.cell, row.stage, version, bound, row.estimate, units, to_sentence(row.next_step)


def _render_divergences(facts: ReportFacts) -> Iterator[str]:
    title = f"Costliest of {format_quantity(facts.divergences.count, 'divergence')}"
    if not facts.divergences.top:
        yield from (
            "",
            "## Divergences",
            "",
            "None: model and humans agree, or there are no pairs.",
        )
        return
    header = ("case", "cell", "time", "human", "model", "cost", "confidence")
    yield from _render_section(
        title,
        header,
        (
            _render_divergence(divergence, facts)
            for divergence in facts.divergences.top[:MAX_DIVERGENCES]
        ),
    )


def _render_divergence(divergence: Divergence, facts: ReportFacts) -> tuple[str, ...]:
    zone = facts.identity.zones.get(divergence.site, facts.identity.timezone)
    window = divergence.window or "other"
    return (
        divergence.case_key,
        f"{format_cell_name(divergence.site, window)}, {divergence.version}, {divergence.lever}",
        divergence.local_time if divergence.at is None else format_local_time(divergence.at, zone),
        f"{divergence.human} → {divergence.human_action}",
        f"{divergence.model} → {divergence.model_action}",
        f"{divergence.cost:g}",
        NO_DATA if divergence.confidence is None else format_percent(divergence.confidence),
    )


def _render_changes(report_version: ReportVersion) -> Iterator[str]:
    if report_version.version == 1:
        return
    count = len(report_version.changed) + report_version.more_changed
    title = (
        f"What changed since version {report_version.version - 1}:"
        f" {format_quantity(count, 'figure')}"
    )
    rows = (
        (change.path, change.before or NO_DATA, change.after or NO_DATA)
        for change in report_version.changed
    )
    listed_rows = [row for row, _ in zip(rows, range(MAX_CHANGES), strict=False)]
    yield from _render_section(title, ("figure", "before", "after"), listed_rows)
    if count > len(listed_rows):
        yield f"… and {format_count(count - len(listed_rows))} more, in the report itself."


def _render_section(
    title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]
) -> Iterator[str]:
    yield from ("", f"## {escape_markdown(title)}", "")
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(escape_markdown(cell) for cell in row)} |"


def _render_identity(facts: ReportFacts) -> Iterator[str]:
    identity = facts.identity
    yield ""
    yield (
        f"Policy {identity.policy_number}, `{identity.policy_hash[:12]}`; ledger"
        f" `{identity.ledger.head[:12]}`, "
    )
    yield (
        f"{format_quantity(identity.ledger.rows, 'row')}. Reproduce with"
        f" `{identity.command.replace('`', '')}`."
    )
