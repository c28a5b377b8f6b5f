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
        counted = self.tallies or self.matrices or self.losses
        return bool(self.scopes or self.followed or counted or self.evidence)

    def lines(self) -> Iterator[str]:
        """Yield each difference as a sentence."""
        for revision, scope in self.scopes.items():
            said = "is not what the ledger folds to" if scope else "is of no row of the ledger"
            yield f"scopes: the one kept at revision {revision} {said}"
        for (table, name), (stored, right) in self.followed.items():
            yield f"{table}: {name} {_compared(stored, right)}"
        for key, (counted, marked) in self.tallies.items():
            where = f"slot {key.slot}, occurred {key.occurred}, series {key.series}"
            yield (
                f"counts: {where}, class {key.kind}, bucket {key.band} "
                f"says {counted}; marks add up to {marked}"
            )
        for (series, kind), (counted, marked) in self.matrices.items():
            yield (
                f"confusion_matrices: series {series}, class {kind} says {counted}; "
                f"marks add up to {marked}"
            )
        for (case_id, version, kind), (kept, right) in self.losses.items():
            where = f"case {case_id}, version {version}, class {kind}"
            yield f"top_losses: {where} {_differs(kept, right)}"
        for reading in self.evidence:
            where = f"{reading.measure} of {reading.version} in {reading.site}·{reading.window}"
            yield f"evidence: {where} is not what its hash says"


def _differs(kept: Kept | None, right: Kept | None) -> str:
    if right is None:
        return "was not counted as one that differs"
    if kept is None:
        return f"was counted at {right[0]:g} and is missing here"
    own, its = (f"{sure:g} in series {series}" for sure, series in (kept, right))
    return f"says {own}; prediction and mark say {its}"


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
        derived = Derived(transaction, rollout)
        derived.hold()
        found = _found(transaction, rollout)
        derived.keep_scopes(found.scopes)
        derived.keep_followed(found.followed)
        derived.keep_tallies(found.tallies)
        derived.keep_matrices(found.matrices)
        derived.keep_losses(found.losses)
        Evidence(transaction, rollout).drop(found.evidence)
    return found


def _found(transaction: Transaction, rollout: Rollout) -> Differences:
    events = tuple(Ledger(transaction, rollout).events())
    marked = counter.marked(transaction, rollout)
    return Differences(
        scopes=Derived(transaction, rollout).scopes(events),
        followed=projections.differences(transaction, rollout, events),
        tallies=counter.differences(transaction, rollout, marked),
        matrices=counter.matrix_differences(transaction, rollout, marked),
        losses=Losses(transaction, rollout).differences(),
        evidence=tuple(Evidence(transaction, rollout).broken()),
    )
