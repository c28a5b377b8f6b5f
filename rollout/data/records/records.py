"""Storing received records: each once, in any order, with a status for each; rejected records.

What a batch has to know before it is stored is read by one statement.

Rejected records are stored as received, with the reason, each once.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from hashlib import sha256
from itertools import chain, compress
from json import dumps, loads
from typing import Any, Final, NamedTuple

from msgspec import structs
from sqlalchemy import Select, bindparam, func, literal_column, select

from rollout import faults
from rollout.data.database.append_failures import RECORDS
from rollout.data.database.bulk import (
    Repeated,
    encode_values,
    fetch_rows,
    insert_new_rows,
    insert_once,
    insert_tables,
    select_texts,
)
from rollout.data.database.rollouts import Rollout, RolloutRepository, fetch_case_rows, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import (
    EPISODE,
    ERASED_KINDS,
    ExternalKeys,
    KeyIds,
    find_erased_items,
    find_erased_keys,
    select_first_of_kinds,
)
from rollout.data.records.incoming_cases import IncomingCases, PlantedCases
from rollout.data.records.record_rows import (
    COLUMN_OF,
    MAX_KEY_LENGTH,
    PLANTED,
    RECORD_SCHEMAS,
    ColumnsByName,
    RecordSchema,
    build_hash_columns,
)
from rollout.data.tables.record_tables import (
    RECORD_UNSEALED,
    decode_instant,
    encode_instant,
    encode_json,
)
from rollout.data.tables.tables import (
    account_names,
    cases,
    decisions,
    exposures,
    heartbeats,
    rejected_records,
    versions,
)
from rollout.engine.records.records import Action, Case, Heartbeat, Outcome, Record, RejectedItem
from rollout.kernel.calendar.instants import count_micros
from rollout.kernel.policy.gates import NO_UNPLACED, UnplacedDecisions

UNPLACED_SPAN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class StoredRejectedRecord:
    """A stored rejected record; `number` rises with time."""

    number: int
    received_at: datetime
    item: RejectedItem


class RejectedRecords(RolloutRepository):
    """The rejected records of one rollout."""

    def add(self, items: Iterable[RejectedItem], *, received_at: datetime) -> None:
        """Store records; existing ones stay, and those of erased cases are left out."""
        new_records = list(items)
        spellings = {item.key: {item.key, _read_key(item.key)} for item in new_records}
        erased_keys = find_erased_keys(
            self._transaction, self._rollout, chain.from_iterable(spellings.values())
        )
        rows = [
            self._build_row(item, received_at)
            for item in new_records
            if erased_keys.isdisjoint(spellings[item.key])
        ]
        insert_new_rows(self._transaction, rejected_records, rows)

    def list_after(self, number: int = 0, *, limit: int = 100) -> Sequence[StoredRejectedRecord]:
        """Return records after a number, oldest first."""
        query = (
            select(rejected_records)
            .where(
                rejected_records.c.rollout == self._rollout.number, rejected_records.c.id > number
            )
            .order_by(rejected_records.c.id)
            .limit(limit)
        )
        return [
            StoredRejectedRecord(
                row.id,
                row.received_at,
                RejectedItem(row.kind, row.key, row.body, row.reason, row.is_placeless),
            )
            for row in self._transaction.execute(query)
        ]

    def find_keys(self, keys: Collection[str]) -> set[str]:
        """Return which keys of cases a stored record names, as they are or escaped."""
        engine = self._transaction.engine
        key_of = {escape_key(key): key for key in keys} | {key: key for key in keys}
        query = (
            select(rejected_records.c.key)
            .distinct()
            .where(
                rejected_records.c.rollout == self._rollout.number,
                rejected_records.c.key.in_(select_texts(engine, "keys")),
            )
        )
        return {
            key_of[row.key]
            for row in self._transaction.execute(query, {"keys": encode_values(engine, key_of)})
        }

    def count_unplaced_decisions(self, until: datetime) -> UnplacedDecisions:
        """Return how many cases were decided in the last seven days at no place that is known.

        One whose decision was stored since then has a place.
        """
        rollout, since = self._rollout, until - UNPLACED_SPAN
        keys = {key for key, _ in self.list_unplaced(since, until)}
        if not keys:
            return NO_UNPLACED
        case_ids = ExternalKeys(self._transaction, rollout).find_ids(keys)
        stored_query = select(decisions.c.case_id).distinct()
        conditions = match_cases(self._transaction, rollout, decisions, set(case_ids.values()))
        stored_ids = set(self._transaction.execute(stored_query.where(*conditions)).scalars())
        unplaced = len(keys) - len(stored_ids & set(case_ids.values()))
        placed_query = select(func.count(decisions.c.case_id.distinct())).where(
            decisions.c.rollout == rollout.number, decisions.c.received_at.between(since, until)
        )
        decided = self._transaction.execute(placed_query).scalar_one()
        return UnplacedDecisions(unplaced, unplaced + decided)

    def list_unplaced(self, since: datetime, until: datetime) -> list[tuple[str, datetime]]:
        """Return key and receipt of each decision in a period that belonged to no cell."""
        table = rejected_records
        query = (
            select(table.c.key, table.c.received_at)
            .distinct()
            .where(
                table.c.rollout == self._rollout.number,
                table.c.is_placeless,
                table.c.received_at.between(since, until),
            )
        )
        return [(_read_key(row.key), row.received_at) for row in self._transaction.execute(query)]

    def _build_row(self, item: RejectedItem, received_at: datetime) -> dict[str, object]:
        content = f"{item.kind}\n{item.key}\n{item.body}"
        return {
            "rollout": self._rollout.number,
            "kind": item.kind,
            "key": item.key,
            "body": item.body,
            "reason": item.reason,
            "is_placeless": item.is_placeless,
            "received_at": received_at,
            "hash": sha256(content.encode()).digest(),
        }


def escape_key(key: str) -> str:
    """Return a case's key as rejected records have it: in ASCII, for every database."""
    return dumps(key[:MAX_KEY_LENGTH])[1:-1]


