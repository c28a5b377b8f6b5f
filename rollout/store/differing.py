"""Counted units on which a version and people differ, the dearest first."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, TextClause, func, select

from rollout.core.measures import MISSING
from rollout.core.places import Cell
from rollout.store.counting_tables import GATE, OF_GATE
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import counted, matrices, tally_kinds, tally_series


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
        query = select(tally_series.c.id).where(
            tally_series.c.rollout == rollout.number,
            tally_series.c.track == GATE,
            tally_series.c.version == version,
            tally_series.c.site == cell.site,
            tally_series.c.window == cell.window,
            tally_series.c.attempt == attempt,
        )
        self._series = list(transaction.execute(query).scalars())

    def count(self, lever: str) -> int:
        """Return how many units differ on a lever, or on all together (`Policy.whole`)."""
        query = select(func.coalesce(func.sum(matrices.c.n), 0)).where(
            matrices.c.rollout == self._rollout.number,
            matrices.c.series.in_(self._series),
            matrices.c.kind.in_(self._levels(lever)),
        )
        return int(self._transaction.execute(query).scalar_one())

    def dearest(self, lever: str, most: int) -> list[Differed]:
        """Return the units that cost most, among equally dear ones the latest first."""
        classes = self._classes(self._levels(lever))
        found: list[Differed] = []
        for level in sorted(set(classes.values()), reverse=True):
            of_level = [kinds for kinds, at in classes.items() if at == level]
            found += self._latest(of_level, level, most - len(found))
            if len(found) == most:
                break
        return found

    def _levels(self, lever: str) -> dict[int, int]:
        """Return the cost level of each class in which people said something else."""
        query = select(tally_kinds.c.id, tally_kinds.c.level).where(
            tally_kinds.c.rollout == self._rollout.number,
            tally_kinds.c.lever == lever,
            tally_kinds.c.decided != MISSING,
            tally_kinds.c.decided != tally_kinds.c.predicted,
        )
        return {row.id: row.level for row in self._transaction.execute(query)}

    def _classes(self, levels: Mapping[int, int]) -> dict[tuple[int, ...], int]:
        """Return which classes units fell into together, where they differ, with their level."""
        query = select(counted.c.kinds).where(*self._mine()).distinct()
        together = [tuple(kinds) for kinds in self._transaction.execute(query).scalars()]
        differ = ((kinds, levels.keys() & kinds) for kinds in together)
        return {kinds: max(levels[kind] for kind in those) for kinds, those in differ if those}

    def _latest(self, kinds: Collection[tuple[int, ...]], level: int, most: int) -> list[Differed]:
        query = (
            select(counted.c.case_id, counted.c.reviewer)
            .where(*self._mine(), counted.c.kinds.in_([list(each) for each in kinds]))
            .order_by(counted.c.occurred.desc(), counted.c.case_id.desc())
            .limit(most)
        )
        rows = self._transaction.execute(query)
        return [Differed(row.case_id, level, row.reviewer or "") for row in rows]

    def _mine(self) -> tuple[ColumnElement[bool] | TextClause, ...]:
        own = (counted.c.rollout == self._rollout.number, counted.c.excluded.is_(None))
        # the series say these two as well; named, an index serves that has no other units
        closed = (counted.c.version == self._version, OF_GATE)
        return (*own, *closed, counted.c.series.in_(self._series))
