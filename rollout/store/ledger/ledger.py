"""The ledger of a rollout: appended under its head's lock, folded into a scope, verified."""

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, func, insert, select, type_coerce, update
from sqlalchemy import Row as Found
from sqlalchemy.exc import IntegrityError

from rollout import faults
from rollout.core.errors import StaleRevision
from rollout.core.ledger.ledger import (
    FORM,
    BrokenChainError,
    Row,
    accounts_of,
    canonical,
    event_of,
    form_changed_row,
    row_of,
    stored_kinds,
    verified,
)
from rollout.core.ledger.ledger_texts import SALT_BYTES
from rollout.core.scope.events import Event
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope
from rollout.store.database.errors import LedgerFormError
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.ledger_rows import read_lines, read_rows, stored_actors
from rollout.store.ledger.projections import follow
from rollout.store.ledger.scopes import Scopes
from rollout.store.tables.columns import instant_of
from rollout.store.tables.tables import ledger, ledger_heads, ledger_texts

AGAIN = "read it again and decide again"
AT_ONCE = 500  # rows that are read from the database at a time


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a ledger: its revision, hash, instant, form; 0, "", None of an empty one."""

    revision: int
    hash: str
    at: datetime | None
    form: int = field(default=FORM, compare=False)


class Ledger:
    """One rollout's ledger."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def head(self) -> Head:
        """Return the last row's place, without reading the chain."""
        return self._head(self._select_head())

    def append(
        self, events: Iterable[Event], *, after: int, access_head: int | None = None
    ) -> tuple[Row, ...]:
        """Add `events` after revision `after`, and return their rows.

        Args:
            events: what happened, in order; nothing is locked for none.
            after: the revision that the decision was made from.
            access_head: the revision of the access ledger whose roles it was judged by.

        Raises:
            StaleRevision: the rollout has moved on; read it again and decide again.
            LedgerFormError: the ledger is still in form 1; says what to run.
            ValueError: an event has no canonical form.
        """
        event_list = tuple(events)
        if not event_list:
            return ()
        head = self._head(self._select_head().with_for_update())
        faults.point("append.locked")
        if head.revision != after:
            raise StaleRevision(f"{self._rollout.name} is at {head.revision}, not {after}: {AGAIN}")
        if head.form != FORM and head.revision:
            raise LedgerFormError(
                f"the ledger of {self._rollout.name} is in form {head.form}; stop every replica "
                "and run `rollout db upgrade`"
            )
        rows = tuple(self._chained(event_list, head, access_head))
        self._insert(rows)
        faults.point("append.inserted")
        follow(self._transaction, self._rollout, event_list, after + 1)
        self._move(rows[-1], after)
        faults.point("append.moved")
        return rows

    def change_form(self, *, at: datetime, by: str) -> bool:
        """Write the last row of form 1; return whether there was anything to do."""
        head = self._head(self._select_head().with_for_update())
        if head.form == FORM or not head.revision:
            return False
        last = head.at or at
        row = form_changed_row(self._rollout.name, (head.revision, head.hash), max(at, last), by)
        self._insert((row,))
        self._move(row, head.revision)
        return True

    def rows(
        self, *, after: int = 0, until: int | None = None, kinds: Collection[str] = ()
    ) -> Iterator[Row]:
        """Yield the rows after one revision, up to and with another; of some kinds, or all."""
        for row in self._read(after, until, kinds):
            yield from read_rows(self._transaction, self._rollout, row)

    def lines(self, *, after: int = 0, until: int | None = None) -> Iterator[str]:
        """Yield the rows as lines of NDJSON, with body and hash as they are stored."""
        for row in self._read(after, until):
            yield from read_lines(self._transaction, self._rollout, row)

    def events(self, *, after: int = 0, until: int | None = None) -> Iterator[Event]:
        """Yield what happened after one revision, up to and with another; by default all."""
        return map(event_of, self.rows(after=after, until=until))

    def scope(self, known: Scope | None = None) -> Scope:
        """Return the scope now: the whole chain folded, or what came after a `known` scope."""
        start = Scope() if known is None else known
        return fold(self.events(after=start.revision), start)

    def scope_at(self, at: datetime) -> Scope:
        """Return the scope as it was at an instant: the chain up to its last row by then, folded.

        After a corrected clock rows with later times may stand before that row: they hold.
        """
        return self.scope_of(self.revision_at(at))

    def revision_at(self, at: datetime) -> int:
        """Return the revision of the last row by an instant, 0 where there was none yet."""
        query = select(func.coalesce(func.max(ledger.c.revision), 0)).where(
            ledger.c.rollout == self._rollout.number, ledger.c.at <= at
        )
        return int(self._transaction.execute(query).scalar_one())

    def told_by(self, actor: str, kind: str, *, since: datetime) -> int:
        """Return how many events of a kind somebody has caused since an instant."""
        query = select(func.count()).where(
            ledger.c.rollout == self._rollout.number,
            ledger.c.kind.in_(stored_kinds({kind})),
            ledger.c.actor.in_(stored_actors(self._transaction, actor)),
            ledger.c.at > since,
        )
        return int(self._transaction.execute(query).scalar_one())

    def scope_of(self, revision: int) -> Scope:
        """Return the scope as it was at a revision."""
        start = Scopes(self._transaction, self._rollout).newest(until=revision)
        return fold(self.events(after=start.revision, until=revision), start)

    def verify(self) -> Head:
        """Recompute every link from the stored text, and return the last row's place.

        Raises:
            BrokenChainError: at the first row that is not what its hash, form or place says, or
                after the last one if the head is not that row.
        """
        last = Head(0, "", None)
        for row in verified(self.lines()):
            last = Head(row.revision, row.hash, instant_of(row.at))
        if last != self.head():
            raise BrokenChainError(last.revision + 1, f"the head is {self.head()}, not {last}")
        return last

    def _chained(
        self, events: Sequence[Event], head: Head, access_head: int | None
    ) -> Iterator[Row]:
        previous = head.hash
        accounts = {name for event in events for name in accounts_of(event)}
        names = Accounts(self._transaction).add_names(accounts)
        for revision, event in enumerate(events, start=head.revision + 1):
            row = row_of(
                self._rollout.name,
                revision,
                event,
                previous,
                salts=_random_salt,
                names=names,
                access_head=access_head,
            )
            previous = row.hash
            yield row

    def _insert(self, rows: Sequence[Row]) -> None:
        values = [
            {
                "rollout": self._rollout.number,
                "revision": row.revision,
                "at": instant_of(row.at),
                "kind": row.kind,
                "actor": row.actor,
                "body": canonical(row.body),
                "access_head": row.access_head,
                "previous": row.previous,
                "hash": row.hash,
                "slot": None if row.slot is None else instant_of(row.slot),
                "form": row.form,
            }
            for row in rows
        ]
        texts = [
            {
                "rollout": self._rollout.number,
                "revision": row.revision,
                "field": name,
                "salt": text.salt,
                "text": text.text,
            }
            for row in rows
            for name, text in row.texts.items()
        ]
        try:
            self._transaction.execute(insert(ledger), values)
        except IntegrityError as error:
            raise StaleRevision(f"revision {rows[0].revision} is there: {AGAIN}") from error
        if texts:
            self._transaction.execute(insert(ledger_texts), texts)

    def _move(self, last: Row, after: int) -> None:
        """Move the head by compare-and-set: were the lock lost, the append would still fail."""
        result = self._transaction.execute(
            update(ledger_heads)
            .where(ledger_heads.c.rollout == self._rollout.number)
            .where(ledger_heads.c.revision == after)
            .values(revision=last.revision, hash=last.hash, at=instant_of(last.at), form=FORM)
        )
        if result.rowcount != 1:
            raise StaleRevision(f"{self._rollout.name} moved on from {after}: {AGAIN}")

    def _select_head(self) -> Select[Any]:
        return select(ledger_heads).where(ledger_heads.c.rollout == self._rollout.number)

    def _head(self, query: Select[Any]) -> Head:
        row = self._transaction.execute(query).one()
        return Head(row.revision, row.hash, row.at, row.form)

    def _read(
        self, after: int, until: int | None, kinds: Collection[str] = ()
    ) -> Iterator[Sequence[Found[Any]]]:
        rows = self._some(after, until, kinds)
        yield rows
        while len(rows) == AT_ONCE:
            rows = self._some(rows[-1].revision, until, kinds)
            yield rows

    def _some(self, after: int, until: int | None, kinds: Collection[str]) -> Sequence[Found[Any]]:
        query = (
            select(ledger, type_coerce(ledger.c.at, BigInteger).label("micros"))
            .where(ledger.c.rollout == self._rollout.number, ledger.c.revision > after)
            .order_by(ledger.c.revision)
            .limit(AT_ONCE)
        )
        if until is not None:
            query = query.where(ledger.c.revision <= until)
        if kinds:
            query = query.where(ledger.c.kind.in_(stored_kinds(kinds)))
        return self._transaction.execute(query).all()


def _random_salt(_revision: int, _field: str) -> bytes:
    return secrets.token_bytes(SALT_BYTES)
