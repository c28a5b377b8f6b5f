"""What an erasure deletes or replaces: contents of cases, free texts, and names of people.

The contents of cases are found by key or episode, and deleted. Free text that names a case or a
reviewer is found by word, and deleted or replaced. A user's or reviewer's name is replaced by a
pseudonym in the tables of a rollout. Then the space of deleted rows is freed, so that files no
longer hold what was erased.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Table,
    and_,
    delete,
    false,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.engine import RowMapping

from rollout.data.counting.counted_units import IS_ERASED, hash_values
from rollout.data.counting.purge import delete_case_rows, open_purge
from rollout.data.database.append_failures import translate_driver_errors
from rollout.data.database.bulk import select_numbers
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.scopes import EvidenceStore, StoredScopes
from rollout.data.records.external_keys import (
    CASE,
    EPISODE,
    ERASED,
    ERASED_EPISODE,
    PURGED,
    ExternalKeys,
)
from rollout.data.records.record_rows import RECORD_SCHEMAS, ErasedHashes, RecordSchema
from rollout.data.tables.tables import (
    baselines,
    cases,
    cleanings,
    count_queue,
    counted_units,
    deliveries,
    exposures,
    idempotency_keys,
    incidents,
    ledger,
    ledger_texts,
    policies,
    proposals,
    recent_arrivals,
    rejected_records,
    report_requests,
    reviews,
)
from rollout.engine.records.records import Decision, Personal
from rollout.kernel.calendar.instants import count_micros, to_micros
from rollout.kernel.policy.familiarity import NO_VALUE, UNREADABLE
from rollout.kernel.units import CASELESS_UNIT

ERASED_INTRO: Final = "(erased)"
UNSPACED: Final = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
    r"\U00020000-\U0003ffff"
)
"""Letters that begin and end no word: Thai to Khmer, Japanese, Chinese; Korean has endings."""
CONTINUES: Final = rf"[^\W{UNSPACED}]|-"


def contains_word(text: str, word: str) -> bool:
    """Return whether a text has a word that no letter, digit, _ or - continues.

    >>> contains_word("v1 acted on ramp-7: late", "ramp-7"), contains_word("ramp-71", "ramp-7")
    (True, False)
    """
    return re.search(rf"(?<!{CONTINUES}){re.escape(word)}(?!{CONTINUES})", text) is not None


def list_name_spellings(name: str) -> tuple[str, ...]:
    """Return a name as it stands, and as prose and headings write it.

    >>> list_name_spellings("ana.roe")
    ('ana.roe', 'Ana.Roe', 'Ana.roe', 'ANA.ROE')
    """
    return tuple(dict.fromkeys((name, name.lower(), name.title(), name.capitalize(), name.upper())))


def list_spellings(word: str) -> tuple[str, ...]:
    r"""Return a word as it stands in plain text, in JSON and in JSON of ASCII only.

    >>> list_spellings("bär")
    ('bär', 'b\\u00e4r')
    """
    encoded = (json.dumps(word, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True))
    return tuple(dict.fromkeys((word, *encoded)))


def delete_ledger_texts(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Delete the ledger's free texts that have one of the words; their hashes stay."""
    count = 0
    key_columns = tuple_(ledger_texts.c.revision, ledger_texts.c.field)
    for row in find_rows(transaction, rollout, ledger_texts, [ledger_texts.c.text], words):
        is_row = key_columns == (row["revision"], row["field"])
        count += transaction.execute(
            delete(ledger_texts).where(ledger_texts.c.rollout == rollout.number, is_row)
        ).rowcount
    if count:
        StoredScopes(transaction, rollout).delete_all()  # they quote texts; they are made again
    return count


def delete_texts_by(transaction: Transaction, rollout: Rollout, account: str) -> int:
    """Delete the free texts that an account typed into a ledger."""
    count = transaction.execute(
        delete(ledger_texts).where(
            ledger_texts.c.rollout == rollout.number,
            ledger_texts.c.revision.in_(
                select(ledger.c.revision).where(
                    ledger.c.rollout == rollout.number, ledger.c.actor == account
                )
            ),
        )
    ).rowcount
    StoredScopes(transaction, rollout).delete_all()  # they hold names and texts
    return count


