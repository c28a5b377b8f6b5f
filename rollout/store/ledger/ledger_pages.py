"""A chain read backwards, some rows at a time: the newest first, as people read it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, select, type_coerce

from rollout.core.ledger.ledger import Row, stored_kinds
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger_rows import read_rows, stored_actors
from rollout.store.tables.tables import incidents, ledger, proposals

MOST_ASKED = 500  # names in one question to the database


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row of a chain with the hash that is stored beside it, which a fault may have made wrong.

    `text` is its body as it is stored.
    """

    row: Row
    hash: str
    text: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What a page's rows must be: of some kinds or all, by somebody, within [since, until)."""

    kinds: Collection[str] = ()
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None


class ChainPages:
    """One rollout's chain, or the house's, from its end."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def some(self, looked: Looked, *, before: int | None, limit: int) -> list[KeptRow]:
        """Return rows before a revision, the newest first.

        Args:
            looked: what they must be.
            before: the revision that they come before; None begins at the end.
            limit: how many at most.
        """
        query = self._all().order_by(ledger.c.revision.desc()).limit(limit)
        if before is not None:
            query = query.where(ledger.c.revision < before)
        if looked.kinds:
            query = query.where(ledger.c.kind.in_(stored_kinds(looked.kinds)))
        if looked.actor:
            query = query.where(ledger.c.actor.in_(stored_actors(self._transaction, looked.actor)))
        if looked.since is not None:
            query = query.where(ledger.c.at >= looked.since)
        if looked.until is not None:
            query = query.where(ledger.c.at < looked.until)
        return self._kept(query)

    def at(self, revisions: Iterable[int]) -> list[KeptRow]:
        """Return the rows of some revisions, oldest first."""
        sorted_revisions = sorted(set(revisions))
        entries: list[KeptRow] = []
        for start in range(0, len(sorted_revisions), MOST_ASKED):
            part = sorted_revisions[start : start + MOST_ASKED]
            query = self._all().where(ledger.c.revision.in_(part)).order_by(ledger.c.revision)
            entries += self._kept(query)
        return entries

    def raised_in(self, ids: Collection[str]) -> list[int]:
        """Return the revisions in which some proposals were raised."""
        query = select(proposals.c.raised_revision).where(
            proposals.c.rollout == self._rollout.number, proposals.c.proposal.in_(ids)
        )
        return [row.raised_revision for row in self._transaction.execute(query)]

    def about(self, site: str) -> frozenset[str]:
        """Return the ids of the proposals and incidents of a site: other rows cite them alone."""
        ids: set[str] = set()
        for table, name in ((proposals, "proposal"), (incidents, "incident")):
            query = select(table.c[name]).where(
                table.c.rollout == self._rollout.number, table.c.site == site
            )
            ids |= {str(row[0]) for row in self._transaction.execute(query)}
        return frozenset(ids)

    def _all(self) -> Select[Any]:
        micros = type_coerce(ledger.c.at, BigInteger).label("micros")
        return select(ledger, micros).where(ledger.c.rollout == self._rollout.number)

    def _kept(self, query: Select[Any]) -> list[KeptRow]:
        found = self._transaction.execute(query).all()
        rows = read_rows(self._transaction, self._rollout, found)
        return [KeptRow(row, f.hash, f.body) for row, f in zip(rows, found, strict=True)]
