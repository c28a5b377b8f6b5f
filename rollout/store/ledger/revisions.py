"""How far every rollout is, in short reads of all of them at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Head
from rollout.store.tables.tables import cases, evidence_heads, ledger_heads, rollouts, tick_slots

LATELY = 100
"""Cases of a rollout that are looked at: more in an hour are said to be so many or more."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What came to a rollout lately, and the newest slot that is done; None before the first.

    Attributes:
        last_done: number of a slot.
        last_case: when the newest case came in.
        lately: cases that came in since an instant, at most `LATELY`.
    """

    last_done: int | None
    last_case: datetime | None
    lately: int


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


def heads(transaction: Transaction) -> Mapping[str, tuple[int, Head]]:
    """Return each rollout's number and the head of its ledger, by its name."""
    query = select(rollouts.c.name, ledger_heads).join(
        ledger_heads, ledger_heads.c.rollout == rollouts.c.id
    )
    rows = transaction.execute(query)
    return {row.name: (row.rollout, Head(row.revision, row.hash, row.at)) for row in rows}


def pulses(transaction: Transaction, since: datetime) -> dict[int, Pulse]:
    """Return what came to each rollout since an instant, by the rollout's number."""
    same_rollout = cases.c.rollout == rollouts.c.id
    newest_cases = select(cases.c.received_at).where(same_rollout).order_by(cases.c.case_id.desc())
    recent = newest_cases.limit(LATELY).correlate(rollouts).subquery()
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
        .label("lately"),
    )
    rows = transaction.execute(query)
    return {row.id: Pulse(row.last_done, row.last_case, row.lately) for row in rows}
