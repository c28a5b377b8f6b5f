"""Records as they are ingested: each kept once, in any order, and each answered."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain, compress
from typing import Any

from sqlalchemy import Column, Row, Table, select

from rollout import faults
from rollout.core.records.records import AnyRecord, Case, Heartbeat, Record, record_of
from rollout.store.database import value_lists
from rollout.store.database.bulk import insert_columns, insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import EPISODE, CallerKeys, Numbers
from rollout.store.records.record_rows import COLUMN_OF, FORM_OF, FORMS, LONGEST_KEY, Cells, Form
from rollout.store.records.rejected_records import Item, SetAside
from rollout.store.tables.columns import stored
from rollout.store.tables.tables import cases, heartbeats

NO_CASE_YET = "no case yet"
PURGED = "its case was there, and its records have been deleted"
OTHER_CONTENT = "other content under a key that is known; send it as the next revision"


class Verdict(StrEnum):
    """What became of an item."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"

    __hash__ = str.__hash__  # an enumeration hashes its names in Python, item by item


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an item. `reason` says why it was not used, or what it waits for."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a batch.

    Attributes:
        answers: to its items, in their order.
        case_ids: the numbers of the cases that it names.
        touched: those of which something was accepted.
        new: those under which nothing was stored before.
        columns: what was accepted, as it was stored; `case_id` is the case's number.
    """

    answers: tuple[Answer, ...]
    case_ids: Mapping[str, int]
    touched: AbstractSet[int]
    new: AbstractSet[int]
    columns: Mapping[Form, Cells]

    def told(self, kind: type[Record], cell: str) -> Iterator[tuple[int, Any]]:
        """Yield of each accepted record of a kind its case's number and one of its cells."""
        columns = self.columns.get(FORMS[kind])
        return zip(columns["case_id"], columns[cell], strict=True) if columns else iter(())


ACCEPTED, DUPLICATE = Answer(Verdict.ACCEPTED), Answer(Verdict.DUPLICATE)
WAITING, GONE = Answer(Verdict.ACCEPTED, NO_CASE_YET), Answer(Verdict.DUPLICATE, PURGED)
CONFLICT = Answer(Verdict.CONFLICT, OTHER_CONTENT)
OPEN = Answer(Verdict.ACCEPTED)
"""What stands in the place of an answer that is not known yet."""
UNFIT = (ValueError, TypeError, OverflowError)
"""What is raised of a record that can't be kept."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A batch's records of one kind, on their way into their table.

    Attributes:
        form: their kind.
        places: of each in the batch.
        keys: of each the case's.
        own: of each its key after the case.
        columns: as `Form.columns` gives them, with `hash`.
    """

    form: Form
    places: Sequence[int]
    keys: Sequence[str]
    own: Sequence[Any]
    columns: Cells


