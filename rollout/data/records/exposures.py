"""Exposures: what a reviewer saw, when and on which page; stored before the page is sent.

Figures reveal cases without naming them. So for a report one row says that its reader saw figures
of all cases that occurred before `at`. Its case is `EVERY_CASE`, a number that no case has.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ScalarSelect, func, select

from rollout.data.database.bulk import insert_new_rows
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.tables.tables import exposures

EVERY_CASE: Final = 0
ANY_REVIEWER: Final = ""
"""The name for readers who are not signed in; no user has it."""

FIGURES: Final = "figures"
"""The content of rows with `EVERY_CASE`; it reveals no single case."""


class ExposureEntry(NamedTuple):
    """What was shown of a case: the content, on which page, and when, in microseconds."""

    content: str
    page: str
    at: int


class ExposureStore(RolloutRepository):
    """The exposures of one rollout."""

    def add(
        self,
        entries: Iterable[tuple[int, str]],
        *,
        reviewer: str,
        page: str,
        at: datetime,
    ) -> None:
        """Store what is about to be shown: pairs of case and content."""
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
        insert_new_rows(self._transaction, exposures, rows)

    def copy(self, new_ids: Mapping[int, int]) -> None:
        """Store what was shown of some numbers also under their new ones."""
        if not new_ids:
            return
        query = select(exposures).where(
            *match_cases(self._transaction, self._rollout, exposures, new_ids)
        )
        rows = self._transaction.execute(query).mappings().all()
        copies = [{**row, "case_id": new_ids[row["case_id"]]} for row in rows]
        insert_new_rows(self._transaction, exposures, copies)

    def record_figures(self, reviewer: str, until: datetime, *, page: str) -> None:
        """Store that a reviewer sees figures of cases before `until`."""
        known_until = self.load_figures_until(reviewer)
        if known_until is None or known_until < until:
            entries = [(EVERY_CASE, FIGURES)]
            self.add(entries, reviewer=reviewer, page=page, at=until)

    def load_figures_until(self, reviewer: str) -> datetime | None:
        """Return the end of the figures that a reviewer saw, or None."""
        query = select(select_figures_until(self._rollout, reviewer))
        figures_until: datetime | None = self._transaction.execute(query).scalar()
        return figures_until

    def list_for_reviewer(
        self, reviewer: str, case_ids: Collection[int]
    ) -> Mapping[int, frozenset[tuple[str, str]]]:
        """Return by case the contents and pages that a reviewer saw."""
        query = select(exposures.c.case_id, exposures.c.content, exposures.c.page).where(
            *match_cases(self._transaction, self._rollout, exposures, case_ids),
            exposures.c.reviewer == reviewer,
        )
        contents_by_case: dict[int, set[tuple[str, str]]] = {}
        for row in self._transaction.execute(query):
            contents_by_case.setdefault(row.case_id, set()).add((row.content, row.page))
        return {case_id: frozenset(entries) for case_id, entries in contents_by_case.items()}


def select_figures_until(rollout: Rollout, reviewer: str) -> ScalarSelect[Any]:
    """Return the query for the end of figures seen; null for never.

    Figures shown to `ANY_REVIEWER` count for each reviewer.
    """
    return (
        select(func.max(exposures.c.at))
        .where(
            exposures.c.rollout == rollout.number,
            exposures.c.case_id == EVERY_CASE,
            exposures.c.reviewer.in_({reviewer, ANY_REVIEWER}),
        )
        .scalar_subquery()
    )
