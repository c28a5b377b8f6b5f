"""Counted divergences between a version and the humans, costliest first."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, TextClause, func, select

from rollout.core.calendar.sites import Cell
from rollout.kernel.units import MISSING
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.counting_tables import GATE, OF_GATE
from rollout.store.tables.tables import (
    confusion_matrices,
    count_classes,
    count_series,
    counted_units,
)


@dataclass(frozen=True, slots=True)
class CountedDivergence:
    """A divergent case, the policy's cost level and the reviewer who decided."""

    case_id: int
    level: int
    reviewer: str


class CellDivergences:
    """The divergences of a version in a cell and attempt.

    Only evidence counts. A unit is counted when it closes, so no case is included that reviewers
    may still decide blind.
    """

    def __init__(
        self, transaction: Transaction, rollout: Rollout, cell: Cell, version: str, attempt: int
    ) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._version = version
        query = select(count_series.c.id).where(
            count_series.c.rollout == rollout.number,
            count_series.c.track == GATE,
            count_series.c.version == version,
            count_series.c.site == cell.site,
            count_series.c.window == cell.window,
            count_series.c.attempt == attempt,
        )
        self._series = list(transaction.execute(query).scalars())

    def count_units(self, lever: str) -> int:
        """Return how many units diverge on a lever, or overall (`Policy.whole`)."""
        query = select(func.coalesce(func.sum(confusion_matrices.c.n), 0)).where(
            confusion_matrices.c.rollout == self._rollout.number,
            confusion_matrices.c.series_id.in_(self._series),
            confusion_matrices.c.class_id.in_(self._load_cost_levels(lever)),
        )
        return int(self._transaction.execute(query).scalar_one())

    def list_costliest(self, lever: str, limit: int) -> list[CountedDivergence]:
        """Return the costliest units; of equal costs the latest first."""
        classes = self._load_class_groups(self._load_cost_levels(lever))
        divergences: list[CountedDivergence] = []
        for level in sorted(set(classes.values()), reverse=True):
            class_groups = [group for group, group_level in classes.items() if group_level == level]
            divergences += self._load_latest(class_groups, level, limit - len(divergences))
            if len(divergences) == limit:
                break
        return divergences

    def _load_cost_levels(self, lever: str) -> dict[int, int]:
        """Return the cost level of each class whose answers differ."""
        query = select(count_classes.c.id, count_classes.c.level).where(
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.lever == lever,
            count_classes.c.decided != MISSING,
            count_classes.c.decided != count_classes.c.predicted,
        )
        return {row.id: row.level for row in self._transaction.execute(query)}

    def _load_class_groups(self, levels: Mapping[int, int]) -> dict[tuple[int, ...], int]:
        """Return the cost level of each stored combination of classes that differs."""
        query = select(counted_units.c.class_ids).where(*self._build_conditions()).distinct()
        groups = [tuple(group) for group in self._transaction.execute(query).scalars()]
        differing_groups = ((group, levels.keys() & group) for group in groups)
        return {
            group: max(levels[class_id] for class_id in differing_ids)
            for group, differing_ids in differing_groups
            if differing_ids
        }

    def _load_latest(
        self, class_groups: Collection[tuple[int, ...]], level: int, limit: int
    ) -> list[CountedDivergence]:
        query = (
            select(counted_units.c.case_id, counted_units.c.reviewer)
            .where(
                *self._build_conditions(),
                counted_units.c.class_ids.in_([list(group) for group in class_groups]),
            )
            .order_by(counted_units.c.occurred.desc(), counted_units.c.case_id.desc())
            .limit(limit)
        )
        rows = self._transaction.execute(query)
        return [CountedDivergence(row.case_id, level, row.reviewer or "") for row in rows]

    def _build_conditions(self) -> tuple[ColumnElement[bool] | TextClause, ...]:
        conditions = (
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.exclusion_reason.is_(None),
        )
        # redundant with the series, but they allow the partial index of the gate track
        gate_conditions = (counted_units.c.version == self._version, OF_GATE)
        return (*conditions, *gate_conditions, counted_units.c.series_id.in_(self._series))
