"""Revisions and recent activity of all rollouts, each in one short query."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import StoredLedgerHead
from rollout.data.tables.tables import cases, evidence_heads, ledger_heads, rollouts, tick_slots

MAX_RECENT_CASES = 100
"""Maximum of counted cases a rollout; a page shows it as "or more"."""


@dataclass(frozen=True, slots=True)
class RolloutActivity:
    """Recent activity of a rollout; None before the first slot or case.

    Attributes:
        last_slot: the newest slot that is done.
        last_case_at: when the newest case was received.
        recent_cases: cases received since a time, at most `MAX_RECENT_CASES`.
    """

    last_slot: int | None
    last_case_at: datetime | None
    recent_cases: int


def load_revisions(transaction: Transaction) -> dict[str, str]:
    """Return for each rollout a text that changes with its state.

    It changes with the ledger and with evidence.
    """
    query = (
        select(rollouts.c.name, ledger_heads.c.revision, ledger_heads.c.hash)
        .add_columns(evidence_heads.c.through)
        .join(ledger_heads, ledger_heads.c.rollout == rollouts.c.id)
        .join(evidence_heads, evidence_heads.c.rollout == rollouts.c.id)
    )
    rows = transaction.execute(query)
    return {row.name: f"{row.revision}.{row.hash[:8]}.{row.through}" for row in rows}


def load_heads(transaction: Transaction) -> Mapping[str, tuple[int, StoredLedgerHead]]:
    """Return each rollout's number and ledger head, by name."""
    query = select(rollouts.c.name, ledger_heads).join(
        ledger_heads, ledger_heads.c.rollout == rollouts.c.id
    )
    rows = transaction.execute(query)
    return {
        row.name: (row.rollout, StoredLedgerHead(row.revision, row.hash, row.at)) for row in rows
    }


def load_activity(transaction: Transaction, since: datetime) -> dict[int, RolloutActivity]:
    """Return the activity of each rollout since a time, by number."""
    is_natural = (cases.c.rollout == rollouts.c.id, cases.c.planted.is_(None))
    newest_cases = select(cases.c.received_at).where(*is_natural).order_by(cases.c.case_id.desc())
    recent = newest_cases.limit(MAX_RECENT_CASES).correlate(rollouts).subquery()
    query = select(
        rollouts.c.id,
        select(func.max(tick_slots.c.slot))
        .where(tick_slots.c.rollout == rollouts.c.id, tick_slots.c.done_at.is_not(None))
        .scalar_subquery()
        .label("last_done"),
        newest_cases.limit(1).scalar_subquery().label("last_case"),
        select(func.count())
        .select_from(recent)
        .where(recent.c.received_at > since)
        .scalar_subquery()
        .label("recent"),
    )
    rows = transaction.execute(query)
    return {row.id: RolloutActivity(row.last_done, row.last_case, row.recent) for row in rows}
