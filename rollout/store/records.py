"""Records as they are ingested: each kept once, in any order, and each answered."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Column, Row, Table, select

from rollout import faults
from rollout.core.records import Case, Heartbeat, Record
from rollout.store import listed
from rollout.store.bulk import insert_rows
from rollout.store.caller_keys import EPISODE, CallerKeys, Numbers
from rollout.store.columns import stored
from rollout.store.insert_once import insert_once
from rollout.store.record_rows import FORMS, Cells, Form, digest
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an item. `reason` says why it was not used, or what it waits for."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The answers to a batch, in its order, and the numbers of the cases that it names.

    `new` are those numbers under which nothing was stored before.
    """

    answers: tuple[Answer, ...]
    case_ids: Mapping[str, int]
    new: frozenset[int] = frozenset()


ACCEPTED, DUPLICATE = Answer(Verdict.ACCEPTED), Answer(Verdict.DUPLICATE)
WAITING = Answer(Verdict.ACCEPTED, NO_CASE_YET)


class Sheet(NamedTuple):
    """One item on its way into a table: `row` has no numbers yet, `said` is its hash."""

    form: Form
    record: Record
    row: Cells
    said: bytes


class Records:
    """The records of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def keep(self, items: Sequence[Record], *, received_at: datetime) -> Kept:
        """Keep what is new, set aside what contradicts or can't be used, and answer each item.

        One bad item takes nothing from its neighbours. Sending a batch again, in whole or in
        part, changes nothing and answers `duplicate`. Whoever writes records of the same cases
        at the same time waits until this transaction ends.
        """
        received = stored(received_at)
        sheets = [self._sheet(item, received) for item in items]
        faults.point("ingest.parsed")
        fit = [sheet for sheet in sheets if isinstance(sheet, Sheet)]
        numbers = self._case_keys.number(sheet.record.key for sheet in fit)
        judged, rows = self._judged(fit, numbers)
        verdicts = iter(judged)
        answers = tuple(next(verdicts) if isinstance(s, Sheet) else s for s in sheets)
        self._keep_aside(items, answers, received_at)
        faults.point("ingest.set-aside")
        for form, new in rows.items():
            insert_rows(self._transaction, form.table, new)
        faults.point("ingest.records")
        return Kept(answers, numbers.of, numbers.new)

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

    def _sheet(self, record: Record, received_at: int) -> Sheet | Answer:
        form = FORMS[type(record)]
        try:
            _check_key(record)
            row = form.row(record, self._rollout.number, received_at)
            return Sheet(form, record, row, digest(form, record, row))
        except (ValueError, TypeError, OverflowError) as fault:
            return Answer(Verdict.REJECTED, str(fault))

    def _judged(
        self, fit: Sequence[Sheet], numbers: Numbers
    ) -> tuple[list[Answer], Mapping[Form, list[Cells]]]:
        """Say of each sheet what it is, and give the rows of those that are new."""
        known = self._known(fit, numbers)
        described = self._described(fit, numbers)
        episodes = self._episodes(fit)
        keys = {form: form.key_of for form in FORMS.values()}
        answers: list[Answer] = []
        rows: dict[Form, list[Cells]] = defaultdict(list)
        for form, record, row, said in fit:
            number = numbers.of[record.key]
            there = known.setdefault((form, number, keys[form](record)), said)
            if number in numbers.purged:
                answers.append(Answer(Verdict.DUPLICATE, PURGED))
            elif there is said:  # nothing was there: what is there now is this one
                episode = episodes.get(record.episode or "") if isinstance(record, Case) else None
                rows[form].append(form.placed(row, number, episode, said))
                answers.append(ACCEPTED if number in described else WAITING)
            elif there == said:
                answers.append(DUPLICATE)
            else:
                answers.append(Answer(Verdict.CONFLICT, OTHER_CONTENT))
        return answers, rows

    def _known(self, fit: Sequence[Sheet], numbers: Numbers) -> dict[tuple[Form, int, Any], bytes]:
        """Return what is stored of the batch's cases: by kind, case and key the hash."""
        found: dict[tuple[Form, int, Any], bytes] = {}
        if len(numbers.new) == len(numbers.of):  # all keys are new: nothing can be there
            return found
        for form in {sheet.form for sheet in fit}:
            columns = [form.table.c[name] for name in ("case_id", *form.key, "hash")]
            asked = {numbers.of[s.record.key] for s in fit if s.form is form} - numbers.new
            rows: Sequence[Any] = self._of_cases(form.table, columns, asked)
            for number, *key, said in rows:
                found[form, number, key[0] if len(key) == 1 else tuple(key)] = said
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

    def _described(self, fit: Sequence[Sheet], numbers: Numbers) -> set[int]:
        """Return the cases of the batch that are known as such, before it or by it."""
        by_it = {numbers.of[s.record.key] for s in fit if isinstance(s.record, Case)}
        if len(numbers.new) == len(numbers.of):
            return by_it
        asked = {numbers.of[s.record.key] for s in fit} - numbers.new - by_it
        return by_it | {row.case_id for row in self._of_cases(cases, [cases.c.case_id], asked)}

    def _episodes(self, fit: Sequence[Sheet]) -> Mapping[str, int]:
        cases = (s.record for s in fit if isinstance(s.record, Case))
        named = {case.episode for case in cases if case.episode}
        keys = CallerKeys(self._transaction, self._rollout, EPISODE)
        return keys.number(sorted(named), hold=False).of if named else {}

    def _keep_aside(
        self, items: Sequence[Record], answers: Sequence[Answer], received_at: datetime
    ) -> None:
        kept = (ACCEPTED, WAITING, DUPLICATE)
        others = [(i, a) for i, a in zip(items, answers, strict=True) if a not in kept]
        pairs = ((i, a) for i, a in others if a.verdict is not Verdict.DUPLICATE)
        SetAside(self._transaction, self._rollout).add(
            [item_of(record, answer.reason) for record, answer in pairs], received_at=received_at
        )


def _check_key(record: Record) -> None:
    """Refuse a key that could not be found again, and a revision that is none.

    Raises:
        ValueError: says what would be right.
    """
    key = record.key
    if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        raise ValueError(f"a key has 1 to {LONGEST_KEY} letters and no NUL character")
    if not key.isascii():
        key.encode()
    if not 0 < record.revision < MOST_REVISIONS:
        raise ValueError(f"revision {record.revision} is none; the first is 1")


def item_of(record: Record, reason: str) -> Item:
    """Return a record to be set aside, in letters that every database takes, whatever was in it."""
    body = json.dumps(asdict(record), default=str, sort_keys=True)
    key = json.dumps(record.key)[1:-1][:LONGEST_KEY]
    return Item(FORMS[type(record)].name, key, body, reason)
