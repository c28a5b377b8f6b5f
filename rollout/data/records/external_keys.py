"""Names that callers gave: keys of cases and episodes, erased ones, people and accounts.

Each key of a case or episode is stored once, with a number. Numbers rise with time, so tables keyed
by them grow at their end. When random texts were the keys of all tables, the insert rate was
measured to be two thirds lower.

Erased keys and names: what names them again is refused, and not stored. A hash that needs the
rollout's salt recognizes them. A batch reads what is refused before it stores anything, so an
erasure first waits for the batches that read it too early. SQLite has one writer.

Names of people and of accounts that send predictions tell reviewers from models.
"""

import hmac
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from rollout.data.database.bulk import (
    build_insert,
    encode_driver_values,
    fetch_rows,
    insert_new_rows,
    select_integers,
    select_numbers,
    select_texts,
)
from rollout.data.database.rollouts import Rollout, RolloutRepository, Rollouts
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import (
    decisions,
    external_keys,
    role_assignments,
    users,
    versions,
)
from rollout.engine.decide.permissions import REVIEWER, ROLES_BY_PERMISSION, Permission
from rollout.engine.records.records import Case, Decision, Record
from rollout.engine.records.reviews import fold_name

CASE, EPISODE, PURGED = "case", "episode", "purged"
ERASED, ERASED_EPISODE, ERASED_NAME = "erased", "erased-episode", "erased-name"
DECLARED: Final = "planted"
"""The kind of a declaration of a planted case: its key as a hash, with a number of its own."""
CASE_HASH_KINDS: Final = (PURGED, ERASED, DECLARED)
"""The kinds of keys that are hashes of cases' keys."""
KEYS_PER_READ: Final = 5_000
EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
HASH_PREFIXES: Final = {CASE: "purged", EPISODE: "episode", ERASED_NAME: "name"}
"""The first part of what is hashed; "purged" is part of stored hashes."""


@dataclass(frozen=True, slots=True)
class KeyIds:
    """The numbers of some keys.

    Attributes:
        by_key: the number of each key.
        new_ids: numbers assigned in this transaction; no other can have rows with them.
        purged_ids: numbers of cases whose records were purged or erased and whose keys are hashes.
        erased_ids: those that were erased on request.
        hashed_kinds: the kinds of hashes of cases' keys that the rollout has.
    """

    by_key: Mapping[str, int]
    new_ids: frozenset[int]
    purged_ids: frozenset[int]
    erased_ids: frozenset[int] = frozenset()
    hashed_kinds: frozenset[str] = frozenset()


