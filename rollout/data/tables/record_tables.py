"""The tables of records and of counting, the types of their columns, and triggers that keep rows.

The tables of records are append-only; a correction is another revision. The columns of a record's
fields derive from its declaration. The tables of counting are its queue, the counted units and
their sums.

Instants are stored as whole microseconds since 1970, UTC, on every engine: exact, sortable and
narrow. SQLite would store 26 letters of text and return it without its zone.

Triggers keep the rows of append-only tables as they were written. An update is refused, except of
the tables in `ERASABLE`, where an erasure replaces names and texts. That and a delete are refused
unless a purge, an erasure or a correction of the clock, which takes back what was counted ahead,
has put a row into `purging` in the same transaction. That row refers, deferred, to a row that can't
exist, so no transaction can commit while it has the row, and no other transaction sees it. SQLite's
`insert or replace` deletes too, and fires delete triggers only on connections with
`recursive_triggers`; the ledger therefore also refuses inserts over an existing revision.

The owner of a table can still drop its triggers. On PostgreSQL let the service connect as a role
that does not own them (`rollout.data.database.migrations`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Outcome,
    Personal,
    Prediction,
    Record,
    RecordField,
)
from rollout.kernel.calendar.instants import EPOCH, from_micros, to_instant_micros

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_CONDITION = "condition"
"""The key of a partial index's condition in its `info`."""

SerialType = BigInteger().with_variant(Integer(), "sqlite")
"""A rising number from the database: SQLite's row number or PostgreSQL's identity."""


def encode_instant(at: datetime) -> int:
    """Return an instant in its stored form.

    Raises:
        ValueError: `at` has no time zone.
    """
    return to_instant_micros(at)


def decode_instant(number: int) -> datetime:
    """Return the UTC instant of a stored number."""
    return from_micros(number)


def _decode_optional(number: int | None) -> datetime | None:
    return None if number is None else EPOCH + timedelta(0, 0, number)


class InstantType(TypeDecorator[datetime]):
    """An aware datetime, stored in whole microseconds and returned in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Return the stored form; raise for an instant without a time zone."""
        return None if value is None else encode_instant(value)

    def result_processor(
        self, _dialect: Dialect, _coltype: object
    ) -> Callable[[int | None], datetime | None]:
        """Return what decodes a column; one call a value, since histories read millions."""
        return _decode_optional


class JsonType(TypeDecorator[Any]):
    """Lists, mappings, texts and numbers as one line of JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        """Return the JSON; equal values give equal texts."""
        return None if value is None else encode_json(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        """Return the value of stored JSON."""
        return None if value is None else json.loads(value)


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def encode_json(value: Any) -> str:
    """Return JSON without spaces, with sorted keys.

    Raises:
        ValueError: the value contains NaN or an infinity.

    >>> encode_json({"b": [1, None], "a": "ä"})
    '{"a":"ä","b":[1,null]}'
    """
    return _ENCODER.encode(value)


def build_record_hash_columns() -> tuple[Column[Any], ...]:
    """Return the columns of a record's own hash and of its random bytes; erased ones are null."""
    return (
        Column("salt", LargeBinary, nullable=True),
        Column("record_hash", LargeBinary, nullable=False),
    )


def rollout_column() -> Column[int]:
    """Return the first column of every key: the rollout's number."""
    return Column("rollout", Integer, primary_key=True, autoincrement=False)


def key_column(name: str, kind: Any = BigInteger) -> Column[Any]:
    """Return a key column whose value comes from the caller."""
    return Column(name, kind, primary_key=True, autoincrement=False)


def id_column(name: str = "id") -> Column[int]:
    """Return a key column that the database counts up."""
    return Column(name, SerialType, primary_key=True)


def required_column(name: str, kind: Any = Text, **options: Any) -> Column[Any]:
    """Return a column that is never null."""
    return Column(name, kind, nullable=False, **options)


def optional_column(name: str, kind: Any = Text, **options: Any) -> Column[Any]:
    """Return a column that may be null."""
    return Column(name, kind, nullable=True, **options)


def build_partial_index(name: str | None, *columns: str, where: TextClause) -> Index:
    """Return an index of those rows that meet a condition.

    The condition for PostgreSQL is added by `complete_partial_indexes`: SQLAlchemy loads the whole
    dialect for it, which no command on SQLite needs.
    """
    return Index(name, *columns, sqlite_where=where, info={_CONDITION: where})


