"""Hashes of records, which cover everything that decides whether and how a record counts.

A record's `hash` is that of the sender's content, which finds repeats. Its `record_hash` is the
SHA-256 over 16 random bytes (`salt`), the line `rollout-record-1 KIND` and canonical JSON: the
columns of its row by name, with the keys of its case and episode instead of their numbers, without
those that are null (`format_rows`). A new column that is null in stored rows changes no hash.

An erasure deletes the random bytes with the record, so that nobody can test guesses of its content
against the hashes that stay: those of counted units, and those of `ErasedHashes`.
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, insert, select

from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.records.record_rows import RECORD_SCHEMAS, ColumnsByName, format_rows
from rollout.store.tables.tables import erased_hashes

RECORD_SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
PLANTED: Final = "planted"
NOT_COVERED: Final = frozenset({"rollout", "case_id", "hash", "salt", "record_hash"})
"""The columns that a hash doesn't cover: numbers of this database, and the hashes."""


class CaseHash(NamedTuple):
    """The hash of one record of a case; `version` is "" unless it is a prediction."""

    case_id: int
    version: str
    hash: bytes


def build_hash_columns(name: str, columns: ColumnsByName) -> dict[str, Sequence[Any]]:
    """Return salt and hash of new records, given as stored columns with their keys."""
    salts = _draw_salts(len(columns["key"]))
    return {"salt": salts, "record_hash": compute_record_hashes(name, columns, salts)}


def compute_record_hashes(name: str, columns: ColumnsByName, salts: Iterable[bytes]) -> list[bytes]:
    """Return the hashes of records of one kind.

    Args:
        name: the kind, as `RecordSchema.name`.
        columns: the stored values by column; a column that is missing is null.
        salts: the random bytes of each record.
    """
    texts = format_rows({key: columns[key] for key in columns.keys() - NOT_COVERED})
    head = f"rollout-record-1 {name}\n".encode()
    return [
        sha256(salt + head + text.encode()).digest()
        for salt, text in zip(salts, texts, strict=True)
    ]


def _draw_salts(row_count: int) -> list[bytes]:
    drawn = secrets.token_bytes(RECORD_SALT_BYTES * row_count)
    return [
        drawn[start : start + RECORD_SALT_BYTES]
        for start in range(0, len(drawn), RECORD_SALT_BYTES)
    ]


