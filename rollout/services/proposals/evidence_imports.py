"""Imports in the evidence of a proposal: who vouches for the times of receipt."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import parse_event
from rollout.core.scope.record_events import RecordsImported
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class EvidenceImport:
    """An import of cases of a proposal's cell, before the proposal was raised.

    Attributes:
        by: the user who vouches for the times of receipt.
        cases: imported cases of the cell, whether they count or not.
        received_since, received_until: first and last time of receipt in the files.
        files: the files' names.
    """

    by: str
    imported_at: datetime
    cases: int
    received_since: datetime
    received_until: datetime
    files: tuple[str, ...]


ImportsByRevision = dict[int, RecordsImported]


def load_imports(transaction: Transaction, rollout: Rollout) -> ImportsByRevision:
    """Return all imports of a rollout by ledger revision."""
    rows = Ledger(transaction, rollout).list_rows(kinds={RecordsImported.__name__})
    events = ((row.revision, parse_event(row)) for row in rows)
    return {revision: event for revision, event in events if isinstance(event, RecordsImported)}


def select_imports(
    imports: ImportsByRevision, cell: Cell | None, raised_in: int
) -> tuple[EvidenceImport, ...]:
    """Return the imports of a cell's cases before a revision, oldest first."""
    events = (event for revision, event in imports.items() if revision < raised_in)
    return tuple(_iterate_cell_imports(events, cell))


def _iterate_cell_imports(
    events: Iterable[RecordsImported], cell: Cell | None
) -> Iterable[EvidenceImport]:
    for event in events:
        cases = dict(zip(event.cells, event.cell_cases, strict=True)).get(cell) if cell else None
        if cases:
            yield EvidenceImport(
                by=event.by,
                imported_at=event.imported_at,
                cases=cases,
                received_since=event.received_since,
                received_until=event.received_until,
                files=event.files,
            )
