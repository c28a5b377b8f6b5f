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
        comparable_units = self._meant(frame)
        if comparable_units.is_empty():
            return set()
        grown_keys = set()
        for (site, window, version, track), rows in _runs(
            self._coded(comparable_units).sort(ORDER)
        ):
            key = (self._own[site, window], intern(version))
            tables = self._tracks.setdefault(key, {})
            previous = tables.get(intern(track))
            tables[intern(track)] = (
                rows if previous is None else np.concatenate([previous, rows], 1)
            )
            grown_keys.add(key)
        return grown_keys

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the cells and versions of which there are units."""
        return iter(self._tracks)

    def rows(self, key: Key) -> CellRows:
        """Return the units of one cell and version; none where there are none."""
        return CellRows(
            **{track: Rows(*table) for track, table in self._tracks.get(key, {}).items()}
        )

    def _meant(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the units that mean something under the policy, their levels as it counts them."""
        columns = (*SERIES[:2], "definition", "level")
        combinations = frame.select(columns).unique()
        new_levels = [self._level(*row) for row in combinations.iter_rows()]
        convertible = combinations.with_columns(
            now=pl.Series(new_levels, dtype=pl.Int64)
        ).drop_nulls("now")
        return frame.join(convertible, on=columns, maintain_order="left").with_columns(level="now")

    def _level(self, site: str, window: str, definition: str, level: int) -> int | None:
        cell = Cell(site, window)
        if cell not in self._policy.known:
            return None
        source_levels = self._meanings(cell).get(definition)
        if source_levels is None:
            return None
        return level_of(source_levels[level], self._policy.cost_levels)

    def _coded(self, used: pl.DataFrame) -> pl.DataFrame:
        """Give classes and people the numbers that they keep."""
        classes = used.select(KIND).unique(maintain_order=True)
        class_numbers = [
            self._kinds.setdefault(Kind(*row), len(self._kinds)) for row in classes.rows()
        ]
        if len(self._kinds) > len(self.kinds.kinds):
            self.kinds = Kinds(tuple(self._kinds), self._policy)
        reviewers = used.select("reviewer").drop_nulls().unique().sort("reviewer")
        reviewer_numbers = [
            self._people.setdefault(name, len(self._people)) for (name,) in reviewers.rows()
        ]
        return used.join(
            classes.with_columns(kind=pl.Series(class_numbers, dtype=pl.Int64)),
            on=KIND,
            nulls_equal=True,
        ).join(
            reviewers.with_columns(who=pl.Series(reviewer_numbers, dtype=pl.Int64)),
            on="reviewer",
            how="left",
        )


def level_of(cost: float, levels: Levels) -> int:
    """Return the index of the level at or above a cost: rounding is upwards, never in favour.

    >>> level_of(5.0, (0.0, 1.0, 3.0, 5.0))
    3
    """
    return min(int(np.searchsorted(levels, cost - 1e-9)), len(levels) - 1)


def _runs(coded: pl.DataFrame) -> Iterator[tuple[tuple[str, str, str, str], Table]]:
    """Yield each series of a sorted frame with its rows, in the order of `Rows`' fields."""
    run_ids = coded.select(pl.struct(SERIES).rle_id().alias("run")).to_series()
    starts = [0, *(np.flatnonzero(np.diff(run_ids.to_numpy())) + 1).tolist(), coded.height]
    series = coded.select(SERIES)
    columns = ("slot", "occurred", "kind", pl.col("who").fill_null(-1), "day", "band")
    table = np.array([column.cast(pl.Int64).to_numpy() for column in coded.select(columns)])
    for start, end in pairwise(starts):
        site, window, version, track = series.row(start)
        yield (site, window, version, track), table[:, start:end].copy()
