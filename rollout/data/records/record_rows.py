"""The stored form of records, with hashes of their content; stored actions and baselines.

Hashes of records cover everything that decides whether and how a record counts. A record's `hash`
is that of the sender's content, which finds repeats. Its `record_hash` is the SHA-256 over 16
random bytes (`salt`), the line `rollout-record-1 KIND` and canonical JSON: the columns of its row
by name, with the keys of its case and episode instead of their numbers, without those that are null
(`format_rows`). A new column that is null in stored rows changes no hash.

An erasure deletes the random bytes with the record, so that nobody can test guesses of its content
against the hashes that stay: those of counted units, and those of `ErasedHashes`.

Baselines are imported: what humans did before the rollout, and who vouches for it. Actions on cases
have their authorization.
"""

import json
import json.encoder
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from itertools import repeat
from math import isfinite
from operator import is_
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_args

from msgspec import Meta
from msgspec.structs import astuple
from sqlalchemy import Row, Table, insert, select

from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.tables.record_tables import encode_instant, encode_json
from rollout.data.tables.tables import (
    actions,
    baselines,
    cases,
    decisions,
    erased_hashes,
    external_keys,
    outcomes,
    predictions,
    rollouts,
)
from rollout.engine.records.records import (
    RECORD_FIELDS,
    UNREGISTERED,
    Action,
    Answers,
    BaselineCount,
    Case,
    Decision,
    Name,
    Outcome,
    Personal,
    Prediction,
    Record,
    RecordField,
    RecordT,
)
from rollout.kernel.calendar.instants import EPOCH, MICROSECOND
from rollout.kernel.units import group_pairs

NAME_LIMITS: Final[Meta] = get_args(Name)[1]
MAX_KEY_LENGTH: Final = 200  # letters of a caller's key
MAX_REVISION: Final = 2**31
BELOW_ALL: Final = range(UNREGISTERED, 0)
"""Revisions of cases that nobody has registered."""
MAX_CACHED_ANSWERS: Final = 4
"""Maximum of answers in a record whose JSON is cached, to limit memory."""
ColumnValues = Sequence[Any]
Convert = Callable[[ColumnValues], ColumnValues]
ColumnsByName = Mapping[str, ColumnValues]
"""Records of one kind as columns in the same order.

Columns halve the time for a batch, because most operations on a whole column run in C.
"""


@dataclass(frozen=True, slots=True, eq=False)
class RecordSchema:
    """The storage of one kind of record; `COLUMN_OF` maps other names.

    Attributes:
        name: the kind in the API and in `rejected_records`.
        key: the columns of its key after the case.
        fields: of the record, as declared.
        converters: functions from a field's values to stored values.
        content_columns: the fields of the caller's content, with their columns.
    """

    name: str
    table: Table
    key: tuple[str, ...]
    fields: tuple[RecordField, ...]
    converters: Mapping[str, Convert]
    content_columns: tuple[tuple[str, str], ...]

    def list_personal(self, personal: Personal) -> dict[str, Any]:
        """Return the defaults of the columns that an erasure of a name treats in one way."""
        fields = (field for field in self.fields if field.rule.personal is personal)
        return {field.column: field.default for field in fields}

    def build_columns(self, records: Sequence[Record]) -> dict[str, ColumnValues]:
        """Return the fields of records of this kind as columns.

        At least one record is required. `episode` holds the episode's key instead of its number.
        The store adds the case's number, the time of receipt and the hash.

        Raises:
            ValueError, TypeError, OverflowError: a value can't be stored.
        """
        columns: dict[str, ColumnValues] = dict(
            zip(records[0].__struct_fields__, zip(*map(astuple, records), strict=True), strict=True)
        )
        for name, convert in self.converters.items():
            columns[name] = convert(columns[name])
        return columns

    def compute_hashes(self, columns: ColumnsByName) -> list[bytes]:
        """Return the SHA-256 of each record's content: those of a key that are equal are one.

        Raises:
            ValueError: a number is infinite or NaN, or a text can't be stored.
        """
        texts = format_rows({column: columns[name] for name, column in self.content_columns})
        joined = "".join(texts)
        joined.encode()  # raises for half a character
        if _needs_check(joined):
            for text, *row in zip(texts, *columns.values(), strict=True):
                if _needs_check(text):
                    _check_row(row)
        return [sha256(text.encode()).digest() for text in texts]