def delete_rejected(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Delete the rejected records that have one of the words."""
    rows = find_rows(transaction, rollout, rejected_records, [rejected_records.c.body], words)
    query = select(rejected_records.c.id).where(
        rejected_records.c.rollout == rollout.number,
        rejected_records.c.key.in_(_list_all_spellings(words)),
    )
    ids = {*(row["id"] for row in rows), *transaction.execute(query).scalars()}
    is_gone = rejected_records.c.id.in_(select_numbers(transaction, ids))
    transaction.execute(delete(rejected_records).where(is_gone))
    return len(ids)


def clear_deliveries(transaction: Transaction, rollout: Rollout, words: Collection[str]) -> int:
    """Replace the introductions of deliveries that have one of the words."""
    texts = {"intro": ERASED_INTRO, "subject": ERASED_INTRO}
    columns = [deliveries.c[name] for name in texts]
    ids = [row["id"] for row in find_rows(transaction, rollout, deliveries, columns, words)]
    has_words = deliveries.c.id.in_(select_numbers(transaction, ids))
    return transaction.execute(update(deliveries).where(has_words).values(texts)).rowcount


def delete_responses(transaction: Transaction, words: Collection[str]) -> None:
    """Delete stored responses that have one of the words; a retry is executed again."""
    may_have_words = _match_any(idempotency_keys.c.response_body, words)
    transaction.execute(delete(idempotency_keys).where(may_have_words))


def find_rows(
    transaction: Transaction,
    rollout: Rollout,
    table: Table,
    columns: Sequence[Column[str]],
    words: Collection[str],
) -> list[RowMapping]:
    """Return the rows that have one of the words, each once; the table is read once."""
    is_near = or_(*(_match_any(column, words) for column in columns))
    query = select(table).where(table.c.rollout == rollout.number, is_near)
    return [
        row
        for row in transaction.execute(query).mappings().all()
        if any(_has_any(row[column.name], words) for column in columns)
    ]


def _match_any(column: Column[str], words: Collection[str]) -> ColumnElement[bool]:
    has_spelling = (column.contains(each, autoescape=True) for each in _list_all_spellings(words))
    return or_(false(), *has_spelling)


def _has_any(text: str | None, words: Collection[str]) -> bool:
    return any(contains_word(text or "", spelling) for spelling in _list_all_spellings(words))


def _list_all_spellings(words: Collection[str]) -> list[str]:
    return [spelling for word in words for spelling in list_spellings(word)]


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


class CaseContents(RolloutRepository):
    """The contents of one rollout's cases."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        super().__init__(transaction, rollout)
        self._keys = ExternalKeys(transaction, rollout, CASE)
        self._episodes = ExternalKeys(transaction, rollout, EPISODE)

    def find_cases(self, keys: Collection[str]) -> Mapping[str, int]:
        """Return the numbers of cases with contents or a key, also of purged ones."""
        return {**self._keys.find_ids(keys), **self._keys.find_hashed(keys, PURGED)}

    def find_erased(self, keys: Collection[str]) -> Collection[str]:
        """Return the keys that were erased before."""
        return self._keys.find_hashed(keys, ERASED).keys()

    def list_episode_cases(self, episode: str, limit: int) -> tuple[str, ...]:
        """Return the keys of an episode's first cases that still have records."""
        is_episodes = cases.c.episode.in_(self._find_episode(episode).values())
        query = (
            select(cases.c.case_id)
            .distinct()
            .where(cases.c.rollout == self._rollout.number, is_episodes)
            .order_by(cases.c.case_id)
            .limit(limit)
        )
        case_ids = list(self._transaction.execute(query).scalars())
        return tuple(self._keys.find_keys(case_ids).values())

    def has_episode(self, episode: str) -> bool:
        """Return whether an episode has a key, erased or not."""
        return bool(self._find_episode(episode))

    def _find_episode(self, episode: str) -> Mapping[str, int]:
        return self._episodes.find_ids([episode]) or self._episodes.find_hashed(
            [episode], ERASED_EPISODE
        )

    def find_value_holders(
        self, keys: Collection[str], episode_span: timedelta | None
    ) -> EarlierHolders:
        """Return which other units have attribute values of the cases' units.

        It reads all units, so not in the transaction that erases: that would delay a stop. There
        `erase` reads those that came since.
        """
        last_slot = EvidenceStore(self._transaction, self._rollout).get_last_slot()
        unit_numbers = self._list_units(keys, list(self.find_cases(keys).values()), episode_span)
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
        episode_ids = [*self._list_episodes(case_ids), *self._list_caseless(keys)]
        unit_numbers = self._list_units(keys, case_ids, episode_span)
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
        self._episodes.purge(self._episodes.find_ids([episode]).values(), ERASED_EPISODE)
        return self._episodes.hash_key(episode)

    def _list_episodes(self, case_ids: Collection[int]) -> list[int]:
        query = select(cases.c.episode).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids),
            cases.c.episode.is_not(None),
        )
        return list(self._transaction.execute(query.distinct()).scalars())

    def _list_caseless(self, keys: Collection[str]) -> list[int]:
        """Return the numbers of the units of episodes that only decisions on the cases place."""
        return list(self._episodes.find_ids(set(map(CASELESS_UNIT.format, keys))).values())

    def _list_units(
        self, keys: Collection[str], case_ids: Collection[int], span: timedelta | None
    ) -> list[int]:
        """Return the numbers of the units of which cases were a part."""
        spans = self._list_spans(case_ids, span)
        return [*case_ids, *self._list_episodes(case_ids), *self._list_caseless(keys), *spans]

    def _list_spans(self, case_ids: Collection[int], span: timedelta | None) -> list[int]:
        """Return the numbers of the clock spans in which cases without an episode were counted."""
        if span is None:
            return []
        query = select(cases.c.site, cases.c.occurred_at).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids),
            cases.c.episode.is_(None),
        )
        rows = self._transaction.execute(query.distinct())
        names = {f"{row.site}@{to_micros(row.occurred_at) // count_micros(span)}" for row in rows}
        return list(self._episodes.find_ids(names | set(map(CASELESS_UNIT.format, names))).values())

    def _erase_empty_episodes(self, episode_ids: Collection[int]) -> None:
        """Replace the keys of episodes that have no case any more."""
        has_cases = cases.c.rollout == self._rollout.number, cases.c.episode.in_(episode_ids)
        filled = self._transaction.execute(select(cases.c.episode).distinct().where(*has_cases))
        self._episodes.purge(set(episode_ids).difference(filled.scalars()), ERASED_EPISODE)

    def _delete_queue(self, case_ids: Collection[int]) -> None:
        for table in (count_queue, recent_arrivals):
            conditions = match_cases(self._transaction, self._rollout, table, case_ids)
            self._transaction.execute(delete(table).where(*conditions))


