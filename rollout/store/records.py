"""Records as they are ingested: each kept once, in any order, and each answered."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Row, Table, select

from rollout import faults
from rollout.core.records import Case, Heartbeat, Record
from rollout.core.sent import AnyRecord, record_of
from rollout.store import listed
from rollout.store.bulk import insert_columns
from rollout.store.caller_keys import EPISODE, CallerKeys, Numbers
from rollout.store.columns import stored
from rollout.store.insert_once import insert_once
from rollout.store.record_rows import FORM_OF, FORMS, Cells, Form, New, digest
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.set_aside import Item, SetAside
from rollout.store.tables import cases, heartbeats

LONGEST_KEY = 200  # letters of a key that a caller makes up
MOST_REVISIONS = 2**31
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
        rows: what was accepted, as it was stored.
    """

    answers: tuple[Answer, ...]
    case_ids: Mapping[str, int]
    touched: AbstractSet[int]
    new: AbstractSet[int]
    rows: Mapping[Form, Sequence[New]]

    def told(self, kind: type[Record], cell: str) -> Iterator[tuple[int, Any]]:
        """Yield of each accepted record of a kind its case's number and one of its cells."""
        form = FORMS[kind]
        place = form.cells.index(cell)
        return ((number, cells[place]) for number, cells, _ in self.rows.get(form, ()))


ACCEPTED, DUPLICATE = Answer(Verdict.ACCEPTED), Answer(Verdict.DUPLICATE)
WAITING, GONE = Answer(Verdict.ACCEPTED, NO_CASE_YET), Answer(Verdict.DUPLICATE, PURGED)
CONFLICT = Answer(Verdict.CONFLICT, OTHER_CONTENT)
OPEN = Answer(Verdict.ACCEPTED)
"""What stands in the place of an answer that is not known yet."""


