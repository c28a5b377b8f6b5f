"""A rollout's units as arrays that grow slot by slot: what a service keeps of what it counted.

What is added costs what is new. A unit's draw is not asked for again: the band that was noted when
it was counted says which of the shares, in force when it occurred, its draw lies under.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from sys import intern

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Kind
from rollout.core.policy.policy import Policy
from rollout.tally.unit_arrays import KIND, CellRows, Kinds, Rows

Key = tuple[Cell, str]
Table = NDArray[np.int64]  # a row for each field of `Rows`: one array and not six a series
Levels = tuple[float, ...]
Meanings = Callable[[Cell], Mapping[str, Levels]]
ORDER = ("site", "window", "version", "track", "slot", "occurred", "unit")
SERIES = ("site", "window", "version", "track")


class KeptUnits:
    """Units by cell and version.

    Args:
        policy: the policy in force.
        meanings: of a cell the definitions under which its units mean what they mean under the
            policy, each with the cost levels that its units are counted in.
    """

    def __init__(self, policy: Policy, meanings: Meanings) -> None:
        self._policy, self._meanings = policy, meanings
        self._kinds: dict[Kind, int] = {}
        self._people: dict[str, int] = {}
        self._tracks: dict[Key, dict[str, Table]] = {}
        self._own = {(cell.site, cell.window): cell for cell in policy.cells}
        self.kinds = Kinds((), policy)

    def add(self, frame: pl.DataFrame) -> set[Key]:
        """Add units of later slots than those before; return the keys that grew.

        Args:
            frame: as the store's `Counted.frame` gives it. In the rows that are made of it `unit`
                is the band.
        """
        if frame.is_empty():  # Polars' own code for joins would take ten MiB for nothing
            return set()
        used = self._meant(frame)
        if used.is_empty():
            return set()
        grown = set()
        for (site, window, version, track), rows in _runs(self._coded(used).sort(ORDER)):
            key = (self._own[site, window], intern(version))
            tracks = self._tracks.setdefault(key, {})
            before = tracks.get(intern(track))
            tracks[intern(track)] = rows if before is None else np.concatenate([before, rows], 1)
            grown.add(key)
        return grown

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the cells and versions of which there are units."""
        return iter(self._tracks)

    def rows(self, key: Key) -> CellRows:
        """Return the units of one cell and version; none where there are none."""
        return CellRows(**{t: Rows(*table) for t, table in self._tracks.get(key, {}).items()})

    def _meant(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the units that mean something under the policy, their levels as it counts them."""
        own = (*SERIES[:2], "definition", "level")
        found = frame.select(own).unique()
        levels = [self._level(*row) for row in found.iter_rows()]
        known = found.with_columns(now=pl.Series(levels, dtype=pl.Int64)).drop_nulls("now")
        return frame.join(known, on=own, maintain_order="left").with_columns(level="now")

    def _level(self, site: str, window: str, definition: str, level: int) -> int | None:
        cell = Cell(site, window)
        if cell not in self._policy.known:
            return None
        counted_in = self._meanings(cell).get(definition)
        if counted_in is None:
            return None
        return level_of(counted_in[level], self._policy.cost_levels)

    def _coded(self, used: pl.DataFrame) -> pl.DataFrame:
        """Give classes and people the numbers that they keep."""
        kinds = used.select(KIND).unique(maintain_order=True)
        numbers = [self._kinds.setdefault(Kind(*row), len(self._kinds)) for row in kinds.rows()]
        if len(self._kinds) > len(self.kinds.kinds):
            self.kinds = Kinds(tuple(self._kinds), self._policy)
        people = used.select("reviewer").drop_nulls().unique().sort("reviewer")
        who = [self._people.setdefault(name, len(self._people)) for (name,) in people.rows()]
        return used.join(
            kinds.with_columns(kind=pl.Series(numbers, dtype=pl.Int64)), on=KIND, nulls_equal=True
        ).join(people.with_columns(who=pl.Series(who, dtype=pl.Int64)), on="reviewer", how="left")


def level_of(cost: float, levels: Levels) -> int:
    """Return the index of the level at or above a cost: rounding is upwards, never in favour.

    >>> level_of(5.0, (0.0, 1.0, 3.0, 5.0))
    3
    """
    return min(int(np.searchsorted(levels, cost - 1e-9)), len(levels) - 1)


def _runs(coded: pl.DataFrame) -> Iterator[tuple[tuple[str, str, str, str], Table]]:
    """Yield each series of a sorted frame with its rows, in the order of `Rows`' fields."""
    heads = coded.select(pl.struct(SERIES).rle_id().alias("run")).to_series()
    starts = [0, *(np.flatnonzero(np.diff(heads.to_numpy())) + 1).tolist(), coded.height]
    named = coded.select(SERIES)
    columns = ("slot", "occurred", "kind", pl.col("who").fill_null(-1), "day", "band")
    table = np.array([column.cast(pl.Int64).to_numpy() for column in coded.select(columns)])
    for start, end in pairwise(starts):
        site, window, version, track = named.row(start)
        yield (site, window, version, track), table[:, start:end].copy()
