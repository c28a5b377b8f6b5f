"""The tables of a rollout itself: its policies, versions and ledger, and what is folded from it.

Every table of the store is reached through this module: `metadata` holds them all. Each key
starts with the rollout's number; inside, rows are numbered in the order of time, and the text
that callers made up as a key stands once, in `external_keys`.
"""

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)

from rollout.store.cleaning_tables import cleanings
from rollout.store.columns import (
    Instant,
    Plain,
    key_part,
    maybe,
    metadata,
    needed,
    numbered,
    of_rollout,
)
from rollout.store.counting_tables import (
    confusion_matrices,
    count_classes,
    count_queue,
    count_series,
    counted_units,
    counts,
    evidence,
    evidence_heads,
    tick_slots,
    top_losses,
)
from rollout.store.delivery_tables import deliveries, report_runs
from rollout.store.people_tables import (
    account_names,
    api_keys,
    idempotency_keys,
    identities,
    one_time_links,
    permit_keys,
    role_assignments,
    sessions,
    users,
)
from rollout.store.reading_tables import exposures, reports, reviews
from rollout.store.record_tables import (
    actions,
    baselines,
    cases,
    decisions,
    external_keys,
    heartbeats,
    outcomes,
    predictions,
    rejected_records,
)

__all__ = [
    "ACCESS_LEDGER",
    "account_names",
    "actions",
    "api_keys",
    "baselines",
    "cases",
    "cleanings",
    "confusion_matrices",
    "count_classes",
    "count_queue",
    "count_series",
    "counted_units",
    "counts",
    "decisions",
    "deliveries",
    "evidence",
    "evidence_heads",
    "exposures",
    "external_keys",
    "heartbeats",
    "idempotency_keys",
    "identities",
    "incidents",
    "ledger",
    "ledger_heads",
    "ledger_texts",
    "metadata",
    "one_time_links",
    "outcomes",
    "permit_keys",
    "policies",
    "predictions",
    "proposals",
    "purging",
    "rejected_records",
    "report_runs",
    "reports",
    "reviews",
    "role_assignments",
    "rollouts",
    "scopes",
    "sessions",
    "tick_slots",
    "top_losses",
    "users",
    "versions",
]

ACCESS_LEDGER = 0
"""The rollout number of the one ledger that no rollout owns: accounts, roles and keys."""

rollouts = Table(
    "rollouts",
    metadata,
    numbered(),
    needed("name", unique=True),
    needed("salt", LargeBinary),
    needed("created_at", Instant),
)

policies = Table(  # by what they say: one that waits for approval has no number yet
    "policies",
    metadata,
    of_rollout(),
    key_part("hash", Text),
    needed("text"),
    needed("received_by"),
    needed("received_at", Instant),
)

versions = Table(
    "versions",
    metadata,
    of_rollout(),
    key_part("version", Text),
    key_part("revision", Integer),
    needed("recorded_at", Instant),
    needed("source"),
    maybe("trained_until", Instant),
    needed("details", Plain),
)

ledger = Table(
    "ledger",
    metadata,
    of_rollout(),
    key_part("revision"),
    needed("at", Instant),
    needed("kind"),
    needed("actor"),
    needed("body"),
    maybe("access_head", Integer),  # revision of the access ledger that it was checked by
    needed("previous"),
    needed("hash"),
    maybe("slot", Instant),
    needed("form", Integer, server_default="1"),
)

ledger_heads = Table(  # the row that is locked
    "ledger_heads",
    metadata,
    of_rollout(),
    needed("revision", Integer),
    needed("hash"),
    maybe("at", Instant),
    needed("form", Integer, server_default="1"),  # of the last row; 2 before the first one
)

ledger_texts = Table(  # what somebody typed: rows hold the salted hash; an erasure deletes here
    "ledger_texts",
    metadata,
    of_rollout(),
    key_part("revision"),
    key_part("field", Text),
    needed("salt", LargeBinary),
    needed("text"),
)

scopes = Table(
    "scopes",
    metadata,
    of_rollout(),
    key_part("revision"),
    needed("at", Instant),
    needed("body", Plain),
)

proposals = Table(
    "proposals",
    metadata,
    of_rollout(),
    key_part("proposal", Text),
    needed("kind"),
    needed("state"),
    needed("raised_at", Instant),
    needed("raised_by"),
    needed("expires_at", Instant),
    maybe("closed_at", Instant),
    needed("evidence_hash"),
    maybe("site"),
    maybe("window"),
    needed("version"),
    needed("to_stage"),
    needed("raised_revision", Integer),
    maybe("closed_revision", Integer),
    Index(None, "rollout", "raised_revision"),
)

incidents = Table(
    "incidents",
    metadata,
    of_rollout(),
    key_part("incident", Text),
    needed("kind"),
    needed("guard"),
    maybe("site"),
    maybe("window"),
    needed("version"),
    needed("opened_at", Instant),
    maybe("acknowledged_at", Instant),
    maybe("acknowledged_by"),
    needed("opened_revision", Integer),
    Index(None, "rollout", "opened_revision"),
)

purging = Table(  # a row here opens the deletes; it can't be committed, see `append_only`
    "purging",
    metadata,
    key_part("id", Integer),
    needed("closed", Integer),
    CheckConstraint("id = 1 AND closed = 0", name="never_commits"),
    ForeignKeyConstraint(["closed"], ["purging.id"], deferrable=True, initially="DEFERRED"),
)
