"""Training cutoffs of versions in the ledger, compared with those that are stored.

The stored end decides which cases are no evidence of a version; setting it writes an entry
(decision record 0065).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from rollout.core.scope.events import ENGINE, TrainingCutoffSet
from rollout.core.scope.permissions import Caller
from rollout.services.engine.evidence_report import EvidenceReport
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.versions import VersionStore

Ends = Sequence[datetime | None]


def append_training_cutoffs(
    transaction: Transaction,
    state: RolloutState,
    is_changed: Mapping[str, bool],
    caller: Caller | None,
    at: datetime,
) -> None:
    """Append what the ledger lacks on the training cutoffs of some versions.

    A version without entries gets one for each stored end. One with entries gets the last end if it
    is new, and never an older one, which an edit of the database may have left.

    Args:
        transaction: in which the ends were stored.
        state: of this transaction.
        is_changed: by version whether the end that was stored last is another than before.
        caller: who states the ends; None for the engine.
        at: time of the entries.
    """
    stored_ends = VersionStore(transaction, state.rollout).list_training_cutoffs()
    ledger_ends = _load_ledger_ends(transaction, state.rollout)
    by = ENGINE if caller is None else caller.name
    events: list[TrainingCutoffSet] = []
    for version, has_new_end in is_changed.items():
        ends = stored_ends.get(version, [])
        if version in ledger_ends:
            ends = ends[-1:] if has_new_end else []
        events += [
            TrainingCutoffSet(at=at, by=by, version=version, trained_until=end)
            for end in ends
            if end is not None
        ]
    access_head = None if caller is None else caller.access_head
    Ledger(transaction, state.rollout).append(
        events, after=state.scope.revision, access_head=access_head
    )


def check_training_cutoffs(
    transaction: Transaction, rollout: Rollout, report: EvidenceReport
) -> None:
    """Add a fault for each version whose stored ends are not those of the ledger."""
    stored_ends = VersionStore(transaction, rollout).list_training_cutoffs()
    ledger_ends = _load_ledger_ends(transaction, rollout)
    for version in sorted({*stored_ends, *ledger_ends}):
        stored, expected = stored_ends.get(version, []), ledger_ends.get(version, [])
        if stored != expected:
            report.add_faults([_describe_difference(version, stored, expected)])


def _describe_difference(version: str, stored: Ends, expected: Ends) -> str:
    return (
        f"{version}: versions.trained_until says {_format_ends(stored)}; the ledger says"
        f" {_format_ends(expected)}, and no gate counts cases of {version} up to then"
    )


def _load_ledger_ends(transaction: Transaction, rollout: Rollout) -> dict[str, list[datetime]]:
    ends_by_version: dict[str, list[datetime]] = defaultdict(list)
    for event in Ledger(transaction, rollout).list_of(TrainingCutoffSet):
        ends_by_version[event.version].append(event.trained_until)
    return dict(ends_by_version)


def _format_ends(ends: Ends) -> str:
    return ", then ".join("none" if end is None else end.isoformat() for end in ends) or "none"
