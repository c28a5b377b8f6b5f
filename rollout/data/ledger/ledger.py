"""The ledger of a rollout: entries, the scope that follows, its verification, pages and heads.

Actors: entries have opaque ids of accounts. Their names are stored apart, so that an erasure may
delete them.

Commit times: when appends were committed, by the clock of who committed. An entry's time is that of
its decision; until the commit no replica can know of it. A process that ends between commit and
note leaves none: then the first reader's time is stored.

Pages have the newest entry first. Revisions and recent activity of all rollouts are read in one
short query each.
"""

import json
import secrets
from base64 import b32encode
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Row,
    Select,
    exists,
    func,
    insert,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.exc import IntegrityError

from rollout import faults
from rollout.data.database.bulk import encode_driver_values, fetch_rows, insert_once, select_texts
from rollout.data.database.migrations import require_finished
from rollout.data.database.rollouts import Rollout, RolloutRepository, build_rollout
from rollout.data.database.session import Repository, Transaction
from rollout.data.ledger.projections import update_projections
from rollout.data.ledger.scopes import StoredScopes, delete_ended_snapshots
from rollout.data.tables.record_tables import decode_instant
from rollout.data.tables.tables import (
    account_names,
    evidence_heads,
    incidents,
    ledger,
    ledger_commits,
    ledger_heads,
    ledger_texts,
    pending_stops,
    proposals,
    rollouts,
    versions,
)
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import EventT, LedgerEvent
from rollout.engine.ledger import forms
from rollout.engine.ledger.access_events import AccountNames, is_account_id, is_account_name
from rollout.engine.ledger.ledger import (
    NO_TEXTS,
    SALT_BYTES,
    TEXT_FIELDS,
    BrokenLedgerError,
    CanonicalRow,
    LedgerText,
    accounts_in,
    accounts_of,
    build_row,
    parse_as,
    parse_event,
    texts_of,
    to_canonical_json,
    verify_lines,
)
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.errors import StaleRevisionError
from rollout.kernel.policy.evidence_sources import (
    CountedOutcomeSource,
    CountedSource,
    RegisteredUnits,
)

NAMES_PER_QUERY = 500  # names in one query

SourceT = TypeVar("SourceT", CountedSource, CountedOutcomeSource, RegisteredUnits)


