"""What the terminal shows: the verdict, what happened, and where every cell stands."""

from collections.abc import Iterable, Iterator
from textwrap import wrap

from rollout.reports.evidence_facts import EvidenceFacts
from rollout.reports.facts import Facts
from rollout.reports.funnel import FileRows, Funnel
from rollout.reports.timeline_words import Happening, shown
from rollout.reports.verdict import headline, sentences
from rollout.reports.words import (
    cell_name,
    date_text,
    number,
    of,
    per_cent,
    several,
)

WIDTH = 80
MOST = 40  # rows of a list; the rest stands in report.html
KINDS = {
    "Widened": "up", "TakenOver": "takeover", "Narrowed": "DOWN", "Suspended": "SUSPENDED",
    "Cleared": "good again", "Lapsed": "LAPSED", "Renewed": "renewed", "VersionSeen": "version",
}  # fmt: skip


def text_report(facts: Facts, width: int = WIDTH) -> str:
    """Return the report as plain text whose lines are at most `width` characters long."""
    return "\n".join(_lines(facts, width)) + "\n"


def _lines(facts: Facts, width: int) -> Iterator[str]:
    yield from _title(facts, width)
    for sentence in sentences(facts):
        yield from wrap(f"- {sentence}", width, subsequent_indent="  ")
    yield from _section("What happened (times at the site)", width)
    yield from _timeline(facts, width)
    yield from _section("Where each cell stands, and what decides next", width)
    yield from _table(facts, width)
    yield from _section("Where the records went", width)
    for file in facts.files:
        yield from wrap(_file(file), width, initial_indent="  ", subsequent_indent="    ")
    for funnel in facts.funnels:
        yield from wrap(_funnel(funnel), width, initial_indent="  ", subsequent_indent="    ")


def _title(facts: Facts, width: int) -> Iterator[str]:
    of_what = facts.identity
    first, last = of_what.first_case or of_what.first, of_what.last_case or of_what.last
    yield f"{of_what.rollout}, {date_text(first)} to {date_text(last)}"
    yield from wrap(headline(facts) + ".", width)
    if of_what.simulated:
        yield from wrap("Replay: every approval here is simulated; nobody has allowed it.", width)
    yield ""


def _section(title: str, width: int) -> Iterator[str]:
    yield ""
    yield title
    yield "-" * min(len(title), width)


def _timeline(facts: Facts, width: int) -> Iterator[str]:
    rows = [h for h in facts.timeline if shown(h) and h.kind != "PolicyApplied"]
    for happening in rows[:MOST]:
        yield from _happening(happening, width)
    if len(rows) > MOST:
        yield f"... and {several(len(rows) - MOST, 'more event')}, in report.html"


def _happening(happening: Happening, width: int) -> Iterator[str]:
    where = cell_name(happening.site, happening.window)
    kind = KINDS.get(happening.kind, "")
    head = f"{happening.local:<17} {where}".rstrip()
    yield from wrap(f"{head}  {kind}" if kind else head, width)
    yield from wrap(happening.text, width, initial_indent="    ", subsequent_indent="    ")


def _table(facts: Facts, width: int) -> Iterator[str]:
    told = [e for e in facts.evidence if e.closed]
    for evidence in told[:MOST]:
        yield from _cell(evidence, width)
    if len(told) > MOST:
        yield f"... and {several(len(told) - MOST, 'more row')}, in report.html"
    silent = len({(c.site, c.window) for c in facts.stages} - {(e.site, e.window) for e in told})
    if silent:
        yield from wrap(f"{several(silent, 'cell')} without any evidence: shadow.", width)


def _cell(evidence: EvidenceFacts, width: int) -> Iterator[str]:
    name = f"{cell_name(evidence.site, evidence.window)} {evidence.version}"
    yield from wrap(f"{name:<34} {evidence.stage}", width)
    yield from wrap(evidence.decides_next, width, initial_indent="    ", subsequent_indent="    ")


def _file(file: FileRows) -> str:
    text = f"{file.file}: {several(file.rows, 'row')} read, {number(file.used)} used"
    return text + _reasons("set aside", file.set_aside) + _reasons("noted", file.notes)


def _reasons(what: str, counts: dict[str, int]) -> str:
    if not counts:
        return ""
    rows: Iterable[str] = (f"{number(n)} {reason}" for reason, n in counts.items())
    return f"; {what}: {', '.join(rows)}"


def _funnel(funnel: Funnel) -> str:
    steps = ", ".join(f"{number(step.left)} {step.name}" for step in funnel.steps)
    agreement = f"{of(funnel.agreement)} agree, {per_cent(funnel.agreement.rate)}"
    return f"{funnel.version}: {steps}; {agreement}"
