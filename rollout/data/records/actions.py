"""Actions on cases, with their authorization."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from rollout.data.database.rollouts import Rollout, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.record_rows import parse_record
from rollout.data.tables.tables import actions, external_keys
from rollout.engine.records.records import Action


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An action with its case's number and the time of its receipt."""

    case_id: int
    action: Action
    received_at: datetime


class ActionStore:
    """The actions of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def list_by_authorization(
        self, case_ids: Collection[int], authorizations: Collection[str]
    ) -> list[StoredAction]:
        """Return actions with one of these authorizations, of all revisions."""
        query = (
            select(actions, external_keys.c.key)
            .join(external_keys, external_keys.c.id == actions.c.case_id)
            .where(*match_cases(self._transaction, self._rollout, actions, case_ids))
            .where(actions.c.authorization.in_(authorizations))
            .order_by(actions.c.case_id, actions.c.lever, actions.c.revision)
        )
        return [
            StoredAction(row.case_id, parse_record(Action, row, key=row.key), row.received_at)
            for row in self._transaction.execute(query)
        ]
