"""Recompute derived tables and report differences; a healthy store has none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rollout.data.counting import counter
from rollout.data.counting.counted_units import StoredUses
from rollout.data.counting.counter import ProjectionRepair, RowDifference, list_wrong_uses
from rollout.data.counting.top_losses import LossValue, StoredLosses
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger import projections
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import CHECKED_TABLES, get_name_column
from rollout.data.ledger.scopes import EvidenceSnapshots
from rollout.data.tables.tables import confusion_matrices, counts, guard_snapshots, top_losses
from rollout.engine.decide.scope import Scope
from rollout.live.evidence.evidence_feeds import is_guard_snapshot_wrong
from rollout.live.evidence.evidence_reader import is_snapshot_wrong
from rollout.live.rollout_state import RolloutState, load_rollout_state, write_rollout


@dataclass(frozen=True, slots=True)
class DerivedDifferences:
    """Differences between derived tables and their sources.

    Attributes:
        scopes: by revision, the right scope; None if the ledger has no such revision.
        rows: of proposals and incidents, which follow from the ledger, and of what is summed when
            units are counted.
        is_snapshot_wrong: whether the snapshot of evidence has other units than were counted. It is
            deleted; processes read the counted units until a tick stores another.
        is_guard_snapshot_wrong: whether that of guards has other observations than the records say.
    """

    scopes: Mapping[int, Scope | None]
    rows: tuple[RowDifference, ...]
    is_snapshot_wrong: bool
    is_guard_snapshot_wrong: bool

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        return any(True for _ in self.describe())

    def describe(self) -> Iterator[str]:
        """Yield a sentence for each difference."""
        for revision, scope in self.scopes.items():
            problem_text = "does not match the ledger" if scope else "is not in the ledger"
            yield f"scopes: the scope stored at revision {revision} {problem_text}"
        yield from (row.describe() for row in self.rows)
        if self.is_snapshot_wrong:
            yield "evidence_snapshots: the snapshot does not match the counted units"
        if self.is_guard_snapshot_wrong:
            yield "guard_snapshots: the snapshot does not match the records"


def rebuild_derived_tables(
    database: Database, rollout_name: str, *, repair: bool = False
) -> DerivedDifferences:
    """Return the differences of a rollout's derived tables; repair them if requested.

    `rollout ledger verify` verifies the ledger itself; marks of counting are append-only. A repair
    is one transaction that blocks appending and counting.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    if not repair:
        with database.begin_read() as transaction:
            return _find_differences(transaction, load_rollout_state(transaction, rollout_name))
    with write_rollout(database, rollout_name) as (transaction, state):
        rollout = state.rollout
        derived_tables = ProjectionRepair(transaction, rollout)
        derived_tables.lock()
        differences = _find_differences(transaction, state)
        derived_tables.repair_scopes(differences.scopes)
        derived_tables.repair_rows(differences.rows)
        if differences.is_snapshot_wrong:
            EvidenceSnapshots(transaction, rollout).delete()
        if differences.is_guard_snapshot_wrong:
            EvidenceSnapshots(transaction, rollout, guard_snapshots).delete()
    return differences


def _find_differences(transaction: Transaction, state: RolloutState) -> DerivedDifferences:
    ledger = Ledger(transaction, state.rollout)
    return DerivedDifferences(
        scopes=ProjectionRepair(transaction, state.rollout).find_wrong_scopes(ledger.list_events()),
        rows=tuple(_list_wrong_rows(transaction, state, ledger)),
        is_snapshot_wrong=is_snapshot_wrong(transaction, state),
        is_guard_snapshot_wrong=is_guard_snapshot_wrong(transaction, state),
    )


def _list_wrong_rows(
    transaction: Transaction, state: RolloutState, ledger: Ledger
) -> Iterator[RowDifference]:
    rollout = state.rollout
    for (name, row_name), rows in projections.find_differences(
        transaction, rollout, ledger.list_events
    ).items():
        table = CHECKED_TABLES[name]
        yield RowDifference(table, {get_name_column(table): row_name}, *rows)
    sums = counter.find_differences(transaction, rollout)
    for count_key, numbers in sums.counts.items():
        yield RowDifference(counts, count_key._asdict(), *map(_build_sum_row, numbers))
    for matrix_key, numbers in sums.matrices.items():
        matrix = dict(zip(("series_id", "class_id"), matrix_key, strict=True))
        yield RowDifference(confusion_matrices, matrix, *map(_build_sum_row, numbers))
    losses = StoredLosses(transaction, rollout, state.first_names).find_differences()
    for loss_key, values in losses.items():
        loss = dict(zip(("case_id", "version", "class_id"), loss_key, strict=True))
        yield RowDifference(top_losses, loss, *map(_build_loss_row, values))
    yield from list_wrong_uses(StoredUses(transaction, rollout).find_differences())


def _build_sum_row(number: int) -> Mapping[str, int] | None:
    return {"n": number} if number else None


def _build_loss_row(value: LossValue | None) -> Mapping[str, Any] | None:
    return value and dict(zip(("confidence", "series_id"), value, strict=True))
