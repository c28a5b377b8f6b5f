"""Derived tables put right: scopes, proposals and incidents by the ledger, others by the marks.

Nothing here is a source. What differs was changed by a hand, a broken disk or a fault of ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Table, and_, delete, insert, select, update

from rollout.core.scope.events import Event
from rollout.core.scope.projection import evolve
from rollout.core.scope.scope import Scope
from rollout.store.counting.counts import COLUMN_OF, Key
from rollout.store.counting.matrices import Place
from rollout.store.counting.top_losses import Kept
from rollout.store.counting.top_losses import Place as LossPlace
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import Evidence
from rollout.store.ledger.projections import Differences as Followed
from rollout.store.ledger.scopes import from_plain, to_plain
from rollout.store.tables.tables import (
    confusion_matrices,
    counts,
    incidents,
    ledger_heads,
    proposals,
    scopes,
    top_losses,
)

TABLES: Mapping[str, Table] = {table.name: table for table in (proposals, incidents)}
Row = dict[str, Any]


class Derived:
    """The derived tables of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def hold(self) -> None:
        """Let nobody append or count until this transaction ends."""
        head_query = select(ledger_heads).where(ledger_heads.c.rollout == self._rollout.number)
        self._transaction.execute(head_query.with_for_update())
        Evidence(self._transaction, self._rollout).through(hold=True)

    def scopes(self, events: Iterable[Event]) -> dict[int, Scope | None]:
        """Return the kept scopes that are not what the ledger says: by revision the right one.

        None stands where the ledger has no such revision.
        """
        stored_rows = {row.revision: row for row in self._transaction.execute(self._kept())}
        wrong_scopes: dict[int, Scope | None] = dict.fromkeys(stored_rows)
        scope = Scope()
        for event in events if stored_rows else ():
            scope = evolve(scope, event)
            row = stored_rows.get(scope.revision)
            if row is not None:
                wrong_scopes[scope.revision] = scope
                if row.at == scope.at and _same(row.body, scope):
                    del wrong_scopes[scope.revision]
        return wrong_scopes

    def keep_scopes(self, right: Mapping[int, Scope | None]) -> None:
        """Put scopes in the place of those kept under their revisions, or take these away."""
        for revision, scope in right.items():
            conditions = (scopes.c.rollout == self._rollout.number, scopes.c.revision == revision)
            if scope is None:
                self._transaction.execute(delete(scopes).where(*conditions))
            else:
                values = {"at": scope.at, "body": to_plain(scope)}
                self._transaction.execute(update(scopes).where(*conditions).values(**values))

    def keep_followed(self, found: Followed) -> None:
        """Write proposals and incidents as the ledger has them."""
        for (table, name), (stored, expected) in found.items():
            self._keep(TABLES[table], {_named(TABLES[table]): name}, stored, expected)

    def keep_tallies(self, found: Mapping[Key, tuple[int, int]]) -> None:
        """Write tallies as the marks have them."""
        for key, (stored, expected) in found.items():
            key_values = {COLUMN_OF.get(name, name): value for name, value in asdict(key).items()}
            rows = ({"n": n} if n else None for n in (stored, expected))
            self._keep(counts, key_values, *rows)

    def keep_matrices(self, found: Mapping[Place, tuple[int, int]]) -> None:
        """Write matrices as the marks have them."""
        for (series, kind), (stored, expected) in found.items():
            rows = ({"n": n} if n else None for n in (stored, expected))
            self._keep(confusion_matrices, {"series_id": series, "class_id": kind}, *rows)

    def keep_losses(self, found: Mapping[LossPlace, tuple[Kept | None, Kept | None]]) -> None:
        """Write losses as marks and predictions have them."""
        for (case_id, version, kind), values in found.items():
            rows = (
                value and dict(zip(("confidence", "series_id"), value, strict=True))
                for value in values
            )
            key_values = {"case_id": case_id, "version": version, "class_id": kind}
            self._keep(top_losses, key_values, *rows)

    def _keep(
        self, table: Table, key: Mapping[str, Any], stored: Row | None, right: Row | None
    ) -> None:
        key_values = {"rollout": self._rollout.number, **key}
        condition = and_(*(table.c[name] == value for name, value in key_values.items()))
        if right is None:
            self._transaction.execute(delete(table).where(condition))
        elif stored is None:
            self._transaction.execute(insert(table).values(**key_values, **right))
        else:
            self._transaction.execute(update(table).where(condition).values(**right))

    def _kept(self) -> Any:
        return select(scopes).where(scopes.c.rollout == self._rollout.number)


def _same(body: Any, scope: Scope) -> bool:
    """Say whether a kept body is the scope; one that can't be read is none."""
    try:
        return bool(from_plain(Scope, body) == scope)
    except (ValueError, TypeError, KeyError, IndexError):
        return False


def _named(table: Table) -> str:
    """Return the column that names a row: the key after the rollout."""
    return list(table.primary_key)[1].name
