"""Recompute the hash of each stored record from its content, and check what decisions rest on.

A range of cases is read at a time, so memory is bounded, and a damaged page costs the records of
one range.

The exposure of a decision follows from its basis: what its reviewer was shown, and its review task.
A decision names both in its row, so its hash covers them, and the hashes and digests of what it
counts in. The rows that it names must be as they were; a repeat of the same content on the same
page, and what was shown after the decision, decide nothing. Without a row in `exposures` before it
and without a review task a decision has no basis.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Row,
    Select,
    Table,
    Text,
    case,
    func,
    select,
    type_coerce,
)

from rollout.data.database.rollouts import Rollout, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.incoming_cases import (
    ANY_REVIEWER,
    EVERY_CASE,
    FIGURES,
    ExposureEntry,
    IncomingCases,
)
from rollout.data.records.record_rows import (
    COLUMN_OF,
    ErasedHashes,
    RecordSchema,
    compute_record_hashes,
)
from rollout.data.tables.record_tables import InstantType, JsonType, encode_json
from rollout.data.tables.tables import account_names, cases, decisions, external_keys, reviews
from rollout.engine.records.reviews import MAX_CLOCK_SKEW, fold_name
from rollout.kernel.calendar.instants import count_micros, to_micros

TASK_FIELDS: Final = ("kind", "task_number", "site", "version", "opened_at", "due_at", "answer_by")
"""The columns of a review task that nothing changes once it is decided, but that of its order."""
DONE: Final = "done"
SLACK: Final = count_micros(MAX_CLOCK_SKEW)
"""How much earlier than a decision something may be shown by the clock of another replica."""
BasisValues = Mapping[str, Any]
EntriesByName = Mapping[tuple[int, str], set[ExposureEntry]]


def list_pages(entries: Iterable[ExposureEntry]) -> set[tuple[str, str]]:
    """Return the contents with their pages."""
    return {(entry.content, entry.page) for entry in entries}


def build_basis(entries: Collection[ExposureEntry], task: Any = None) -> dict[str, Any] | None:
    """Return what a decision's exposure follows from; None for nothing.

    Of a content that was shown several times on one page it has the first. `task` is a row or a
    `StoredReviewTask`.
    """
    basis: dict[str, Any] = {}
    if entries:
        basis["contents"] = [[*pair, at] for pair, at in sorted(_find_first_times(entries).items())]
    if task is not None:
        basis["task"] = _compute_task_digest(task)
    return basis or None


def _find_first_times(entries: Iterable[ExposureEntry]) -> dict[tuple[str, str], int]:
    """Return when each content was first shown on each page."""
    times: dict[tuple[str, str], int] = {}
    for content, page, at in entries:
        times[content, page] = min(at, times.get((content, page), at))
    return times


def _compute_task_digest(task: Any) -> str:
    values = (getattr(task, name) for name in TASK_FIELDS)
    stored = [to_micros(value) if isinstance(value, datetime) else value for value in values]
    return sha256(encode_json(stored).encode()).hexdigest()


def find_basis_faults(
    transaction: Transaction, rollout: Rollout, rows: Sequence[BasisValues]
) -> Iterator[tuple[BasisValues, str]]:
    """Yield decisions whose basis is not what is stored, each with what differs.

    `rows` are all decisions of some cases, in their stored form. Those whose reviewer's name was
    erased are not compared.
    """
    based_rows = [row for row in rows if row["basis"] is not None and row["salt"] is not None]
    if not based_rows:
        return
    case_ids = {row["case_id"] for row in based_rows}
    entries = IncomingCases(transaction, rollout).load_exposures({EVERY_CASE, *case_ids})
    names = _load_names(transaction, {row["sender"] for row in based_rows})
    tasks = {
        row.id: row
        for row in transaction.execute(
            select(reviews).where(*match_cases(transaction, rollout, reviews, case_ids))
        )
    }
    times: dict[int, int] = defaultdict(int)
    for row in rows:
        times[row["review"] or 0] = max(times[row["review"] or 0], row["submitted_at"] or 0)
    for row in based_rows:
        basis = json.loads(row["basis"])
        contents = {ExposureEntry(*entry) for entry in basis.get("contents", ())}
        for fault in _compare_contents(row, contents, entries, names):
            yield row, fault
        task = tasks.get(row["review"])
        if "task" in basis and not _is_task(row, basis["task"], task, times[row["review"]]):
            yield row, "rests on a review task that changed or is missing"


def _load_names(
    transaction: Transaction, accounts: Collection[str | None]
) -> dict[str, str | None]:
    """Return the names of accounts; None for those that are erased."""
    query = select(account_names.c.account, account_names.c.name)
    rows = transaction.execute(query.where(account_names.c.account.in_(accounts)))
    return {row.account: row.name for row in rows}


def _compare_contents(
    row: BasisValues,
    contents: set[ExposureEntry],
    entries: EntriesByName,
    names: Mapping[str, str | None],
) -> Iterator[str]:
    case_id, reviewer, sender = row["case_id"], fold_name(row["reviewer"]), row["sender"]
    own_entries, stored = entries.get((case_id, reviewer), set()), set[ExposureEntry]()
    for name in (reviewer, names.get(sender), sender):  # an erasure leaves the id
        stored |= entries.get((case_id, fold_name(name or "")), set())
    figures = [entries.get((EVERY_CASE, name), set()) for name in (reviewer, ANY_REVIEWER)]
    figure_times = {entry.at for entry in set[ExposureEntry]().union(*figures)}
    for entry in sorted(contents - stored):
        if entry.page != FIGURES or entry.at not in figure_times:
            yield f"rests on {_describe(entry)}, of which the row changed or is missing"
    first_times = _find_first_times(contents)
    until = (row["received_at"] if row["submitted_at"] is None else row["submitted_at"]) - SLACK
    for entry in sorted(own_entries):
        if entry.at < min(until, first_times.get((entry.content, entry.page), until)):
            yield f"says nothing of {_describe(entry)}, which was stored before"


def _is_task(row: BasisValues, digest: str, task: Row[Any] | None, closed_at: int) -> bool:
    """Return whether a decision's review task is as it was when the decision was stored."""
    return (
        task is not None
        and _compute_task_digest(task) == digest
        and (task.case_id, task.state, task.reviewer) == (row["case_id"], DONE, row["reviewer"])
        and task.closed_at is not None
        and to_micros(task.closed_at) == closed_at
        and (task.claimed_until, task.gold_answers, task.gold_decision) == (None, None, None)
    )


