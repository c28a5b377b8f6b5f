"""The report as Markdown for a ticket: what came out, where each cell stands, what differs most."""

from collections.abc import Iterable, Iterator
from itertools import islice

from rollout.reports.figures.facts import Facts
from rollout.reports.figures.report_version import FINAL, Edition
from rollout.reports.inputs.divergences import Divergence
from rollout.reports.pages.cell_rows import CellRow, cell_rows
from rollout.reports.pages.summary import headline, sentences
from rollout.reports.text.formatting import (
    cell_name,
    day_text,
    local,
    number,
    per_cent,
    sentence,
    several,
)

MOST_CELLS = 60
WORST = 5
FEW_CHANGES = 10
NO_DATA = "no data"
SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~!&$@"} | {"\n": " ", "\r": " "})


def markdown_report(facts: Facts) -> str:
    """Return the report as Markdown: GitHub's and GitLab's tables, nothing that loads anything."""
    return "\n".join(_lines(facts)) + "\n"


def plain_text(text: str) -> str:
    r"""Return a text that Markdown shows as it is: names and labels are others' words.

    >>> plain_text("a|b <img> @all")
    'a\\|b \\<img\\> \\@all'
    """
    return text.translate(SPECIAL)


def _lines(facts: Facts) -> Iterator[str]:
    identity, zone = facts.identity, facts.identity.timezone
    yield f"# {plain_text(identity.rollout)}: {plain_text(headline(facts))}"
    yield ""
    yield (
        f"{day_text(identity.first, zone)} to {day_text(identity.last, zone)}."
        f" {_standing(facts.edition)}"
    )
    if identity.simulated:
        yield "Every approval here is simulated; no person has allowed it."
    yield ""
    yield from (f"- {plain_text(line)}" for line in sentences(facts))
    yield from _cells(facts)
    yield from _worst(facts)
    yield from _changes(facts.edition)
    yield from _seal(facts)


def _standing(edition: Edition) -> str:
    """Say whether the report may still change, and until when."""
    if not edition.live:
        return "A replay of recorded history."
    if edition.state == FINAL:
        return f"Version {edition.version}, **FINAL**: every case of the span has closed."
    due = "" if edition.due is None else f" It can be final from {edition.due.isoformat()} on."
    pending_text = several(edition.waiting, "unit is", "units are")
    return f"Version {edition.version}, **PROVISIONAL**: {pending_text} still open.{due}"


def _cells(facts: Facts) -> Iterator[str]:
    yield from _headed(
        "Where each cell stands",
        ("cell", "stage", "version", "agreement", "bound", "units", "what decides next"),
        (_cell(row) for row in islice(cell_rows(facts), MOST_CELLS)),
    )
    if len(facts.stages) > MOST_CELLS:
        yield f"… and {several(len(facts.stages) - MOST_CELLS, 'more cell')}, in the report itself."


def _cell(row: CellRow) -> tuple[str, ...]:
    bound = f"{row.bound}, {row.asked}" if row.asked else row.bound
    version = row.version or "none"
    units = number(row.units)
    return row.cell, row.stage, version, row.estimate, bound, units, sentence(row.next_step)


def _worst(facts: Facts) -> Iterator[str]:
    title = f"The dearest of {several(facts.divergences.count, 'divergence')}"
    if not facts.divergences.top:
        yield from ("", "## Divergences", "", "None: model and people agree, or nothing is known.")
        return
    header = ("case", "cell", "when", "person", "model", "cost", "confidence")
    yield from _headed(
        title,
        header,
        (_divergence(divergence, facts) for divergence in facts.divergences.top[:WORST]),
    )


def _divergence(found: Divergence, facts: Facts) -> tuple[str, ...]:
    zone = facts.identity.zones.get(found.site, facts.identity.timezone)
    window = found.window or "other"
    return (
        found.case_key,
        f"{cell_name(found.site, window)}, {found.version}, {found.lever}",
        found.local if found.at is None else local(found.at, zone),
        f"{found.human} → {found.human_action}",
        f"{found.model} → {found.model_action}",
        f"{found.cost:g}",
        NO_DATA if found.confidence is None else per_cent(found.confidence),
    )


def _changes(edition: Edition) -> Iterator[str]:
    if edition.version == 1:
        return
    count = len(edition.changed) + edition.more_changed
    title = f"What changed since version {edition.version - 1}: {several(count, 'figure')}"
    rows = (
        (change.path, change.before or NO_DATA, change.after or NO_DATA)
        for change in edition.changed
    )
    listed_rows = [row for row, _ in zip(rows, range(FEW_CHANGES), strict=False)]
    yield from _headed(title, ("figure", "before", "after"), listed_rows)
    if count > len(listed_rows):
        yield f"… and {number(count - len(listed_rows))} more, in the report itself."


def _headed(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from ("", f"## {plain_text(title)}", "")
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(plain_text(cell) for cell in row)} |"


def _seal(facts: Facts) -> Iterator[str]:
    identity = facts.identity
    yield ""
    yield (
        f"Policy {identity.policy_number}, `{identity.policy_hash[:12]}`; ledger"
        f" `{identity.ledger.head[:12]}`, "
    )
    yield (
        f"{several(identity.ledger.rows, 'row')}. Made again by"
        f" `{identity.command.replace('`', '')}`."
    )
