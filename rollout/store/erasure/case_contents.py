"""The contents of cases: found by key or episode, and deleted."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, exists, select

from rollout.core.calendar.instants import count_micros, to_micros
from rollout.store.counting.purge import delete_case_rows, open_purge
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.erasure.texts import (
    clear_deliveries,
    delete_ledger_texts,
    delete_rejected,
    delete_responses,
    erase_comments,
)
from rollout.store.erasure.unit_values import UnitValues, ValueHolders
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.records.external_keys import (
    CASE,
    EPISODE,
    ERASED,
    ERASED_EPISODE,
    PURGED,
    ExternalKeys,
)
from rollout.store.records.record_hashes import ErasedHashes
from rollout.store.tables.tables import cases, count_queue


@dataclass(frozen=True, slots=True)
class ErasedContents:
    """What an erasure took.

    Attributes:
        keys: hashes that replace the keys of the cases.
        counts: deleted or changed rows by table.
        records_digest: of the hashes of the records that are gone.
    """

    keys: tuple[str, ...]
    counts: Mapping[str, int]
    records_digest: str


class EarlierHolders(NamedTuple):
    """Holders of values as an earlier transaction read them, and the last slot of evidence then.

    Every unit that was counted later has a later slot.
    """

    holders: ValueHolders
    last_slot: int


class CaseContents:
    """The contents of one rollout's cases."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._keys = ExternalKeys(transaction, rollout, CASE)

    def find_cases(self, keys: Collection[str]) -> Mapping[str, int]:
        """Return the numbers of cases with contents or a key, also of purged ones."""
        return {**self._keys.find_ids(keys), **self._keys.find_hashed(keys, PURGED)}

    def find_erased(self, keys: Collection[str]) -> Collection[str]:
        """Return the keys that were erased before."""
        return self._keys.find_hashed(keys, ERASED).keys()

    def list_episode_cases(self, episode: str, limit: int) -> tuple[str, ...]:
        """Return the keys of an episode's first cases that still have records."""
        episode_keys = ExternalKeys(self._transaction, self._rollout, EPISODE)
        number = episode_keys.find_ids([episode]) or episode_keys.find_hashed(
            [episode], ERASED_EPISODE
        )
        query = (
            select(cases.c.case_id)
            .distinct()
            .where(cases.c.rollout == self._rollout.number, cases.c.episode.in_(number.values()))
            .order_by(cases.c.case_id)
            .limit(limit)
        )
        case_ids = list(self._transaction.execute(query).scalars())
        return tuple(self._keys.find_keys(case_ids).values())

    def has_episode(self, episode: str) -> bool:
        """Return whether an episode has a key, erased or not."""
        keys = ExternalKeys(self._transaction, self._rollout, EPISODE)
        return bool(keys.find_ids([episode]) or keys.find_hashed([episode], ERASED_EPISODE))

    def find_value_holders(
        self, keys: Collection[str], episode_span: timedelta | None
    ) -> EarlierHolders:
        """Return which other units have attribute values of the cases' units.

        It reads all units, so not in the transaction that erases: that would delay a stop. There
        `erase` reads those that came since.
        """
        last_slot = EvidenceStore(self._transaction, self._rollout).get_last_slot()
        unit_numbers = self._list_units(list(self.find_cases(keys).values()), episode_span)
        unit_values = UnitValues(self._transaction, self._rollout)
        return EarlierHolders(unit_values.find_holders(unit_numbers), last_slot)

    def erase(
        self,
        keys: Collection[str],
        *,
        revision: int,
        episode_span: timedelta | None,
        earlier: EarlierHolders,
    ) -> ErasedContents:
        """Delete all contents of cases; their counts and the hashes of keys and records stay.

        `revision` is that of the event, which belongs into this transaction; `episode_span` the
        policy's, by which cases without an episode were counted together; `earlier` the result
        of `find_value_holders`. The keys are replaced
        first: that waits for transactions that are storing such a case, and lets later ones see
        that it is erased.
        """
        hashes = tuple(sorted(self._keys.hash_key(key) for key in keys))
        case_ids = list(self.find_cases(keys).values())
        ExternalKeys(self._transaction, self._rollout, PURGED).change_kind(case_ids, ERASED)
        self._keys.purge(case_ids, ERASED)
        records_digest = ErasedHashes(self._transaction, self._rollout).store_cases(
            case_ids, revision=revision
        )
        episode_ids = self._list_episodes(case_ids)
        unit_numbers = self._list_units(case_ids, episode_span)
        self._delete_queue(case_ids)  # before the lock, as a tick takes its cases before it counts
        with open_purge(self._transaction):
            counts = delete_case_rows(self._transaction, self._rollout, case_ids)
            counts["rejected_records"] = delete_rejected(self._transaction, self._rollout, keys)
            named_comments = erase_comments(self._transaction, self._rollout, keys)
            counts["comments"] = counts.get("comments", 0) + named_comments
            counts["counted_units"] = self._erase_values(unit_numbers, earlier)
        counts["ledger_texts"] = delete_ledger_texts(self._transaction, self._rollout, keys)
        counts["deliveries"] = clear_deliveries(self._transaction, self._rollout, keys)
        delete_responses(self._transaction, keys)
        self._erase_empty_episodes(episode_ids)
        return ErasedContents(hashes, {t: n for t, n in counts.items() if n}, records_digest)

    def _erase_values(self, unit_numbers: Collection[int], earlier: EarlierHolders) -> int:
        """Erase the attribute values of units, while no unit is counted; return their number."""
        EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True)
        unit_values = UnitValues(self._transaction, self._rollout)
        holders = unit_values.update_holders(unit_numbers, earlier.holders, after=earlier.last_slot)
        return unit_values.erase(unit_numbers, holders)

    def erase_episode_key(self, episode: str) -> str:
        """Replace an episode's key by a hash, which is returned."""
        keys = ExternalKeys(self._transaction, self._rollout, EPISODE)
        keys.purge(list(keys.find_ids([episode]).values()), ERASED_EPISODE)
        return keys.hash_key(episode)

    def _list_episodes(self, case_ids: Collection[int]) -> list[int]:
        query = select(cases.c.episode).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids),
            cases.c.episode.is_not(None),
        )
        return list(self._transaction.execute(query.distinct()).scalars())

    def _list_units(self, case_ids: Collection[int], span: timedelta | None) -> list[int]:
        """Return the numbers of the units of which cases were a part."""
        return [*case_ids, *self._list_episodes(case_ids), *self._list_spans(case_ids, span)]

    def _list_spans(self, case_ids: Collection[int], span: timedelta | None) -> list[int]:
        """Return the numbers of the clock spans in which cases without an episode were counted."""
        if span is None:
            return []
        query = select(cases.c.site, cases.c.occurred_at).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids),
            cases.c.episode.is_(None),
        )
        rows = self._transaction.execute(query.distinct())
        keys = {f"{row.site}@{to_micros(row.occurred_at) // count_micros(span)}" for row in rows}
        return list(ExternalKeys(self._transaction, self._rollout, EPISODE).find_ids(keys).values())

    def _erase_empty_episodes(self, episode_ids: Collection[int]) -> None:
        """Replace the keys of episodes that have no case any more."""
        empty = [
            number
            for number in episode_ids
            if not self._transaction.execute(
                select(
                    exists().where(
                        cases.c.rollout == self._rollout.number, cases.c.episode == number
                    )
                )
            ).scalar()
        ]
        keys = ExternalKeys(self._transaction, self._rollout, EPISODE)
        keys.purge(empty, ERASED_EPISODE)

    def _delete_queue(self, case_ids: Collection[int]) -> None:
        conditions = match_cases(self._transaction, self._rollout, count_queue, case_ids)
        self._transaction.execute(delete(count_queue).where(*conditions))
