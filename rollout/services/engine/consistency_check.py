"""Recompute what is derived, and say where the stored form differs: nowhere, on a healthy store."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout.core.scope.scope import Scope
from rollout.services.engine.rollout_state import standing
from rollout.store.counting import counter
from rollout.store.counting.counts import Key
from rollout.store.counting.matrices import Place
from rollout.store.counting.projection_repair import Derived
from rollout.store.counting.top_losses import Kept, Losses
from rollout.store.counting.top_losses import Place as LossPlace
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger import projections
from rollout.store.ledger.evidence import Evidence, Reading
from rollout.store.ledger.ledger import Ledger

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Differences:
    """Where derived tables differ from what they are derived from.

    Attributes:
        scopes: revisions at which the kept scope differs, with the right one; None where the
            ledger has no such revision.
        followed: rows of proposals and incidents by table and name: as stored, and as the ledger
            has them; None where there is none.
        tallies: as stored, and as the sum of the marks.
        matrices: the same of the sums over all slots, by series and kind.
        losses: the same of pairs that differ, by case, version and kind: how sure it was and of
            which series; None where there is no row.
        evidence: readings that are not what their hash says, or lie after the last slot that is
            evidence. Such a reading is dropped: it is made again from the tallies.
    """

    scopes: Mapping[int, Scope | None] = field(default_factory=dict)
    followed: Mapping[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)
    tallies: Mapping[Key, tuple[int, int]] = field(default_factory=dict)
    matrices: Mapping[Place, tuple[int, int]] = field(default_factory=dict)
    losses: Mapping[LossPlace, tuple[Kept | None, Kept | None]] = field(default_factory=dict)
    evidence: tuple[Reading, ...] = ()

    def __bool__(self) -> bool:
        """Say whether there is any."""
        has_count_differences = self.tallies or self.matrices or self.losses
        return bool(self.scopes or self.followed or has_count_differences or self.evidence)

    def lines(self) -> Iterator[str]:
        """Yield each difference as a sentence."""
        for revision, scope in self.scopes.items():
            problem_text = (
                "is not what the ledger folds to" if scope else "is of no row of the ledger"
            )
            yield f"scopes: the one kept at revision {revision} {problem_text}"
        for (table, row_name), (stored_row, correct_row) in self.followed.items():
            yield f"{table}: {row_name} {_compared(stored_row, correct_row)}"
        for key, (stored_count, marked_count) in self.tallies.items():
            location = f"slot {key.slot}, occurred {key.occurred}, series {key.series}"
            yield (
                f"counts: {location}, class {key.kind}, bucket {key.band} "
                f"says {stored_count}; marks add up to {marked_count}"
            )
        for (series, kind), (stored_count, marked_count) in self.matrices.items():
            yield (
                f"confusion_matrices: series {series}, class {kind} says {stored_count}; "
                f"marks add up to {marked_count}"
            )
        for (case_id, version, kind), (stored_loss, correct_row) in self.losses.items():
            location = f"case {case_id}, version {version}, class {kind}"
            yield f"top_losses: {location} {_differs(stored_loss, correct_row)}"
        for reading in self.evidence:
            location = f"{reading.measure} of {reading.version} in {reading.site}·{reading.window}"
            yield f"evidence: {location} is not what its hash says"


def _differs(kept: Kept | None, right: Kept | None) -> str:
    if right is None:
        return "was not counted as one that differs"
    if kept is None:
        return f"was counted at {right[0]:g} and is missing here"
    stored_text, correct_text = (
        f"{confidence:g} in series {series}" for confidence, series in (kept, right)
    )
    return f"says {stored_text}; prediction and mark say {correct_text}"


def _compared(stored: Row | None, right: Row | None) -> str:
    if right is None:
        return "is not in the ledger"
    if stored is None:
        return "is in the ledger and missing here"
    names = (name for name in right if stored[name] != right[name])
    return ", ".join(f"says {n} {stored[n]}; the ledger says {right[n]}" for n in names)


def rebuild(database: Database, name: str, *, write: bool = False) -> Differences:
    """Return where a rollout's derived tables are not what they are derived from.

    The ledger itself is verified by `rollout ledger verify`; marks of counting are append-only.

    Args:
        database: where the rollout is.
        name: of the rollout.
        write: put them right, all in one transaction; nobody appends or counts meanwhile.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    if not write:
        with database.reading() as transaction:
            return _found(transaction, standing(transaction, name).rollout)
    with database.writing() as transaction:
        rollout = standing(transaction, name).rollout
        derived_tables = Derived(transaction, rollout)
        derived_tables.hold()
        differences = _found(transaction, rollout)
        derived_tables.keep_scopes(differences.scopes)
        derived_tables.keep_followed(differences.followed)
        derived_tables.keep_tallies(differences.tallies)
        derived_tables.keep_matrices(differences.matrices)
        derived_tables.keep_losses(differences.losses)
        Evidence(transaction, rollout).drop(differences.evidence)
    return differences


def _found(transaction: Transaction, rollout: Rollout) -> Differences:
    events = tuple(Ledger(transaction, rollout).events())
    marks = counter.marked(transaction, rollout)
    return Differences(
        scopes=Derived(transaction, rollout).scopes(events),
        followed=projections.differences(transaction, rollout, events),
        tallies=counter.differences(transaction, rollout, marks),
        matrices=counter.matrix_differences(transaction, rollout, marks),
        losses=Losses(transaction, rollout).differences(),
        evidence=tuple(Evidence(transaction, rollout).broken()),
    )
