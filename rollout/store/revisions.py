"""How far every rollout is, in one short read: its ledger's last row, what is counted."""

from sqlalchemy import select

from rollout.store.session import Transaction
from rollout.store.tables import evidence_heads, ledger_heads, rollouts


def revisions(transaction: Transaction) -> dict[str, str]:
    """Return a text for each rollout that changes with its ledger and with what is counted."""
    query = (
        select(rollouts.c.name, ledger_heads.c.revision, ledger_heads.c.hash)
        .add_columns(evidence_heads.c.through)
        .join(ledger_heads, ledger_heads.c.rollout == rollouts.c.id)
        .join(evidence_heads, evidence_heads.c.rollout == rollouts.c.id)
    )
    rows = transaction.execute(query)
    return {row.name: f"{row.revision}.{row.hash[:8]}.{row.through}" for row in rows}
