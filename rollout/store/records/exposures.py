"""What was shown to whom, when, and from which page: written before it leaves.

Figures tell of cases that they don't name. So of a report one row says how far it told its reader:
of every case that occurred before an instant. It stands under `EVERY_CASE`, a number that no case
has, and `at` is that instant.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ScalarSelect, func, select

from rollout.store.database import value_lists
from rollout.store.database.bulk import inserting
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import exposures

EVERY_CASE: Final = 0
ANYBODY: Final = ""
"""Nobody's name: what is noted for it was shown to people whom nobody named."""

FIGURES: Final = "figures"
"""What is noted under `EVERY_CASE`; of a single case it says nothing."""


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
        common_values = {
            "rollout": self._rollout.number,
            "reviewer": reviewer,
            "page": page,
            "at": at,
        }
        rows = [
            {**common_values, "case_id": case_id, "content": content}
            for case_id, content in entries
        ]
        if rows:
            statement = inserting(self._transaction.engine, exposures).on_conflict_do_nothing()
            self._transaction.execute(statement, rows)

    def tell(self, reviewer: str, until: datetime, *, page: str) -> None:
        """Write that somebody is about to read figures of all cases before `until`.

        Args:
            reviewer: who; `ANYBODY` where that is not known.
            until: the cases that occurred before it.
            page: from where.
        """
        known_until = self.told(reviewer)
        if known_until is None or known_until < until:
            entries = [(EVERY_CASE, FIGURES)]
            self.add(entries, reviewer=reviewer, page=page, at=until)

    def told(self, reviewer: str) -> datetime | None:
        """Return up to when figures told somebody of cases, None where they read none."""
        query = select(told_up_to(self._rollout, reviewer))
        figures_until: datetime | None = self._transaction.execute(query).scalar()
        return figures_until

    def of(
        self, reviewer: str, case_ids: Collection[int]
    ) -> Mapping[int, frozenset[tuple[str, str]]]:
        """Return by case what somebody was shown of it and from which page, if anything."""
        query = select(exposures.c.case_id, exposures.c.content, exposures.c.page).where(
            exposures.c.rollout == self._rollout.number,
            exposures.c.reviewer == reviewer,
            exposures.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
        )
        contents_by_case: dict[int, set[tuple[str, str]]] = {}
        for row in self._transaction.execute(query):
            contents_by_case.setdefault(row.case_id, set()).add((row.content, row.page))
        return {case_id: frozenset(entries) for case_id, entries in contents_by_case.items()}


def told_up_to(rollout: Rollout, reviewer: str) -> ScalarSelect[Any]:
    """Return up to when figures told somebody, or people whom nobody named; null for never."""
    return (
        select(func.max(exposures.c.at))
        .where(
            exposures.c.rollout == rollout.number,
            exposures.c.case_id == EVERY_CASE,
            exposures.c.reviewer.in_({reviewer, ANYBODY}),
        )
        .scalar_subquery()
    )