def _read_key(key: str) -> str:
    """Return the key that was escaped, or as it is if none was."""
    try:
        return str(loads(f'"{key}"'))
    except ValueError:
        return key


DrawCase = Callable[[str, str, int, str | None], Mapping[str, bool]]
"""Returns by version with a sample whether it runs on a case: key, site, time and episode."""
NO_CASE_YET = "no case yet"
PURGED_TEXT = "the records of this case have been deleted"
ERASED_TEXT = "the records of this case were erased on request; don't send it again"
CONFLICT_TEXT = "this key has other content; send it as the next revision"


class RecordStatus(StrEnum):
    """The status of a received record."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"

    __hash__ = str.__hash__  # the hash of StrEnum is slower: it is written in Python


@dataclass(frozen=True, slots=True)
class RecordReceipt:
    """The status of an item; `reason` explains it.

    `drawn` has the versions with a sample that run on a case; None without any.
    """

    status: RecordStatus
    reason: str = ""
    drawn: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """The result of storing a batch.

    Attributes:
        results: receipts of the items, in their order.
        case_ids: numbers of the cases in the batch, by key.
        changed_cases: cases with an accepted record.
        new_cases: cases under which nothing was stored before.
        columns: the accepted records as stored; `case_id` is the case's number.
    """

    results: tuple[RecordReceipt, ...]
    case_ids: Mapping[str, int]
    changed_cases: AbstractSet[int]
    new_cases: AbstractSet[int]
    columns: Mapping[RecordSchema, ColumnsByName]

    def merge(self, later: "StoredBatch") -> "StoredBatch":
        """Return both batches as one; `later` has records of other kinds."""
        return StoredBatch(
            (*self.results, *later.results),
            {**self.case_ids, **later.case_ids},
            self.changed_cases | later.changed_cases,
            self.new_cases | later.new_cases,
            {**self.columns, **later.columns},
        )

    def list_arrivals(self) -> set[tuple[datetime, int]]:
        """Return at which times which cases got a record."""
        pairs = {
            pair
            for columns in self.columns.values()
            for pair in zip(columns["received_at"], columns["case_id"], strict=True)
        }
        return {(decode_instant(received_micros), case_id) for received_micros, case_id in pairs}

    def list_accepted(self, kind: type[Record], column: str) -> Iterator[tuple[int, Any]]:
        """Yield case number and one column of a kind's accepted records."""
        columns = self.columns.get(RECORD_SCHEMAS[kind])
        return zip(columns["case_id"], columns[column], strict=True) if columns else iter(())


