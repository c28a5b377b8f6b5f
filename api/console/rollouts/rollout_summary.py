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
    state = line.stood
    markers = marks_of(state.policy)
    cells = [c for c in state.policy.cells if sites is None or c.site in sites]
    markers_by_cell = {cell: _look(state, cell, at, markers) for cell in cells}
    schedules = courses_of(state.scope, state.policy, at)
    counts = Counter(_word(state, cell, marker) for cell, marker in markers_by_cell.items())
    deciding_cells = tuple(cell for cell, marker in markers_by_cell.items() if marker.look == "2")
    return Glance(
        name=line.name,
        versions=_versions(state),
        says=_counts(counts, len(markers_by_cell)),
        alone=deciding_cells,
        notices=tuple(_notices(line, markers_by_cell, at)),
        traffic=_traffic(line, at) if sites is None else OF_ALL_SITES,
        map=small_map(state.policy, schedules, at, sites, name=line.name),
    )


def lede(glances: list[Glance]) -> str:
    """Say what models decide alone, and that people decide the rest."""
    deciding_cells = [(card.name, cell) for card in glances for cell in card.alone]
    if not deciding_cells:
        return "No model decides anything alone: people decide or confirm everywhere."
    rollouts = list(dict.fromkeys(name for name, _ in deciding_cells))
    if len(deciding_cells) <= NAMED:
        locations = listed(
            [f"{cell_name(c.site, c.window)} of {name}" for name, c in deciding_cells]
        )
        return f"A model decides alone at {locations}. Everywhere else people decide or confirm."
    rollout_text = f"in {rollouts[0]}" if len(rollouts) == 1 else f"in {len(rollouts)} rollouts"
    count_text = several(len(deciding_cells), "cell")
    return (
        f"Models decide alone at {count_text} {rollout_text}. Everywhere else people decide or"
        " confirm."
    )


def _look(stood: Standing, cell: Cell, at: datetime, marks: Mapping[str, Mark]) -> Mark:
    if _held(stood, cell):
        return withheld(marks)
    acting_version = acting(stood.scope, stood.policy, cell, at)
    return marks[SHADOW if acting_version is None else stood.policy.rungs[acting_version[1]]]


def _state(stood: Standing, cell: Cell) -> CellState | None:
    acting_version = stood.scope.holder(cell)
    return None if acting_version is None else stood.scope.state(cell, acting_version)


def _held(stood: Standing, cell: Cell) -> str:
    if stood.scope.stopped(cell):
        return STOPPED
    cell_state = _state(stood, cell)
    return SUSPENDED if cell_state is not None and cell_state.suspended_by else ""


def _word(stood: Standing, cell: Cell, look: Mark) -> str:
    return _held(stood, cell) or look.name


def _versions(stood: Standing) -> str:
    version_ids = [version.id for version in stood.scope.versions.values() if not version.retired]
    acting_ids = {stood.scope.holder(cell) for cell in stood.policy.cells} - {None}
    acting = [name for name in version_ids if name in acting_ids]
    challengers = [name for name in version_ids if name not in acting_ids]
    parts = [f"{listed(acting)} acting" if acting else "no acting version"]
    parts += [
        f"{listed(challengers)} {'challengers' if len(challengers) > 1 else 'challenger'}"
    ] * bool(challengers)
    return ", ".join(parts)


def _counts(counted: Counter[str], cells: int) -> str:
    """Say how many cells stand where.

    >>> _counts(Counter({"shadow": 2, "supervised": 1}), 3), _counts(Counter({"shadow": 1}), 1)
    ('2 of 3 cells shadow, 1 supervised.', 'Shadow everywhere.')
    """
    if len(counted) == 1:
        return f"{next(iter(counted)).capitalize()} everywhere."
    (word, count), *rest = counted.most_common()
    return (
        ", ".join(
            [
                f"{count} of {cells} cells {word}",
                *(f"{other_count} {other_word}" for other_word, other_count in rest),
            ]
        )
        + "."
    )


def _notices(line: Line, looks: Mapping[Cell, Mark], at: datetime) -> Iterator[Notice]:
    state = line.stood
    for hold, kind in ((STOPPED, "stopped"), (SUSPENDED, "suspended")):
        if cells := [cell for cell in looks if _held(state, cell) == hold]:
            yield Notice(kind, hold.capitalize(), _places(cells, len(looks)))
    lapsing = {cell: lapses_at for cell in looks if (lapses_at := _lapses(state, cell, at))}
    if lapsing:
        first_lapse = took(min(lapsing.values()) - at)
        yield Notice(
            "warn", "Lapsing", f"{_places(list(lapsing), len(looks))}, first in {first_lapse}"
        )
    if line.last_case is None or at - line.last_case > SILENCE:
        yield Notice("mute", "No data", "no data never widens; look whether cases are sent")


def _lapses(stood: Standing, cell: Cell, at: datetime) -> datetime | None:
    """Return when a cell's highest grant ends, None where that is not soon."""
    cell_state = _state(stood, cell)
    grants = [grant for grant in (cell_state.grants if cell_state else ()) if grant.valid(at)]
    if not grants or _held(stood, cell):
        return None
    last_grant = grants[-1]
    return (
        last_grant.until
        if (last_grant.until - at) * LAST_PART <= last_grant.until - last_grant.since
        else None
    )


def _places(cells: list[Cell], among: int) -> str:
    if len(cells) == among:
        return "everywhere"
    if len(cells) > NAMED:
        return several(len(cells), "cell")
    return listed([cell_name(cell.site, cell.window) for cell in cells])


def _traffic(line: Line, at: datetime) -> tuple[str, str]:
    if line.last_case is None:
        return "No case yet", "send records to begin the shadow"
    more_text = " or more" if line.or_more else ""
    return (
        f"Last case {took(at - line.last_case)} ago",
        f"{number(line.in_last_hour)}{more_text} in the last hour",
    )
