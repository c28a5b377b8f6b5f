"""Clocks that run only in the minutes of a cell: in its window, and while its site is open."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.calendar.instants import Site, Window, compute_year_start, find_year
from rollout.kernel.calendar.opening_hours import compute_open_edges


@dataclass(frozen=True, eq=False)
class CellClock:
    """A clock that stands still while the cell is closed; `build_cell_clock` shares equal ones.

    Attributes:
        edges: instants at which it starts and stops, in turn, ascending.
    """

    edges: Ints

    @cached_property
    def _readings(self) -> Ints:
        """Return the clock's reading at each edge."""
        is_open = np.arange(self.edges.size) % 2 == 1
        return np.cumsum(np.where(is_open, np.diff(self.edges, prepend=0), 0))

    def read_at(self, instants: Ints) -> Ints:
        """Return the open microseconds up to each instant, counted from the first edge."""
        position = np.searchsorted(self.edges, instants, side="right")
        if not self.edges.size:
            return np.zeros_like(instants)
        last = np.maximum(position - 1, 0)
        passed = np.where(position % 2 == 1, instants - self.edges[last], 0)
        return np.asarray(np.where(position > 0, self._readings[last], 0) + passed)

    def are_running(self, instants: Ints) -> Bools:
        """Return whether the clock runs at each of some ascending instants."""
        if not instants.size:
            return np.zeros(0, dtype=np.bool_)
        first, last = np.searchsorted(self.edges, instants[[0, -1]], side="right").tolist()
        edges = self.edges[first:last]  # few: the instants before each are searched
        marks = [0, *np.searchsorted(instants, edges).tolist(), instants.size]
        return np.repeat(np.arange(first, last + 1) % 2 == 1, np.diff(marks))

    def find_instant(self, reading: int) -> int | None:
        """Return the first instant with a reading, or None if the clock doesn't reach it."""
        position = int(np.searchsorted(self._readings, reading))
        if position >= self.edges.size:
            return None
        return int(self.edges[position] - (self._readings[position] - reading))


def build_cell_clock(
    site: Site, windows: Sequence[Window], window: str, start: int, end: int
) -> CellClock:
    """Return the clock of a window at a site, for the years from `start` to `end`.

    The hours of an earlier window are not the cell's, unless it takes only cases with some
    attributes.
    """
    calendar = Site("", site.timezone, site.country, site.coordinates, open=site.open)
    return _build_clock(calendar, tuple(windows), window, find_year(start), find_year(end))


@lru_cache(maxsize=256)  # the cells of all sites with one calendar have the same
def _build_clock(
    calendar: Site, windows: tuple[Window, ...], window: str, first_year: int, last_year: int
) -> CellClock:
    pieces = [
        _compute_own_edges(calendar, windows, window, year)
        for year in range(first_year, last_year + 1)
    ]
    return CellClock(_join_edges(np.concatenate(pieces)))


@lru_cache(maxsize=4096)
def _compute_own_edges(site: Site, windows: tuple[Window, ...], window: str, year: int) -> Ints:
    start, end = compute_year_start(year), compute_year_start(year + 1)
    position = next(i for i, other in enumerate(windows) if other.id == window)
    earlier_hours = [other.hours for other in windows[:position] if not other.when]
    open_edges, *earlier_edges = (
        compute_open_edges(hours, site, start, end)
        for hours in (windows[position].hours, *earlier_hours)
    )
    site_edges = compute_open_edges(site.open, site, start, end)
    marks = np.unique(np.concatenate([open_edges, site_edges, *earlier_edges, [start, end]]))
    is_own = _are_inside(open_edges, marks) & _are_inside(site_edges, marks)
    for edges in earlier_edges:
        is_own &= ~_are_inside(edges, marks)
    is_own[-1] = False  # the year's end
    return np.asarray(marks[np.diff(is_own, prepend=False)], dtype=np.int64)


def _are_inside(edges: Ints, instants: Ints) -> Bools:
    return np.asarray(np.searchsorted(edges, instants, side="right") % 2 == 1)


def _join_edges(edges: Ints) -> Ints:
    """Return the edges without those at which one year's span continues in the next."""
    is_repeated = np.zeros(edges.size, dtype=np.bool_)
    is_repeated[1:] = edges[1:] == edges[:-1]
    is_repeated[:-1] |= is_repeated[1:]
    return edges[~is_repeated]
