"""A rollout at a glance: who acts, how many cells stand where, what is out of the ordinary."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from markupsafe import Markup

from api.console.page.stages import Mark, marks_of, withheld
from api.console.page.time_format import took
from api.console.rollouts.week_map import courses_of, small_map
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.scope import CellState, acting
from rollout.reports.text.formatting import cell_name, listed, number, several
from rollout.services.cells.overview import Line
from rollout.services.engine.rollout_state import Standing

SILENCE: Final = timedelta(hours=24)
LAST_PART: Final = 5
"""A grant is lapsing in the last fifth of its time."""
NAMED: Final = 3
"""Cells that are named one by one; more are counted."""
OF_ALL_SITES: Final = ("Not told", "it is counted for readers of every site")
STOPPED, SUSPENDED = "stopped", "suspended"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something out of the ordinary: a tag's kind and word, and where or what."""

    kind: str
    tag: str
    says: str


@dataclass(frozen=True, slots=True)
class Glance:
    """One rollout in the overview.

    Attributes:
        name: of the rollout.
        versions: who acts, who is tried.
        says: how many cells stand on which stage.
        alone: the cells in which a model decides now.
        notices: what is out of the ordinary, the worst first.
        traffic: what comes in, in two lines.
        map: what is allowed in this week, drawn small.
    """

    name: str
    versions: str
    says: str
    alone: tuple[Cell, ...]
    notices: tuple[Notice, ...]
    traffic: tuple[str, str]
    map: Markup


def glance(line: Line, at: datetime, sites: Collection[str] | None = None) -> Glance:
    """Return a rollout at a glance.

    Args:
        line: how it stands.
        at: now.
        sites: those that the reader may read; None for all.
    """
    stood = line.stood
    marks = marks_of(stood.policy)
    cells = [c for c in stood.policy.cells if sites is None or c.site in sites]
    looks = {cell: _look(stood, cell, at, marks) for cell in cells}
    courses = courses_of(stood.scope, stood.policy, at)
    counted = Counter(_word(stood, cell, look) for cell, look in looks.items())
    alone = tuple(cell for cell, look in looks.items() if look.look == "2")
    return Glance(
        name=line.name,
        versions=_versions(stood),
        says=_counts(counted, len(looks)),
        alone=alone,
        notices=tuple(_notices(line, looks, at)),
        traffic=_traffic(line, at) if sites is None else OF_ALL_SITES,
        map=small_map(stood.policy, courses, at, sites, name=line.name),
    )


def lede(glances: list[Glance]) -> str:
    """Say what models decide alone, and that people decide the rest."""
    alone = [(one.name, cell) for one in glances for cell in one.alone]
    if not alone:
        return "No model decides anything alone: people decide or confirm everywhere."
    rollouts = list(dict.fromkeys(name for name, _ in alone))
    if len(alone) <= NAMED:
        places = listed([f"{cell_name(c.site, c.window)} of {name}" for name, c in alone])
        return f"A model decides alone at {places}. Everywhere else people decide or confirm."
    where = f"in {rollouts[0]}" if len(rollouts) == 1 else f"in {len(rollouts)} rollouts"
    many = several(len(alone), "cell")
    return f"Models decide alone at {many} {where}. Everywhere else people decide or confirm."


def _look(stood: Standing, cell: Cell, at: datetime, marks: Mapping[str, Mark]) -> Mark:
    if _held(stood, cell):
        return withheld(marks)
    here = acting(stood.scope, stood.policy, cell, at)
    return marks[SHADOW if here is None else stood.policy.rungs[here[1]]]


def _state(stood: Standing, cell: Cell) -> CellState | None:
    holder = stood.scope.holder(cell)
    return None if holder is None else stood.scope.state(cell, holder)


def _held(stood: Standing, cell: Cell) -> str:
    if stood.scope.stopped(cell):
        return STOPPED
    state = _state(stood, cell)
    return SUSPENDED if state is not None and state.suspended_by else ""


def _word(stood: Standing, cell: Cell, look: Mark) -> str:
    return _held(stood, cell) or look.name


def _versions(stood: Standing) -> str:
    here = [v.id for v in stood.scope.versions.values() if not v.retired]
    holders = {stood.scope.holder(cell) for cell in stood.policy.cells} - {None}
    acts = [name for name in here if name in holders]
    tried = [name for name in here if name not in holders]
    parts = [f"{listed(acts)} acting" if acts else "no acting version"]
    parts += [f"{listed(tried)} {'challengers' if len(tried) > 1 else 'challenger'}"] * bool(tried)
    return ", ".join(parts)


def _counts(counted: Counter[str], cells: int) -> str:
    """Say how many cells stand where.

    >>> _counts(Counter({"shadow": 2, "supervised": 1}), 3), _counts(Counter({"shadow": 1}), 1)
    ('2 of 3 cells shadow, 1 supervised.', 'Shadow everywhere.')
    """
    if len(counted) == 1:
        return f"{next(iter(counted)).capitalize()} everywhere."
    (word, n), *rest = counted.most_common()
    return ", ".join([f"{n} of {cells} cells {word}", *(f"{m} {w}" for w, m in rest)]) + "."


def _notices(line: Line, looks: Mapping[Cell, Mark], at: datetime) -> Iterator[Notice]:
    stood = line.stood
    for held, kind in ((STOPPED, "stopped"), (SUSPENDED, "suspended")):
        if cells := [cell for cell in looks if _held(stood, cell) == held]:
            yield Notice(kind, held.capitalize(), _places(cells, len(looks)))
    lapsing = {cell: ends for cell in looks if (ends := _lapses(stood, cell, at))}
    if lapsing:
        soonest = took(min(lapsing.values()) - at)
        yield Notice("warn", "Lapsing", f"{_places(list(lapsing), len(looks))}, first in {soonest}")
    if line.last_case is None or at - line.last_case > SILENCE:
        yield Notice("mute", "No data", "no data never widens; look whether cases are sent")


def _lapses(stood: Standing, cell: Cell, at: datetime) -> datetime | None:
    """Return when a cell's highest grant ends, None where that is not soon."""
    state = _state(stood, cell)
    grants = [g for g in (state.grants if state else ()) if g.valid(at)]
    if not grants or _held(stood, cell):
        return None
    last = grants[-1]
    return last.until if (last.until - at) * LAST_PART <= last.until - last.since else None


def _places(cells: list[Cell], among: int) -> str:
    if len(cells) == among:
        return "everywhere"
    if len(cells) > NAMED:
        return several(len(cells), "cell")
    return listed([cell_name(cell.site, cell.window) for cell in cells])


def _traffic(line: Line, at: datetime) -> tuple[str, str]:
    if line.last_case is None:
        return "No case yet", "send records to begin the shadow"
    more = " or more" if line.or_more else ""
    return (
        f"Last case {took(at - line.last_case)} ago",
        f"{number(line.in_last_hour)}{more} in the last hour",
    )
