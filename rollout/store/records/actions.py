"""What was done about cases, each with the permission that it had when it came in."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from rollout.core.records.records import Action
from rollout.store.database import value_lists
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.record_rows import record_of
from rollout.store.tables.tables import actions, external_keys


@dataclass(frozen=True, slots=True)
class Act:
    """An action as it is stored: of which case, and when it came in."""

    case_id: int
    action: Action
    received_at: datetime


class Acts:
    """The actions of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def of(self, case_ids: Collection[int], permissions: Collection[str]) -> list[Act]:
        """Return what was done about cases with one of some permissions, earlier revisions too."""
        query = (
            select(actions, external_keys.c.key)
            .join(external_keys, external_keys.c.id == actions.c.case_id)
            .where(actions.c.rollout == self._rollout.number)
            .where(actions.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)))
            .where(actions.c.authorization.in_(permissions))
            .order_by(actions.c.case_id, actions.c.lever, actions.c.revision)
        )
        stored_actions = []
        for row in self._transaction.execute(query):
            action = record_of(Action, row, key=row.key)
            assert isinstance(action, Action)  # noqa: S101 - it was made as such
            stored_actions.append(Act(row.case_id, action, row.received_at))
        return stored_actions