def format_rows(columns: ColumnsByName) -> list[str]:
    """Return each row as canonical JSON: sorted keys, no spaces, and no key without a value.

    A column that a table gets later is null in older rows, so that they keep their text. What all
    rows have in common is formatted once.

    >>> format_rows({"site": ["a", "b"], "note": [None, "50 %"], "unsure": [True, True]})
    ['{"site":"a","unsure":true}', '{"note":"50 %","site":"b","unsure":true}']
    """
    template, row_count = "", 0
    differing: list[ColumnValues] = []
    for name in sorted(columns):
        column = columns[name]
        row_count = len(column)
        null_count = column.count(None)
        if null_count == row_count:
            continue
        key = f',"{name}":'
        if null_count:
            mark, values = _prepare_cells(name, [cell for cell in column if cell is not None])
            pieces = map(f"{key}{mark}".__mod__, zip(values, strict=True))
            template += "%s"
            differing.append(["" if cell is None else next(pieces) for cell in column])
        elif _is_constant(column):
            mark, values = _prepare_cells(name, column[:1])
            template += f"{key}{mark}".__mod__((values[0],)).replace("%", "%%")
        else:
            mark, values = _prepare_cells(name, column)
            template += key + mark
            differing.append(values)
    rows = map(template.__mod__, zip(*differing, strict=True)) if differing else ()
    return [f"{{{row[1:]}}}" for row in rows or repeat(template % (), row_count)]


def _prepare_cells(name: str, column: ColumnValues) -> tuple[str, ColumnValues]:
    """Return how a value of a column is formatted as JSON, and the values for that."""
    if name in JSON_COLUMNS:
        return "%s", column  # they are JSON already
    if name in FLOAT_COLUMNS:
        return "%r", [float(cell) + 0.0 for cell in column]  # as databases return them, no -0.0
    match column[0]:
        case bool():
            return "%s", ["true" if cell else "false" for cell in column]
        case int():
            return "%d", column
    joined = "".join(column)
    if joined.isprintable() and '"' not in joined and "\\" not in joined:
        return '"%s"', column
    return "%s", list(map(json.encoder.encode_basestring, column))


def _is_constant(column: ColumnValues) -> bool:
    """Return whether all values of a column have one text; equal ones of 1 and True do not."""
    first = column[0]
    if column[-1] != first or column.count(first) < len(column):  # the last mostly tells
        return False
    return first is None or type(first) is str or all(map(is_, column, repeat(first)))


def _needs_check(text: str) -> bool:
    return "\\" in text or "nan" in text or "inf" in text  # control characters are escaped with a \


def _check_row(row: Iterable[Any]) -> None:
    for cell in row:
        if isinstance(cell, str):
            cell.encode()
            if "\0" in cell:
                raise ValueError("a text has a NUL character; leave it out")
        if isinstance(cell, float) and not isfinite(cell):
            raise ValueError(f"{cell} is not a number in JSON; omit it")


def _check_keys(values: ColumnValues) -> ColumnValues:
    """Return the keys unchanged; raise ValueError for an invalid one."""
    shortest, longest = min(map(len, values)), max(map(len, values))
    joined = "".join(values)
    if not 0 < shortest <= longest <= MAX_KEY_LENGTH or "\0" in joined:
        raise ValueError(f"a key has 1 to {MAX_KEY_LENGTH} letters and no NUL character")
    joined.encode()
    return values


