"""All tables of the store, and those of the rollout itself: policies, versions and ledger.

`metadata` holds all tables. Each key starts with the rollout's number, and rows of a rollout are
numbered in the order of time. Callers' keys are stored once, in `external_keys`.
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

from rollout.store.tables.columns import (
    InstantType,
    JsonType,
    id_column,
    key_column,
    metadata,
    optional_column,
    required_column,
    rollout_column,
)
from rollout.store.tables.counting_tables import (
    confusion_matrices,
    count_classes,
    count_queue,
    count_series,
    counted_outcomes,
    counted_records,
    counted_units,
    counts,
    evidence_heads,
    evidence_snapshots,
    guard_snapshots,
    recent_arrivals,
    tick_slots,
    top_losses,
    version_uses,
)
from rollout.store.tables.record_tables import (
    actions,
    baselines,
    cases,
    cleanings,
    decisions,
    erased_hashes,
    external_keys,
    heartbeats,
    outcomes,
    planted_cases,
    predictions,
    rejected_records,
)
from rollout.store.tables.report_tables import (
    deliveries,
    exposures,
    notification_channels,
    notification_settings,
    notifications,
    report_requests,
    report_runs,
    reports,
    reviews,
)
from rollout.store.tables.user_tables import (
    account_names,
    api_keys,
    credential_resets,
    idempotency_keys,
    identities,
    one_time_links,
    permit_keys,
    recovery_codes,
    role_assignments,
    second_factors,
    sessions,
    sign_in_addresses,
    users,
)

replica_heartbeats = Table(  # the last small write of each replica
    "replica_heartbeats",
    metadata,
    key_column("owner", Text),
    required_column("written_at", InstantType),
    required_column("program"),  # the revision of the tables that it was written for
)

schema_revisions = Table(  # which programs work on the tables
    "schema_revisions",
    metadata,
    id_column(),
    required_column("revision"),
    required_column("oldest_program"),
)

pending_stops = Table(  # stops that every replica obeys although the ledger lacks them
    "pending_stops",
    metadata,
    key_column("id", Text),
    required_column("rollout"),  # its name, which a client sends
    required_column("cells", JsonType),
    required_column("actor", JsonType),
    required_column("reason"),
    required_column("drill", Integer),
    required_column("at", InstantType),
    optional_column("access_head", Integer),
)

damages = Table(  # rollouts whose rows can't be read; "" means all
    "damages",
    metadata,
    key_column("rollout", Text),
    required_column("reason"),
    required_column("found_at", InstantType),
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
    "counted_outcomes",
    "counted_records",
    "counted_units",
    "counts",
    "credential_resets",
    "damages",
    "decisions",
    "deliveries",
    "erased_hashes",
    "evidence_heads",
    "evidence_snapshots",
    "exposures",
    "external_keys",
    "guard_snapshots",
    "heartbeats",
    "idempotency_keys",
    "identities",
    "incidents",
    "ledger",
    "ledger_commits",
    "ledger_heads",
    "ledger_texts",
    "metadata",
    "notification_channels",
    "notification_settings",
    "notifications",
    "one_time_links",
    "outcomes",
    "pending_stops",
    "permit_keys",
    "planted_cases",
    "policies",
    "predictions",
    "proposals",
    "purging",
    "recent_arrivals",
    "recovery_codes",
    "rejected_records",
    "replica_heartbeats",
    "report_requests",
    "report_runs",
    "reports",
    "reviews",
    "role_assignments",
    "rollouts",
    "schema_revisions",
    "scopes",
    "second_factors",
    "sessions",
    "sign_in_addresses",
    "tick_slots",
    "top_losses",
    "unopened_incidents",
    "users",
    "version_uses",
    "versions",
]

ACCESS_LEDGER = 0
"""The rollout number of the access ledger, which no rollout owns."""

rollouts = Table(
    "rollouts",
    metadata,
    id_column(),
    required_column("name", unique=True),
    required_column("salt", LargeBinary),
    required_column("service_salt", LargeBinary),  # never leaves the service
    required_column("created_at", InstantType),
)

policies = Table(  # keyed by hash: before approval a policy has no number
    "policies",
    metadata,
    rollout_column(),
    key_column("hash", Text),
    required_column("text"),
    required_column("received_by"),
    required_column("received_at", InstantType),
)

versions = Table(
    "versions",
    metadata,
    rollout_column(),
    key_column("version", Text),
    key_column("revision", Integer),
    required_column("recorded_at", InstantType),
    required_column("source"),
    optional_column("trained_until", InstantType),
    required_column("details", JsonType),
)

ledger = Table(
    "ledger",
    metadata,
    rollout_column(),
    key_column("revision"),
    required_column("at", InstantType),
    required_column("kind"),
    required_column("actor"),
    required_column("body"),
    optional_column("access_head", Integer),  # revision of the access ledger at the check
    required_column("previous"),
    required_column("hash"),
    optional_column("slot", InstantType),
    Index("ix_ledger_times", "rollout", "at", "revision"),  # for the scope at a past instant
)

ledger_commits = Table(  # by an append's first revision: an instant after its commit
    "ledger_commits",
    metadata,
    rollout_column(),
    key_column("revision"),
    required_column("committed_at", InstantType),
    sqlite_with_rowid=False,
)

ledger_heads = Table(  # appending locks this row
    "ledger_heads",
    metadata,
    rollout_column(),
    required_column("revision", Integer),
    required_column("hash"),
    optional_column("at", InstantType),
)

ledger_texts = Table(  # free text; the ledger has its salted hash, an erasure deletes it here
    "ledger_texts",
    metadata,
    rollout_column(),
    key_column("revision"),
    key_column("field", Text),
    required_column("salt", LargeBinary),
    required_column("text"),
)

scopes = Table(
    "scopes",
    metadata,
    rollout_column(),
    key_column("revision"),
    required_column("at", InstantType),
    required_column("body", JsonType),
)

proposals = Table(
    "proposals",
    metadata,
    rollout_column(),
    key_column("proposal", Text),
    required_column("kind"),
    required_column("state"),
    required_column("raised_at", InstantType),
    required_column("raised_by"),
    required_column("expires_at", InstantType),
    optional_column("closed_at", InstantType),
    required_column("evidence_hash"),
    optional_column("site"),
    optional_column("window"),
    required_column("version"),
    required_column("to_stage"),
    required_column("raised_revision", Integer),
    optional_column("closed_revision", Integer),
    Index(None, "rollout", "raised_revision"),
)

incidents = Table(
    "incidents",
    metadata,
    rollout_column(),
    key_column("incident", Text),
    required_column("kind"),
    required_column("guard"),
    optional_column("site"),
    optional_column("window"),
    required_column("version"),
    required_column("opened_at", InstantType),
    optional_column("acknowledged_at", InstantType),
    optional_column("acknowledged_by"),
    required_column("opened_revision", Integer),
    Index(None, "rollout", "opened_revision"),
)

unopened_incidents = Table(  # counted, because too many of the kind were open in the cell
    "unopened_incidents",
    metadata,
    rollout_column(),
    key_column("kind", Text),
    key_column("site", Text),  # site and window are empty without a cell
    key_column("window", Text),
    required_column("number", Integer),
)

purging = Table(  # a row here allows deletes and can't be committed, see `append_only`
    "purging",
    metadata,
    key_column("id", Integer),
    required_column("closed", Integer),
    CheckConstraint("id = 1 AND closed = 0", name="never_commits"),
    ForeignKeyConstraint(["closed"], ["purging.id"], deferrable=True, initially="DEFERRED"),
)