class Records:
    """The records of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def keep(self, items: Sequence[AnyRecord], *, received_at: datetime) -> Kept:
        """Keep what is new, set aside what contradicts or can't be used, and answer each item.

        One bad item takes nothing from its neighbours. Sending a batch again, in whole or in
        part, changes nothing and answers `duplicate`. Whoever writes records of the same cases
        at the same time waits until this transaction ends.
        """
        received_micros = stored(received_at)
        groups, results = _sheets(items)
        faults.point("ingest.parsed")
        key_ids = self._case_keys.number(chain.from_iterable(group.keys for group in groups))
        stored_columns = self._judge(groups, key_ids, results)
        if sum(len(columns["case_id"]) for columns in stored_columns.values()) < len(items):
            self._keep_aside(items, results, received_at)
        faults.point("ingest.set-aside")
        for schema, columns in stored_columns.items():
            self._insert(schema, columns, received_micros)
        faults.point("ingest.records")
        changed_cases = set(
            chain.from_iterable(columns["case_id"] for columns in stored_columns.values())
        )
        return Kept(tuple(results), key_ids.of, changed_cases, key_ids.new, stored_columns)

    def hear(self, heard: Heartbeat, *, received_at: datetime) -> Answer:
        """Keep that a site was heard."""
        row = {**asdict(heard), "rollout": self._rollout.number, "received_at": received_at}
        try:
            stored(heard.at)
        except ValueError as error:
            return Answer(Verdict.REJECTED, str(error))
        is_new = insert_once(self._transaction, heartbeats, row)
        return Answer(Verdict.ACCEPTED if is_new else Verdict.DUPLICATE)

    @property
    def _case_keys(self) -> CallerKeys:
        return CallerKeys(self._transaction, self._rollout)

    def _judge(
        self, sheets: Sequence[Sheet], numbers: Numbers, answers: list[Answer]
    ) -> Mapping[Form, Cells]:
        """Put an answer in the place of each record, and return those that are new."""
        described_cases, stored_columns = self._described(sheets, numbers), dict[Form, Cells]()
        for group in sheets:
            case_ids = [numbers.of[key] for key in group.keys]
            columns = {"case_id": case_ids, **group.columns}
            is_new = self._new(group, case_ids, numbers, answers)
            for position, case_id in compress(zip(group.places, case_ids, strict=True), is_new):
                answers[position] = ACCEPTED if case_id in described_cases else WAITING
            if not all(is_new):
                columns = {name: list(compress(values, is_new)) for name, values in columns.items()}
            if columns["case_id"]:
                stored_columns[group.form] = columns
        return stored_columns

    def _new(
        self, sheet: Sheet, case_ids: Sequence[int], numbers: Numbers, answers: list[Answer]
    ) -> Sequence[bool]:
        """Say of each record whether it is new, and answer those that aren't."""
        existing_cases = set(case_ids) - numbers.new
        known_hashes = self._known(sheet.form, existing_cases) if existing_cases else {}
        record_names = list(zip(case_ids, sheet.own, strict=True))
        if (
            not known_hashes
            and numbers.purged.isdisjoint(case_ids)
            and len(set(record_names)) == len(record_names)
        ):
            return [True] * len(record_names)
        is_new = []
        hashes = sheet.columns["hash"]
        for position, name, content_hash in zip(sheet.places, record_names, hashes, strict=True):
            stored_hash = known_hashes.setdefault(name, content_hash)
            is_purged = name[0] in numbers.purged
            is_new.append(
                stored_hash is content_hash and not is_purged
            )  # nothing was there: what is now is this one
            if is_purged:
                answers[position] = GONE
            elif stored_hash is not content_hash:
                answers[position] = DUPLICATE if stored_hash == content_hash else CONFLICT
        return is_new

    def _known(self, form: Form, case_ids: Collection[int]) -> dict[tuple[int, Any], bytes]:
        """Return what is stored of cases: by case and key the hash."""
        columns = [form.table.c[name] for name in ("case_id", *form.key, "hash")]
        rows: Sequence[Any] = self._of_cases(form.table, columns, case_ids)
        return {
            (case_id, key_values[0] if len(key_values) == 1 else tuple(key_values)): content_hash
            for case_id, *key_values, content_hash in rows
        }

    def _of_cases(
        self, table: Table, columns: Sequence[Column[Any]], case_ids: Collection[int]
    ) -> Sequence[Row[Any]]:
        if not case_ids:
            return []
        query = select(*columns).where(
            table.c.rollout == self._rollout.number,
            table.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
        )
        return self._transaction.execute(query).all()

    def _described(self, sheets: Sequence[Sheet], numbers: Numbers) -> set[int]:
        """Return the cases of the batch that are known as such, before it or by it."""
        described_here = {
            numbers.of[key] for group in sheets if group.form is FORMS[Case] for key in group.keys
        }
        unknown_cases = set(numbers.of.values()) - numbers.new - described_here
        return described_here | {
            row.case_id for row in self._of_cases(cases, [cases.c.case_id], unknown_cases)
        }

    def _insert(self, form: Form, columns: Cells, received: int) -> None:
        row_count = len(columns["case_id"])
        common_columns: dict[str, Sequence[Any]] = {
            "rollout": (self._rollout.number,) * row_count,
            "received_at": (received,) * row_count,
        }
        if "episode" in columns:
            common_columns["episode"] = self._episodes(columns["episode"])
        stands = {
            COLUMN_OF.get(name, name): cells
            for name, cells in {**columns, **common_columns}.items()
        }
        insert_columns(self._transaction, form.table, stands)

    def _episodes(self, keys: Sequence[str | None]) -> tuple[int | None, ...]:
        """Return the numbers of episodes; of cases without one, none."""
        episode_keys = set(filter(None, keys))
        if not episode_keys:
            return (None,) * len(keys)
        episode_store = CallerKeys(self._transaction, self._rollout, EPISODE)
        key_ids = episode_store.number(sorted(episode_keys), hold=False).of
        return tuple(key_ids.get(key or "") for key in keys)

    def _keep_aside(
        self, items: Sequence[AnyRecord], answers: Sequence[Answer], received_at: datetime
    ) -> None:
        rejected = [
            item_of(item, result.reason)
            for item, result in zip(items, answers, strict=True)
            if result.verdict is Verdict.CONFLICT or result.verdict is Verdict.REJECTED
        ]
        SetAside(self._transaction, self._rollout).add(rejected, received_at=received_at)


def _sheets(items: Sequence[AnyRecord]) -> tuple[list[Sheet], list[Answer]]:
    """Return what can be kept; and of each item what became of it, `OPEN` where it can be."""
    results, positions = [OPEN] * len(items), defaultdict[Form, list[int]](list)
    for position, item in enumerate(items):
        positions[FORM_OF[type(item)]].append(position)
    groups = [
        _sheet(schema, items, group_positions, results)
        for schema, group_positions in positions.items()
    ]
    return [group for group in groups if group is not None], results


def _sheet(
    form: Form, items: Sequence[AnyRecord], places: Sequence[int], answers: list[Answer]
) -> Sheet | None:
    """Return the records in some places of a batch, without those that are refused."""
    try:
        return _whole(form, items, places)
    except UNFIT as error:
        if len(places) == 1:
            answers[places[0]] = Answer(Verdict.REJECTED, str(error))
            return None
    valid_positions = [position for position in places if _sheet(form, items, [position], answers)]
    return _whole(form, items, valid_positions) if valid_positions else None


def _whole(form: Form, items: Sequence[AnyRecord], places: Sequence[int]) -> Sheet:
    """Return the records in some places of a batch.

    Raises:
        ValueError, TypeError, OverflowError: one can't be kept.
    """
    columns = form.columns([items[position] for position in places])
    columns["hash"] = form.hashes(columns)
    keys, first_column, *other_columns = columns.pop("key"), *(columns[name] for name in form.key)
    record_keys = (
        list(zip(first_column, *other_columns, strict=True)) if other_columns else first_column
    )
    return Sheet(form, places, keys, record_keys, columns)


def item_of(sent: AnyRecord, reason: str) -> Item:
    """Return a record to be set aside, in letters that every database takes, whatever was in it."""
    record = record_of(sent)
    body = json.dumps(asdict(record), default=str, sort_keys=True)
    key = json.dumps(record.key)[1:-1][:LONGEST_KEY]
    return Item(FORMS[type(record)].name, key, body, reason)
