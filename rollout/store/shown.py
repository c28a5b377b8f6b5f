"""What was shown to whom, when, and from which page: written before it leaves."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy import select

from rollout.store import listed
from rollout.store.insert_once import inserting
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import shown


class Shown:
    """What was shown of the cases of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(
        self,
        entries: Iterable[tuple[int, str]],
        *,
        reviewer: str,
        page: str,
        at: datetime,
    ) -> None:
        """Write what is about to be shown: for each case its number, and what of it."""
        own = {"rollout": self._rollout.number, "reviewer": reviewer, "page": page, "at": at}
        rows = [{**own, "case_id": case_id, "what": what} for case_id, what in entries]
        if rows:
            statement = inserting(self._transaction.engine, shown).on_conflict_do_nothing()
            self._transaction.execute(statement, rows)

    def of(
        self, reviewer: str, case_ids: Collection[int]
    ) -> Mapping[int, frozenset[tuple[str, str]]]:
        """Return by case what somebody was shown of it and from which page, if anything."""
        query = select(shown.c.case_id, shown.c.what, shown.c.page).where(
            shown.c.rollout == self._rollout.number,
            shown.c.reviewer == reviewer,
            shown.c.case_id.in_(listed.numbers(self._transaction, case_ids)),
        )
        found: dict[int, set[tuple[str, str]]] = {}
        for row in self._transaction.execute(query):
            found.setdefault(row.case_id, set()).add((row.what, row.page))
        return {case_id: frozenset(entries) for case_id, entries in found.items()}
