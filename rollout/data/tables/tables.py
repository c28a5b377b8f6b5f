"""All tables of the store; here those of the rollout, reviews, reports and users; their hash.

`metadata` holds all tables. Most keys start with the rollout's number, and rows of a rollout are
numbered in the order of time. Callers' keys are stored once, in `external_keys`.

The hash of all tables is the revision of a database, until migrations are kept.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Constraint,
    DefaultClause,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import ColumnCollectionConstraint, CreateIndex

from rollout.data.tables.record_tables import (
    TRIGGER_FUNCTION,
    InstantType,
    JsonType,
    actions,
    baselines,
    cases,
    cleanings,
    confusion_matrices,
    count_classes,
    count_queue,
    count_series,
    counted_outcomes,
    counted_records,
    counted_units,
    counts,
    decisions,
    erased_hashes,
    evidence_heads,
    evidence_snapshots,
    external_keys,
    guard_snapshots,
    heartbeats,
    id_column,
    key_column,
    list_triggers,
    metadata,
    optional_column,
    outcomes,
    planted_cases,
    predictions,
    recent_arrivals,
    rejected_records,
    required_column,
    rollout_column,
    tick_slots,
    top_losses,
    version_uses,
)


def _owner_column() -> Column[int]:
    return Column("user_id", Integer, ForeignKey("users.id"), primary_key=True, autoincrement=False)


notification_settings = Table(
    "notification_settings",
    metadata,
    _owner_column(),
    required_column("timezone"),
    optional_column("quiet_from"),  # 22:00; null: no quiet hours
    optional_column("quiet_until"),
)

notification_channels = Table(
    "notification_channels",
    metadata,
    _owner_column(),
    key_column("channel", Text),  # only the name; host and secrets are in the configuration
    required_column("address"),
    required_column("kinds", JsonType),  # since when each kind is chosen
    optional_column("code"),  # of the test message; null once confirmed
    optional_column("code_sent_at", InstantType),
    required_column("wrong_codes", Integer),
    optional_column("confirmed_at", InstantType),  # null: gets nothing but the test message
)

notifications = Table(  # also the outbox; the text is made when it is sent
    "notifications",
    metadata,
    id_column(),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    required_column("channel"),
    required_column("rollout"),  # its name; "" for all
    required_column("kind"),
    required_column("about"),  # id of a proposal or incident, time of reviews, day of a digest
    required_column("state"),
    required_column("attempts", Integer),
    required_column("queued_at", InstantType),
    optional_column("next_attempt_at", InstantType),  # null: no further attempt
    optional_column("sent_at", InstantType),
    required_column("error"),
    UniqueConstraint("user_id", "channel", "rollout", "kind", "about", name="uq_notifications_key"),
    Index(None, "next_attempt_at"),
    Index(None, "queued_at"),
)

reviews = Table(  # review tasks; `kind` is blind, assisted, adjudication or gold
    "reviews",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("case_id", BigInteger),
    required_column("kind"),
    required_column("task_number", Integer),
    required_column("site"),
    optional_column("version"),  # of the prediction that is shown or adjudicated
    required_column("opened_at", InstantType),
    optional_column("due_at", InstantType),  # can't be claimed from then on
    optional_column("answer_by", InstantType),
    required_column("sampling_value", Double),  # orders tasks that are due at the same time
    required_column("state"),
    optional_column("reviewer"),  # current or last claimant, or who decided; null: none
    optional_column("claimed_until", InstantType),
    optional_column("closed_at", InstantType),
    optional_column("gold_answers", JsonType),  # only for gold cases
    optional_column(
        "gold_decision", JsonType
    ),  # only for gold cases, whose decisions are not records
    UniqueConstraint("rollout", "case_id", "kind", "task_number"),
    UniqueConstraint("rollout", "case_id", "reviewer"),  # a reviewer has at most one task of a case
    Index(None, "rollout", "state", "due_at"),
    Index(None, "rollout", "state", "answer_by"),
    Index(None, "rollout", "reviewer", "state"),
)

exposures = Table(
    "exposures",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("reviewer", Text),
    key_column("at", InstantType),
    key_column("content", Text),  # case, prediction, decisions, or figures of all cases before `at`
    required_column("page"),
)

reports = Table(  # a row a version
    "reports",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("name"),
    required_column("since", InstantType),
    required_column("until", InstantType),
    required_column("schema"),
    required_column("hash"),
    required_column("body"),
    required_column("created_at", InstantType),
    required_column("version", Integer),
    required_column("state"),
    required_column("view"),
    required_column("divergences"),
    required_column("sealed_revision", Integer),  # of the ledger; 0: not sealed
    optional_column("due", InstantType),
    UniqueConstraint("rollout", "name", "hash"),
    Index("ix_reports_versions", "rollout", "name", "since", "until", "version", unique=True),
)


report_runs = Table(  # finished and claimed runs of scheduled reports
    "report_runs",
    metadata,
    rollout_column(),
    key_column("report_name", Text),  # the policy's name; "" for the notice of incidents
    key_column("watermark"),  # microseconds since 1970; a revision for incidents
    required_column("owner"),
    required_column("claimed_at", InstantType),
    optional_column("done_at", InstantType),
)

report_requests = Table(  # of accounts, within the last hour
    "report_requests",
    metadata,
    id_column(),
    required_column("principal"),
    required_column("started_at", InstantType),
    required_column("renewed_at", InstantType),  # by what makes it; long ago: it died
    required_column("is_running", Boolean),
    Index(None, "principal", "started_at"),
)

deliveries = Table(  # stored with the report; also the outbox
    "deliveries",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("report", BigInteger),
    required_column("channel"),  # only the name; the address is in the configuration
    required_column("reason"),
    required_column("subject"),
    required_column("intro"),
    required_column("state"),
    required_column("attempts", Integer),
    required_column("queued_at", InstantType),
    optional_column("next_attempt_at", InstantType),  # null: no further attempt
    optional_column("sent_at", InstantType),
    required_column("error"),
    UniqueConstraint("rollout", "report", "channel"),
    Index(None, "next_attempt_at"),
)


def _user_id() -> Column[int]:
    return Column("user_id", Integer, ForeignKey("users.id"), nullable=False, index=True)


users = Table(
    "users",
    metadata,
    id_column(),
    required_column("name", unique=True),
    required_column("service_account", Boolean),
    optional_column("password"),  # argon2's encoded hash with salt and cost
    required_column("created_at", InstantType),
    optional_column("disabled_at", InstantType),
    optional_column("email"),  # in lower case; links an identity at its first sign-in
    optional_column("first_credential_at", InstantType),  # later ones by others are resets
    optional_column("salt", LargeBinary),  # of the digests in the access ledger; null: erased
    Index(None, "email", unique=True),
)

account_names = Table(  # the ledger has only ids; an erasure clears `name`
    "account_names",
    metadata,
    key_column("account", Text),
    optional_column("name", unique=True),
)

api_keys = Table(  # shown once; stored as a hash with a prefix as name
    "api_keys",
    metadata,
    id_column(),
    _user_id(),
    required_column("prefix", unique=True),
    required_column("hash", LargeBinary),
    required_column("created_at", InstantType),
    optional_column("expires_at", InstantType),
    optional_column("revoked_at", InstantType),
    optional_column("last_used_at", InstantType),
    optional_column("second_factor"),  # of the session in which its own user created it
)

sessions = Table(
    "sessions",
    metadata,
    id_column(),
    _user_id(),
    required_column("hash", LargeBinary, unique=True),
    required_column("csrf", LargeBinary),
    required_column("created_at", InstantType),
    required_column("expires_at", InstantType),
    optional_column("ended_at", InstantType),
    optional_column("last_used_at", InstantType),  # written at most once a minute
    optional_column("second_factor"),  # kind of the second factor; null: none was given
)

one_time_links = Table(  # `user_id` null: the link creates the first admin
    "one_time_links",
    metadata,
    id_column(),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=True, index=True),
    required_column("hash", LargeBinary, unique=True),
    required_column("created_at", InstantType),
    required_column("expires_at", InstantType),
    optional_column("used_at", InstantType),
    optional_column("created_by", Integer),  # the admin's `users.id`; null: made at the machine
)

second_factors = Table(  # `secret` is encrypted; the key is in a file, not here
    "second_factors",
    metadata,
    key_column("user_id"),
    required_column("secret", LargeBinary),
    required_column("created_at", InstantType),
    optional_column("confirmed_at", InstantType),  # null: never used, so not asked for
    required_column("last_step", BigInteger),  # of the last code that was used: it works once
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    id_column(),
    _user_id(),
    required_column("hash", LargeBinary),
    optional_column("used_at", InstantType),
)

credential_resets = Table(  # by others than the user; approvals don't count together with theirs
    "credential_resets",
    metadata,
    id_column(),
    _user_id(),
    required_column("reset_by", Integer),  # `users.id`, 0: unknown
    required_column("credential"),
    required_column("reset_at", InstantType),
)

sign_in_addresses = Table(  # from which users signed in, as hashes: an attack slows only others
    "sign_in_addresses",
    metadata,
    key_column("user_id"),
    key_column("hash", LargeBinary),
    required_column("used_at", InstantType),
)

identities = Table(  # subjects of identity providers linked to users
    "identities",
    metadata,
    id_column(),
    _user_id(),
    required_column("issuer"),
    required_column("subject"),
    required_column("linked_at", InstantType),
    UniqueConstraint("issuer", "subject"),
    UniqueConstraint("user_id", "issuer"),
)

role_assignments = Table(  # null `rollout` or `site` means all; approvals require groups
    "role_assignments",
    metadata,
    id_column(),
    _user_id(),
    required_column("role"),
    optional_column("rollout", Integer),
    optional_column("site"),
    required_column("group"),
)

permit_keys = Table(  # the two newest are valid
    "permit_keys",
    metadata,
    id_column(),
    required_column("secret", LargeBinary),
    required_column("created_at", InstantType),
)

idempotency_keys = Table(  # with the first response, for retries
    "idempotency_keys",
    metadata,
    key_column("principal", Text),
    key_column("key", Text),
    required_column("request_hash", LargeBinary),
    required_column("response_status", Integer),
    required_column("response_body"),
    required_column("expires_at", InstantType),
    Index(None, "expires_at"),
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


HASH_LETTERS: Final = 12
SQLITE: Final = sqlite.dialect()
"""Types and indexes are written for it: PostgreSQL's dialect loads slowly."""


