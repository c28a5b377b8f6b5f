"""Pages of a ledger, newest entry first."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, select, type_coerce

from rollout.core.ledger.ledger import CanonicalRow
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import find_stored_actor, load_actor_names, read_rows
from rollout.store.tables.tables import incidents, ledger, proposals

REVISIONS_PER_QUERY = 500
MAX_ACTORS = 200


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A ledger row with body and hash as stored, possibly wrong."""

    row: CanonicalRow
    hash: str
    text: str


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """A filter of ledger rows by kind, actor and time.

    Without kinds or actor all match, except `hidden_kinds`; times are in [since, until).
    """

    kinds: Collection[str] = ()
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None
    hidden_kinds: Collection[str] = ()


class LedgerPages:
    """One ledger, read from its end."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def list_page(
        self, row_filter: LedgerFilter, *, before: int | None, limit: int
    ) -> list[LedgerEntry]:
        """Return rows before a revision, newest first; None starts at the end."""
        query = self._select_all().order_by(ledger.c.revision.desc()).limit(limit)
        if before is not None:
            query = query.where(ledger.c.revision < before)
        if row_filter.kinds:
            query = query.where(ledger.c.kind.in_(row_filter.kinds))
        if row_filter.hidden_kinds:
            query = query.where(ledger.c.kind.not_in(row_filter.hidden_kinds))
        if row_filter.actor:
            query = query.where(
                ledger.c.actor == find_stored_actor(self._transaction, row_filter.actor)
            )
        if row_filter.since is not None:
            query = query.where(ledger.c.at >= row_filter.since)
        if row_filter.until is not None:
            query = query.where(ledger.c.at < row_filter.until)
        return self._load_entries(query)

    def list_revisions(self, revisions: Iterable[int]) -> list[LedgerEntry]:
        """Return the rows of some revisions, oldest first."""
        sorted_revisions = sorted(set(revisions))
        entries: list[LedgerEntry] = []
        for start in range(0, len(sorted_revisions), REVISIONS_PER_QUERY):
            part = sorted_revisions[start : start + REVISIONS_PER_QUERY]
            query = (
                self._select_all().where(ledger.c.revision.in_(part)).order_by(ledger.c.revision)
            )
            entries += self._load_entries(query)
        return entries

    def list_actors(self) -> list[str]:
        """Return the names of who wrote entries, sorted; at most 200."""
        query = select(ledger.c.actor).where(ledger.c.rollout == self._rollout.number).distinct()
        stored_actors = self._transaction.execute(query.limit(MAX_ACTORS)).scalars()
        return load_actor_names(self._transaction, stored_actors)

    def find_raising_revisions(self, proposal_ids: Collection[str]) -> list[int]:
        """Return the revisions in which some proposals were raised."""
        query = select(proposals.c.raised_revision).where(
            proposals.c.rollout == self._rollout.number, proposals.c.proposal.in_(proposal_ids)
        )
        return [row.raised_revision for row in self._transaction.execute(query)]

    def find_by_hash(self, prefix: str, limit: int) -> list[int]:
        """Return the newest revisions whose hash begins so."""
        query = select(ledger.c.revision).where(
            ledger.c.rollout == self._rollout.number,
            ledger.c.hash.startswith(prefix, autoescape=True),
        )
        newest = query.order_by(ledger.c.revision.desc()).limit(limit)
        return list(self._transaction.execute(newest).scalars())

    def find_proposals_by_hash(self, prefix: str, limit: int) -> list[str]:
        """Return the newest proposals whose evidence hash begins so."""
        query = select(proposals.c.proposal).where(
            proposals.c.rollout == self._rollout.number,
            proposals.c.evidence_hash.startswith(prefix, autoescape=True),
        )
        newest = query.order_by(proposals.c.raised_revision.desc()).limit(limit)
        return list(self._transaction.execute(newest).scalars())

    def list_ids_of_site(self, site: str) -> frozenset[str]:
        """Return the proposals and incidents of a site, which rows cite."""
        ids: set[str] = set()
        for table, name in ((proposals, "proposal"), (incidents, "incident")):
            query = select(table.c[name]).where(
                table.c.rollout == self._rollout.number, table.c.site == site
            )
            ids |= {str(row[0]) for row in self._transaction.execute(query)}
        return frozenset(ids)

    def _select_all(self) -> Select[Any]:
        micros = type_coerce(ledger.c.at, BigInteger).label("micros")
        return select(ledger, micros).where(ledger.c.rollout == self._rollout.number)

    def _load_entries(self, query: Select[Any]) -> list[LedgerEntry]:
        stored_rows = self._transaction.execute(query).all()
        rows = read_rows(self._transaction, self._rollout, stored_rows)
        return [
            LedgerEntry(row, stored_row.hash, stored_row.body)
            for row, stored_row in zip(rows, stored_rows, strict=True)
        ]