ACCEPTED, DUPLICATE = RecordReceipt(RecordStatus.ACCEPTED), RecordReceipt(RecordStatus.DUPLICATE)
ACCEPTED_WITHOUT_CASE = RecordReceipt(RecordStatus.ACCEPTED, NO_CASE_YET)
DUPLICATE_OF_PURGED = RecordReceipt(RecordStatus.DUPLICATE, PURGED_TEXT)
REFUSED_AS_ERASED = RecordReceipt(RecordStatus.REJECTED, ERASED_TEXT)
CONFLICT = RecordReceipt(RecordStatus.CONFLICT, CONFLICT_TEXT)
REJECTED_STATUSES = frozenset({RecordStatus.CONFLICT, RecordStatus.REJECTED})
UNDECIDED = RecordReceipt(RecordStatus.ACCEPTED)
"""The placeholder until a record's status is known."""
INVALID_RECORD_ERRORS = (ValueError, TypeError, OverflowError)
"""The errors raised for a record that can't be stored."""


@dataclass(frozen=True, slots=True)
class RecordGroup:
    """The records of one kind in a batch.

    Attributes:
        positions: of the records in the batch.
        keys: the case's key of each record.
        record_keys: the key after the case, of each record.
        columns: the result of `RecordSchema.build_columns`, with `hash`.
    """

    schema: RecordSchema
    positions: Sequence[int]
    keys: Sequence[str]
    record_keys: Sequence[Any]
    columns: ColumnsByName