class ExternalKeys(RolloutRepository):
    """The keys of one kind in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout, kind: str = CASE) -> None:
        super().__init__(transaction, rollout)
        self._kind = kind

    def assign_ids(
        self,
        keys: Iterable[str],
        *,
        lock: bool = True,
        received_at: Mapping[str, datetime] | None = None,
    ) -> KeyIds:
        """Return the numbers of keys; keys without one get the next.

        With `lock` other transactions wait before they write records of these keys. All keys are
        locked or inserted by one statement in sorted order, so overlapping batches don't deadlock.
        Keys in `received_at` are inserted by these times first, as if they had come one by one: on
        PostgreSQL such a batch may deadlock with another one, and is then to be repeated.
        """
        unique_keys = sorted(set(keys))
        if received_at:
            unique_keys.sort(key=lambda key: received_at.get(key, EARLIEST))
        if lock and self._transaction.engine == "postgresql":  # SQLite has one writer
            existing, inserted = self._assign_locked(unique_keys)
        else:
            existing = self.find_ids(unique_keys)
            missing_keys = [key for key in unique_keys if key not in existing]
            inserted = self._insert_keys(missing_keys, lock=lock)
            # others may have inserted or replaced a key meanwhile
            existing |= self.find_ids([key for key in missing_keys if key not in inserted])
        hashed_kinds = self._find_hashed_kinds() if unique_keys else frozenset()
        deleted = self._find_deleted_ids(inserted, hashed_kinds)
        self._delete_keys([inserted[key] for key in deleted])
        purged_ids = {key: number for key, (number, _) in deleted.items()}
        return KeyIds(
            by_key={**existing, **inserted, **purged_ids},
            new_ids=frozenset(number for key, number in inserted.items() if key not in deleted),
            purged_ids=frozenset(purged_ids.values()),
            erased_ids=frozenset(number for number, kind in deleted.values() if kind == ERASED),
            hashed_kinds=hashed_kinds,
        )

    def _assign_locked(self, keys: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """Return the numbers of existing keys and of inserted ones; all are locked.

        New cases take one statement, known ones two, and use up no numbers.
        """
        inserted = self._insert_keys(keys, lock=True)
        if inserted or not keys:
            return self.find_ids([key for key in keys if key not in inserted]), inserted
        existing = self.find_ids(keys, lock=True)
        if len(existing) < len(keys):  # others replaced a key meanwhile
            inserted = self._insert_keys(keys, lock=True)
            existing |= self.find_ids([key for key in keys if key not in inserted])
        return existing, inserted

    def purge(self, ids: Collection[int], kind: str = PURGED) -> None:
        """Replace keys by hashes that need the salt, and their kind by `kind`.

        A record that arrives later with such a key is recognized.
        """
        keys = {key: number for number, key in self.find_keys(ids).items()}
        hashes = [
            {"key_id": keys[key], "key": self.hash_key(key), "kind": kind}
            for key in sorted(keys)  # the order in which batches lock them
        ]
        if hashes:
            statement = update(external_keys).where(external_keys.c.id == bindparam("key_id"))
            self._transaction.execute(statement, hashes)

    def lock_ids(self, ids: Collection[int]) -> None:
        """Lock keys by their numbers, in the order in which batches lock them."""
        query = select(external_keys.c.id).where(
            external_keys.c.rollout + 0 == self._rollout.number,
            external_keys.c.id.in_(select_numbers(self._transaction, ids)),
        )
        self._transaction.execute(query.order_by(external_keys.c.key).with_for_update()).all()

    def change_kind(self, ids: Collection[int], kind: str) -> None:
        """Give keys of this kind another kind."""
        statement = update(external_keys).where(
            external_keys.c.rollout == self._rollout.number,
            external_keys.c.kind == self._kind,
            external_keys.c.id.in_(select_numbers(self._transaction, ids)),
        )
        self._transaction.execute(statement.values(kind=kind))

    def iterate_keys(self) -> Iterator[str]:
        """Yield all keys of this kind, in the order of their numbers, in parts."""
        query = select(external_keys.c.id, external_keys.c.key).where(
            external_keys.c.rollout == self._rollout.number, external_keys.c.kind == self._kind
        )
        last = 0
        while rows := self._transaction.execute(
            query.where(external_keys.c.id > last).order_by(external_keys.c.id).limit(KEYS_PER_READ)
        ).all():
            yield from (row.key for row in rows)
            last = rows[-1].id

    def hash_key(self, key: str) -> str:
        """Return the hash that replaces a key; it needs the rollout's salt."""
        content = f"{HASH_PREFIXES[self._kind]}\x1f{key}"
        return hmac.digest(
            self._rollout.salt, content.encode(errors="surrogatepass"), "sha256"
        ).hex()

    def find_hashed(
        self, keys: Collection[str], kind: str, *, lock: bool = False
    ) -> dict[str, int]:
        """Return the numbers of keys that were replaced by hashes of a kind."""
        if not keys or not self.find_kinds((kind,)):
            return {}
        return self._find_hashes(keys, kind, lock=lock)

    def find_declared(self, key_ids: KeyIds) -> dict[str, int]:
        """Return the declarations' numbers of keys just assigned, locked."""
        if DECLARED not in key_ids.hashed_kinds:
            return {}
        return self._find_hashes(key_ids.by_key, DECLARED, lock=True)

    def _find_hashes(
        self, keys: Collection[str], kind: str, *, lock: bool = False
    ) -> dict[str, int]:
        hashes = {self.hash_key(key): key for key in keys}
        ids = ExternalKeys(self._transaction, self._rollout, kind).find_ids(hashes, lock=lock)
        return {hashes[key_hash]: number for key_hash, number in ids.items()}

    def _find_deleted_ids(
        self, keys: Collection[str], hashed_kinds: Collection[str]
    ) -> dict[str, tuple[int, str]]:
        """Return number and kind of deleted keys; most rollouts have none."""
        if not keys:
            return {}
        return {
            key: (number, kind)
            for kind in (PURGED, ERASED)
            if kind in hashed_kinds
            for key, number in self._find_hashes(keys, kind).items()
        }

    def _find_hashed_kinds(self) -> frozenset[str]:
        return self.find_kinds(CASE_HASH_KINDS) if self._kind == CASE else frozenset()

    def find_kinds(self, kinds: tuple[str, ...]) -> frozenset[str]:
        """Return of which kinds the rollout has keys."""
        query = _build_kinds_query(kinds)
        ((*first_ids,),) = fetch_rows(self._transaction, query, {"rollout": self._rollout.number})
        return frozenset(
            kind for kind, first in zip(kinds, first_ids, strict=True) if first is not None
        )

    def _delete_keys(self, ids: Collection[int]) -> None:
        """Delete keys inserted by this transaction that were hashed before."""
        if ids:
            is_own = external_keys.c.id.in_(select_numbers(self._transaction, ids))
            self._transaction.execute(delete(external_keys).where(is_own))

    def find_ids(self, keys: Collection[str], *, lock: bool = False) -> dict[str, int]:
        """Return the numbers of existing keys; `lock` blocks other writers."""
        if not keys:
            return {}
        query = _build_find_query(self._transaction.engine, lock)
        # locking in one order prevents deadlocks
        return dict(
            fetch_rows(
                self._transaction, query, self._build_parameters(sorted(keys) if lock else keys)
            )
        )

    def find_keys(self, ids: Collection[int]) -> dict[int, str]:
        """Return the keys of numbers."""
        if not ids:
            return {}
        engine = self._transaction.engine
        encoded = encode_driver_values(engine, ids)
        parameters = {"rollout": self._rollout.number, "kind": self._kind, "ids": encoded}
        return dict(fetch_rows(self._transaction, _build_keys_query(engine), parameters))

    def _insert_keys(self, keys: Collection[str], *, lock: bool) -> dict[str, int]:
        """Insert new keys in this order; return their numbers.

        With `lock` the others are locked, if there is a new one.
        """
        if not keys:
            return {}
        statement = _build_insert(self._transaction.engine, lock)
        return dict(fetch_rows(self._transaction, statement, self._build_parameters(keys)))

    def _build_parameters(self, keys: Collection[str]) -> dict[str, Any]:
        encoded = encode_driver_values(self._transaction.engine, keys)
        return {"rollout": self._rollout.number, "kind": self._kind, "keys": encoded}


