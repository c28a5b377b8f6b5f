"""The table of cells: each with its stage, its tag, its evidence against lines, its sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from markupsafe import Markup

from api.console.page.cell_view import Clock
from api.console.page.figures import bound_of, counts_of, line_of, value_of
from api.console.page.scale_chart import scale
from api.console.page.stages import Mark
from api.console.page.stop_target import cell_value
from api.console.page.text import full_stop
from api.console.page.time_format import took
from api.console.proposals.hold_reason import subject
from api.console.rollouts.cell_text import CellWords, cell_words, main_evidence
from api.console.rollouts.map_rows import Course
from rollout.core.calendar.sites import Cell
from rollout.core.scope.scope import Scope
from rollout.reports.figures.evidence_facts import ConditionFacts, EvidenceFacts
from rollout.services.cells.cell_table import CellRow, Cells, HeldLine

AGREEMENT: Final = "agreement"


class Against(NamedTuple):
    """A line, and on which side of it is well."""

    measure: str
    line: float
    at_least: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure against its line.

    Attributes:
        name: what is measured.
        estimate, bound, line: in words; "" where there is no bound.
        counts: what was counted, in words.
        met: whether the line is met.
        drawn: the drawing, "" where there is none.
        none: whether nothing was counted yet.
    """

    name: str
    estimate: str
    bound: str
    line: str
    counts: str
    met: bool
    drawn: Markup
    none: bool


@dataclass(frozen=True, slots=True)
class TableRow:
    """A cell as the table shows it.

    Attributes:
        cell: which.
        mark: the stage that is allowed, drawn as on the map.
        words: its tag and its sentences.
        version: whose evidence it is, "" without any.
        measured: its evidence against its lines, the first one drawn.
        until, left: when its grant ends, and how long that is; None and "" in shadow.
        proposal: the id of one that is open here, "" without any.
        value: how the stop and narrow pages call it.
        zone: of its site.
    """

    cell: Cell
    mark: Mark
    words: CellWords
    version: str
    measured: tuple[Measured, ...]
    until: datetime | None
    left: str
    proposal: str
    value: str
    zone: str


@dataclass(frozen=True, slots=True)
class Rival:
    """A version that does not act in a cell, beside the one that does."""

    cell: Cell
    acting: str
    acts: Measured | None
    version: str
    has: Measured | None
    says: str


def table_rows(
    found: Cells, courses: Mapping[Cell, Course], clocks: Mapping[str, Clock]
) -> tuple[TableRow, ...]:
    """Return the cells as the table shows them.

    Args:
        found: some cells.
        courses: how each is drawn.
        clocks: by site how its times are shown.
    """
    return tuple(
        table_row(found, summary, courses, clocks[summary.cell.site]) for summary in found.rows
    )


def table_row(found: Cells, row: CellRow, courses: Mapping[Cell, Course], clock: Clock) -> TableRow:
    """Return one cell as the table shows it."""
    scope, policy = found.stood.scope, found.stood.policy
    evidence = main_evidence(row, scope)
    return TableRow(
        cell=row.cell,
        mark=courses[row.cell].mark,
        words=cell_words(policy, scope, row, found.lately, found.at, clock),
        version="" if evidence is None else evidence.version,
        measured=measured_of(evidence, row.held),
        until=row.now.until,
        left="" if row.now.until is None else took(row.now.until - found.at),
        proposal=row.now.proposals[0] if row.now.proposals else "",
        value=cell_value(row.cell),
        zone=policy.site[row.cell.site].timezone,
    )


def measured_of(main: EvidenceFacts | None, held: Sequence[HeldLine]) -> tuple[Measured, ...]:
    """Return evidence against the lines of the gate ahead, at the top of the one behind.

    Where it asks for a measure twice, as the gates below do too, the stricter line counts.
    """
    if main is not None and main.gate is not None:
        readings = [
            (condition.line, condition.at_least, _ahead(condition))
            for condition in main.gate.conditions
        ]
    else:
        readings = [
            (passed.condition.line, passed.condition.at_least, _behind(passed)) for passed in held
        ]
    strictest: dict[str, tuple[float, Measured]] = {}
    for threshold, at_least, reading in readings:
        strictness = threshold if at_least else -threshold
        previous = strictest.get(reading.name)
        if previous is None or strictness > previous[0]:
            strictest[reading.name] = (strictness, reading)
    return tuple(sorted((reading for _, reading in strictest.values()), key=_order))


def _order(one: Measured) -> bool:
    """Order what is measured: agreement comes first, as what most gates ask for."""
    return one.name != AGREEMENT


def _ahead(c: ConditionFacts) -> Measured:
    threshold = Against(c.measure, c.line, c.at_least)
    return _measured(subject(c.condition), threshold, c.counts, c.estimate, c.bound, met=c.met)


def _behind(h: HeldLine) -> Measured:
    condition = h.condition
    threshold = Against(condition.measure, condition.line, condition.at_least)
    is_met = h.bound is not None and (h.bound >= condition.line) == condition.at_least
    return _measured(subject(str(condition)), threshold, h.counts, h.estimate, h.bound, met=is_met)


def _measured(
    name: str,
    against: Against,
    counts: tuple[int, ...],
    estimate: float | None,
    bound: float | None,
    *,
    met: bool,
) -> Measured:
    measure, threshold, at_least = against
    return Measured(
        name=name,
        estimate=value_of(measure, estimate),
        bound="" if bound is None else bound_of(measure, bound, threshold, at_least=at_least),
        line=line_of(measure, threshold),
        counts=counts_of(measure, counts),
        met=met,
        drawn=scale(measure, threshold, estimate, bound, at_least=at_least),
        none=estimate is None,
    )


def rivals_of(found: Cells) -> tuple[Rival, ...]:
    """Return every version that doesn't act in a cell of the table, beside what acts there."""
    scope = found.stood.scope
    return tuple(
        _rival(summary, scope, acting_evidence, challenger_evidence)
        for summary in found.rows
        if (acting_evidence := main_evidence(summary, scope)) is not None
        for challenger_evidence in summary.evidence
        if challenger_evidence.version != acting_evidence.version
    )


def _rival(row: CellRow, scope: Scope, main: EvidenceFacts, other: EvidenceFacts) -> Rival:
    acting_readings, challenger_readings = measured_of(main, row.held), measured_of(other, ())
    return Rival(
        cell=row.cell,
        acting=main.version if scope.holder(row.cell) else "",
        acts=acting_readings[0] if acting_readings else None,
        version=other.version,
        has=challenger_readings[0] if challenger_readings else None,
        says=full_stop(other.decides_next),
    )
