"""Check that the planted cases are those that the ledger says were declared."""

from collections.abc import Iterator

from rollout.core.scope.record_events import CasesPlanted
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.planted_cases import PlantedCases


def find_planting_faults(transaction: Transaction, rollout: Rollout) -> Iterator[str]:
    """Yield a sentence for each declaration that differs from the ledger's."""
    stored = PlantedCases(transaction, rollout).load_digests()
    rows = Ledger(transaction, rollout).list_rows(kinds={CasesPlanted.__name__})
    declared = {row.revision: (row.fields["cases"], row.fields["digest"]) for row in rows}
    for revision in sorted({*stored, *declared}):
        if stored.get(revision) != declared.get(revision):
            count = stored.get(revision, (0, ""))[0]
            yield (
                f"{count} planted cases name revision {revision} of the ledger, which declares"
                f" {declared.get(revision, (0, ''))[0]}, or others; restore them from a backup"
            )


def describe_planted_cases(transaction: Transaction, rollout: Rollout) -> str:
    """Return how many cases are declared and received; "" if the ledger declares none."""
    if Ledger(transaction, rollout).find_last_event(CasesPlanted.__name__) is None:
        return ""
    declared, received = PlantedCases(transaction, rollout).count()
    return f"{declared:,} declared, {received:,} received"
