"""What the terminal shows: the verdict, what happened, and where every cell stands."""

from collections.abc import Iterable, Iterator
from textwrap import wrap as _wrap

from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import Facts
from rollout.reports.figures.funnel import FileRows, Funnel, RowExample
from rollout.reports.pages.summary import headline, sentences
from rollout.reports.text.event_text import shown
from rollout.reports.text.formatting import (
    THIN,
    cell_name,
    day_text,
    number,
    per_cent,
    sentence,
    several,
    unbroken,
)
from rollout.tally.frames import UNREADABLE

WIDTH = 80
MOST = 40  # rows of a list; the rest stands in report.html
FEW_ROWS = 5  # rows of the files that could not be read
INDENT = "    "


def text_report(facts: Facts, width: int = WIDTH) -> str:
    """Return the report as plain text whose lines are at most `width` characters long."""
    return "\n".join(_lines(facts, width)) + "\n"


def wrap(
    text: str, width: int, *, initial_indent: str = "", subsequent_indent: str = ""
) -> list[str]:
    """Return the lines of a text; a number and its per cent sign stay together."""
    lines = _wrap(
        unbroken(text), width, initial_indent=initial_indent, subsequent_indent=subsequent_indent
    )
    return [line.replace(THIN, " ") for line in lines]


def _lines(facts: Facts, width: int) -> Iterator[str]:
    yield from _title(facts, width)
    for line in sentences(facts):
        yield from wrap(f"- {line}", width, subsequent_indent="  ")
    yield from _section("What happened (times at the site)", width)
    yield from _timeline(facts, width)
    yield from _section("Where each cell stands, and what decides next", width)
    yield from _table(facts, width)
    yield from _section("Where the records went", width)
    for file in facts.files:
        yield from wrap(_file(file), width, subsequent_indent=INDENT)
    for row in [row for row in facts.examples if row.reason in UNREADABLE][:FEW_ROWS]:
        yield from wrap(f"  {_row(row)}", width, subsequent_indent=INDENT)
    for funnel in facts.funnels:
        yield from wrap(_funnel(funnel), width, subsequent_indent=INDENT)


def _title(facts: Facts, width: int) -> Iterator[str]:
    identity = facts.identity
    first, last = identity.first_case or identity.first, identity.last_case or identity.last
    zone = identity.timezone
    yield f"{identity.rollout}, {day_text(first, zone)} to {day_text(last, zone)}"
    yield from wrap(headline(facts) + ".", width)
    if identity.simulated:
        yield from wrap("Replay: every approval here is simulated; nobody has allowed it.", width)
    yield ""


def _section(title: str, width: int) -> Iterator[str]:
    yield ""
    yield title
    yield "-" * min(len(title), width)


def _timeline(facts: Facts, width: int) -> Iterator[str]:
    rows = [event for event in facts.timeline if shown(event) and event.kind != "PolicyApplied"]
    cell_width = max((len(cell_name(event.site, event.window)) for event in rows), default=0)
    time_width = max((len(event.local) for event in rows), default=0)
    for row in rows[:MOST]:
        prefix = (
            f"{row.local:>{time_width}}  {cell_name(row.site, row.window):<{min(cell_width, 30)}}  "
        )
        yield from wrap(prefix + row.brief, width, subsequent_indent=" " * (len(prefix) + 2))
    if len(rows) > MOST:
        yield f"... and {several(len(rows) - MOST, 'more event')}, in report.html"


def _table(facts: Facts, width: int) -> Iterator[str]:
    """Say of each cell the version that acts there, in shadow the one that was judged most."""
    rows = list(_leading(facts))
    for evidence in rows[:MOST]:
        prefix = (
            f"{cell_name(evidence.site, evidence.window)}: {evidence.stage}, {evidence.version}"
        )
        yield from wrap(
            f"{prefix}. {sentence(evidence.decides_next)}", width, subsequent_indent=INDENT
        )
    if len(rows) > MOST:
        yield f"... and {several(len(rows) - MOST, 'more cell')}, in report.html"
    silent_count = len(facts.stages) - len(rows)
    if silent_count:
        yield from wrap(f"{several(silent_count, 'cell')} without any evidence: shadow.", width)


def _leading(facts: Facts) -> Iterator[EvidenceFacts]:
    for cell in facts.stages:
        cell_evidence = [
            item for item in facts.evidence if (item.site, item.window) == (cell.site, cell.window)
        ]
        leading = max(cell_evidence, key=lambda item: (item.acting, item.judged), default=None)
        if leading is not None and leading.closed:
            yield leading


def _file(file: FileRows) -> str:
    text = f"{file.file}: {several(file.rows, 'row')} read, {number(file.used)} used"
    return text + _reasons("set aside", file.set_aside) + _reasons("noted", file.notes)


def _row(row: RowExample) -> str:
    """Say of one row what could not be read: file, line, column, reason, and what was found."""
    location = row.file if row.line is None else f"{row.file}:{row.line}"
    problem = row.reason if row.column is None else f"{row.column}: {row.reason}"
    return f"{location}: {problem}: {row.detail}"


def _reasons(what: str, counts: dict[str, int]) -> str:
    if not counts:
        return ""
    rows: Iterable[str] = (f"{number(n)} {reason}" for reason, n in counts.items())
    return f"; {what}: {', '.join(rows)}"


def _funnel(funnel: Funnel) -> str:
    """Say what was lost on the way, step by step; steps without a loss are left out."""
    steps = [step for step in funnel.steps if step.lost or step is funnel.steps[0]]
    steps_text = " > ".join(f"{number(step.left)} {step.name}" for step in steps)
    agreement = f"{number(funnel.agreement.count)} agree, {per_cent(funnel.agreement.rate)}"
    return f"{funnel.version}: {steps_text} > {agreement}"
