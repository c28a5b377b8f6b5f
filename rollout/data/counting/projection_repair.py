"""Repair derived tables, from the ledger or from the counted units.

No table here is a source. A difference comes from a manual change, a broken disk or a bug.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Table, and_, delete, insert, select, update

from rollout.data.database.rollouts import RolloutRepository
from rollout.data.ledger.evidence_snapshots import EvidenceStore
from rollout.data.ledger.projection_check import CHECKED_TABLES
from rollout.data.ledger.scopes import decode_scope, encode_scope, select_scopes
from rollout.data.tables.tables import (
    ledger_heads,
    scopes,
    version_uses,
)
from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.engine.evidence.version_uses import Use, UseKey

RowValues = Mapping[str, Any]
USE_KEY: Final = ("site", "window", "version")


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row of a derived table that differs from what its source says.

    `key` has the columns that identify it, `stored` and `right` the others; None is no such row.
    """

    table: Table
    key: RowValues
    stored: RowValues | None
    right: RowValues | None

    def describe(self) -> str:
        """Return a sentence with what is stored and what is right."""
        source = "the ledger" if self.table.name in CHECKED_TABLES else "the counted units"
        place = ", ".join(f"{name} {value}" for name, value in self.key.items())
        if self.right is None:
            text = f"is not in {source}"
        elif self.stored is None:
            text = f"is in {source} and missing here"
        else:
            text = ", ".join(
                f"says {name} {self.stored[name]}; by {source} it is {value}"
                for name, value in self.right.items()
                if self.stored[name] != value
            )
        return f"{self.table.name}: {place} {text}"


def list_wrong_uses(
    differences: Mapping[UseKey, tuple[Use | None, Use | None]],
) -> Iterator[RowDifference]:
    """Yield the rows of versions' uses that differ, stored and right, by their key."""
    for key, uses in differences.items():
        rows = (use and use._asdict() for use in uses)
        yield RowDifference(version_uses, dict(zip(USE_KEY, key, strict=True)), *rows)


class ProjectionRepair(RolloutRepository):
    """The derived tables of one rollout."""

    def lock(self) -> None:
        """Block appending and counting until this transaction ends."""
        head_query = select(ledger_heads).where(ledger_heads.c.rollout == self._rollout.number)
        self._transaction.execute(head_query.with_for_update())
        EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True)

    def find_wrong_scopes(self, events: Iterable[LedgerEvent]) -> dict[int, Scope | None]:
        """Return by revision the right scope for each wrong stored one.

        None means that the ledger has no such revision.
        """
        own_scopes = scopes.c.rollout == self._rollout.number
        query = select(scopes.c.revision).where(own_scopes).order_by(scopes.c.revision)
        revisions = self._transaction.execute(query).scalars()
        wrong_scopes: dict[int, Scope | None] = dict.fromkeys(revisions)
        scope = Scope()
        for event in events if wrong_scopes else ():
            scope = apply_event(scope, event)
            if scope.revision in wrong_scopes:
                row_query = select_scopes(self._rollout).where(scopes.c.revision == scope.revision)
                row = self._transaction.execute(row_query).one()
                if row.at == scope.at and _is_same_scope(row.body, row.hash, scope):
                    del wrong_scopes[scope.revision]
                else:
                    wrong_scopes[scope.revision] = scope
        return wrong_scopes

    def repair_scopes(self, expected: Mapping[int, Scope | None]) -> None:
        """Replace the stored scopes of these revisions; delete those with None."""
        for revision, scope in expected.items():
            conditions = (scopes.c.rollout == self._rollout.number, scopes.c.revision == revision)
            if scope is None:
                self._transaction.execute(delete(scopes).where(*conditions))
            else:
                row_query = select_scopes(self._rollout).where(scopes.c.revision == revision)
                row_hash = self._transaction.execute(row_query).one().hash
                values = {"at": scope.at, "body": encode_scope(scope, row_hash)}
                self._transaction.execute(update(scopes).where(*conditions).values(**values))

    def repair_rows(self, differences: Iterable[RowDifference]) -> None:
        """Write rows as their sources have them."""
        for difference in differences:
            table, right = difference.table, difference.right
            key_values = {"rollout": self._rollout.number, **difference.key}
            condition = and_(*(table.c[name] == value for name, value in key_values.items()))
            if right is None:
                self._transaction.execute(delete(table).where(condition))
            elif difference.stored is None:
                self._transaction.execute(insert(table).values(**key_values, **right))
            else:
                self._transaction.execute(update(table).where(condition).values(**right))


def _is_same_scope(body: Any, row_hash: str, scope: Scope) -> bool:
    """Return whether a stored body is this scope; unreadable bodies are not."""
    try:
        return decode_scope(body, row_hash) == scope
    except (ValueError, TypeError, KeyError, IndexError):
        return False
