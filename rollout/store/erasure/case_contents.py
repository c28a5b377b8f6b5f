"""The contents of cases: found by key or episode, and deleted."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update

from rollout.core.calendar.instants import count_micros, to_micros
from rollout.core.policy.familiarity import NO_VALUE, UNREADABLE
from rollout.store.counting.purge import delete_case_rows, open_purge
from rollout.store.counting.unit_digests import IS_ERASED, hash_values
from rollout.store.database.bulk import select_numbers
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.erasure.texts import (
    clear_deliveries,
    delete_ledger_texts,
    delete_rejected,
    delete_responses,
)
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
from rollout.store.tables.tables import cases, count_queue, counted_units, recent_arrivals

TextPair = tuple[str | None, str | None]  # `attribute_values` and `slices` of a unit
NamedValue = tuple[str, str]
COLUMNS: Final = (counted_units.c.attribute_values, counted_units.c.slices)
KEY: Final = tuple(counted_units.c[name] for name in ("unit", "version", "track"))
HAS_VALUES: Final = or_(*(column.is_not(None) for column in COLUMNS))
PLAIN_VALUES: Final = frozenset({NO_VALUE, UNREADABLE})
PSEUDONYM: Final = "(erased {})"
UNITS_PER_READ: Final = 2_000


class ValueHolders(NamedTuple):
    """Which units have values of those that are to be erased.

    Attributes:
        own_values: all values of the units of the cases to erase.
        shared_values: those that units of other cases have too, each with one such unit.
        erased_units: units with some of the values whose cases were erased before.
    """

    own_values: frozenset[NamedValue]
    shared_values: Mapping[NamedValue, int]
    erased_units: frozenset[int]


class UnitValues:
    """The attribute values of one rollout's counted units.

    `numbers` are those of the cases to erase, and of the episodes and clock spans in which they
    were counted.
    """

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._is_own = counted_units.c.rollout == rollout.number

    def find_holders(self, numbers: Collection[int], *, after: int = -1) -> ValueHolders:
        """Return which other units of slots after one have values of these; of all, by default."""
        is_theirs = self._match_units(numbers)
        own_values = {value for text in self._read_texts(is_theirs) for value in list_values(*text)}
        shared, erased_units, read_texts = dict[NamedValue, int](), set[int](), set[TextPair]()
        columns = (counted_units.c.unit, IS_ERASED.label("is_erased"), *COLUMNS)
        is_later = counted_units.c.slot > after
        query = select(*columns).where(self._is_own, is_later, HAS_VALUES, ~is_theirs)
        rows = self._transaction.execute(query.execution_options(yield_per=UNITS_PER_READ))
        while len(shared) < len(own_values) and (row := next(rows, None)):
            text = (row.attribute_values, row.slices)
            if row.is_erased and own_values.intersection(list_values(*text)):
                erased_units.add(row.unit)
            elif not row.is_erased and text not in read_texts:
                read_texts.add(text)
                shared |= dict.fromkeys(own_values.intersection(list_values(*text)), row.unit)
        rows.close()
        return ValueHolders(frozenset(own_values), shared, frozenset(erased_units))

    def update_holders(
        self, numbers: Collection[int], earlier: ValueHolders, *, after: int
    ) -> ValueHolders:
        """Return the holders as they are now, from those of an earlier transaction.

        Call it in the transaction that erases, while no unit can be counted. It reads the units of
        slots after one, which the earlier transaction may have missed. All units are read anew in
        two rare cases: a value of the cases came since, or an erasure took a unit that shared one.
        """
        later = self.find_holders(numbers, after=after)
        if not later.own_values <= earlier.own_values or self._has_erased(earlier):
            return self.find_holders(numbers)
        return ValueHolders(
            later.own_values,
            {**earlier.shared_values, **later.shared_values},
            earlier.erased_units | later.erased_units,
        )

    def _has_erased(self, holders: ValueHolders) -> bool:
        """Return whether a unit that shared a value was erased since."""
        are_sharing = self._match_units(set(holders.shared_values.values()))
        query = select(counted_units.c.unit).where(self._is_own, are_sharing, IS_ERASED)
        return self._transaction.execute(query.limit(1)).first() is not None

    def erase(self, numbers: Collection[int], holders: ValueHolders) -> int:
        """Replace all values that no other case has; return the number of changed units."""
        texts = self._seal(self._match_units(numbers))
        own_values = {value for text in texts for value in list_values(*text)}
        unique = sorted(own_values - holders.shared_values.keys())
        names = {value: PSEUDONYM.format(token_hex(4)) for value in unique}
        is_erased = and_(self._match_units([*numbers, *holders.erased_units]), IS_ERASED)
        erased_texts = set(self._read_texts(is_erased)) if names else ()
        return sum(self._replace_text(is_erased, text, names) for text in erased_texts)

    def _match_units(self, numbers: Collection[int]) -> ColumnElement[bool]:
        return counted_units.c.unit.in_(select_numbers(self._transaction, numbers))

    def _seal(self, is_theirs: ColumnElement[bool]) -> set[TextPair]:
        """Replace the random bytes of units by the hash that digests cover; return their values."""
        columns = (*KEY, counted_units.c.value_seal, *COLUMNS)
        query = select(*columns).where(self._is_own, is_theirs, HAS_VALUES, ~IS_ERASED)
        rows = self._transaction.execute(query).all()
        for row in rows:
            self._transaction.execute(
                update(counted_units)
                .where(self._is_own, *(column == getattr(row, column.name) for column in KEY))
                .values(value_seal=hash_values(row.value_seal, row.attribute_values, row.slices))
            )
        return {(row.attribute_values, row.slices) for row in rows}

    def _read_texts(self, condition: ColumnElement[bool]) -> Iterator[TextPair]:
        query = select(*COLUMNS).where(self._is_own, HAS_VALUES, condition)
        for row in self._transaction.execute(query.execution_options(yield_per=UNITS_PER_READ)):
            yield row.attribute_values, row.slices

    def _replace_text(
        self, is_erased: ColumnElement[bool], text: TextPair, names: Mapping[NamedValue, str]
    ) -> int:
        """Give the values of erased units their pseudonyms; return the number of changed units."""
        replaced = replace_values(*text, names)
        if replaced == text:
            return 0
        has_text = and_(*(c.is_not_distinct_from(t) for c, t in zip(COLUMNS, text, strict=True)))
        changed = (
            update(counted_units)
            .where(self._is_own, is_erased, has_text)
            .values(attribute_values=replaced[0], slices=replaced[1])
        )
        return self._transaction.execute(changed).rowcount


def _read_cases(attribute_values: str | None, slices: str | None) -> list[dict[str, str | None]]:
    """Return the values of a unit's cases, then those of its slices."""
    return [*json.loads(attribute_values or "[]"), *([json.loads(slices)] if slices else [])]


def list_values(attribute_values: str | None, slices: str | None) -> Iterator[NamedValue]:
    """Yield the values of a unit by attribute, but those that say nothing."""
    for case in _read_cases(attribute_values, slices):
        for name, value in case.items():
            if value and value not in PLAIN_VALUES:
                yield name, value


def replace_values(
    attribute_values: str | None, slices: str | None, names: Mapping[NamedValue, str]
) -> TextPair:
    """Return a unit's texts with pseudonyms for some values.

    >>> replace_values('[{"form":"x"}]', '{"form":"x","size":"9"}', {("form", "x"): "(erased 1)"})
    ('[{"form":"(erased 1)"}]', '{"form":"(erased 1)","size":"9"}')
    """
    cases = [
        {name: names.get((name, value or ""), value) for name, value in case.items()}
        for case in _read_cases(attribute_values, slices)
    ]
    slice_text = None if slices is None else _encode(cases.pop())
    return None if attribute_values is None else _encode(cases), slice_text


def _encode(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
        for table in (count_queue, recent_arrivals):
            conditions = match_cases(self._transaction, self._rollout, table, case_ids)
            self._transaction.execute(delete(table).where(*conditions))
