"""Rows of a ledger in words: some of them, without reading the whole chain for it."""

from collections.abc import Sequence
from datetime import datetime

from rollout.core.ledger import Row, event_of
from rollout.reports.timeline_words import Happening, Zoned, happening
from rollout.services.chains import cited
from rollout.services.standing import Standing
from rollout.store.session import Transaction


def told(
    transaction: Transaction, stood: Standing, rows: Sequence[Row], since: datetime | None = None
) -> tuple[Happening, ...]:
    """Return rows of a rollout's ledger in words, in their order.

    Args:
        transaction: in which they were read.
        stood: the rollout's standing: its policy names the zones.
        rows: some rows of its ledger.
        since: an instant of the reader's year: times of that year are told without it.
    """
    events = [event_of(row) for row in rows]
    raised, yes = cited(transaction, stood.rollout, rows)
    telling = Zoned(stood.policy, raised, yes, simulated=False, since=since)
    return tuple(
        happening(row.revision, event, telling) for row, event in zip(rows, events, strict=True)
    )