# Statements are built once: building them takes longer than running them.

KIND_FILTER: Final = (
    external_keys.c.rollout == bindparam("rollout"),
    external_keys.c.kind == bindparam("kind"),
)


@cache
def _build_kinds_query(kinds: tuple[str, ...]) -> Select[Any]:
    return select(*select_first_of_kinds(kinds))


def select_first_of_kinds(kinds: Iterable[str]) -> list[ColumnElement[Any]]:
    """Return columns with a number of each kind that the parameter `rollout` has; null for none.

    The kinds are literals: with parameters PostgreSQL plans to read all keys until one matches.
    """
    return [
        select(external_keys.c.id)
        .where(external_keys.c.rollout == bindparam("rollout"))
        .where(external_keys.c.kind == literal_column(f"'{kind}'"))
        .limit(literal_column("1"))
        .scalar_subquery()
        .label(f"n{position}")
        for position, kind in enumerate(kinds)
    ]


@cache
def _build_find_query(engine: str, lock: bool) -> Select[Any]:
    """Return the query for the numbers of keys.

    On PostgreSQL a lateral subquery looks up each key: a plan made of `in` compares all keys of the
    rollout with all keys of the batch as long as the table has no statistics.
    """
    keys = select_texts(engine, "keys")
    if engine == "sqlite":
        query = select(external_keys.c.key, external_keys.c.id)
        return query.where(*KIND_FILTER, external_keys.c.key.in_(keys))
    listed_keys = keys.subquery("listed_keys")
    lookup = select(external_keys.c.key, external_keys.c.id).where(
        *KIND_FILTER, external_keys.c.key == listed_keys.c.value
    )
    lookup = (
        lookup.with_for_update(key_share=True) if lock else lookup.order_by(external_keys.c.key)
    )
    rows = lookup.lateral("key_rows")
    return select(rows).select_from(listed_keys, rows)