class RecordStore(RolloutRepository):
    """The records of one rollout."""

    def store(
        self,
        items: Sequence[Record],
        *,
        received_at: datetime | Sequence[datetime],
        sender: str | Mapping[str, str] | None = None,
        vouched: timedelta | None = None,
        draw_case: DrawCase | None = None,
        locked_keys: Collection[str] = (),
        erased_kinds: Collection[str] | None = None,
    ) -> StoredBatch:
        """Store new records, reject conflicting and invalid ones; return a receipt each.

        `received_at` is one time, or that of each item, in order: an import has many. `sender` is
        the id of the account that sent them, or by kind their file; `vouched` is how long after a
        case what it sends counts as sent before the decision; `draw_case` returns on which
        versions' samples a case is. An invalid item does not affect others.
        Repeating a batch, in whole or in part, changes nothing and returns `duplicate`. Concurrent
        transactions on the same cases, or on those of `locked_keys`, wait until this one ends.
        `erased_kinds` are as for `find_erased_items`.
        """
        self._transaction.tally.announce(self._rollout.name, RECORDS)
        times = [received_at] * len(items) if isinstance(received_at, datetime) else received_at
        erased_items = find_erased_items(self._transaction, self._rollout, items, erased_kinds)
        groups, results = _group_records(items, erased_items)
        faults.reach_point("ingest.parsed")
        keys = chain(chain.from_iterable(group.keys for group in groups), locked_keys)
        has_one_time = isinstance(received_at, datetime)
        first_times = None if has_one_time else _find_first_times(groups, times)
        key_ids = self._case_keys.assign_ids(keys, received_at=first_times)
        planted_ids = PlantedCases(self._transaction, self._rollout).receive(key_ids)
        stored_columns = self._decide_results(groups, key_ids, times, results)
        if sum(len(columns["case_id"]) for columns in stored_columns.values()) < len(items):
            self._store_rejected(items, results, erased_items, times)
        faults.reach_point("ingest.set-aside")
        columns_by_table = {}
        for schema, columns in stored_columns.items():
            kind_sender = sender.get(schema.name) if isinstance(sender, Mapping) else sender
            columns_by_table[schema.table] = self._build_table_columns(
                schema, columns, kind_sender, planted_ids, vouched, draw_case
            )
        insert_tables(self._transaction, columns_by_table)
        self._queue_unsealed(stored_columns, key_ids.new_ids)
        faults.reach_point("ingest.records")
        changed_cases = set(
            chain.from_iterable(columns["case_id"] for columns in stored_columns.values())
        )
        return StoredBatch(
            tuple(results), key_ids.by_key, changed_cases, key_ids.new_ids, stored_columns
        )

    def store_heartbeat(
        self, heartbeat: Heartbeat, *, received_at: datetime, note: str = ""
    ) -> RecordReceipt:
        """Store a heartbeat of a site; `note` is a remark for its sender."""
        row = {
            **structs.asdict(heartbeat),
            "rollout": self._rollout.number,
            "received_at": received_at,
        }
        try:
            encode_instant(heartbeat.at)
        except ValueError as error:
            return RecordReceipt(RecordStatus.REJECTED, str(error))
        is_new = insert_once(self._transaction, heartbeats, row)
        return RecordReceipt(RecordStatus.ACCEPTED if is_new else RecordStatus.DUPLICATE, note)

    @property
    def _case_keys(self) -> ExternalKeys:
        return ExternalKeys(self._transaction, self._rollout)

    def _decide_results(
        self,
        groups: Sequence[RecordGroup],
        key_ids: KeyIds,
        times: Sequence[datetime],
        results: list[RecordReceipt],
    ) -> Mapping[RecordSchema, ColumnsByName]:
        """Set the receipt of each record and return the new records."""
        described_cases = self._find_described_cases(groups, key_ids)
        micros_by_time = {at: encode_instant(at) for at in set(times)}  # mostly one
        stored_columns = dict[RecordSchema, ColumnsByName]()
        for group in groups:
            case_ids = [key_ids.by_key[key] for key in group.keys]
            received_at: Sequence[int] = [micros_by_time[times[n]] for n in group.positions]
            if len(micros_by_time) == 1:
                received_at = Repeated(received_at)
            columns = {"case_id": case_ids, **group.columns, "received_at": received_at}
            is_new = self._find_new(group, case_ids, key_ids, results)
            for position, case_id in compress(zip(group.positions, case_ids, strict=True), is_new):
                results[position] = (
                    ACCEPTED if case_id in described_cases else ACCEPTED_WITHOUT_CASE
                )
            if not all(is_new):
                columns = {name: list(compress(values, is_new)) for name, values in columns.items()}
            if columns["case_id"]:
                stored_columns[group.schema] = columns
        return stored_columns

    def _find_new(
        self,
        group: RecordGroup,
        case_ids: Sequence[int],
        key_ids: KeyIds,
        results: list[RecordReceipt],
    ) -> Sequence[bool]:
        """Return which records are new; set the receipts of the others."""
        existing_cases = set(case_ids) - key_ids.new_ids
        known_hashes = self._load_hashes(group.schema, existing_cases) if existing_cases else {}
        record_names = list(zip(case_ids, group.record_keys, strict=True))
        if (
            not known_hashes
            and key_ids.purged_ids.isdisjoint(case_ids)
            and len(set(record_names)) == len(record_names)
        ):
            return [True] * len(record_names)
        is_new = []
        hashes = group.columns["hash"]
        for position, name, content_hash in zip(group.positions, record_names, hashes, strict=True):
            stored_hash = known_hashes.setdefault(name, content_hash)
            is_purged = name[0] in key_ids.purged_ids
            is_new.append(
                stored_hash is content_hash and not is_purged
            )  # the dictionary had no other hash
            if name[0] in key_ids.erased_ids:
                results[position] = REFUSED_AS_ERASED
            elif is_purged:
                results[position] = DUPLICATE_OF_PURGED
            elif stored_hash is not content_hash:
                results[position] = DUPLICATE if stored_hash == content_hash else CONFLICT
        return is_new

    def _load_hashes(
        self, schema: RecordSchema, case_ids: Collection[int]
    ) -> dict[tuple[int, Any], bytes]:
        """Return the stored hashes by case and record key."""
        columns = tuple(schema.table.c[name] for name in ("case_id", *schema.key, "hash"))
        rows = fetch_case_rows(self._transaction, self._rollout, schema.table, columns, case_ids)
        return {
            (case_id, key_values[0] if len(key_values) == 1 else tuple(key_values)): content_hash
            for case_id, *key_values, content_hash in rows
        }

    def _find_described_cases(self, groups: Sequence[RecordGroup], key_ids: KeyIds) -> set[int]:
        """Return the cases that exist as records, stored or in the batch."""
        new_cases = {
            key_ids.by_key[key]
            for group in groups
            if group.schema is RECORD_SCHEMAS[Case]
            for key in group.keys
        }
        unknown_cases = set(key_ids.by_key.values()) - key_ids.new_ids - new_cases
        rows = fetch_case_rows(
            self._transaction, self._rollout, cases, (cases.c.case_id,), unknown_cases
        )
        return new_cases | {case_id for (case_id,) in rows}

    def _build_table_columns(
        self,
        schema: RecordSchema,
        columns: ColumnsByName,
        sender: str | None,
        planted_ids: AbstractSet[int],
        vouched: timedelta | None,
        draw_case: DrawCase | None,
    ) -> ColumnsByName:
        """Return new records as the columns of their table."""
        row_count = len(columns["case_id"])
        common_columns: dict[str, Sequence[Any]] = {
            "rollout": Repeated.build(self._rollout.number, row_count),
            "sender": Repeated.build(sender, row_count),
        }
        table_columns = {
            COLUMN_OF.get(name, name): cells
            for name, cells in {**columns, **common_columns}.items()
        }
        if schema is RECORD_SCHEMAS[Case]:
            table_columns |= _build_marks(columns["case_id"], planted_ids)
            if draw_case is not None:
                facts = (columns[name] for name in ("key", "site", "occurred_at", "episode"))
                table_columns["draws"] = [
                    encode_json(d) if d else None for d in map(draw_case, *facts)
                ]
        if vouched is not None and "vouched" in schema.table.c:
            table_columns["vouched"] = Repeated.build(count_micros(vouched), row_count)
        table_columns |= build_hash_columns(schema.name, table_columns)
        if "episode" in columns:
            table_columns["episode"] = self._find_episode_ids(columns["episode"])
        del table_columns["key"]  # the row has the case's number
        return table_columns

    def _queue_unsealed(
        self, stored_columns: Mapping[RecordSchema, ColumnsByName], new_cases: AbstractSet[int]
    ) -> None:
        """Queue the cases of new actions and outcomes: the next tick's digest covers them."""
        entries = {
            (received_micros, case_id, RECORD_UNSEALED)
            for kind in (Action, Outcome)
            if (columns := stored_columns.get(RECORD_SCHEMAS[kind])) is not None
            for received_micros, case_id in zip(
                columns["received_at"], columns["case_id"], strict=True
            )
        }
        IncomingCases(self._transaction, self._rollout).queue_entries(sorted(entries), new_cases)

    def _find_episode_ids(self, keys: Sequence[str | None]) -> tuple[int | None, ...]:
        """Return the numbers of episodes; None for cases without one."""
        episode_keys = set(filter(None, keys))
        if not episode_keys:
            return (None,) * len(keys)
        episode_store = ExternalKeys(self._transaction, self._rollout, EPISODE)
        key_ids = episode_store.assign_ids(sorted(episode_keys), lock=False).by_key
        return tuple(key_ids.get(key or "") for key in keys)

    def _store_rejected(
        self,
        items: Sequence[Record],
        results: Sequence[RecordReceipt],
        erased_items: Collection[int],
        times: Sequence[datetime],
    ) -> None:
        """Store rejected items, except those whose content must not be stored again."""
        rejected = defaultdict[datetime, list[RejectedItem]](list)
        for position, (item, result) in enumerate(zip(items, results, strict=True)):
            if (
                result.status in REJECTED_STATUSES
                and result is not REFUSED_AS_ERASED
                and position not in erased_items
            ):
                rejected[times[position]].append(build_rejected_record(item, result.reason))
        for received_at, records in rejected.items():
            RejectedRecords(self._transaction, self._rollout).add(records, received_at=received_at)