SQLITE_STATEMENTS = ("vacuum", "pragma wal_checkpoint(truncate)")
POSTGRESQL_STATEMENTS = ("set statement_timeout = 0", "vacuum")


def compact_database(database: Database) -> None:
    """Rewrite the file of SQLite, or vacuum the tables of PostgreSQL.

    On SQLite nobody else may write meanwhile, and as much space again must be free. PostgreSQL
    overwrites the space when it needs it.
    """
    is_sqlite = database.engine.dialect.name == "sqlite"
    with translate_driver_errors(), closing(database.engine.raw_connection()) as connection:
        driver_connection: Any = connection.driver_connection
        if not is_sqlite:
            driver_connection.autocommit = True
        for statement in SQLITE_STATEMENTS if is_sqlite else POSTGRESQL_STATEMENTS:
            driver_connection.execute(statement)
        connection.invalidate()  # its settings were changed


SCHEMAS: Final = {schema.table: schema for schema in RECORD_SCHEMAS.values()}
NameColumn = Column[str]
BATCHED_COLUMNS: Final[tuple[NameColumn, ...]] = (
    *(
        table.c[name]
        for table, schema in SCHEMAS.items()
        for name in schema.list_personal(Personal.NAME)
    ),
    counted_units.c.reviewer,
    exposures.c.reviewer,
    reviews.c.reviewer,
)
"""The columns with names whose tables grow with the cases."""
TEXT_COLUMNS: Final[tuple[NameColumn, ...]] = tuple(
    table.c[name]
    for table, schema in SCHEMAS.items()
    for name in schema.list_personal(Personal.TEXT)
)
"""The free texts of records, which may have a name in them."""
SMALL_COLUMNS: Final[tuple[Column[str], ...]] = (
    cleanings.c.by,
    baselines.c.imported_by,
    policies.c.received_by,
    proposals.c.raised_by,
    incidents.c.acknowledged_by,
)
OPEN_TASK: Final = "open"
GOLD_TEXTS: Final = RECORD_SCHEMAS[Decision].list_personal(Personal.TEXT)
RowKeys = Sequence[tuple[Any, ...]]


def _list_key_columns(table: Table) -> list[Column[Any]]:
    """Return the columns that identify a row in its rollout."""
    return [column for column in table.primary_key if column.name != "rollout"]


def _match_name(column: NameColumn, name: str) -> ColumnElement[bool]:
    """Match the name; in a text what may be it, as a word or a part of one."""
    return (
        _match_any(column, list_name_spellings(name)) if column in TEXT_COLUMNS else column == name
    )