def _check_revisions(values: ColumnValues) -> ColumnValues:
    """Return the revisions unchanged; raise ValueError for an invalid one."""
    for revision in (min(values), max(values)):
        if not 0 < revision < MAX_REVISION:
            raise ValueError(f"revision {revision} is invalid; the first is 1")
    return values


def _check_case_revisions(values: ColumnValues) -> ColumnValues:
    """Return the revisions unchanged, also those of senders that register no cases."""
    _check_revisions([revision for revision in values if revision not in BELOW_ALL] or [1])
    return values


def _check_names(values: ColumnValues) -> ColumnValues:
    """Return names unchanged; raise ValueError if one can't be stored.

    Names are no content, so `compute_hashes` does not check them. PostgreSQL indexes no long ones.
    """
    joined = "".join(values)
    if max(map(len, values)) > MAX_KEY_LENGTH:
        raise ValueError(f"a name has at most {MAX_KEY_LENGTH} letters")
    if not joined.isascii() or "\0" in joined:
        _check_row(values)
    return values


def is_storable_name(name: str) -> bool:
    """Return whether a name, of a version for example, can be stored."""
    try:
        _check_names([name])
    except ValueError:
        return False
    return True


def _encode_instants(times: ColumnValues) -> ColumnValues:
    """Return instants as `encode_instant` does."""
    try:
        return [(at - EPOCH) // MICROSECOND for at in times]
    except TypeError:
        return list(map(encode_instant, times))  # raises for the first wrong instant


def _encode_json_column(values: ColumnValues) -> ColumnValues:
    """Return JSON as `encode_json` does."""
    return [_encode(dict(value)) if value else "{}" for value in values]


def _encode_values(values: ColumnValues) -> ColumnValues:
    """Return the JSON of numbers, as floats without a negative zero; None for none."""
    return [
        _encode({name: float(value) + 0.0 for name, value in numbers.items()}) if numbers else None
        for numbers in values
    ]


def _make_optional(convert: Convert) -> Convert:
    """Return the converter for columns that may contain None."""

    def convert_optional(values: ColumnValues) -> ColumnValues:
        null_count = values.count(None)
        if not null_count:
            return convert(values)
        if null_count == len(values):
            return values
        converted = iter(convert([value for value in values if value is not None]))
        return [None if value is None else next(converted) for value in values]

    return convert_optional


def _encode_answers(values: ColumnValues) -> ColumnValues:
    """Return JSON as `encode_json` does, cached, because labels are few."""
    return [
        _encode_few_answers(tuple(answers.items()))
        if len(answers) <= MAX_CACHED_ANSWERS
        else _encode(dict(answers))
        for answers in values
    ]


@lru_cache(maxsize=1_000)
def _encode_few_answers(values: tuple[tuple[str, str | None], ...]) -> str:
    return _encode(dict(values))


def _build_encoder() -> Callable[[Any], str]:
    """Return a faster `encode_json`, which creates no encoder for each text."""
    make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
    if make_encoder is None:  # an interpreter without C extensions
        return encode_json

    def refuse(value: object) -> None:
        raise TypeError(f"{value!r} is not JSON")

    write = make_encoder(
        None, refuse, json.encoder.encode_basestring, None, ":", ",", True, False, False
    )
    return lambda value: "".join(write(value, 0))


_encode = _build_encoder()

TABLES: Final[Mapping[type[Record], Table]] = {
    Case: cases,
    Prediction: predictions,
    Decision: decisions,
    Action: actions,
    Outcome: outcomes,
}
ALL_FIELDS: Final = [field for kind in TABLES for field in RECORD_FIELDS[kind]]
COLUMN_OF: Final = {field.name: field.column for field in ALL_FIELDS if field.rule.column}
"""The columns whose names differ from the fields of records."""
FLOAT_COLUMNS: Final = frozenset(field.column for field in ALL_FIELDS if field.kind is float)
JSON_COLUMNS: Final = frozenset(
    {"draws", *(field.column for field in ALL_FIELDS if field.kind is Mapping)}
)
"""The columns that hold JSON as text."""


def _find_converter(kind: type[Record], field: RecordField) -> Convert | None:
    """Return what makes stored values of a field's, None where they are the same."""
    if field.name == "key":
        return _check_keys
    if field.name == "revision":
        return _check_case_revisions if kind is Case else _check_revisions
    if field.rule.is_null_if_empty:
        return _encode_values
    convert: Convert
    if field.kind is Mapping:
        convert = _encode_answers if field.plain == Answers else _encode_json_column
    elif field.kind is datetime:
        convert = _encode_instants
    elif field.limits == NAME_LIMITS:
        convert = _check_names
    else:
        return None
    return _make_optional(convert) if field.is_optional else convert


def _build_schema(kind: type[Record], table: Table) -> RecordSchema:
    fields = RECORD_FIELDS[kind]
    converters = {field.name: _find_converter(kind, field) for field in fields}
    return RecordSchema(
        name=kind.__name__.lower(),
        table=table,
        key=tuple(field.name for field in fields if field.rule.is_key and field.name != "key"),
        fields=fields,
        converters={name: convert for name, convert in converters.items() if convert},
        content_columns=tuple((f.name, f.column) for f in fields if f.rule.is_content),
    )


RECORD_SCHEMAS: Final[Mapping[type[Record], RecordSchema]] = MappingProxyType(
    {kind: _build_schema(kind, table) for kind, table in TABLES.items()}
)


def parse_record(kind: type[RecordT], row: Row[Any], **external_keys: str | None) -> RecordT:
    """Return the record of a row.

    `external_keys` are the keys of its case and, if it has one, of its episode.
    """
    values: dict[str, Any] = dict(external_keys)
    for field in RECORD_FIELDS[kind]:
        value = getattr(row, COLUMN_OF.get(field.name, field.name), None)
        if value is not None or not field.rule.is_null_if_empty:
            values.setdefault(field.name, value)
    return kind(**values)


RECORD_SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
PLANTED: Final = "planted"
NOT_COVERED: Final = frozenset({"rollout", "case_id", "hash", "salt", "record_hash"})
"""The columns that a hash doesn't cover: numbers of this database, and the hashes."""


class CaseHash(NamedTuple):
    """The hash of one record of a case; `version` is "" unless it is a prediction."""

    case_id: int
    version: str
    hash: bytes


def build_hash_columns(name: str, columns: ColumnsByName) -> dict[str, Sequence[Any]]:
    """Return salt and hash of new records, given as stored columns with their keys."""
    salts = _draw_salts(len(columns["key"]))
    return {"salt": salts, "record_hash": compute_record_hashes(name, columns, salts)}


def compute_record_hashes(name: str, columns: ColumnsByName, salts: Iterable[bytes]) -> list[bytes]:
    """Return the hashes of records of one kind.

    Args:
        name: the kind, as `RecordSchema.name`.
        columns: the stored values by column; a column that is missing is null.
        salts: the random bytes of each record.
    """
    texts = format_rows({key: columns[key] for key in columns.keys() - NOT_COVERED})
    head = f"rollout-record-1 {name}\n".encode()
    return [
        sha256(salt + head + text.encode()).digest()
        for salt, text in zip(salts, texts, strict=True)
    ]


def _draw_salts(row_count: int) -> list[bytes]:
    drawn = secrets.token_bytes(RECORD_SALT_BYTES * row_count)
    return [
        drawn[start : start + RECORD_SALT_BYTES]
        for start in range(0, len(drawn), RECORD_SALT_BYTES)
    ]


def load_case_hashes(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> list[CaseHash]:
    """Return the hashes of all records of some cases."""
    return [
        CaseHash(row.case_id, getattr(row, "version", ""), bytes(row.record_hash))
        for schema in RECORD_SCHEMAS.values()
        for row in transaction.execute(
            _select_hashes(schema.table).where(
                *match_cases(transaction, rollout, schema.table, case_ids)
            )
        )
    ]


HASHES_PER_QUERY: Final = 500
NEAR_CASES: Final = 10_000
ALL_CASES: Final = 2**62


def find_stored_hashes(
    transaction: Transaction, rollout: Rollout, hashes: Collection[bytes], near: Collection[int]
) -> set[bytes]:
    """Return which of some hashes a record of any case has.

    Cases of numbers near these were stored at about the same time, so they are searched first.
    """
    parts = [*hashes]
    stored_hashes: set[bytes] = set()
    for distance in (NEAR_CASES, ALL_CASES):
        span = min(near) - distance, max(near) + distance
        for schema in RECORD_SCHEMAS.values():
            for start in range(0, len(parts), HASHES_PER_QUERY):
                query = _select_hashes(schema.table).where(
                    schema.table.c.rollout == rollout.number,
                    schema.table.c.case_id.between(*span),
                    schema.table.c.record_hash.in_(parts[start : start + HASHES_PER_QUERY]),
                )
                stored_hashes |= {bytes(row.record_hash) for row in transaction.execute(query)}
        if stored_hashes.issuperset(parts):
            break
    return stored_hashes


def _select_hashes(table: Table) -> Any:
    names = ("case_id", "version") if table.name == "predictions" else ("case_id",)
    return select(*(table.c[name] for name in names), table.c.record_hash)


def join_hashes(hashes: Iterable[bytes]) -> bytes:
    """Return hashes sorted and joined, as they are stored."""
    return b"".join(sorted(hashes))


def split_hashes(joined: bytes) -> list[bytes]:
    """Return the hashes of a stored value."""
    return [joined[start : start + HASH_BYTES] for start in range(0, len(joined), HASH_BYTES)]


class ErasedHashes(RolloutRepository):
    """The hashes of records of one rollout that purges and erasures took."""

    def store(self, hashes: Iterable[tuple[int, bytes]], *, revision: int) -> str:
        """Store pairs of case and hash; return the digest for the ledger.

        Call it in the transaction that deletes the content and appends the event of `revision`.
        The digest is "" without hashes.
        """
        hashes_by_case = group_pairs(set(hashes))
        rows = [
            (case_id, join_hashes(hashes_by_case[case_id])) for case_id in sorted(hashes_by_case)
        ]
        if not rows:
            return ""
        key = {"rollout": self._rollout.number, "revision": revision}
        values = [{**key, "case_id": case_id, "hashes": joined} for case_id, joined in rows]
        self._transaction.execute(insert(erased_hashes), values)
        return _compute_digest(rows)

    def store_cases(self, case_ids: Collection[int], *, revision: int) -> str:
        """Store the hashes of all records of some cases, before these are deleted."""
        hashes = load_case_hashes(self._transaction, self._rollout, case_ids)
        return self.store(((row.case_id, row.hash) for row in hashes), revision=revision)

    def compute_digest(self, revision: int) -> str:
        """Return the digest of what is stored for an event; "" without hashes."""
        rows = self._transaction.execute(
            select(erased_hashes.c.case_id, erased_hashes.c.hashes)
            .where(erased_hashes.c.rollout == self._rollout.number)
            .where(erased_hashes.c.revision == revision)
            .order_by(erased_hashes.c.case_id)
        )
        return _compute_digest((row.case_id, bytes(row.hashes)) for row in rows)

    def list_revisions(self) -> list[int]:
        """Return the revisions of events that took hashes."""
        own = (
            select(erased_hashes.c.revision)
            .distinct()
            .where(erased_hashes.c.rollout == self._rollout.number)
        )
        return sorted(self._transaction.execute(own).scalars())

    def find_revisions(
        self, hashes: Collection[bytes], case_ids: Collection[int]
    ) -> dict[bytes, int]:
        """Return the revision of the event that took each hash, if one did.

        The hashes of `case_ids` are read first; only if some are missing, as in an episode whose
        other cases are gone, all are.
        """
        if not hashes:
            return {}
        revisions = self.load_by_case(case_ids)
        if not revisions.keys() >= set(hashes):
            revisions |= {
                record_hash: revision
                for record_hash, revision in self._list_all()
                if record_hash in hashes
            }
        return {part: revisions[part] for part in hashes if part in revisions}

    def _list_all(self) -> Iterator[tuple[bytes, int]]:
        query = select(erased_hashes.c.revision, erased_hashes.c.hashes).where(
            erased_hashes.c.rollout == self._rollout.number
        )
        for row in self._transaction.execute(query.execution_options(yield_per=1_000)):
            for record_hash in split_hashes(bytes(row.hashes)):
                yield record_hash, row.revision

    def load_by_case(self, case_ids: Collection[int]) -> dict[bytes, int]:
        """Return the revision of the event by hash, of records of some cases."""
        query = select(erased_hashes.c.revision, erased_hashes.c.hashes).where(
            *match_cases(self._transaction, self._rollout, erased_hashes, case_ids)
        )
        return {
            record_hash: row.revision
            for row in self._transaction.execute(query)
            for record_hash in split_hashes(bytes(row.hashes))
        }


def _compute_digest(rows: Iterable[tuple[int, bytes]]) -> str:
    digest, is_empty = sha256(), True
    for case_id, joined in rows:
        digest.update(f"{case_id} {joined.hex()}\n".encode())
        is_empty = False
    return "" if is_empty else digest.hexdigest()


COLUMNS: Final = tuple(baselines.c[name] for name in BaselineCount.__dataclass_fields__)


class Baselines(RolloutRepository):
    """The baselines of one rollout; a correction is another row."""

    def add(self, imported: Iterable[BaselineCount]) -> Sequence[bool]:
        """Store baselines; return for each whether it is new or changed."""
        self._transaction.execute(
            select(rollouts.c.id).where(rollouts.c.id == self._rollout.number).with_for_update()
        )  # one of two concurrent imports waits
        current_by_identity = {baseline.identity: baseline for baseline in self.list_all()}
        added = []
        for baseline in imported:
            added.append(current_by_identity.get(baseline.identity) != baseline)
            if added[-1]:
                self._transaction.execute(
                    insert(baselines).values({"rollout": self._rollout.number, **asdict(baseline)})
                )
                current_by_identity[baseline.identity] = baseline
        return added

    def list_all(self) -> Sequence[BaselineCount]:
        """Return all baselines in the order of their import."""
        rows = self._transaction.execute(
            select(*COLUMNS)
            .where(baselines.c.rollout == self._rollout.number)
            .order_by(baselines.c.id)
        )
        return [BaselineCount(**row._asdict()) for row in rows]

    def list_current(self) -> Sequence[BaselineCount]:
        """Return the last baseline of each identity, sorted by cell."""
        last_by_identity = {baseline.identity: baseline for baseline in self.list_all()}
        return [last_by_identity[identity] for identity in sorted(last_by_identity, key=repr)]


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An action with its case's number and the time of its receipt."""

    case_id: int
    action: Action
    received_at: datetime


class ActionStore(RolloutRepository):
    """The actions of one rollout."""

    def list_by_authorization(
        self, case_ids: Collection[int], authorizations: Collection[str]
    ) -> list[StoredAction]:
        """Return actions with one of these authorizations, of all revisions."""
        query = (
            select(actions, external_keys.c.key)
            .join(external_keys, external_keys.c.id == actions.c.case_id)
            .where(*match_cases(self._transaction, self._rollout, actions, case_ids))
            .where(actions.c.authorization.in_(authorizations))
            .order_by(actions.c.case_id, actions.c.lever, actions.c.revision)
        )
        return [
            StoredAction(row.case_id, parse_record(Action, row, key=row.key), row.received_at)
            for row in self._transaction.execute(query)
        ]