def _build_marks(
    case_ids: Sequence[int], planted_ids: AbstractSet[int]
) -> dict[str, Sequence[Any]]:
    """Return the column that marks planted cases; nothing if none of them is."""
    marks = [True if case_id in planted_ids else None for case_id in case_ids]
    return {PLANTED: marks} if any(marks) else {}


def _group_records(
    items: Sequence[Record], erased_items: Mapping[int, str]
) -> tuple[list[RecordGroup], list[RecordReceipt]]:
    """Return the valid records by kind, and a receipt for each item."""
    results, positions = [UNDECIDED] * len(items), defaultdict[RecordSchema, list[int]](list)
    for position, item in enumerate(items):
        if position in erased_items:
            results[position] = RecordReceipt(RecordStatus.REJECTED, erased_items[position])
        else:
            positions[RECORD_SCHEMAS[type(item)]].append(position)
    groups = [
        _build_valid_group(schema, items, group_positions, results)
        for schema, group_positions in positions.items()
    ]
    return [group for group in groups if group is not None], results


def _find_first_times(
    groups: Sequence[RecordGroup], times: Sequence[datetime]
) -> dict[str, datetime]:
    """Return when the first record of each key was received."""
    first_times: dict[str, datetime] = {}
    for group in groups:
        for key, position in zip(group.keys, group.positions, strict=True):
            first_times[key] = min(times[position], first_times.get(key, times[position]))
    return first_times


