"""Choices for training on cases: relabel, drop or keep."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, insert, select

from rollout.core.records.label_cleaning import CleaningChoice
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.tables.tables import cleanings, rollouts

CHOICE_COLUMNS = ("lever", "choice", "label", "reason", "by", "at", "version", "report")


@dataclass(frozen=True, slots=True)
class NumberedChoice:
    """A choice with its number; later choices have higher numbers."""

    number: int
    choice: CleaningChoice


class CleaningStore:
    """The choices of one rollout; all of them stay."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def lock(self) -> None:
        """Block other choices in this rollout until the transaction ends."""
        lock_query = select(rollouts.c.id).where(rollouts.c.id == self._rollout.number)
        self._transaction.execute(lock_query.with_for_update())

    def add(self, choices: Iterable[tuple[int, CleaningChoice]]) -> None:
        """Store choices in order, each with the number of its case."""
        for case_id, choice in choices:
            values = {name: getattr(choice, name) for name in CHOICE_COLUMNS}
            row = {"rollout": self._rollout.number, "case_id": case_id, **values}
            self._transaction.execute(insert(cleanings).values(row))

    def list_for_cases(self, case_ids: Collection[int]) -> Sequence[CleaningChoice]:
        """Return all choices on some cases, oldest first."""
        conditions = match_cases(self._transaction, self._rollout, cleanings, case_ids)
        query = select(cleanings).where(*conditions).order_by(cleanings.c.id)
        return [numbered.choice for numbered in self._load_choices(query)]

    def list_page(self, *, before: int | None = None, limit: int = 100) -> Sequence[NumberedChoice]:
        """Return choices before a number, newest first."""
        is_own = cleanings.c.rollout == self._rollout.number
        query = select(cleanings).where(is_own).order_by(cleanings.c.id.desc())
        if before is not None:
            query = query.where(cleanings.c.id < before)
        return self._load_choices(query.limit(limit))

    def _load_choices(self, query: Select[Any]) -> list[NumberedChoice]:
        rows = self._transaction.execute(query).all()
        keys = ExternalKeys(self._transaction, self._rollout).find_keys(
            {row.case_id for row in rows}
        )
        return [
            NumberedChoice(row.id, _build_choice(row, keys)) for row in rows if row.case_id in keys
        ]


def _build_choice(row: Row[Any], keys: Mapping[int, str]) -> CleaningChoice:
    return CleaningChoice(
        key=keys[row.case_id], **{name: getattr(row, name) for name in CHOICE_COLUMNS}
    )
