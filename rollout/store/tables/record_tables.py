"""The tables of records. All are append-only; a correction is another revision."""

from sqlalchemy import BigInteger, Boolean, Double, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy import UniqueConstraint as Unique

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

cases = Table(
    "cases",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("revision", Integer),
    required_column("site"),
    required_column("window"),
    required_column("occurred_at", InstantType),
    required_column("received_at", InstantType),
    optional_column("episode", BigInteger),
    required_column("attributes", JsonType),
    required_column("media", JsonType),
    optional_column("sender"),  # account id or file; null if none is known
    required_column("hash", LargeBinary),
    *build_record_hash_columns(),
    optional_column("planted", Boolean),  # null: the case occurred by itself
    optional_column("vouched", BigInteger),  # microseconds; null: its sender is not vouched for
    optional_column("draws", JsonType),  # by version with a sample whether it runs on the case
    Index(None, "rollout", "site", "occurred_at"),
    Index(None, "rollout", "received_at"),  # finds what a purge deletes
    build_partial_index(None, "rollout", "episode", where=HAS_EPISODE),
    sqlite_with_rowid=False,
)

predictions = Table(
    "predictions",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("version", Text),
    key_column("revision", Integer),
    required_column("answers", JsonType),
    optional_column("confidence", Double),
    optional_column("probabilities", JsonType),
    optional_column("latency_ms", Double),
    optional_column("error"),
    optional_column("at", InstantType),
    required_column("received_at", InstantType),
    optional_column("scope_revision", Integer),
    optional_column("decider"),
    optional_column("exposure"),
    optional_column("share", Double),
    optional_column("sender"),  # account id or file; null if none is known
    required_column("hash", LargeBinary),
    *build_record_hash_columns(),
    optional_column("vouched", BigInteger),  # microseconds; null: its sender is not vouched for
    sqlite_with_rowid=False,
)

decisions = Table(
    "decisions",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("reviewer", Text),
    key_column("revision", Integer),
    required_column("answers", JsonType),
    required_column("unsure", Boolean),
    required_column("claimed_exposure"),
    required_column("exposure"),
    optional_column("task_number", Integer),
    optional_column("started_at", InstantType),
    optional_column("submitted_at", InstantType),
    required_column("received_at", InstantType),
    optional_column("note"),
    optional_column("review", BigInteger),
    optional_column("basis", JsonType),  # what `exposure` follows from; null outside reviews
    optional_column("source"),  # kind of source; null without one
    optional_column("sender"),  # account id or file; null if none is known
    required_column("hash", LargeBinary),
    *build_record_hash_columns(),
    sqlite_with_rowid=False,
)

actions = Table(
    "actions",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("lever", Text),
    key_column("revision", Integer),
    required_column("action"),
    required_column("by"),
    optional_column("version"),
    required_column("at", InstantType),
    required_column("received_at", InstantType),
    optional_column("scope_revision", Integer),
    required_column("authorization"),
    optional_column("sender"),  # account id or file; null if none is known
    required_column("hash", LargeBinary),
    *build_record_hash_columns(),
    optional_column("permit_kind"),  # bound or unbound; null without a permit of ours
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("revision", Integer),
    required_column("answers", JsonType),
    optional_column("harm"),
    required_column("at", InstantType),
    required_column("source"),
    required_column("received_at", InstantType),
    optional_column("sender"),  # account id or file; null if none is known
    required_column("hash", LargeBinary),
    *build_record_hash_columns(),
    optional_column("outcome_values", JsonType),  # by outcome; null without any
    optional_column("source_kind"),  # kind of source; null without one
    sqlite_with_rowid=False,
)

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
