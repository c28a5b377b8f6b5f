"""Keys and names that were erased: what names them again is refused, and not stored.

A hash that needs the rollout's salt recognizes them. A batch reads what is refused before it stores
anything, so an erasure first waits for the batches that read it too early. SQLite has one writer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Select, bindparam, func, literal_column, select

from rollout.core.records.records import Case, Decision, Record
from rollout.store.database.bulk import fetch_rows, insert_once
from rollout.store.database.rollouts import Rollout, Rollouts
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import (
    CASE,
    EPISODE,
    ERASED,
    ERASED_EPISODE,
    ERASED_NAME,
    ExternalKeys,
)
from rollout.store.tables.tables import external_keys

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
    """Refuse further records of a reviewer; return the hash of the name."""
    name_hash = ExternalKeys(transaction, rollout, ERASED_NAME).hash_key(name)
    row = {"rollout": rollout.number, "kind": ERASED_NAME, "key": name_hash}
    insert_once(transaction, external_keys, row)
    return name_hash


def is_name_refused(transaction: Transaction, rollout: Rollout, name: str) -> bool:
    """Return whether a name was erased in a rollout."""
    hashed_names = ExternalKeys(transaction, rollout, ERASED_NAME)
    return bool(hashed_names.find_hashed([name], ERASED_NAME))


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
    hashed_keys = ExternalKeys(transaction, rollout, kind)
    erased = hashed_keys.find_hashed(set(texts.values()), erased_kind)
    return {position: reason for position, text in texts.items() if text in erased}