class Accounts(Repository):
    """The ids of all accounts that a ledger names."""

    def find_names(self, accounts: Iterable[str]) -> AccountNames:
        """Return the names of those accounts that are ids and have one."""
        account_ids = sorted({account for account in accounts if is_account_id(account)})
        names: dict[str, str] = {}
        for start in range(0, len(account_ids), NAMES_PER_QUERY):
            part = account_ids[start : start + NAMES_PER_QUERY]
            query = select(account_names).where(
                account_names.c.account.in_(part), account_names.c.name.is_not(None)
            )
            names |= {row.name: row.account for row in self._transaction.execute(query)}
        return AccountNames.from_ids(names)

    def name_sources(self, counts: Sequence[SourceT]) -> tuple[SourceT, ...]:
        """Return counts by source with the names of accounts."""
        names = self.find_names(count.source for count in counts)
        return tuple(replace(count, source=names.find_name(count.source)) for count in counts)

    def find_ids(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the ids of the names that have one."""
        engine = self._transaction.engine
        encoded = encode_driver_values(engine, names)
        return dict(fetch_rows(self._transaction, _build_ids_query(engine), {"names": encoded}))

    def add_id(self, name: str) -> str:
        """Return the id of a name, created if missing; an actor without account keeps its name."""
        return self.add_names([name]).find_id(name)

    def clear_name(self, account: str) -> None:
        """Delete the name of an id; ledgers show the id from then on."""
        self._transaction.execute(
            update(account_names).where(account_names.c.account == account).values(name=None)
        )

    def add_names(self, names: Iterable[str]) -> AccountNames:
        """Return the ids of names; missing ids are created."""
        valid_names = {name for name in names if is_account_name(name)}
        if not valid_names:
            return AccountNames()
        ids = self.find_ids(valid_names)
        for name in sorted(valid_names - ids.keys()):
            row = {"account": random_account_id(), "name": name}
            insert_once(self._transaction, account_names, row)
        return AccountNames.from_ids(
            ids if ids.keys() == valid_names else self.find_ids(valid_names)
        )


@cache
def _build_ids_query(engine: str) -> Select[Any]:
    """Return the query for names and ids, which each batch of records asks for its sender."""
    return select(account_names.c.name, account_names.c.account).where(
        account_names.c.name.in_(select_texts(engine, "names"))
    )


def random_account_id() -> str:
    """Return a new id: `u-` and 16 letters or digits.

    It has 80 random bits.
    """
    return "u-" + b32encode(secrets.token_bytes(10)).decode().lower()


Texts = Mapping[int, Mapping[str, LedgerText]]


def read_rows(
    transaction: Transaction, rollout: Rollout, stored_rows: Sequence[Row[Any]]
) -> Iterator[CanonicalRow]:
    """Yield canonical rows; `stored_rows` has the table's columns and `micros`."""
    with_text = [
        row.revision
        for row in stored_rows
        if any(f'"{name}_hash"' in row.body for name in TEXT_FIELDS.get(row.kind, ()))
    ]
    texts = _read_texts(transaction, rollout, with_text)
    bodies = [json.loads(row.body) for row in stored_rows]
    names = _read_names(transaction, stored_rows, bodies)
    for row, body in zip(stored_rows, bodies, strict=True):
        yield CanonicalRow(
            rollout=rollout.name,
            revision=row.revision,
            at=row.micros,
            kind=row.kind,
            actor=row.actor,
            body=body,
            access_head=row.access_head,
            previous=row.previous,
            slot=None if row.slot is None else to_micros(row.slot),
            texts=texts.get(row.revision, NO_TEXTS),
            names=names,
        )


def read_lines(
    transaction: Transaction, rollout: Rollout, stored_rows: Sequence[Row[Any]]
) -> Iterator[str]:
    """Yield rows as lines, with body and hash as stored for verification."""
    # also those whose hash no body has
    with_text = [row.revision for row in stored_rows if TEXT_FIELDS.get(row.kind)]
    texts = _read_texts(transaction, rollout, with_text)
    for row in stored_rows:
        yield _format_line(rollout.name, row, texts.get(row.revision, NO_TEXTS))


def load_actor_names(transaction: Transaction, stored_actors: Iterable[str]) -> list[str]:
    """Return the names of actors, sorted; an id whose name is erased stays."""
    actors = frozenset(stored_actors)
    return sorted(set(map(Accounts(transaction).find_names(actors).find_name, actors)))


def _read_texts(transaction: Transaction, rollout: Rollout, revisions: Sequence[int]) -> Texts:
    texts: dict[int, dict[str, LedgerText]] = defaultdict(dict)
    if not revisions:
        return texts
    query = select(ledger_texts).where(
        ledger_texts.c.rollout == rollout.number,
        ledger_texts.c.revision.between(min(revisions), max(revisions)),
    )
    for row in transaction.execute(query):
        texts[row.revision][row.field] = LedgerText(row.salt, row.text)
    return texts


def _read_names(
    transaction: Transaction, stored_rows: Sequence[Row[Any]], bodies: Sequence[dict[str, Any]]
) -> AccountNames:
    accounts = {row.actor for row in stored_rows}
    for row, body in zip(stored_rows, bodies, strict=True):
        accounts.update(accounts_in(row.kind, body))
    return Accounts(transaction).find_names(accounts)


def _format_line(rollout: str, row: Row[Any], texts: Mapping[str, LedgerText]) -> str:
    leading_fields = {"access_head": row.access_head, "actor": row.actor, "at": row.micros}
    trailing_fields = {
        "hash": row.hash,
        "kind": row.kind,
        "previous": row.previous,
        "revision": row.revision,
        "rollout": rollout,
        "slot": None if row.slot is None else to_micros(row.slot),
        **texts_of(texts),
    }
    head, tail = to_canonical_json(leading_fields), to_canonical_json(trailing_fields)
    return f'{head[:-1]},"body":{row.body},{tail[1:]}'


RETRY_HINT = "read it again and decide again"
ROWS_PER_READ = 500  # rows in one query
NEWEST_ROWS = 500  # read before the index, because most questions are about recent times


@dataclass(frozen=True, slots=True)
class StoredLedgerHead:
    """The last entry of a ledger; revision 0 if empty."""

    revision: int
    hash: str
    at: datetime | None


class Ledger(RolloutRepository):
    """The ledger of one rollout."""

    def load_head(self) -> StoredLedgerHead:
        """Return the head, without reading entries."""
        return self._load_head(self._select_head())

    def lock_head(self) -> None:
        """Let no other transaction append until this one ends."""
        self._load_head(self._select_head().with_for_update())

    def append(
        self,
        events: Iterable[LedgerEvent],
        *,
        after: int,
        access_head: int | None = None,
    ) -> tuple[CanonicalRow, ...]:
        """Append `events` after revision `after` and return their rows.

        Without events nothing is locked. `access_head` is the revision of the access ledger whose
        roles were checked. What gives a model more is not appended while a stop is pending.

        Raises:
            StaleRevisionError: the ledger has a newer revision, or a stop is pending; read it again
                and decide again.
            UnfinishedUpgradeError: an older program that may still run can't read an event's form.
            ValueError: an event has no canonical form.
        """
        event_list = tuple(events)
        if not event_list:
            return ()
        for form in forms.find_newer_forms(event_list):
            require_finished(self._transaction, f"an entry with `{form}`")
        self._transaction.tally.appends.setdefault(self._rollout.name, type(event_list[0]).__name__)
        head = self._load_head(self._select_head().with_for_update())
        faults.reach_point("append.locked")
        if head.revision != after:
            raise StaleRevisionError(
                f"{self._rollout.name} is at {head.revision}, not {after}: {RETRY_HINT}"
            )
        rows = tuple(self._build_rows(event_list, head, access_head))
        self._insert_rows(rows)
        faults.reach_point("append.inserted")
        update_projections(self._transaction, self._rollout, event_list, after + 1)
        delete_ended_snapshots(self._transaction, self._rollout, event_list)
        self._move_head(rows[-1], after, event_list)
        faults.reach_point("append.moved")
        return rows

    def list_rows(
        self, *, after: int = 0, until: int | None = None, kinds: Collection[str] = ()
    ) -> Iterator[CanonicalRow]:
        """Yield rows of revisions (`after`, `until`], of some kinds or all."""
        for row in self._read_rows(after, until, kinds):
            yield from read_rows(self._transaction, self._rollout, row)

    def list_lines(self, *, after: int = 0, until: int | None = None) -> Iterator[str]:
        """Yield the rows as NDJSON lines, body and hash as stored."""
        for row in self._read_rows(after, until):
            yield from read_lines(self._transaction, self._rollout, row)

    def list_events(self, *, after: int = 0, until: int | None = None) -> Iterator[LedgerEvent]:
        """Yield the events of revisions (`after`, `until`]; by default all."""
        return map(parse_event, self.list_rows(after=after, until=until))

    def list_of(
        self, kind: type[EventT], *, after: int = 0, until: int | None = None
    ) -> Iterator[EventT]:
        """Yield the events of a kind in revisions (`after`, `until`]; by default all."""
        rows = self.list_rows(after=after, until=until, kinds=(kind.__name__,))
        return (parse_as(row, kind) for row in rows)

    def find_last_event(self, kind: str) -> LedgerEvent | None:
        """Return the newest event of a kind, or None."""
        query = select(func.max(ledger.c.revision)).where(
            ledger.c.rollout == self._rollout.number, ledger.c.kind == kind
        )
        revision = self._transaction.execute(query).scalar()
        if revision is None:
            return None
        return next(self.list_events(after=revision - 1, until=revision))

    def load_scope(self, known_scope: Scope | None = None) -> Scope:
        """Return the current scope; with `known_scope`, apply only later events."""
        start = Scope() if known_scope is None else known_scope
        return apply_events(self.list_events(after=start.revision), start)

    def load_scope_at(self, at: datetime) -> Scope:
        """Return the scope at a time: after the last entry by then.

        After a clock correction, entries with later times may precede that entry; they are applied.
        """
        return self.load_scope_of_revision(self.find_revision_at(at))

    def find_revision_at(self, at: datetime) -> int:
        """Return the revision of the last entry by a time, or 0.

        The newest entries are read first; other times are found by the index.
        """
        by_then = (ledger.c.rollout == self._rollout.number, ledger.c.at <= at)
        head = self._select_head().with_only_columns(ledger_heads.c.revision).scalar_subquery()
        newest = select(func.max(ledger.c.revision)).where(
            *by_then, ledger.c.revision > head - NEWEST_ROWS
        )
        # an expression, for which no database reads entries from the newest to the oldest
        by_index = select(func.max(ledger.c.revision + 0)).where(*by_then)
        query = select(func.coalesce(newest.scalar_subquery(), by_index.scalar_subquery(), 0))
        return int(self._transaction.execute(query).scalar_one())

    def load_scope_of_revision(self, revision: int) -> Scope:
        """Return the scope at a revision."""
        start = StoredScopes(self._transaction, self._rollout).load_newest(until=revision)
        return apply_events(self.list_events(after=start.revision, until=revision), start)

    def verify(self) -> StoredLedgerHead:
        """Recompute every hash from the stored text and return the head.

        Raises:
            BrokenLedgerError: a row contradicts its hash or position, or the head.
        """
        last = StoredLedgerHead(0, "", None)
        for row in verify_lines(self.list_lines()):
            last = StoredLedgerHead(row.revision, row.hash, decode_instant(row.at))
        if last != self.load_head():
            raise BrokenLedgerError(
                last.revision + 1, f"the head is {self.load_head()}, not {last}"
            )
        return last

    def _build_rows(
        self, events: Sequence[LedgerEvent], head: StoredLedgerHead, access_head: int | None
    ) -> Iterator[CanonicalRow]:
        previous = head.hash
        accounts = {name for event in events for name in accounts_of(event)}
        names = Accounts(self._transaction).add_names(accounts)
        for revision, event in enumerate(events, start=head.revision + 1):
            row = build_row(
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

    def _insert_rows(self, rows: Sequence[CanonicalRow]) -> None:
        values = [self._build_values(row) for row in rows]
        texts = [text for row in rows for text in self._build_texts(row)]
        try:
            self._transaction.execute(insert(ledger), values)
        except IntegrityError as error:
            raise StaleRevisionError(
                f"revision {rows[0].revision} exists already: {RETRY_HINT}"
            ) from error
        if texts:
            self._transaction.execute(insert(ledger_texts), texts)

    def _build_values(self, row: CanonicalRow) -> dict[str, Any]:
        return {
            "rollout": self._rollout.number,
            "revision": row.revision,
            "at": decode_instant(row.at),
            "kind": row.kind,
            "actor": row.actor,
            "body": to_canonical_json(row.body),
            "access_head": row.access_head,
            "previous": row.previous,
            "hash": row.hash,
            "slot": None if row.slot is None else decode_instant(row.slot),
        }

    def _build_texts(self, row: CanonicalRow) -> Iterator[dict[str, Any]]:
        key = {"rollout": self._rollout.number, "revision": row.revision}
        for name, text in row.texts.items():
            yield {**key, "field": name, "salt": text.salt, "text": text.text}

    def _move_head(self, last: CanonicalRow, after: int, events: Sequence[LedgerEvent]) -> None:
        """Move the head by compare-and-set, in case the lock was lost or a stop was stored."""
        gives_more = any(
            each.widens or each.ends_stop or (each.is_approved and not each.keeps_scope)
            for each in events
        )
        is_stopping = exists().where(pending_stops.c.rollout == self._rollout.name)
        result = self._transaction.execute(
            update(ledger_heads)
            .where(ledger_heads.c.rollout == self._rollout.number)
            .where(ledger_heads.c.revision == after, ~is_stopping if gives_more else true())
            .values(revision=last.revision, hash=last.hash, at=decode_instant(last.at))
        )
        if result.rowcount != 1:
            raise StaleRevisionError(
                f"{self._rollout.name} is no longer at {after}, or a stop is pending: {RETRY_HINT}"
            )

    def _select_head(self) -> Select[Any]:
        return select(ledger_heads).where(ledger_heads.c.rollout == self._rollout.number)

    def _load_head(self, query: Select[Any]) -> StoredLedgerHead:
        row = self._transaction.execute(query).one()
        return StoredLedgerHead(row.revision, row.hash, row.at)

    def _read_rows(
        self, after: int, until: int | None, kinds: Collection[str] = ()
    ) -> Iterator[Sequence[Row[Any]]]:
        rows = self._read_part(after, until, kinds)
        yield rows
        while len(rows) == ROWS_PER_READ:
            rows = self._read_part(rows[-1].revision, until, kinds)
            yield rows

    def _read_part(
        self, after: int, until: int | None, kinds: Collection[str]
    ) -> Sequence[Row[Any]]:
        query = (
            select(ledger, type_coerce(ledger.c.at, BigInteger).label("micros"))
            .where(ledger.c.rollout == self._rollout.number, ledger.c.revision > after)
            .order_by(ledger.c.revision)
            .limit(ROWS_PER_READ)
        )
        if until is not None:
            query = query.where(ledger.c.revision <= until)
        if kinds:
            query = query.where(ledger.c.kind.in_(kinds))
        return self._transaction.execute(query).all()


def _random_salt(_revision: int, _field: str) -> bytes:
    return secrets.token_bytes(SALT_BYTES)


class CommitTimes(RolloutRepository):
    """The commit times of one rollout's ledger, by the first revision of each append."""

    def store(self, first_revision: int, at: datetime) -> None:
        """Store an instant after the commit; the first one stays."""
        insert_once(
            self._transaction,
            ledger_commits,
            {"rollout": self._rollout.number, "revision": first_revision, "committed_at": at},
        )

    def find(self, first_revision: int) -> datetime | None:
        """Return the stored instant of the append that begins with a revision, or None."""
        query = select(ledger_commits.c.committed_at).where(
            ledger_commits.c.rollout == self._rollout.number,
            ledger_commits.c.revision == first_revision,
        )
        at: datetime | None = self._transaction.execute(query).scalar()
        return at


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


class LedgerPages(RolloutRepository):
    """One ledger, read from its end."""

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
            ids = Accounts(self._transaction).find_ids([row_filter.actor])
            query = query.where(ledger.c.actor == ids.get(row_filter.actor, row_filter.actor))
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


def load_revisions(transaction: Transaction) -> dict[str, str]:
    """Return for each rollout a text that changes with its state.

    It changes with the ledger and with evidence.
    """
    rows = transaction.execute(
        select(rollouts.c.name, ledger_heads.c.revision, ledger_heads.c.hash)
        .add_columns(evidence_heads.c.through)
        .join(ledger_heads, ledger_heads.c.rollout == rollouts.c.id)
        .join(evidence_heads, evidence_heads.c.rollout == rollouts.c.id)
    )
    return {row.name: f"{row.revision}.{row.hash[:8]}.{row.through}" for row in rows}


VersionsMark = tuple[int, datetime | None]
"""How many facts of versions are stored, which are only added, and when the newest came."""


def find_rollout_head(
    transaction: Transaction, rollout_name: str
) -> tuple[Rollout, StoredLedgerHead, VersionsMark] | None:
    """Return the rollout with this name, its ledger's head and its versions' mark, or None."""
    marks = [
        select(value).where(versions.c.rollout == rollouts.c.id).scalar_subquery().label(name)
        for name, value in (("facts", func.count()), ("newest", func.max(versions.c.recorded_at)))
    ]
    query = select(rollouts, ledger_heads, *marks).join(
        ledger_heads, ledger_heads.c.rollout == rollouts.c.id
    )
    return transaction.find(
        query.where(rollouts.c.name == rollout_name),
        lambda row: (
            build_rollout(row),
            StoredLedgerHead(row.revision, row.hash, row.at),
            (row.facts, row.newest),
        ),
    )


def load_heads(transaction: Transaction) -> Mapping[str, tuple[int, StoredLedgerHead]]:
    """Return each rollout's number and ledger head, by name."""
    query = select(rollouts.c.name, ledger_heads).join(
        ledger_heads, ledger_heads.c.rollout == rollouts.c.id
    )
    rows = transaction.execute(query)
    return {
        row.name: (row.rollout, StoredLedgerHead(row.revision, row.hash, row.at)) for row in rows
    }
