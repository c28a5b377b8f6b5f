"""The cases that users declared as planted, before any record of them.

A declaration holds the hash of the case's key, under a number of its own. The case gets its number
with its first record, as every case does: the order of numbers tells nobody which are planted.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from hashlib import sha256

from sqlalchemy import ColumnElement, func, insert, select

from rollout.core.calendar.instants import to_micros
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.exposures import ExposureStore
from rollout.store.records.external_keys import DECLARED, ExternalKeys, KeyIds
from rollout.store.tables.tables import cases, external_keys, planted_cases


class PlantedCases:
    """The planted cases of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def find(self, keys: Collection[str], *, lock: bool = False) -> dict[str, int]:
        """Return the declarations' numbers of keys; none for others, and in most rollouts.

        With `lock` other transactions wait before they receive or declare the case.
        """
        return self._keys.find_hashed(keys, DECLARED, lock=lock)

    def find_times(self, keys: Iterable[str]) -> dict[str, datetime]:
        """Return of the planted ones of many keys when the service received the declaration.

        The keys are read only if the rollout has declarations.
        """
        query = (
            select(external_keys.c.key, planted_cases.c.declared_at)
            .join(planted_cases, external_keys.c.id == planted_cases.c.case_id)
            .where(planted_cases.c.rollout == self._rollout.number, *self._is_declaration)
        )
        times = {row.key: row.declared_at for row in self._transaction.execute(query)}
        hash_key = self._keys.hash_key
        return {key: times[h] for key in keys if (h := hash_key(key)) in times} if times else {}

    def receive(self, key_ids: KeyIds) -> set[int]:
        """Return which cases of a batch are planted.

        Who declared a case that is new knows it from now on by its number.
        """
        declared = self._keys.find_declared(key_ids)
        numbers = {key_ids.by_key[key]: number for key, number in declared.items()}
        new = {number: case_id for case_id, number in numbers.items() if case_id in key_ids.new_ids}
        ExposureStore(self._transaction, self._rollout).copy(new)
        return set(numbers)

    def add(self, case_ids: Collection[int], *, at: datetime, revision: int) -> None:
        """Turn keys without records into declarations, under the numbers that they had.

        Their event has this revision and belongs into the transaction.
        """
        self._keys.purge(case_ids, DECLARED)
        common = {"rollout": self._rollout.number, "declared_at": at, "revision": revision}
        rows = [{**common, "case_id": case_id} for case_id in sorted(case_ids)]
        self._transaction.execute(insert(planted_cases), rows)

    def count(self) -> tuple[int, int]:
        """Return how many cases are declared, and of how many the case has come."""
        declared = select(func.count()).select_from(external_keys).where(*self._is_declaration)
        received = select(func.count(cases.c.case_id.distinct())).where(
            cases.c.rollout == self._rollout.number, cases.c.planted.is_(True)
        )
        return (
            self._transaction.execute(declared).scalar_one(),
            self._transaction.execute(received).scalar_one(),
        )

    def load_digests(self) -> dict[int, tuple[int, str, int]]:
        """Return by revision of its event the number of cases declared, their digest, and when.

        When is -1 for cases that don't agree on it.
        """
        query = (
            select(planted_cases.c.revision, planted_cases.c.declared_at, external_keys.c.key)
            .join(planted_cases, external_keys.c.id == planted_cases.c.case_id)
            .where(planted_cases.c.rollout == self._rollout.number, *self._is_declaration)
        )
        hashes: dict[int, list[str]] = {}
        times: dict[int, int] = {}
        for row in self._transaction.execute(query):
            at = to_micros(row.declared_at)
            hashes.setdefault(row.revision, []).append(row.key)
            times[row.revision] = at if times.setdefault(row.revision, at) == at else -1
        return {n: (len(h), join_key_hashes(h), times[n]) for n, h in hashes.items()}

    def compute_digest(self, keys: Collection[str]) -> str:
        """Return the digest of cases' keys, which nobody can guess without the salt."""
        return join_key_hashes(self._keys.hash_key(key) for key in keys)

    @property
    def _keys(self) -> ExternalKeys:
        return ExternalKeys(self._transaction, self._rollout)

    @property
    def _is_declaration(self) -> tuple[ColumnElement[bool], ...]:
        own = external_keys.c.rollout == self._rollout.number
        return own, external_keys.c.kind == DECLARED


def join_key_hashes(hashes: Iterable[str]) -> str:
    """Return the digest of hashes of keys, in whatever order."""
    return sha256("\n".join(sorted(hashes)).encode()).hexdigest()