@cache
def _build_keys_query(engine: str) -> Select[Any]:
    """Return the query for the keys of numbers; on PostgreSQL each is looked up, as above.

    The sum keeps both engines from reading all keys of the rollout by their index.
    """
    ids, columns = select_integers(engine, "ids"), (external_keys.c.id, external_keys.c.key)
    is_own = (
        external_keys.c.rollout + 0 == bindparam("rollout"),
        external_keys.c.kind == bindparam("kind"),
    )
    if engine == "sqlite":
        return select(*columns).where(*is_own, external_keys.c.id.in_(ids))
    listed_ids = ids.subquery("listed_ids")
    lookup = select(*columns).where(*is_own, external_keys.c.id == listed_ids.c.value)
    rows = lookup.order_by(external_keys.c.id).lateral("key_rows")  # its order keeps it apart
    return select(rows).select_from(listed_ids, rows)


def _build_missing_filter(engine: str) -> ColumnElement[bool]:
    """Return whether any key is missing: each insert that conflicts uses up a number.

    Each key is looked up until one is missing, as above.
    """
    listed_keys = select_texts(engine, "keys").subquery("sought_keys")
    number = (
        select(external_keys.c.id)
        .where(*KIND_FILTER, external_keys.c.key == listed_keys.c.value)
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    return exists(select(listed_keys.c.value).where(number.is_(None)))


@cache
def _build_insert(engine: str, lock: bool) -> ReturningInsert[Any]:
    rows = select_texts(engine, "keys").subquery()
    bound_columns = (bindparam("rollout", type_=Integer), bindparam("kind", type_=Text))
    values = select(*bound_columns, rows.c.value).where(
        _build_missing_filter(engine) if lock else literal(value=True)
    )
    insert: Any = build_insert(engine, external_keys)
    insert = insert.from_select(["rollout", "kind", "key"], values)
    if lock:  # an update that changes no row locks it
        key_columns = (external_keys.c.rollout, external_keys.c.kind, external_keys.c.key)
        unchanged = {"kind": insert.excluded.kind}
        insert = insert.on_conflict_do_update(
            index_elements=key_columns, set_=unchanged, where=false()
        )
    else:
        insert = insert.on_conflict_do_nothing()
    return insert.returning(external_keys.c.key, external_keys.c.id)  # type: ignore[no-any-return]


ERASED_KINDS: Final = (ERASED_EPISODE, ERASED_NAME)
ERASURE_LOCKS: Final = 2**40
"""PostgreSQL's advisory lock of a rollout is this and its number."""
ERASED_NAME_TEXT: Final = "this reviewer's name was erased on request; send another name"
ERASED_EPISODE_TEXT: Final = "this episode was erased on request; don't send its cases again"


def find_erased_items(
    transaction: Transaction,
    rollout: Rollout,
    items: Sequence[Record],
    erased_kinds: Collection[str] | None = None,
) -> Mapping[int, str]:
    """Return why items with an erased episode or reviewer are refused, by position.

    `erased_kinds` are those that the rollout has, if they were read in this transaction, after
    `hold_off_erasures`.
    """
    if erased_kinds is None and any(
        isinstance(item, Decision) or getattr(item, "episode", None) for item in items
    ):
        hold_off_erasures(transaction, rollout)
        erased_kinds = ExternalKeys(transaction, rollout).find_kinds(ERASED_KINDS)
    if not erased_kinds:  # as in most rollouts
        return {}
    episodes = {
        position: item.episode
        for position, item in enumerate(items)
        if isinstance(item, Case) and item.episode
    }
    reviewers = {
        position: item.reviewer for position, item in enumerate(items) if isinstance(item, Decision)
    }
    return {
        **_find_refused(transaction, rollout, episodes, EPISODE, ERASED_EPISODE),
        **_find_refused(transaction, rollout, reviewers, ERASED_NAME, ERASED_NAME),
        **_find_refused(
            transaction,
            rollout,
            {position: fold_name(reviewer) for position, reviewer in reviewers.items()},
            *(ERASED_NAME, ERASED_NAME),
        ),
    }


def hold_off_erasures(transaction: Transaction, rollout: Rollout) -> None:
    """Have erasures of names and episodes wait for this transaction; batches don't wait."""
    _lock_erasures(transaction, rollout, is_shared=True)


def wait_for_batches(transaction: Transaction, rollout: Rollout) -> None:
    """Wait for transactions that store records; have others wait for this one."""
    _lock_erasures(transaction, rollout, is_shared=False)


def _lock_erasures(transaction: Transaction, rollout: Rollout, *, is_shared: bool) -> None:
    if transaction.engine == "postgresql":
        fetch_rows(transaction, _build_lock_query(is_shared), {"rollout": rollout.number})


@cache
def _build_lock_query(is_shared: bool) -> Select[Any]:
    lock = func.pg_advisory_xact_lock_shared if is_shared else func.pg_advisory_xact_lock
    number: ColumnElement[int] = literal_column(str(ERASURE_LOCKS)) + bindparam(
        "rollout", type_=Integer
    )
    return select(lock(number).label("locked"))


def find_erased_keys(
    transaction: Transaction, rollout: Rollout, keys: Iterable[str]
) -> frozenset[str]:
    """Return those keys of cases that were erased."""
    return frozenset(ExternalKeys(transaction, rollout, CASE).find_hashed(set(keys), ERASED))


def refuse_name(transaction: Transaction, rollout: Rollout, name: str) -> str:
    """Refuse further records of a reviewer in any spelling; return the hash of the name."""
    hash_key = ExternalKeys(transaction, rollout, ERASED_NAME).hash_key
    insert_new_rows(
        transaction,
        external_keys,
        [
            {"rollout": rollout.number, "kind": ERASED_NAME, "key": hash_key(text)}
            for text in sorted({name, fold_name(name)})
        ],
    )
    return hash_key(name)


def is_name_refused(transaction: Transaction, rollout: Rollout, name: str) -> bool:
    """Return whether a name was erased in a rollout, in any spelling."""
    return bool(
        ExternalKeys(transaction, rollout, ERASED_NAME).find_hashed(
            {name, fold_name(name)}, ERASED_NAME
        )
    )


def is_name_erased(transaction: Transaction, name: str) -> bool:
    """Return whether a name was erased in any rollout."""
    rollouts = Rollouts(transaction).list_all()
    return any(is_name_refused(transaction, rollout, name) for rollout in rollouts)


def _find_refused(
    transaction: Transaction,
    rollout: Rollout,
    texts: Mapping[int, str],
    kind: str,
    erased_kind: str,
) -> Mapping[int, str]:
    """Return the positions whose text was replaced by a hash, with the reason."""
    reason = ERASED_NAME_TEXT if kind == ERASED_NAME else ERASED_EPISODE_TEXT
    erased = ExternalKeys(transaction, rollout, kind).find_hashed(set(texts.values()), erased_kind)
    return {position: reason for position, text in texts.items() if text in erased}


_roles_by_pool: WeakKeyDictionary[object, dict[int, tuple[int | None, Mapping[str, str]]]] = (
    WeakKeyDictionary()
)
"""By database and rollout number, a revision of the access ledger and the role holders by it."""


def find_people(transaction: Transaction, rollout: Rollout, names: Collection[str]) -> set[str]:
    """Return the names that are users', or under which a case of the rollout was decided.

    Letter case and outer blanks make no other name, as for the reviewers of decisions. Ask rarely:
    every decision is read.
    """
    is_user = select(users.c.name).where(users.c.service_account == false())
    have_decided = select(decisions.c.reviewer).where(decisions.c.rollout == rollout.number)
    folded = {*map(fold_name, transaction.execute(is_user.union(have_decided)).scalars())}
    return {name for name in names if fold_name(name) in folded}


def is_version_name(transaction: Transaction, name: str) -> bool:
    """Return whether a version of any rollout has a name, by `fold_name`."""
    return fold_name(name) in map(
        fold_name, transaction.execute(select(versions.c.version).distinct()).scalars()
    )


def find_role_holders(
    transaction: Transaction, rollout: Rollout, access_head: int | None
) -> Mapping[str, str]:
    """Return the service accounts that may predict and the users who review, each with that role.

    They are read once for each revision of the access ledger, if it is known.
    """
    by_rollout = _roles_by_pool.setdefault(transaction.pool, {})
    if access_head is None or by_rollout.get(rollout.number, (None,))[0] != access_head:
        rows = transaction.execute(
            select(users.c.name, role_assignments.c.role)
            .join(role_assignments, role_assignments.c.user_id == users.c.id)
            .where(func.coalesce(role_assignments.c.rollout, rollout.number) == rollout.number)
            .where(users.c.service_account == (role_assignments.c.role != REVIEWER))
            .where(
                role_assignments.c.role.in_(
                    {*ROLES_BY_PERMISSION[Permission.SEND_PREDICTIONS], REVIEWER}
                )
            )
        )
        by_rollout[rollout.number] = access_head, {row.name: row.role for row in rows}
    return by_rollout[rollout.number][1]
