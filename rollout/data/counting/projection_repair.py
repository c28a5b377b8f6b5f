"""Repair derived tables, from the ledger or from the counted units.

No table here is a source. A difference comes from a manual change, a broken disk or a bug.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table, and_, delete, insert, select, update

from rollout.data.counting.counts import CountKey
from rollout.data.counting.matrices import MatrixKey
from rollout.data.counting.top_losses import LossKey, LossValue
from rollout.data.database.rollouts import RolloutRepository
from rollout.data.ledger.evidence_snapshots import EvidenceStore
from rollout.data.ledger.projection_check import CHECKED_TABLES, RowKey, RowPair
from rollout.data.ledger.projections import get_name_column
from rollout.data.ledger.scopes import decode_scope, encode_scope, select_scopes
from rollout.data.tables.tables import (
    confusion_matrices,
    counts,
    ledger_heads,
    scopes,
    top_losses,
    version_uses,
)
from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.engine.evidence.version_uses import Use, UseKey

RowValues = dict[str, Any]


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

    def repair_projections(self, differences: Mapping[RowKey, RowPair]) -> None:
        """Write proposals and incidents as the ledger has them."""
        for (table, name), (stored, expected) in differences.items():
            self._repair_row(
                CHECKED_TABLES[table],
                {get_name_column(CHECKED_TABLES[table]): name},
                stored,
                expected,
            )

    def repair_counts(self, differences: Mapping[CountKey, tuple[int, int]]) -> None:
        """Write counts as the counted units have them."""
        for key, (stored, expected) in differences.items():
            rows = ({"n": n} if n else None for n in (stored, expected))
            self._repair_row(counts, key._asdict(), *rows)

    def repair_matrices(self, differences: Mapping[MatrixKey, tuple[int, int]]) -> None:
        """Write matrices as the counted units have them."""
        for (series_id, class_id), (stored, expected) in differences.items():
            rows = ({"n": n} if n else None for n in (stored, expected))
            key_values = {"series_id": series_id, "class_id": class_id}
            self._repair_row(confusion_matrices, key_values, *rows)

    def repair_losses(
        self, differences: Mapping[LossKey, tuple[LossValue | None, LossValue | None]]
    ) -> None:
        """Write top losses as counted units and predictions have them."""
        for (case_id, version, class_id), values in differences.items():
            rows = (
                value and dict(zip(("confidence", "series_id"), value, strict=True))
                for value in values
            )
            key_values = {"case_id": case_id, "version": version, "class_id": class_id}
            self._repair_row(top_losses, key_values, *rows)

    def repair_uses(self, differences: Mapping[UseKey, tuple[Use | None, Use | None]]) -> None:
        """Write since when versions are in use as the counted units have it."""
        for (site, window, version), uses in differences.items():
            key_values = {"site": site, "window": window, "version": version}
            rows = (None if use is None else use._asdict() for use in uses)
            self._repair_row(version_uses, key_values, *rows)

    def _repair_row(
        self,
        table: Table,
        key: Mapping[str, Any],
        stored: RowValues | None,
        expected: RowValues | None,
    ) -> None:
        key_values = {"rollout": self._rollout.number, **key}
        condition = and_(*(table.c[name] == value for name, value in key_values.items()))
        if expected is None:
            self._transaction.execute(delete(table).where(condition))
        elif stored is None:
            self._transaction.execute(insert(table).values(**key_values, **expected))
        else:
            self._transaction.execute(update(table).where(condition).values(**expected))


def _is_same_scope(body: Any, row_hash: str, scope: Scope) -> bool:
    """Return whether a stored body is this scope; unreadable bodies are not."""
    try:
        return decode_scope(body, row_hash) == scope
    except (ValueError, TypeError, KeyError, IndexError):
        return False
