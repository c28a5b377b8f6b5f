"""Imported baselines: what humans did before the rollout, and who vouches for it.

Actions on cases, with their authorization.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select

from rollout.data.database.rollouts import RolloutRepository, match_cases
from rollout.data.records.record_rows import parse_record
from rollout.data.tables.tables import actions, baselines, external_keys, rollouts
from rollout.engine.records.records import Action, BaselineCount

COLUMNS: Final = tuple(baselines.c[name] for name in BaselineCount.__dataclass_fields__)


class Baselines(RolloutRepository):
    """The baselines of one rollout; a correction is another row."""

    def add(self, imported: Iterable[BaselineCount]) -> Sequence[bool]:
        """Store baselines; return for each whether it is new or changed."""
        lock_query = select(rollouts.c.id).where(rollouts.c.id == self._rollout.number)
        self._transaction.execute(
            lock_query.with_for_update()
        )  # one of two concurrent imports waits
        current_by_identity = {baseline.identity: baseline for baseline in self.list_all()}
        added = []
        for baseline in imported:
            added.append(current_by_identity.get(baseline.identity) != baseline)
            if added[-1]:
                row = {"rollout": self._rollout.number, **asdict(baseline)}
                self._transaction.execute(insert(baselines).values(row))
                current_by_identity[baseline.identity] = baseline
        return added

    def list_all(self) -> Sequence[BaselineCount]:
        """Return all baselines in the order of their import."""
        query = select(*COLUMNS).where(baselines.c.rollout == self._rollout.number)
        rows = self._transaction.execute(query.order_by(baselines.c.id))
        return [BaselineCount(**row._asdict()) for row in rows]

    def list_current(self) -> Sequence[BaselineCount]:
        """Return the last baseline of each identity, sorted by cell."""
        last_by_identity = {baseline.identity: baseline for baseline in self.list_all()}
        return [last_by_identity[identity] for identity in sorted(last_by_identity, key=repr)]


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An action with its case's number and the time of its receipt."""

    case_id: int
    action: Action
    received_at: datetime


class ActionStore(RolloutRepository):
    """The actions of one rollout."""

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