def complete_partial_indexes() -> None:
    """Add the conditions for PostgreSQL, before indexes are created or compared with `metadata`."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if _CONDITION in index.info:
                index.dialect_kwargs["postgresql_where"] = index.info[_CONDITION]


APPEND_ONLY: Mapping[str, bool] = MappingProxyType(
    {
        "policies": False,
        "versions": False,
        "ledger": False,
        "cases": True,
        "predictions": True,
        "decisions": True,
        "actions": True,
        "outcomes": True,
        "heartbeats": True,
        "rejected_records": True,
        "cleanings": True,
        "baselines": False,
        "counted_units": True,
        "counted_records": True,
        "counted_outcomes": True,
        "exposures": False,
        "reports": False,
        "erased_hashes": False,
        "planted_cases": False,
    }
)
"""The append-only tables, and whether their rows may be deleted within `purging`."""

ERASABLE: Final = frozenset(
    {
        "baselines",
        "cleanings",
        "counted_units",
        "exposures",
        "policies",
        "reports",
        *(
            f"{kind.__name__.lower()}s"
            for kind, declared in RECORD_FIELDS.items()
            if any(field.rule.personal in {Personal.NAME, Personal.TEXT} for field in declared)
        ),
    }
)
"""The append-only tables in which an erasure may replace names and texts."""

OPEN_PURGE = "insert into purging (id, closed) values (1, 0)"
CLOSE_PURGE = "delete from purging"

TRIGGER_FUNCTION = """\
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and tg_argv[0] = 'purgeable' then
        if exists (select from purging) then
            return old;
        end if;
    end if;
    if tg_op = 'UPDATE' and tg_argv[1] = 'erasable' then
        if exists (select from purging) then
            return new;
        end if;
    end if;
    raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end $$"""
"""The function that PostgreSQL's triggers call; create it before them."""


def list_triggers(engine: str) -> Mapping[str, str]:
    """Return the statements that create all triggers, by trigger name."""
    return {
        name: statement
        for table in APPEND_ONLY
        for name, statement in build_triggers(engine, table).items()
    }


def build_triggers(engine: str, table: str) -> Mapping[str, str]:
    """Return the statements that create a table's triggers, by trigger name."""
    build = _build_sqlite_triggers if engine == "sqlite" else _build_postgresql_triggers
    return dict(build(table, APPEND_ONLY[table], table in ERASABLE))


def _build_sqlite_triggers(
    table: str, purgeable: bool, erasable: bool
) -> Iterator[tuple[str, str]]:
    unless_open = " when not exists (select 1 from purging)"
    yield _build_refusal(table, "update", "update", unless_open if erasable else "")
    yield _build_refusal(table, "delete", "delete", unless_open if purgeable else "")
    if table == "ledger":
        existing_row = (
            "select 1 from ledger where rollout = new.rollout and revision = new.revision"
        )
        yield _build_refusal(table, "insert", "replace", f" when exists ({existing_row})")


def _build_refusal(table: str, event: str, operation: str, condition: str) -> tuple[str, str]:
    name = f"{table}_refuses_{operation}"
    statement = f"select raise(abort, '{table} is append-only: {operation} refused')"
    return (
        name,
        f"create trigger {name} before {event} on {table}{condition} begin {statement}; end",
    )


def _build_postgresql_triggers(
    table: str, purgeable: bool, erasable: bool
) -> Iterator[tuple[str, str]]:
    arguments = "'purgeable'" if purgeable else "'kept'"
    arguments += ", 'erasable'" if erasable else ""
    for events, each in (("update or delete", "row"), ("truncate", "statement")):
        name = f"{table}_refuses_{events.replace(' ', '_')}"
        statement = f"create trigger {name} before {events} on {table} for each {each}"
        yield name, f"{statement} execute function refuse_change({arguments})"


cleanings = Table(  # the last one of a case and lever is in force
    "cleanings",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("case_id", BigInteger),
    required_column("lever"),
    required_column("choice"),  # relabel, drop or keep
    optional_column("label"),  # only with relabel
    required_column("reason"),
    required_column("by"),
    required_column("at", InstantType),
    required_column("version"),
    required_column("report"),
    Index(None, "rollout", "case_id"),
)


external_keys = (
    Table(  # `kind` is case or episode; a purge replaces the key by a hash and `kind` by purged
        "external_keys",
        metadata,
        id_column(),
        required_column("rollout", Integer),
        required_column("kind"),
        required_column("key"),
        UniqueConstraint("rollout", "kind", "key"),
    )
)

HAS_EPISODE = text("episode is not null")  # most cases have none

COLUMN_TYPES: Final[Mapping[Any, Any]] = {
    str: Text,
    bool: Boolean,
    float: Double,
    datetime: InstantType,
    Mapping: JsonType,
}


