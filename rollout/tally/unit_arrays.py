"""One version's units in one cell as arrays, in the order of the slots that count them.

This is the seam between replay and the service (model.md §7): whoever fills it, what follows is
the same. Slots are whole ticks since 1970, UTC.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import MISSING, Condition, Kind, parity_class, success
from rollout.core.policy.policy import Policy

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
KIND = ("lever", "predicted", "decided", "second", "level")


@dataclass(frozen=True)
class Rows:
    """Units of one track, shape (rows,) each, sorted by `slot`.

    Attributes:
        slot: when the unit is counted.
        occurred: the slot at or before the unit's time.
        kind: index into the kinds of the history.
        reviewer: number of the person whose verdict counts, -1 without one.
        day: local day number of the unit.
        unit: number of the unit in the history: what its draw is made of.
    """

    slot: Ints
    occurred: Ints
    kind: Ints
    reviewer: Ints
    day: Ints
    unit: Ints

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.slot)

    def where(self, mask: Bools) -> "Rows":
        """Return the rows that `mask` keeps."""
        return Rows(
            self.slot[mask],
            self.occurred[mask],
            self.kind[mask],
            self.reviewer[mask],
            self.day[mask],
            self.unit[mask],
        )


def empty_rows() -> Rows:
    """Return no rows."""
    none = np.empty(0, dtype=np.int64)
    return Rows(none, none, none, none, none, none)


@dataclass(frozen=True)
class CellRows:
    """The three tracks of one version in one cell."""

    gate: Rows = field(default_factory=empty_rows)
    guard: Rows = field(default_factory=empty_rows)
    assisted: Rows = field(default_factory=empty_rows)


@dataclass(frozen=True)
class Kinds:
    """All classes that the units of a history fall into, and what each measure takes from them."""

    kinds: tuple[Kind, ...]
    policy: Policy

    @cached_property
    def whole(self) -> Bools:
        """Return which kinds stand for a unit as a whole, so that units are counted once."""
        return np.array([kind.lever == self.policy.whole for kind in self.kinds], dtype=bool)

    @cached_property
    def missing(self) -> Bools:
        """Return which kinds have no blind verdict."""
        return np.array([kind.decided == MISSING for kind in self.kinds], dtype=bool)

    def takes(self, condition: Condition) -> Ints:
        """Return what a condition's counts gain by one unit of each kind, shape (kinds, width)."""
        found = self._takes.get(condition.key)
        if found is None:
            found = self._takes[condition.key] = np.array(
                [self._take(condition, kind) for kind in self.kinds], dtype=np.int64
            ).reshape(len(self.kinds), self.width(condition))
        return found

    @cached_property
    def _takes(self) -> dict[tuple[str, str | None, str | None], Ints]:
        return {}

    def width(self, condition: Condition) -> int:
        """Return how many numbers a condition's counts have."""
        special = {"cost": len(self.policy.cost_levels), "parity": 4, "action_change": 3}
        return special.get(condition.measure, 2)

    def _take(self, condition: Condition, kind: Kind) -> list[int]:
        taken = [0] * self.width(condition)
        place = self._place(condition, kind)
        if place is not None:
            taken[place] = 1
        return taken

    def _place(self, condition: Condition, kind: Kind) -> int | None:
        if kind.lever != (condition.lever or self.policy.whole):
            return self._act_place(condition, kind) if condition.action else None
        match condition.measure:
            case "cost":
                return kind.level
            case "parity":
                return parity_class(kind)
            case "action_change":
                return self._act_place(condition, kind)
        counted = success(condition, kind)
        return None if counted is None else int(not counted)

    def _act_place(self, condition: Condition, kind: Kind) -> int | None:
        """Return 0 where the model alone acts so, 1 the person alone, 2 both or neither."""
        lever = self.policy.lever.get(kind.lever)
        if lever is None or condition.action not in lever.actions or kind.decided == MISSING:
            return None
        model = lever.action(kind.predicted) == condition.action
        person = lever.action(kind.decided) == condition.action
        return 2 if model == person else int(person)


@dataclass(frozen=True)
class Units:
    """A history's units, by cell and version, with what their numbers stand for."""

    cells: Mapping[tuple[Cell, str], CellRows]
    kinds: Kinds
    unit_keys: Sequence[str]
    reviewers: Sequence[str]
    first_slot: int
    last_slot: int


def gather(frame: pl.DataFrame, policy: Policy) -> Units:
    """Turn the frame of `resolve` into arrays; rows that are no evidence stay out."""
    used = frame.filter(pl.col("excluded").is_null())
    kinds = used.select(KIND).unique(maintain_order=True).with_row_index("kind")
    coded = used.join(kinds, on=KIND, how="left", nulls_equal=True).select(
        *("track", "site", "window", "version", "slot", "occurred", "day"),
        pl.col("unit").rank("dense").cast(pl.Int64) - 1,
        pl.col("reviewer").rank("dense").fill_null(0).cast(pl.Int64) - 1,
        pl.col("kind").cast(pl.Int64),
    )
    keys = used.select(pl.col("unit").unique().sort()).to_series().to_list()
    people = used.select(pl.col("reviewer").drop_nulls().unique().sort()).to_series().to_list()
    return Units(
        cells=dict(_cells(coded)),
        kinds=Kinds(tuple(Kind(*row[1:]) for row in kinds.iter_rows()), policy),
        unit_keys=keys,
        reviewers=people,
        first_slot=_least(coded["occurred"]),
        last_slot=_most(coded["slot"]),
    )


def _least(column: pl.Series) -> int:
    return 0 if column.is_empty() else int(column.min())  # type: ignore[arg-type]


def _most(column: pl.Series) -> int:
    return 0 if column.is_empty() else int(column.max())  # type: ignore[arg-type]


def _cells(coded: pl.DataFrame) -> Iterator[tuple[tuple[Cell, str], CellRows]]:
    parts = coded.sort("slot", "occurred", "unit").partition_by(
        "site", "window", "version", as_dict=True
    )
    for (site, window, version), part in sorted(parts.items()):
        tracks = part.partition_by("track", as_dict=True)
        rows = {str(track): _rows(own) for (track,), own in tracks.items()}
        yield (Cell(str(site), str(window)), str(version)), CellRows(**rows)


def _rows(part: pl.DataFrame) -> Rows:
    columns = ("slot", "occurred", "kind", "reviewer", "day", "unit")
    return Rows(*(part[name].to_numpy().astype(np.int64) for name in columns))
