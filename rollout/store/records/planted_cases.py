"""The cases that users declared as planted, before any record of them."""

from collections.abc import Collection, Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final

from sqlalchemy import bindparam, func, insert, select

from rollout.store.database.bulk import fetch_rows
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.tables.tables import cases, external_keys, planted_cases


class PlantedCases:
    """The planted cases of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def find(self, case_ids: Collection[int]) -> set[int]:
        """Return which of some cases are planted; most rollouts have none."""
        if not case_ids or not fetch_rows(
            self._transaction, ANY_PLANTED_QUERY, {"rollout": self._rollout.number}
        ):
            return set()
        query = select(planted_cases.c.case_id).where(
            *match_cases(self._transaction, self._rollout, planted_cases, case_ids)
        )
        return set(self._transaction.execute(query).scalars())

    def find_received(self, case_ids: Collection[int]) -> set[int]:
        """Return of which planted cases the case has come."""
        query = select(cases.c.case_id).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids)
        )
        return set(self._transaction.execute(query).scalars())

    def add(self, case_ids: Collection[int], *, at: datetime, revision: int) -> None:
        """Store declarations; their event has this revision and belongs into the transaction."""
        common = {"rollout": self._rollout.number, "declared_at": at, "revision": revision}
        rows = [{**common, "case_id": case_id} for case_id in sorted(case_ids)]
        self._transaction.execute(insert(planted_cases), rows)

    def count(self) -> tuple[int, int]:
        """Return how many cases are declared, and of how many the case has come."""
        own = planted_cases.c.rollout == self._rollout.number
        declared = select(func.count()).select_from(planted_cases).where(own)
        received = select(func.count(cases.c.case_id.distinct())).where(
            cases.c.rollout == self._rollout.number, cases.c.planted.is_(True)
        )
        return (
            self._transaction.execute(declared).scalar_one(),
            self._transaction.execute(received).scalar_one(),
        )

    def load_digests(self) -> dict[int, tuple[int, str]]:
        """Return by revision of its event the number of cases declared, and their digest."""
        query = (
            select(planted_cases.c.revision, external_keys.c.kind, external_keys.c.key)
            .join(external_keys, external_keys.c.id == planted_cases.c.case_id)
            .where(planted_cases.c.rollout == self._rollout.number)
        )
        keys = ExternalKeys(self._transaction, self._rollout)
        hashes: dict[int, list[str]] = {}
        for row in self._transaction.execute(query):
            key_hash = keys.hash_key(row.key) if row.kind == "case" else row.key
            hashes.setdefault(row.revision, []).append(key_hash)
        return {revision: (len(h), join_key_hashes(h)) for revision, h in hashes.items()}

    def compute_digest(self, keys: Collection[str]) -> str:
        """Return the digest of cases' keys, which nobody can guess without the salt."""
        external = ExternalKeys(self._transaction, self._rollout)
        return join_key_hashes(external.hash_key(key) for key in keys)


def join_key_hashes(hashes: Iterable[str]) -> str:
    """Return the digest of hashes of keys, in whatever order."""
    return sha256("\n".join(sorted(hashes)).encode()).hexdigest()


ANY_PLANTED_QUERY: Final = (
    select(planted_cases.c.case_id).where(planted_cases.c.rollout == bindparam("rollout")).limit(1)
)
