"""Recompute derived tables and report differences; a healthy store has none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout.data.counting import counter
from rollout.data.counting.counts import CountKey
from rollout.data.counting.matrices import MatrixKey
from rollout.data.counting.projection_repair import ProjectionRepair
from rollout.data.counting.top_losses import LossKey, LossValue, StoredLosses
from rollout.data.counting.version_uses import StoredUses
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger import projection_check
from rollout.data.ledger.evidence_snapshots import EvidenceSnapshots
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.tables import guard_snapshots
from rollout.engine.decide.scope import Scope
from rollout.engine.evidence.version_uses import Use, UseKey
from rollout.live.evidence.evidence_feeds import is_guard_snapshot_wrong
from rollout.live.evidence.evidence_reader import is_snapshot_wrong
from rollout.live.rollout_state import RolloutState, load_rollout_state

RowValues = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DerivedDifferences:
    """Differences between derived tables and their sources.

    Attributes:
        scopes: by revision, the right scope; None if the ledger has no such revision.
        followed_rows: rows of proposals and incidents by table and name: (stored, correct); None
            for a missing row.
        counts: (stored, sum of the marks).
        matrices: the same of the sums over all slots, by series and kind.
        uses: (stored, correct) first unit of each version and cell that it predicted; None for a
            missing row.
        losses: (stored, correct) confidence and series of pairs that differ, by case, version and
            kind; None for a missing row.
        is_snapshot_wrong: whether the snapshot of evidence has other units than were counted. It is
            deleted; processes read the counted units until a tick stores another.
        is_guard_snapshot_wrong: whether that of guards has other observations than the records say.
    """

    scopes: Mapping[int, Scope | None] = field(default_factory=dict)
    followed_rows: Mapping[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)
    counts: Mapping[CountKey, tuple[int, int]] = field(default_factory=dict)
    matrices: Mapping[MatrixKey, tuple[int, int]] = field(default_factory=dict)
    losses: Mapping[LossKey, tuple[LossValue | None, LossValue | None]] = field(
        default_factory=dict
    )
    uses: Mapping[UseKey, tuple[Use | None, Use | None]] = field(default_factory=dict)
    is_snapshot_wrong: bool = False
    is_guard_snapshot_wrong: bool = False

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        has_count_differences = self.counts or self.matrices or self.losses or self.uses
        return bool(
            self.scopes
            or self.followed_rows
            or has_count_differences
            or self.is_snapshot_wrong
            or self.is_guard_snapshot_wrong
        )

    def describe(self) -> Iterator[str]:
        """Yield a sentence for each difference."""
        for revision, scope in self.scopes.items():
            problem_text = "does not match the ledger" if scope else "is not in the ledger"
            yield f"scopes: the scope stored at revision {revision} {problem_text}"
        for (table, row_name), (stored_row, correct_row) in self.followed_rows.items():
            yield f"{table}: {row_name} {_describe_row_difference(stored_row, correct_row)}"
        for key, (stored_count, marked_count) in self.counts.items():
            location = f"slot {key.slot}, occurred {key.occurred}, series {key.series_id}"
            yield (
                f"counts: {location}, class {key.class_id}, bucket {key.bucket} "
                f"says {stored_count}; marks add up to {marked_count}"
            )
        for (series, kind), (stored_count, marked_count) in self.matrices.items():
            yield (
                f"confusion_matrices: series {series}, class {kind} says {stored_count}; "
                f"marks add up to {marked_count}"
            )
        for (case_id, version, kind), (stored_loss, correct_loss) in self.losses.items():
            location = f"case {case_id}, version {version}, class {kind}"
            yield f"top_losses: {location} {_describe_loss_difference(stored_loss, correct_loss)}"
        for (site, window, version), uses in self.uses.items():
            since, right = (None if use is None else use.occurred for use in uses)
            yield (
                f"version_uses: {version} in {site} × {window} is in use since slot {since}; its"
                f" units say {right}"
            )
        if self.is_snapshot_wrong:
            yield "evidence_snapshots: the snapshot does not match the counted units"
        if self.is_guard_snapshot_wrong:
            yield "guard_snapshots: the snapshot does not match the records"


def _describe_loss_difference(stored_loss: LossValue | None, correct_loss: LossValue | None) -> str:
    if correct_loss is None:
        return "was not counted as one that differs"
    if stored_loss is None:
        return f"was counted at {correct_loss[0]:g} and is missing here"
    stored_text, correct_text = (
        f"{confidence:g} in series {series}" for confidence, series in (stored_loss, correct_loss)
    )
    return f"says {stored_text}; prediction and mark say {correct_text}"


def _describe_row_difference(stored_row: RowValues | None, correct_row: RowValues | None) -> str:
    if correct_row is None:
        return "is not in the ledger"
    if stored_row is None:
        return "is in the ledger and missing here"
    return ", ".join(
        f"says {name} {stored_row[name]}; the ledger says {correct_row[name]}"
        for name in correct_row
        if stored_row[name] != correct_row[name]
    )


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
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        rollout = state.rollout
        derived_tables = ProjectionRepair(transaction, rollout)
        derived_tables.lock()
        differences = _find_differences(transaction, state)
        derived_tables.repair_scopes(differences.scopes)
        derived_tables.repair_projections(differences.followed_rows)
        derived_tables.repair_counts(differences.counts)
        derived_tables.repair_matrices(differences.matrices)
        derived_tables.repair_losses(differences.losses)
        derived_tables.repair_uses(differences.uses)
        if differences.is_snapshot_wrong:
            EvidenceSnapshots(transaction, rollout).delete()
        if differences.is_guard_snapshot_wrong:
            EvidenceSnapshots(transaction, rollout, guard_snapshots).delete()
    return differences


def _find_differences(transaction: Transaction, state: RolloutState) -> DerivedDifferences:
    rollout = state.rollout
    events = Ledger(transaction, rollout).list_events()
    sums = counter.find_differences(transaction, rollout)
    return DerivedDifferences(
        scopes=ProjectionRepair(transaction, rollout).find_wrong_scopes(events),
        followed_rows=projection_check.find_differences(transaction, rollout),
        counts=sums.counts,
        matrices=sums.matrices,
        losses=StoredLosses(transaction, rollout, state.first_names).find_differences(),
        uses=StoredUses(transaction, rollout).find_differences(),
        is_snapshot_wrong=is_snapshot_wrong(transaction, state),
        is_guard_snapshot_wrong=is_guard_snapshot_wrong(transaction, state),
    )
