"""Counted units on which a version and people differ, the dearest first."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, TextClause, func, select

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import MISSING
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
class Differed:
    """A unit's case; at which of the policy's cost levels they differ, and whose verdict counts."""

    case_id: int
    level: int
    reviewer: str


class Differing:
    """The divergences of one version in one cell, in one attempt, of the units that are evidence.

    Cases that people may still judge blind for the gate are not among them: a unit is counted
    when it closes.
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

    def count(self, lever: str) -> int:
        """Return how many units differ on a lever, or on all together (`Policy.whole`)."""
        query = select(func.coalesce(func.sum(confusion_matrices.c.n), 0)).where(
            confusion_matrices.c.rollout == self._rollout.number,
            confusion_matrices.c.series_id.in_(self._series),
            confusion_matrices.c.class_id.in_(self._levels(lever)),
        )
        return int(self._transaction.execute(query).scalar_one())

    def dearest(self, lever: str, most: int) -> list[Differed]:
        """Return the units that cost most, among equally dear ones the latest first."""
        classes = self._classes(self._levels(lever))
        divergences: list[Differed] = []
        for level in sorted(set(classes.values()), reverse=True):
            class_groups = [group for group, group_level in classes.items() if group_level == level]
            divergences += self._latest(class_groups, level, most - len(divergences))
            if len(divergences) == most:
                break
        return divergences

    def _levels(self, lever: str) -> dict[int, int]:
        """Return the cost level of each class in which people said something else."""
        query = select(count_classes.c.id, count_classes.c.level).where(
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.lever == lever,
            count_classes.c.decided != MISSING,
            count_classes.c.decided != count_classes.c.predicted,
        )
        return {row.id: row.level for row in self._transaction.execute(query)}

    def _classes(self, levels: Mapping[int, int]) -> dict[tuple[int, ...], int]:
        """Return which classes units fell into together, where they differ, with their level."""
        query = select(counted_units.c.class_ids).where(*self._mine()).distinct()
        groups = [tuple(group) for group in self._transaction.execute(query).scalars()]
        differing_groups = ((group, levels.keys() & group) for group in groups)
        return {
            group: max(levels[class_id] for class_id in differing_ids)
            for group, differing_ids in differing_groups
            if differing_ids
        }

    def _latest(self, kinds: Collection[tuple[int, ...]], level: int, most: int) -> list[Differed]:
        query = (
            select(counted_units.c.case_id, counted_units.c.reviewer)
            .where(*self._mine(), counted_units.c.class_ids.in_([list(group) for group in kinds]))
            .order_by(counted_units.c.occurred.desc(), counted_units.c.case_id.desc())
            .limit(most)
        )
        rows = self._transaction.execute(query)
        return [Differed(row.case_id, level, row.reviewer or "") for row in rows]

    def _mine(self) -> tuple[ColumnElement[bool] | TextClause, ...]:
        conditions = (
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.exclusion_reason.is_(None),
        )
        # the series say these two as well; named, an index serves that has no other units
        gate_conditions = (counted_units.c.version == self._version, OF_GATE)
        return (*conditions, *gate_conditions, counted_units.c.series_id.in_(self._series))