class RolloutNames(RolloutRepository):
    """The names of users and reviewers in one rollout."""

    def list_names(self) -> list[str]:
        """Return the names of all reviewers and users in the tables; reads every row."""
        names = set[str]()
        for column in (*BATCHED_COLUMNS, *SMALL_COLUMNS):
            query = select(column).where(column.table.c.rollout == self._rollout.number)
            names |= set(self._transaction.execute(query.distinct()).scalars())
        return sorted(names - {None, ""})

    def find_batch(self, column: NameColumn, name: str, *, after: RowKeys, limit: int) -> RowKeys:
        """Return keys of rows that may have the name in a column: the first ones after others."""
        key = tuple_(*_list_key_columns(column.table))
        query = select(*key).where(
            column.table.c.rollout == self._rollout.number,
            _match_name(column, name),
            key > after[-1] if after else true(),
        )
        return [tuple(row) for row in self._transaction.execute(query.order_by(*key).limit(limit))]

    def replace_batch(
        self, column: NameColumn, keys: RowKeys, name: str, pseudonym: str, revision: int
    ) -> ErasedContents:
        """Replace the name in those of some rows that have it still; texts with it are deleted.

        Open tasks of the name are free afterwards. `revision` is that of the event, which belongs
        into this transaction.
        """
        self._free_tasks(name)
        query = select(column.table).where(
            column.table.c.rollout == self._rollout.number,
            _match_name(column, name),
            tuple_(*_list_key_columns(column.table)).in_(keys),
        )
        rows = self._transaction.execute(query).mappings().all()
        if column in TEXT_COLUMNS:
            words = list_name_spellings(name)
            rows = [row for row in rows if _has_any(row[column.name], words)]
        digest = self._replace_rows(column, rows, pseudonym, revision)
        return ErasedContents((), {column.table.name: len(rows)} if rows else {}, digest)

    def replace_rest(self, name: str, pseudonym: str) -> ErasedContents:
        """Replace the name in small tables, and delete their texts that have or are by it."""
        counts: Counter[str] = Counter()
        words = list_name_spellings(name)
        self._free_tasks(name)
        with open_purge(self._transaction):
            counts["cleanings"] += self._change_rows(cleanings.c.by, name, reason="")
            for column in SMALL_COLUMNS:
                values = {column.name: pseudonym}
                counts[column.table.name] += self._change_rows(column, name, **values)
            counts["rejected_records"] += delete_rejected(self._transaction, self._rollout, words)
        counts["ledger_texts"] += delete_texts_by(self._transaction, self._rollout, pseudonym)
        counts["ledger_texts"] += delete_ledger_texts(self._transaction, self._rollout, words)
        counts["deliveries"] += clear_deliveries(self._transaction, self._rollout, words)
        delete_responses(self._transaction, words)
        self._transaction.execute(
            delete(idempotency_keys).where(idempotency_keys.c.principal == name)
        )
        self._transaction.execute(
            delete(report_requests).where(report_requests.c.principal == name)
        )
        return ErasedContents((), {table: n for table, n in counts.items() if n}, "")

    def _free_tasks(self, name: str) -> None:
        self._change_rows(
            reviews.c.reviewer,
            name,
            reviews.c.state == OPEN_TASK,
            reviewer=None,
            claimed_until=None,
        )

    def _replace_rows(
        self, column: Column[str], rows: Sequence[RowMapping], pseudonym: str, revision: int
    ) -> str:
        """Replace the name in rows, and return the digest of changed records."""
        if schema := SCHEMAS.get(column.table):
            replaced = {} if column in TEXT_COLUMNS else {column.name: pseudonym}
            hashes = self._clear_records(schema, rows, replaced)
            return ErasedHashes(self._transaction, self._rollout).store(hashes, revision=revision)
        with open_purge(self._transaction):
            for row in rows:
                values: dict[str, Any] = {column.name: pseudonym}
                if row.get("gold_decision") is not None:
                    values["gold_decision"] = {**row["gold_decision"], **GOLD_TEXTS}
                self._update_row(column.table, row, values)
        return ""

    def _clear_records(
        self, schema: RecordSchema, rows: Sequence[RowMapping], values: Mapping[str, str]
    ) -> list[tuple[int, bytes]]:
        """Clear personal texts of records and the random bytes of their hashes; return these."""
        cleared = {**schema.list_personal(Personal.TEXT), **values, "salt": None}
        with open_purge(self._transaction):
            for row in rows:
                self._update_row(schema.table, row, cleared)
        return [(int(row["case_id"]), row["record_hash"]) for row in rows]

    def _update_row(self, table: Table, row: RowMapping, values: Mapping[str, Any]) -> None:
        same_row = (column == row[column.name] for column in table.primary_key)
        self._transaction.execute(update(table).where(*same_row).values(**values))

    def _change_rows(
        self, column: Column[str], name: str, *conditions: ColumnElement[bool], **values: Any
    ) -> int:
        """Set values where a column is the name; return the number of rows."""
        is_own = (column.table.c.rollout == self._rollout.number, column == name, *conditions)
        statement = update(column.table).where(*is_own).values(**values)
        return self._transaction.execute(statement).rowcount
