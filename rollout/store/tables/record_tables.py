"""The tables of what was ingested. All are append-only; a correction is a further revision."""

from sqlalchemy import BigInteger, Boolean, Double, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy import UniqueConstraint as Unique

from rollout.store.tables.columns import (
    Instant,
    Plain,
    key_part,
    maybe,
    metadata,
    needed,
    numbered,
    of_rollout,
)

cleanings = Table(  # of several about one case and lever the last one holds; all of them stay
    "cleanings",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("case_id", BigInteger),
    needed("lever"),
    needed("choice"),  # relabel, drop or keep
    maybe("label"),  # with relabel alone
    needed("reason"),
    needed("by"),
    needed("at", Instant),
    needed("version"),
    needed("report"),
    Index(None, "rollout", "case_id"),
)


external_keys = Table(  # `kind` is case or episode; a purge puts a keyed hash in its place
    "external_keys",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("kind"),
    needed("key"),
    Unique("rollout", "kind", "key"),
)

NAMED = text("episode is not null")  # most cases have none

cases = Table(
    "cases",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("revision", Integer),
    needed("site"),
    needed("window"),
    needed("occurred_at", Instant),
    needed("received_at", Instant),
    maybe("episode", BigInteger),
    needed("attributes", Plain),
    needed("media", Plain),
    needed("hash", LargeBinary),
    Index(None, "rollout", "site", "occurred_at"),
    Index(None, "rollout", "episode", sqlite_where=NAMED, postgresql_where=NAMED),
    sqlite_with_rowid=False,
)

predictions = Table(
    "predictions",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("version", Text),
    key_part("revision", Integer),
    needed("answers", Plain),
    maybe("confidence", Double),
    maybe("probabilities", Plain),
    maybe("latency_ms", Double),
    maybe("error"),
    maybe("at", Instant),
    needed("received_at", Instant),
    maybe("scope_revision", Integer),
    maybe("decider"),
    maybe("exposure"),
    maybe("share", Double),
    needed("hash", LargeBinary),
    sqlite_with_rowid=False,
)

decisions = Table(
    "decisions",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("reviewer", Text),
    key_part("revision", Integer),
    needed("answers", Plain),
    needed("unsure", Boolean),
    needed("claimed_exposure"),
    needed("exposure"),
    maybe("task_number", Integer),
    maybe("started_at", Instant),
    maybe("submitted_at", Instant),
    needed("received_at", Instant),
    maybe("note"),
    maybe("review", BigInteger),
    needed("hash", LargeBinary),
    sqlite_with_rowid=False,
)

actions = Table(
    "actions",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("lever", Text),
    key_part("revision", Integer),
    needed("action"),
    needed("by"),
    maybe("version"),
    needed("at", Instant),
    needed("received_at", Instant),
    maybe("scope_revision", Integer),
    needed("authorization"),
    needed("hash", LargeBinary),
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("revision", Integer),
    needed("answers", Plain),
    maybe("harm"),
    needed("at", Instant),
    needed("source"),
    needed("received_at", Instant),
    needed("hash", LargeBinary),
    sqlite_with_rowid=False,
)

heartbeats = Table(
    "heartbeats",
    metadata,
    of_rollout(),
    key_part("site", Text),
    key_part("at", Instant),
    needed("received_at", Instant),
    sqlite_with_rowid=False,
)

rejected_records = Table(
    "rejected_records",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("kind"),
    needed("key"),
    needed("body"),
    needed("reason"),
    needed("received_at", Instant),
    needed("hash", LargeBinary),
    Unique("rollout", "hash"),  # the same item sent again stands here once
)

baselines = Table(  # what people did before, imported; `imported_by` vouches for it
    "baselines",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("site"),
    needed("window"),
    needed("lever"),
    needed("action"),
    needed("n", Integer),
    needed("since", Instant),
    needed("until", Instant),
    needed("imported_by"),
    Index(None, "rollout"),
)