def _build_column(field: RecordField) -> Column[Any]:
    """Return the column of a field; of `key` it is the case's number."""
    is_large = field.rule.is_numbered or (field.limits is not None and field.limits.lt == 2**63)
    kind = BigInteger if is_large else COLUMN_TYPES.get(field.kind, Integer)
    if field.rule.is_key:
        return key_column("case_id" if field.name == "key" else field.column, kind)
    is_null = field.is_optional or field.rule.is_null_if_empty
    return (optional_column if is_null else required_column)(field.column, kind)


def _build_table(name: str, kind: type[Record], *others: Any) -> Table:
    """Return the table of one kind of record, with columns that only the store fills in."""
    return Table(
        name,
        metadata,
        rollout_column(),
        *map(_build_column, sorted(RECORD_FIELDS[kind], key=lambda field: not field.rule.is_key)),
        required_column("received_at", InstantType),
        optional_column("sender"),  # account id or file; null if none is known
        required_column("hash", LargeBinary),
        *build_record_hash_columns(),
        *others,
        sqlite_with_rowid=False,
    )


cases = _build_table(
    "cases",
    Case,
    optional_column("planted", Boolean),  # null: the case occurred by itself
    optional_column("vouched", BigInteger),  # microseconds; null: its sender is not vouched for
    optional_column("draws", JsonType),  # by version with a sample whether it runs on the case
    Index(None, "rollout", "site", "occurred_at"),
    Index(None, "rollout", "received_at"),  # finds what a purge deletes
    build_partial_index(None, "rollout", "episode", where=HAS_EPISODE),
)
predictions = _build_table(
    "predictions",
    Prediction,
    optional_column("vouched", BigInteger),  # microseconds; null: its sender is not vouched for
)
decisions = _build_table("decisions", Decision)
actions = _build_table("actions", Action)
outcomes = _build_table("outcomes", Outcome)

heartbeats = Table(
    "heartbeats",
    metadata,
    rollout_column(),
    key_column("site", Text),
    key_column("at", InstantType),
    required_column("received_at", InstantType),
    sqlite_with_rowid=False,
)

planted_cases = Table(  # declared before any record; `revision` is that of the ledger's event
    "planted_cases",
    metadata,
    rollout_column(),
    key_column("case_id"),
    required_column("declared_at", InstantType),
    required_column("revision", BigInteger),
    sqlite_with_rowid=False,
)

rejected_records = Table(
    "rejected_records",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("kind"),
    required_column("key"),
    required_column("body"),
    required_column("reason"),
    required_column("is_placeless", Boolean),  # a decision that belongs to no cell
    required_column("received_at", InstantType),
    required_column("hash", LargeBinary),
    UniqueConstraint("rollout", "hash"),  # an item sent again is stored once
)

erased_hashes = Table(  # of records that a purge or an erasure took, by the event's revision
    "erased_hashes",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("revision"),
    required_column("hashes", LargeBinary),  # sorted and joined
    Index(None, "rollout", "revision"),
    sqlite_with_rowid=False,
)

baselines = Table(  # imported counts of human actions before the rollout
    "baselines",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("site"),
    required_column("window"),
    required_column("lever"),
    required_column("action"),
    required_column("n", Integer),
    required_column("since", InstantType),
    required_column("until", InstantType),
    required_column("imported_by"),
    Index(None, "rollout"),
)


GATE: Final = "gate"
OF_GATE: Final = text("track = 'gate'")  # the condition of the partial index
OUTCOME: Final = "outcome"
"""The queue's track of cases with an outcome whose deadline passes."""
RECORD_UNSEALED: Final = "unsealed"
"""The queue's track of cases with actions or outcomes whose hashes the next tick takes."""

count_queue = Table(  # written with the record, deleted when counted
    "count_queue",
    metadata,
    rollout_column(),
    key_column("at", InstantType),
    key_column("case_id"),
    key_column("track", Text),
    sqlite_with_rowid=False,
)

recent_arrivals = Table(  # of records that guards use; each replica reads them
    "recent_arrivals",
    metadata,
    rollout_column(),
    key_column("at", InstantType),
    key_column("case_id"),
    sqlite_with_rowid=False,
)

tick_slots = Table(
    "tick_slots",
    metadata,
    rollout_column(),
    key_column("slot"),
    required_column("owner"),
    required_column("claimed_at", InstantType),
    optional_column("done_at", InstantType),
    sqlite_with_rowid=False,
)

count_series = Table(  # the keys of series of counts
    "count_series",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("track"),
    required_column("version"),
    required_column("site"),
    required_column("window"),
    required_column("definition"),
    required_column("attempt", Integer),
    UniqueConstraint(
        *("rollout", "track", "version", "site", "window", "definition", "attempt"),
        name="uq_count_series_columns",  # PostgreSQL cuts names at 63 letters
    ),
)