Sheet = tuple[Form, str, Any, Cells, bytes]
"""One item on its way into a table: its case's key, its own, its cells, and its hash."""


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
        received = stored(received_at)
        sheets, answers = _sheets(items)
        faults.point("ingest.parsed")
        numbers = self._case_keys.number(key for _, key, _, _, _ in sheets)
        rows = self._judge(sheets, numbers, answers)
        accepted = sum(map(len, rows.values()))
        if accepted < len(items):
            self._keep_aside(items, answers, received_at)
        faults.point("ingest.set-aside")
        for form, new in rows.items():
            self._insert(form, new, received)
        faults.point("ingest.records")
        touched = {number for new in rows.values() for number, _, _ in new}
        return Kept(tuple(answers), numbers.of, touched, numbers.new, rows)

    def hear(self, heard: Heartbeat, *, received_at: datetime) -> Answer:
        """Keep that a site was heard."""
        row = {**asdict(heard), "rollout": self._rollout.number, "received_at": received_at}
        try:
            stored(heard.at)
        except ValueError as fault:
            return Answer(Verdict.REJECTED, str(fault))
        new = insert_once(self._transaction, heartbeats, row)
        return Answer(Verdict.ACCEPTED if new else Verdict.DUPLICATE)

    @property
    def _case_keys(self) -> CallerKeys:
        return CallerKeys(self._transaction, self._rollout)

    def _judge(
        self, sheets: Sequence[Sheet], numbers: Numbers, answers: list[Answer]
    ) -> Mapping[Form, list[New]]:
        """Put an answer in the place of each sheet, and return those that are new."""
        known, described = self._known(sheets, numbers), self._described(sheets, numbers)
        rows: dict[Form, list[New]] = defaultdict(list)
        open_places: Sequence[int] = range(len(answers))
        if len(sheets) < len(answers):
            open_places = [place for place in open_places if answers[place] is OPEN]
        for place, (form, key, own, cells, said) in zip(open_places, sheets, strict=True):
            number = numbers.of[key]
            there = known.setdefault((form, number, own), said)
            if number in numbers.purged:
                answers[place] = GONE
            elif there is said:  # nothing was there: what is there now is this one
                rows[form].append((number, cells, said))
                answers[place] = ACCEPTED if number in described else WAITING
            else:
                answers[place] = DUPLICATE if there == said else CONFLICT
        return rows

    def _known(
        self, sheets: Sequence[Sheet], numbers: Numbers
    ) -> dict[tuple[Form, int, Any], bytes]:
        """Return what is stored of the batch's cases: by kind, case and key the hash."""
        found: dict[tuple[Form, int, Any], bytes] = {}
        if len(numbers.new) == len(numbers.of):  # all keys are new: nothing can be there
            return found
        asked: dict[Form, set[int]] = defaultdict(set)
        for form, key, _, _, _ in sheets:
            asked[form].add(numbers.of[key])
        for form, of in asked.items():
            columns = [form.table.c[name] for name in ("case_id", *form.key, "hash")]
            rows: Sequence[Any] = self._of_cases(form.table, columns, of - numbers.new)
            for number, *own, said in rows:
                found[form, number, own[0] if len(own) == 1 else tuple(own)] = said
        return found

    def _of_cases(
        self, table: Table, columns: Sequence[Column[Any]], case_ids: Collection[int]
    ) -> Sequence[Row[Any]]:
        if not case_ids:
            return []
        query = select(*columns).where(
            table.c.rollout == self._rollout.number,
            table.c.case_id.in_(listed.numbers(self._transaction, case_ids)),
        )
        return self._transaction.execute(query).all()

    def _described(self, sheets: Sequence[Sheet], numbers: Numbers) -> set[int]:
        """Return the cases of the batch that are known as such, before it or by it."""
        case = FORMS[Case]
        by_it = {numbers.of[key] for form, key, _, _, _ in sheets if form is case}
        asked = set(numbers.of.values()) - numbers.new - by_it
        return by_it | {row.case_id for row in self._of_cases(cases, [cases.c.case_id], asked)}

    def _insert(self, form: Form, new: Sequence[New], received: int) -> None:
        numbers, cells, hashes = zip(*new, strict=True)
        own: dict[str, Sequence[Any]] = dict(zip(form.cells, zip(*cells, strict=True), strict=True))
        if "episode" in own:
            own["episode"] = self._episodes(own["episode"])
        of_all = {"rollout": self._rollout.number, "received_at": received}
        columns = {
            **{name: (value,) * len(new) for name, value in of_all.items()},
            "case_id": numbers,
            **own,
            "hash": hashes,
        }
        insert_columns(self._transaction, form.table, columns)

    def _episodes(self, keys: Sequence[str | None]) -> Sequence[int | None]:
        """Return the numbers of episodes; of cases without one, none."""
        named = {key for key in keys if key}
        if not named:
            return [None] * len(keys)
        store = CallerKeys(self._transaction, self._rollout, EPISODE)
        numbers = store.number(sorted(named), hold=False).of
        return [numbers.get(key or "") for key in keys]

    def _keep_aside(
        self, items: Sequence[AnyRecord], answers: Sequence[Answer], received_at: datetime
    ) -> None:
        aside = [
            item_of(item, answer.reason)
            for item, answer in zip(items, answers, strict=True)
            if answer.verdict is Verdict.CONFLICT or answer.verdict is Verdict.REJECTED
        ]
        SetAside(self._transaction, self._rollout).add(aside, received_at=received_at)


def _sheets(items: Sequence[AnyRecord]) -> tuple[list[Sheet], list[Answer]]:
    """Return what can be kept; and of each item what became of it, `OPEN` where it can be."""
    sheets: list[Sheet] = []
    answers = [OPEN] * len(items)
    for place, item in enumerate(items):
        form = FORM_OF[type(item)]
        try:
            key = item.key
            if not (0 < len(key) <= LONGEST_KEY and key.isascii()) or "\0" in key:
                _check_key(key)
            if not 0 < item.revision < MOST_REVISIONS:
                raise ValueError(f"revision {item.revision} is none; the first is 1")  # noqa: TRY301 - one answer for all
            own, cells, said = form.written(item)
            sheets.append((form, key, own, cells, digest(said, cells)))
        except (ValueError, TypeError, OverflowError) as fault:
            answers[place] = Answer(Verdict.REJECTED, str(fault))
    return sheets, answers


def _check_key(key: str) -> None:
    """Refuse a key that could not be found again.

    Raises:
        ValueError: says what would be right.
    """
    if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        raise ValueError(f"a key has 1 to {LONGEST_KEY} letters and no NUL character")
    key.encode()


def item_of(sent: AnyRecord, reason: str) -> Item:
    """Return a record to be set aside, in letters that every database takes, whatever was in it."""
    record = record_of(sent)
    body = json.dumps(asdict(record), default=str, sort_keys=True)
    key = json.dumps(record.key)[1:-1][:LONGEST_KEY]
    return Item(FORMS[type(record)].name, key, body, reason)
