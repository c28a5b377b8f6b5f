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
    empty = np.empty(0, dtype=np.int64)
    return Rows(empty, empty, empty, empty, empty, empty)


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
        return np.array(
            [unit_class.lever == self.policy.whole for unit_class in self.kinds], dtype=bool
        )

    @cached_property
    def missing(self) -> Bools:
        """Return which kinds have no blind verdict."""
        return np.array([unit_class.decided == MISSING for unit_class in self.kinds], dtype=bool)

    def takes(self, condition: Condition) -> Ints:
        """Return what a condition's counts gain by one unit of each kind, shape (kinds, width)."""
        class_counts = self._takes.get(condition.key)
        if class_counts is None:
            class_counts = self._takes[condition.key] = np.array(
                [self._take(condition, unit_class) for unit_class in self.kinds], dtype=np.int64
            ).reshape(len(self.kinds), self.width(condition))
        return class_counts

    @cached_property
    def _takes(self) -> dict[tuple[str, str | None, str | None], Ints]:
        return {}

    def width(self, condition: Condition) -> int:
        """Return how many numbers a condition's counts have."""
        widths = {"cost": len(self.policy.cost_levels), "parity": 4, "action_change": 3}
        return widths.get(condition.measure, 2)

    def _take(self, condition: Condition, kind: Kind) -> list[int]:
        row = [0] * self.width(condition)
        column = self._place(condition, kind)
        if column is not None:
            row[column] = 1
        return row

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
        is_counted_success = success(condition, kind)
        return None if is_counted_success is None else int(not is_counted_success)

    def _act_place(self, condition: Condition, kind: Kind) -> int | None:
        """Return 0 where the model alone acts so, 1 the person alone, 2 both or neither."""
        lever = self.policy.lever.get(kind.lever)
        if lever is None or condition.action not in lever.actions or kind.decided == MISSING:
            return None
        model_acts = lever.action(kind.predicted) == condition.action
        human_acts = lever.action(kind.decided) == condition.action
        return 2 if model_acts == human_acts else int(human_acts)


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
    evidence = frame.filter(pl.col("excluded").is_null())
    classes = evidence.select(KIND).unique(maintain_order=True).with_row_index("kind")
    encoded = evidence.join(classes, on=KIND, how="left", nulls_equal=True).select(
        *("track", "site", "window", "version", "slot", "occurred", "day"),
        pl.col("unit").rank("dense").cast(pl.Int64) - 1,
        pl.col("reviewer").rank("dense").fill_null(0).cast(pl.Int64) - 1,
        pl.col("kind").cast(pl.Int64),
    )
    unit_keys = evidence.select(pl.col("unit").unique().sort()).to_series().to_list()
    reviewers = (
        evidence.select(pl.col("reviewer").drop_nulls().unique().sort()).to_series().to_list()
    )
    return Units(
        cells=dict(_cells(encoded)),
        kinds=Kinds(tuple(Kind(*row[1:]) for row in classes.iter_rows()), policy),
        unit_keys=unit_keys,
        reviewers=reviewers,
        first_slot=_least(encoded["occurred"]),
        last_slot=_most(encoded["slot"]),
    )


def _least(column: pl.Series) -> int:
    return 0 if column.is_empty() else int(column.min())  # type: ignore[arg-type]


def _most(column: pl.Series) -> int:
    return 0 if column.is_empty() else int(column.max())  # type: ignore[arg-type]


def _cells(coded: pl.DataFrame) -> Iterator[tuple[tuple[Cell, str], CellRows]]:
    parts = coded.sort("slot", "occurred", "unit").partition_by(
        "site", "window", "version", as_dict=True
    )
    for (site, window, version), cell_rows in sorted(parts.items()):
        tracks = cell_rows.partition_by("track", as_dict=True)
        rows = {str(track): _rows(track_rows) for (track,), track_rows in tracks.items()}
        yield (Cell(str(site), str(window)), str(version)), CellRows(**rows)


def _rows(part: pl.DataFrame) -> Rows:
    columns = ("slot", "occurred", "kind", "reviewer", "day", "unit")
    return Rows(*(part[name].to_numpy().astype(np.int64) for name in columns))
