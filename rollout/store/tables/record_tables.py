"""The tables of records. All are append-only; a correction is another revision.

The columns of a record's fields derive from its declaration.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy import UniqueConstraint as Unique

from rollout.core.records.record_fields import RecordField
from rollout.core.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
)
from rollout.store.tables.columns import (
    InstantType,
    JsonType,
    build_partial_index,
    build_record_hash_columns,
    id_column,
    key_column,
    metadata,
    optional_column,
    required_column,
    rollout_column,
)

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
        Unique("rollout", "kind", "key"),
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
    required_column("received_at", InstantType),
    required_column("hash", LargeBinary),
    Unique("rollout", "hash"),  # an item sent again is stored once
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