count_classes = Table(  # the answers and cost level of a unit
    "count_classes",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("lever"),
    required_column("predicted"),
    required_column("decided"),
    required_column("second"),
    required_column("level", Integer),
    UniqueConstraint(
        *("rollout", "lever", "predicted", "decided", "second", "level"),
        name="uq_count_classes_columns",
    ),
)

counted_units = Table(  # with several levers a unit has one more class for all together
    "counted_units",
    metadata,
    rollout_column(),
    key_column("unit"),
    key_column("version", Text),
    key_column("track", Text),
    required_column("case_id", BigInteger),
    required_column("slot", BigInteger),
    required_column("occurred", BigInteger),
    required_column("day", Integer),
    required_column("series_id", BigInteger),
    required_column("class_ids", JsonType),
    required_column("bucket", Integer),
    optional_column("reviewer"),
    optional_column("exclusion_reason"),  # null means evidence
    required_column("record_hashes", LargeBinary),  # of the records behind it, sorted, joined
    optional_column("attribute_values"),  # of its cases, as JSON text, if the policy asks for them
    optional_column("slices"),  # the case's values of the recorded attributes, as JSON
    optional_column("value_seal", LargeBinary),  # hashed with both, for digests
    optional_column("band", Integer),  # floors above the lowest that its confidence reaches
    Index(None, "rollout", "slot"),
    build_partial_index(  # for pages of a version's newest pairs
        "ix_counted_units_newest",
        *("rollout", "version", "occurred", "unit", "series_id"),
        where=OF_GATE,
    ),
    sqlite_with_rowid=False,
)

counted_records = Table(  # hashes of actions and outcomes, by the tick that counted them
    "counted_records",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("record_hash", LargeBinary),
    required_column("kind"),
    required_column("slot", BigInteger),
    Index(None, "rollout", "slot"),
    sqlite_with_rowid=False,
)

counted_outcomes = Table(  # units whose deadline for an outcome with a value has passed
    "counted_outcomes",
    metadata,
    rollout_column(),
    key_column("unit"),
    key_column("version", Text),
    key_column("outcome", Text),
    required_column("case_id", BigInteger),
    required_column("slot", BigInteger),
    required_column("occurred", BigInteger),
    required_column("site"),
    required_column("window"),
    required_column("definition"),  # range, direction and deadline of the outcome
    required_column("bucket", Integer),
    optional_column("drawn"),  # who was to decide, as stored with the question
    required_column("score", Double),
    required_column("known_share", Double),
    required_column("record_hashes", LargeBinary),  # of the records behind it, sorted, joined
    optional_column("sources"),  # of its values, sorted, joined; null before they were stored
    optional_column("source_fault"),  # why it is no evidence to widen; null means evidence
    Index(None, "rollout", "slot"),
    sqlite_with_rowid=False,
)

counts = Table(  # `n` grows only in slots after `evidence_heads.through`
    "counts",
    metadata,
    rollout_column(),
    key_column("slot"),
    key_column("occurred"),
    key_column("series_id"),
    key_column("class_id"),
    key_column("bucket", Integer),
    required_column("n", Integer),
    sqlite_with_rowid=False,
)

version_uses = Table(  # the first unit of a version in a cell that it predicted in time
    "version_uses",
    metadata,
    rollout_column(),
    key_column("version", Text),
    key_column("site", Text),
    key_column("window", Text),
    required_column("occurred", BigInteger),
    required_column("slot", BigInteger),
    sqlite_with_rowid=False,
)

confusion_matrices = Table(  # sums over all slots, so reads don't slow down with time
    "confusion_matrices",
    metadata,
    rollout_column(),
    key_column("series_id"),
    key_column("class_id"),
    required_column("n", BigInteger),
    sqlite_with_rowid=False,
)

top_losses = Table(  # pairs that differ, indexed by confidence
    "top_losses",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("version", Text),
    key_column("class_id"),
    required_column("confidence", Double),
    required_column("series_id", BigInteger),
    Index(
        "ix_top_losses_confidence",
        *("rollout", "version", "class_id", "confidence", "case_id", "series_id"),
    ),
    sqlite_with_rowid=False,
)

evidence_heads = Table(  # advanced by compare-and-set; no count at or before `through` grows
    "evidence_heads",
    metadata,
    rollout_column(),
    required_column("through", BigInteger),
)


def _build_snapshot_table(name: str) -> Table:
    """Return a table of derived arrays, the newest ones of each rollout."""
    return Table(
        name,
        metadata,
        rollout_column(),
        required_column("revision", BigInteger),
        required_column("slot", BigInteger),
        required_column("body", LargeBinary),
        required_column("hash", LargeBinary),
    )


evidence_snapshots = _build_snapshot_table("evidence_snapshots")  # of counted units and outcomes
guard_snapshots = _build_snapshot_table("guard_snapshots")  # of records that guards use
