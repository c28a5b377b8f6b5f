"""What people did before there was a model here: imported history, and who vouches for it."""

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
    """How often people did `action` in a cell from `since` up to `until` (outside)."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime
    vouched_by: str

    @property
    def about(self) -> tuple[object, ...]:
        """Return what it is about: a later one about the same takes its place."""
        return (self.site, self.window, self.lever, self.action, self.since, self.until)


COLUMN_OF: Final = {"vouched_by": "imported_by"}
"""The columns that have other names than the fields."""
COLUMNS: Final = tuple(
    baselines.c[COLUMN_OF.get(name, name)].label(name) for name in Baseline.__dataclass_fields__
)


class Baselines:
    """The baselines of one rollout. They are never changed: a correction stands beside them."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, new: Iterable[Baseline]) -> Sequence[bool]:
        """Keep baselines, and say of each if it is new; one that holds already is not doubled."""
        lock_query = select(rollouts.c.id).where(rollouts.c.id == self._rollout.number)
        self._transaction.execute(lock_query.with_for_update())  # two imports at once: one waits
        current_by_identity = {baseline.about: baseline for baseline in self.all()}
        added = []
        for baseline in new:
            added.append(current_by_identity.get(baseline.about) != baseline)
            if added[-1]:
                self._transaction.execute(insert(baselines).values(self._row(baseline)))
                current_by_identity[baseline.about] = baseline
        return added

    def all(self) -> Sequence[Baseline]:
        """Return every baseline in the order in which they came."""
        query = select(*COLUMNS).where(baselines.c.rollout == self._rollout.number)
        rows = self._transaction.execute(query.order_by(baselines.c.id))
        return [Baseline(**row._asdict()) for row in rows]

    def _row(self, one: Baseline) -> dict[str, object]:
        own = {COLUMN_OF.get(name, name): value for name, value in asdict(one).items()}
        return {"rollout": self._rollout.number, **own}

    def holding(self) -> Sequence[Baseline]:
        """Return of those about the same the last one, in the order of their cells."""
        last_by_identity = {baseline.about: baseline for baseline in self.all()}
        return [last_by_identity[identity] for identity in sorted(last_by_identity, key=repr)]
