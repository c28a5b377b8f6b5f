"""The access ledger: one writer at a time changes users, permissions and keys."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from rollout.core.access.access_events import AccessEvent
from rollout.store.database.append_failures import ACCESS
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.tables.tables import ledger_heads


@dataclass(frozen=True, slots=True)
class AccessLedgerHead:
    """Revision and hash of the newest entry of the access ledger."""

    revision: int | None
    hash: str


class AccessLedger:
    """The access ledger, locked until the writing transaction ends."""

    def __init__(self, transaction: Transaction) -> None:
        """Lock the head, so that later reads see the latest state."""
        Rollouts(transaction).open_access_ledger()
        self._transaction, self._ledger = transaction, Ledger(transaction, ACCESS_CHAIN)
        lock_query = select(ledger_heads.c.revision).where(
            ledger_heads.c.rollout == ACCESS_CHAIN.number
        )
        self.revision: int = transaction.execute(lock_query.with_for_update()).scalar_one()
        transaction.tally.announce(ACCESS_CHAIN.name, ACCESS)  # accounts are changed before it

    def append(self, events: Iterable[AccessEvent]) -> int:
        """Append the transaction's events and return the new revision.

        The last event about an account gets the digest of its credentials as they are now.
        """
        rows = self._ledger.append(self._add_digests(events), after=self.revision)
        self.revision += len(rows)
        return self.revision

    def _add_digests(self, events: Iterable[AccessEvent]) -> list[AccessEvent]:
        from rollout.store.access.credential_digests import (  # noqa: PLC0415 - reading needs none
            compute_digest,
        )

        all_events = list(events)
        last_places = {event.account: place for place, event in enumerate(all_events)}
        for account, place in last_places.items():
            if account is not None:
                digest = compute_digest(self._transaction, account)
                all_events[place] = all_events[place].add_credentials(digest)
        return all_events


def load_access_head(transaction: Transaction) -> AccessLedgerHead:
    """Return the head of the access ledger; None revision if empty."""
    query = select(ledger_heads).where(ledger_heads.c.rollout == ACCESS_CHAIN.number)
    row = transaction.execute(query).one_or_none()
    return (
        AccessLedgerHead(None, "")
        if row is None
        else AccessLedgerHead(row.revision or None, row.hash)
    )