def load_case_hashes(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> list[CaseHash]:
    """Return the hashes of all records of some cases."""
    return [
        CaseHash(row.case_id, getattr(row, "version", ""), bytes(row.record_hash))
        for schema in RECORD_SCHEMAS.values()
        for row in transaction.execute(
            _select_hashes(schema.table).where(
                *match_cases(transaction, rollout, schema.table, case_ids)
            )
        )
    ]


HASHES_PER_QUERY: Final = 500
NEAR_CASES: Final = 10_000
ALL_CASES: Final = 2**62


def find_stored_hashes(
    transaction: Transaction, rollout: Rollout, hashes: Collection[bytes], near: Collection[int]
) -> set[bytes]:
    """Return which of some hashes a record of any case has.

    Cases of numbers near these were stored at about the same time, so they are searched first.
    """
    parts = [*hashes]
    stored_hashes: set[bytes] = set()
    for distance in (NEAR_CASES, ALL_CASES):
        span = min(near) - distance, max(near) + distance
        for schema in RECORD_SCHEMAS.values():
            for start in range(0, len(parts), HASHES_PER_QUERY):
                query = _select_hashes(schema.table).where(
                    schema.table.c.rollout == rollout.number,
                    schema.table.c.case_id.between(*span),
                    schema.table.c.record_hash.in_(parts[start : start + HASHES_PER_QUERY]),
                )
                stored_hashes |= {bytes(row.record_hash) for row in transaction.execute(query)}
        if stored_hashes.issuperset(parts):
            break
    return stored_hashes


def _select_hashes(table: Table) -> Any:
    names = ("case_id", "version") if table.name == "predictions" else ("case_id",)
    return select(*(table.c[name] for name in names), table.c.record_hash)


def join_hashes(hashes: Iterable[bytes]) -> bytes:
    """Return hashes sorted and joined, as they are stored."""
    return b"".join(sorted(hashes))


def split_hashes(joined: bytes) -> list[bytes]:
    """Return the hashes of a stored value."""
    return [joined[start : start + HASH_BYTES] for start in range(0, len(joined), HASH_BYTES)]


class ErasedHashes:
    """The hashes of records of one rollout that purges and erasures took."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def store(self, hashes: Iterable[tuple[int, bytes]], *, revision: int) -> str:
        """Store pairs of case and hash; return the digest for the ledger.

        Call it in the transaction that deletes the content and appends the event of `revision`.
        The digest is "" without hashes.
        """
        hashes_by_case: dict[int, set[bytes]] = {}
        for case_id, record_hash in hashes:
            hashes_by_case.setdefault(case_id, set()).add(record_hash)
        rows = [
            (case_id, join_hashes(hashes_by_case[case_id])) for case_id in sorted(hashes_by_case)
        ]
        if not rows:
            return ""
        key = {"rollout": self._rollout.number, "revision": revision}
        values = [{**key, "case_id": case_id, "hashes": joined} for case_id, joined in rows]
        self._transaction.execute(insert(erased_hashes), values)
        return _compute_digest(rows)

    def store_cases(self, case_ids: Collection[int], *, revision: int) -> str:
        """Store the hashes of all records of some cases, before these are deleted."""
        hashes = load_case_hashes(self._transaction, self._rollout, case_ids)
        return self.store(((row.case_id, row.hash) for row in hashes), revision=revision)

    def compute_digest(self, revision: int) -> str:
        """Return the digest of what is stored for an event; "" without hashes."""
        query = (
            select(erased_hashes.c.case_id, erased_hashes.c.hashes)
            .where(erased_hashes.c.rollout == self._rollout.number)
            .where(erased_hashes.c.revision == revision)
            .order_by(erased_hashes.c.case_id)
        )
        rows = self._transaction.execute(query)
        return _compute_digest((row.case_id, bytes(row.hashes)) for row in rows)

    def list_revisions(self) -> list[int]:
        """Return the revisions of events that took hashes."""
        query = select(erased_hashes.c.revision).distinct()
        own = query.where(erased_hashes.c.rollout == self._rollout.number)
        return sorted(self._transaction.execute(own).scalars())

    def find_revisions(
        self, hashes: Collection[bytes], case_ids: Collection[int]
    ) -> dict[bytes, int]:
        """Return the revision of the event that took each hash, if one did.

        The hashes of `case_ids` are read first; only if some are missing, as in an episode whose
        other cases are gone, all are.
        """
        if not hashes:
            return {}
        revisions = self.load_by_case(case_ids)
        if not revisions.keys() >= set(hashes):
            revisions |= {
                record_hash: revision
                for record_hash, revision in self._list_all()
                if record_hash in hashes
            }
        return {part: revisions[part] for part in hashes if part in revisions}

    def _list_all(self) -> Iterator[tuple[bytes, int]]:
        query = select(erased_hashes.c.revision, erased_hashes.c.hashes).where(
            erased_hashes.c.rollout == self._rollout.number
        )
        for row in self._transaction.execute(query.execution_options(yield_per=1_000)):
            for record_hash in split_hashes(bytes(row.hashes)):
                yield record_hash, row.revision

    def load_by_case(self, case_ids: Collection[int]) -> dict[bytes, int]:
        """Return the revision of the event by hash, of records of some cases."""
        query = select(erased_hashes.c.revision, erased_hashes.c.hashes).where(
            *match_cases(self._transaction, self._rollout, erased_hashes, case_ids)
        )
        return {
            record_hash: row.revision
            for row in self._transaction.execute(query)
            for record_hash in split_hashes(bytes(row.hashes))
        }


def _compute_digest(rows: Iterable[tuple[int, bytes]]) -> str:
    digest, is_empty = sha256(), True
    for case_id, joined in rows:
        digest.update(f"{case_id} {joined.hex()}\n".encode())
        is_empty = False
    return "" if is_empty else digest.hexdigest()
