"""The keys that callers gave, each stored once and known by a number from then on.

The numbers rise with time, so that whatever is keyed by them is written where it was written
last; a random text as the key of every table cost two thirds of the insert rate when measured.
"""

import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import Integer, Select, Text, bindparam, literal, select, update
from sqlalchemy.sql.dml import ReturningInsert

from rollout.store.database import value_lists
from rollout.store.database.bulk import inserting
from rollout.store.database.driver_statements import fetched
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import external_keys

CASE, EPISODE, PURGED = "case", "episode", "purged"


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of some keys.

    Attributes:
        of: each key's number.
        new: those given in this transaction; nobody else can have written under them.
        purged: those of cases whose records were deleted; their keys are kept as hashes alone.
    """

    of: Mapping[str, int]
    new: frozenset[int]
    purged: frozenset[int]


class CallerKeys:
    """The keys of one kind in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout, kind: str = CASE) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._kind = kind

    def number(self, keys: Iterable[str], *, hold: bool = True) -> Numbers:
        """Return the numbers of keys, given now to those that have none.

        With `hold` nobody else writes under any of them until this transaction ends: who wants
        to, waits.
        """
        unique_keys = dict.fromkeys(keys)
        existing = self.find(unique_keys, hold=hold)
        purged_ids = self._purged([key for key in unique_keys if key not in existing])
        missing_keys = [key for key in unique_keys if key not in existing and key not in purged_ids]
        inserted = self._add(missing_keys) if missing_keys else {}
        conflicting_keys = [
            key for key in missing_keys if key not in inserted
        ]  # somebody came between
        inserted_by_others = self.find(conflicting_keys, hold=hold)
        return Numbers(
            of={**existing, **purged_ids, **inserted, **inserted_by_others},
            new=frozenset(inserted.values()),
            purged=frozenset(purged_ids.values()),
        )

    def purge(self, numbers: Collection[int]) -> None:
        """Forget keys: what is kept of each is a hash that nobody can make without the salt.

        A record that comes later under such a key is still known to have been there.
        """
        hashes = [
            {"gone": number, "key": self._hash(key), "kind": PURGED}
            for number, key in self.keys_of(numbers).items()
        ]
        if hashes:
            statement = update(external_keys).where(external_keys.c.id == bindparam("gone"))
            self._transaction.execute(statement, hashes)

    def _purged(self, keys: Collection[str]) -> dict[str, int]:
        """Return the numbers of keys that were purged; most rollouts have none."""
        if not keys or self._kind != CASE or not self._ever_purged():
            return {}
        hashes = {self._hash(key): key for key in keys}
        purged_ids = CallerKeys(self._transaction, self._rollout, PURGED).find(hashes)
        return {hashes[key_hash]: number for key_hash, number in purged_ids.items()}

    def _ever_purged(self) -> bool:
        parameters = {"rollout": self._rollout.number, "kind": PURGED}
        return bool(fetched(self._transaction, ANY_PURGED, parameters))

    def _hash(self, key: str) -> str:
        return hmac.digest(self._rollout.salt, f"purged\x1f{key}".encode(), "sha256").hex()

    def find(self, keys: Collection[str], *, hold: bool = False) -> dict[str, int]:
        """Return the numbers of those keys that have one; `hold` keeps others from writing."""
        if not keys:
            return {}
        query = _finding(self._transaction.engine, hold)
        return dict(fetched(self._transaction, query, self._own(keys)))

    def keys_of(self, numbers: Collection[int]) -> dict[int, str]:
        """Return the keys that numbers stand for."""
        rollout_column = (
            external_keys.c.rollout + 0
        )  # else SQLite reads every key by the index that has them
        query = (
            select(external_keys.c.id, external_keys.c.key)
            .where(rollout_column == self._rollout.number)
            .where(external_keys.c.kind == self._kind)
            .where(external_keys.c.id.in_(value_lists.numbers(self._transaction, numbers)))
        )
        return {row.id: row.key for row in self._transaction.execute(query)}

    def _add(self, keys: Collection[str]) -> dict[str, int]:
        statement = _adding(self._transaction.engine)
        return dict(fetched(self._transaction, statement, self._own(sorted(keys))))

    def _own(self, keys: Collection[str]) -> dict[str, Any]:
        engine = self._transaction.engine
        wrapped = value_lists.given(engine, keys) if engine == "sqlite" else value_lists.array(keys)
        return {"rollout": self._rollout.number, "kind": self._kind, "given": wrapped}


# Statements are made once: each batch needs them, and making them takes longer than running them.

OF_KIND: Final = (
    external_keys.c.rollout == bindparam("rollout"),
    external_keys.c.kind == bindparam("kind"),
)
ANY_PURGED: Final = select(external_keys.c.id).where(*OF_KIND).limit(1)


@cache
def _finding(engine: str, hold: bool) -> Select[Any]:
    query = select(external_keys.c.key, external_keys.c.id).where(
        *OF_KIND, external_keys.c.key.in_(value_lists.texts(engine, "given"))
    )
    if not hold:
        return query
    # in one order, so that two who hold several never wait for each other
    return query.order_by(external_keys.c.id).with_for_update(key_share=True)


@cache
def _adding(engine: str) -> ReturningInsert[Any]:
    rows = value_lists.texts(engine, "given").subquery("listed")
    bound_columns = (bindparam("rollout", type_=Integer), bindparam("kind", type_=Text))
    values = select(*bound_columns, rows.c.value).where(literal(value=True))
    return (
        inserting(engine, external_keys)
        .from_select(["rollout", "kind", "key"], values)
        .on_conflict_do_nothing()
        .returning(external_keys.c.key, external_keys.c.id)
    )
