"""Numbers of incidents that were not opened because too many others were open."""

from collections.abc import Mapping

from sqlalchemy import select

from rollout.core.calendar.sites import Cell
from rollout.store.database.bulk import upsert_sums
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import unopened_incidents


class UnopenedIncidents:
    """The numbers of one rollout, by kind and cell; they only grow."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, kind: str, numbers: Mapping[Cell | None, int]) -> None:
        """Add to the numbers of some cells; None means no cell."""
        rows = [
            (
                self._rollout.number,
                kind,
                "" if cell is None else cell.site,
                "" if cell is None else cell.window,
                number,
            )
            for cell, number in numbers.items()
        ]
        upsert_sums(self._transaction, unopened_incidents, sorted(rows), "number")

    def load_numbers(self) -> Mapping[tuple[str, str, str], int]:
        """Return the numbers by kind, site and window; both are "" without a cell."""
        query = select(unopened_incidents).where(
            unopened_incidents.c.rollout == self._rollout.number
        )
        return {
            (row.kind, row.site, row.window): row.number for row in self._transaction.execute(query)
        }