def _build_valid_group(
    schema: RecordSchema,
    items: Sequence[Record],
    positions: Sequence[int],
    results: list[RecordReceipt],
) -> RecordGroup | None:
    """Return the records at these positions, without invalid ones."""
    try:
        return _build_group(schema, items, positions)
    except INVALID_RECORD_ERRORS as error:
        if len(positions) == 1:
            results[positions[0]] = RecordReceipt(RecordStatus.REJECTED, str(error))
            return None
    valid_positions = [
        position for position in positions if _build_valid_group(schema, items, [position], results)
    ]
    return _build_group(schema, items, valid_positions) if valid_positions else None


def _build_group(
    schema: RecordSchema, items: Sequence[Record], positions: Sequence[int]
) -> RecordGroup:
    """Return the records at these positions of a batch.

    Raises:
        ValueError, TypeError, OverflowError: a record can't be stored.
    """
    columns = schema.build_columns([items[position] for position in positions])
    columns["hash"] = schema.compute_hashes(columns)
    keys, first_column, *other_columns = columns["key"], *(columns[name] for name in schema.key)
    record_keys = (
        list(zip(first_column, *other_columns, strict=True)) if other_columns else first_column
    )
    return RecordGroup(schema, positions, keys, record_keys, columns)


def select_storable(sent_cases: Sequence[Case]) -> list[Case]:
    """Return those cases whose values can be stored, in their order."""
    results = [UNDECIDED] * len(sent_cases)
    if not sent_cases:
        return []
    group = _build_valid_group(RECORD_SCHEMAS[Case], sent_cases, range(len(sent_cases)), results)
    return [] if group is None else [sent_cases[position] for position in group.positions]


def build_rejected_record(
    record: Record, reason: str, *, is_placeless: bool = False
) -> RejectedItem:
    """Return a record as rejected, escaped to ASCII for every database."""
    body = json.dumps(structs.asdict(record), default=str, sort_keys=True)
    kind = RECORD_SCHEMAS[type(record)].name
    return RejectedItem(kind, escape_key(record.key), body, reason, is_placeless)


class BatchFacts(NamedTuple):
    """What a rollout has when a batch comes; most have neither exposures nor erased names.

    Attributes:
        sender: the id of the sender's account; None if it has none.
        has_exposures: whether anything of it was reviewed here.
        versions: how many it has.
        erased_kinds: those of `ERASED_KINDS` of which it has keys.
    """

    sender: str | None
    has_exposures: bool
    versions: int
    erased_kinds: frozenset[str]


def load_batch_facts(transaction: Transaction, rollout: Rollout, sender_name: str) -> BatchFacts:
    """Return what a rollout has, and who the sender of a batch is."""
    ((sender, exposed_case, version_count, *first_ids),) = fetch_rows(
        transaction, _build_query(), {"rollout": rollout.number, "sender_name": sender_name}
    )
    erased_kinds = frozenset(
        kind for kind, first in zip(ERASED_KINDS, first_ids, strict=True) if first is not None
    )
    return BatchFacts(sender, exposed_case is not None, version_count, erased_kinds)


@cache
def _build_query() -> Select[Any]:
    sender = select(account_names.c.account).where(
        account_names.c.name == bindparam("sender_name", type_=account_names.c.name.type)
    )
    exposed_case = (
        select(exposures.c.case_id)
        .where(exposures.c.rollout == bindparam("rollout"))
        .order_by(exposures.c.case_id)  # PostgreSQL then uses the key, whatever its statistics say
        .limit(literal_column("1"))
    )
    version_count = select(func.count(versions.c.version.distinct())).where(
        versions.c.rollout == bindparam("rollout")
    )
    return select(
        sender.scalar_subquery().label("sender"),
        exposed_case.scalar_subquery().label("exposed_case"),
        version_count.scalar_subquery().label("versions"),
        *select_first_of_kinds(ERASED_KINDS),
    )