@cache
def compute_schema_hash() -> str:
    """Return a hash of tables, columns, constraints, indexes and triggers, on both engines."""
    return hash_schema(
        metadata.sorted_tables,
        [
            TRIGGER_FUNCTION,
            *list_triggers("sqlite").values(),
            *list_triggers("postgresql").values(),
        ],
    )


def hash_schema(tables: Iterable[Table], statements: Iterable[str]) -> str:
    """Return a hash of tables and of further statements that make a database."""
    texts = [text for table in tables for text in _describe_table(table)]
    lines = "\n".join(" ".join(text.split()) for text in (*texts, *statements))
    return sha256(lines.encode()).hexdigest()[:HASH_LETTERS]


def _describe_table(table: Table) -> Iterator[str]:
    """Yield what a database has of a table: to compile its statements would take 25 ms a start."""
    yield f"{table.name} {sorted(table.dialect_kwargs.items())}"
    for column in table.columns:
        kind = f"{type(column.type).__name__} {column.type.compile(dialect=SQLITE)}"
        key = f"{column.primary_key} {column.autoincrement}"
        yield f"{column.name} {kind} {column.nullable} {key} {_describe_default(column)}"
    yield from sorted(_describe_constraint(constraint) for constraint in table.constraints)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield f"{CreateIndex(index).compile(dialect=SQLITE)}"


def _describe_default(column: Column[Any]) -> str:
    default = column.server_default
    return f"{default.arg}" if isinstance(default, DefaultClause) else f"{default}"


def _describe_constraint(constraint: Constraint) -> str:
    prefix = f"{type(constraint).__name__} {constraint.name}"
    when = f"{constraint.deferrable} {constraint.initially}"
    if isinstance(constraint, CheckConstraint):
        return f"{prefix} {when} {constraint.sqltext}"
    columns = (
        constraint.columns.keys() if isinstance(constraint, ColumnCollectionConstraint) else ()
    )
    if isinstance(constraint, ForeignKeyConstraint):
        targets = [element.target_fullname for element in constraint.elements]
        return f"{prefix} {when} {columns} {targets} {constraint.ondelete} {constraint.onupdate}"
    return f"{prefix} {when} {columns}"