def _describe(entry: ExposureEntry) -> str:
    return f"the exposure {entry.content} on the page {entry.page}"


FIELD_OF: Final = {column: name for name, column in COLUMN_OF.items()}
NOT_READ: Final = frozenset({"rollout", "case_id", "episode"})
RowValues = Mapping[str, Any]


def find_last_case(transaction: Transaction, rollout: Rollout, schema: RecordSchema) -> int:
    """Return the highest number of a case with records of a kind; 0 without any."""
    query = select(func.max(schema.table.c.case_id)).where(schema.table.c.rollout == rollout.number)
    return transaction.execute(query).scalar() or 0


def find_changed_records(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, case_ids: Collection[int]
) -> tuple[int, list[str]]:
    """Return how many records of one kind were recomputed, and a sentence for each changed one."""
    query = _select_records(transaction, rollout, schema, case_ids)
    rows = [row._asdict() for row in transaction.execute(query)]
    return len(rows), list(_find_faults(transaction, rollout, schema, rows))


def _find_faults(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, rows: Sequence[RowValues]
) -> Iterator[str]:
    salted_rows = [row for row in rows if row["salt"] is not None]
    expected = _compute_hashes(schema, salted_rows)
    contents = _compute_content_hashes(schema, salted_rows)
    for row, record_hash, content_hash in zip(salted_rows, expected, contents, strict=True):
        if bytes(row["record_hash"]) != record_hash:
            yield f"{_name_record(schema, row)} is not what its hash says"
        elif bytes(row["hash"]) != content_hash:
            yield f"{_name_record(schema, row)} has not its content's hash, which finds repeats"
    if schema.table is decisions:
        for row, fault in find_basis_faults(transaction, rollout, rows):
            yield f"{_name_record(schema, row)} {fault}"
    unsalted_rows = [row for row in rows if row["salt"] is None]
    for row in _filter_not_erased(transaction, rollout, unsalted_rows):
        yield f"{_name_record(schema, row)} lost its random bytes without an erasure"


def _filter_not_erased(
    transaction: Transaction, rollout: Rollout, rows: Sequence[RowValues]
) -> Iterator[RowValues]:
    """Yield the rows whose hash no event erased; an erasure of a name leaves the row."""
    case_ids = {row["case_id"] for row in rows}
    erased_hashes = ErasedHashes(transaction, rollout).load_by_case(case_ids)
    for row in rows:
        if bytes(row["record_hash"]) not in erased_hashes:
            yield row


def _compute_hashes(schema: RecordSchema, rows: Sequence[RowValues]) -> list[bytes]:
    if not rows:
        return []
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return compute_record_hashes(schema.name, columns, columns["salt"])


def _compute_content_hashes(schema: RecordSchema, rows: Sequence[RowValues]) -> list[bytes]:
    """Return what finds repeats of records."""
    if not rows:
        return []
    columns = {FIELD_OF.get(name, name): [row[name] for row in rows] for name in rows[0]}
    return schema.compute_hashes(columns)


def _select_records(
    transaction: Transaction, rollout: Rollout, schema: RecordSchema, case_ids: Collection[int]
) -> Select[Any]:
    table, case_keys = schema.table, external_keys.alias("case_keys")
    episodes = external_keys.alias("episodes")
    columns = [_select_stored(column) for column in table.c if column.name not in NOT_READ]
    source = table.outerjoin(case_keys, case_keys.c.id == table.c.case_id)
    if table is cases:
        unknown = func.coalesce(episodes.c.key, "")  # unlike null, no case has it
        columns.append(case((table.c.episode.is_not(None), unknown)).label("episode"))
        source = source.outerjoin(episodes, episodes.c.id == table.c.episode)
    return (
        select(table.c.case_id, case_keys.c.key.label("key"), *columns)
        .select_from(source)
        .where(*_match_numbers(transaction, rollout, table, case_ids))
        .order_by(table.c.case_id)
    )


def _match_numbers(
    transaction: Transaction, rollout: Rollout, table: Table, case_ids: Collection[int]
) -> tuple[ColumnElement[bool], ...]:
    if not isinstance(case_ids, range):
        return match_cases(transaction, rollout, table, case_ids)
    is_inside = (table.c.case_id >= case_ids.start, table.c.case_id < case_ids.stop)
    return (table.c.rollout == rollout.number, *is_inside)


def _select_stored(column: Column[Any]) -> Any:
    """Return a column whose values come in their stored form."""
    if isinstance(column.type, InstantType):
        return type_coerce(column, BigInteger).label(column.name)
    if isinstance(column.type, JsonType):
        return type_coerce(column, Text).label(column.name)
    return column


def _name_record(schema: RecordSchema, row: RowValues) -> str:
    own_key = ", ".join(f"{FIELD_OF.get(name, name)} {row[name]}" for name in schema.key)
    return f"the {schema.name} of case {row['key']} ({own_key})"
