"""Imported baselines: what humans did before the rollout, and who vouches for it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import baselines, rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """How often humans chose `action` in a cell in [since, until)."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime
    vouched_by: str

    @property
    def identity(self) -> tuple[object, ...]:
        """Return the key under which a later baseline replaces this one."""
        return (self.site, self.window, self.lever, self.action, self.since, self.until)


COLUMN_OF: Final = {"vouched_by": "imported_by"}
"""The columns whose names differ from the fields."""
COLUMNS: Final = tuple(
    baselines.c[COLUMN_OF.get(name, name)].label(name) for name in Baseline.__dataclass_fields__
)


class Baselines:
    """The baselines of one rollout; a correction is another row."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, imported: Iterable[Baseline]) -> Sequence[bool]:
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
                self._transaction.execute(insert(baselines).values(self._build_row(baseline)))
                current_by_identity[baseline.identity] = baseline
        return added

    def list_all(self) -> Sequence[Baseline]:
        """Return all baselines in the order of their import."""
        query = select(*COLUMNS).where(baselines.c.rollout == self._rollout.number)
        rows = self._transaction.execute(query.order_by(baselines.c.id))
        return [Baseline(**row._asdict()) for row in rows]

    def _build_row(self, baseline: Baseline) -> dict[str, object]:
        columns = {COLUMN_OF.get(name, name): value for name, value in asdict(baseline).items()}
        return {"rollout": self._rollout.number, **columns}

    def list_current(self) -> Sequence[Baseline]:
        """Return the last baseline of each identity, sorted by cell."""
        last_by_identity = {baseline.identity: baseline for baseline in self.list_all()}
        return [last_by_identity[identity] for identity in sorted(last_by_identity, key=repr)]
