"""The first tables.

Why: the service keeps its ledger, records, counts and people in a database.
Locks: nothing; there is nothing yet.
Back: `rollout db downgrade base` drops every table with all that is in it.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import TRIGGER_FUNCTION, build_triggers

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Append-only tables, and whether a purge may delete there.
APPEND_ONLY = {
    "policies": False,
    "versions": False,
    "ledger": False,
    "cases": True,
    "predictions": True,
    "decisions": True,
    "actions": True,
    "outcomes": True,
    "heartbeats": True,
    "set_aside": True,
    "baselines": False,
    "counted": False,
    "shown": False,
    "reports": False,
}

TABLES = (
    "sessions",
    "rights",
    "keys",
    "versions",
    "tally_series",
    "tally_kinds",
    "tallies",
    "slots",
    "shown",
    "set_aside",
    "scopes",
    "rollouts",
    "reviews",
    "reports",
    "replies",
    "purging",
    "proposals",
    "predictions",
    "policies",
    "people",
    "outcomes",
    "outbox",
    "ledger_heads",
    "ledger",
    "incidents",
    "heartbeats",
    "evidence_heads",
    "evidence",
    "due",
    "deliveries",
    "decisions",
    "counted",
    "cases",
    "caller_keys",
    "baselines",
    "actions",
)


def upgrade() -> None:
    """Make tables, indexes and triggers."""
    make_tables()
    engine = op.get_bind().dialect.name
    if engine == "postgresql":
        op.execute(TRIGGER_FUNCTION)
    for table, purgeable in APPEND_ONLY.items():
        for statement in build_triggers(engine, table, purgeable=purgeable).values():
            op.execute(statement)


def make_tables() -> None:
    """Make every table with its indexes."""
    op.create_table(
        "actions",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lever", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("scope_revision", sa.Integer(), nullable=True),
        sa.Column("permission", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "lever", "revision", name="pk_actions"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "baselines",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("lever", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("vouched_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_baselines"),
    )
    op.create_index("ix_baselines_rollout", "baselines", ["rollout"])
    op.create_table(
        "caller_keys",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_caller_keys"),
        sa.UniqueConstraint("rollout", "kind", "key", name="uq_caller_keys_rollout_kind_key"),
    )
    op.create_table(
        "cases",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("episode", sa.BigInteger(), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("media", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "revision", name="pk_cases"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_cases_rollout_episode", "cases", ["rollout", "episode"])
    op.create_index(
        "ix_cases_rollout_site_occurred_at", "cases", ["rollout", "site", "occurred_at"]
    )
    op.create_table(
        "counted",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("unit", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("track", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("occurred", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.Column("kinds", sa.Text(), nullable=False),
        sa.Column("band", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("excluded", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "unit", "version", "track", name="pk_counted"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_counted_rollout_slot", "counted", ["rollout", "slot"])
    op.create_table(
        "decisions",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reviewer", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("answers", sa.Text(), nullable=False),
        sa.Column("unsure", sa.Boolean(), nullable=False),
        sa.Column("claims", sa.Text(), nullable=False),
        sa.Column("exposure", sa.Text(), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("submitted_at", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("review", sa.BigInteger(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "reviewer", "revision", name="pk_decisions"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deliveries",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("report", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("channel", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "report", "channel", name="pk_deliveries"),
    )
    op.create_table(
        "due",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("track", sa.Text(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("rollout", "at", "case_id", "track", name="pk_due"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_due_rollout_case_id", "due", ["rollout", "case_id"])
    op.create_table(
        "evidence",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("window", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("measure", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "rollout", "version", "site", "window", "measure", name="pk_evidence"
        ),
    )
    op.create_table(
        "evidence_heads",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", name="pk_evidence_heads"),
    )
    op.create_table(
        "heartbeats",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "site", "at", name="pk_heartbeats"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "incidents",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("incident", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("guard", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("window", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at", sa.BigInteger(), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("opened_in", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "incident", name="pk_incidents"),
    )
    op.create_index("ix_incidents_rollout_opened_in", "incidents", ["rollout", "opened_in"])
    op.create_table(
        "ledger",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("house", sa.Integer(), nullable=True),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "revision", name="pk_ledger"),
    )
    op.create_table(
        "ledger_heads",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", name="pk_ledger_heads"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_next_at", "outbox", ["next_at"])
    op.create_table(
        "outcomes",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("answers", sa.Text(), nullable=False),
        sa.Column("harm", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "revision", name="pk_outcomes"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "people",
        sa.Column("id", Serial, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("machine", sa.Boolean(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
        sa.UniqueConstraint("name", name="uq_people_name"),
    )
    op.create_table(
        "policies",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("received_by", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "hash", name="pk_policies"),
    )
    op.create_table(
        "predictions",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("answers", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("probabilities", sa.Text(), nullable=True),
        sa.Column("latency_ms", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("scope_revision", sa.Integer(), nullable=True),
        sa.Column("decider", sa.Text(), nullable=True),
        sa.Column("exposure", sa.Text(), nullable=True),
        sa.Column("share", sa.Double(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "version", "revision", name="pk_predictions"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "proposals",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("proposal", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("raised_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("window", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("to_stage", sa.Text(), nullable=False),
        sa.Column("raised_in", sa.Integer(), nullable=False),
        sa.Column("closed_in", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "proposal", name="pk_proposals"),
    )
    op.create_index("ix_proposals_rollout_raised_in", "proposals", ["rollout", "raised_in"])
    op.create_table(
        "purging",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("closed", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1 AND closed = 0", name="ck_purging_never_commits"),
        sa.ForeignKeyConstraint(
            ["closed"],
            ["purging.id"],
            name="fk_purging_closed",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_purging"),
    )
    op.create_table(
        "replies",
        sa.Column("principal", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_replies"),
    )
    op.create_index("ix_replies_expires_at", "replies", ["expires_at"])
    op.create_table(
        "reports",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
        sa.UniqueConstraint("rollout", "name", "hash", name="uq_reports_rollout_name_hash"),
    )
    op.create_table(
        "reviews",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("seat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "case_id", "kind", "seat", name="pk_reviews"),
    )
    op.create_index(
        "ix_reviews_rollout_state_site_opened_at",
        "reviews",
        ["rollout", "state", "site", "opened_at"],
    )
    op.create_table(
        "rollouts",
        sa.Column("id", Serial, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        sa.UniqueConstraint("name", name="uq_rollouts_name"),
    )
    op.create_table(
        "scopes",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "revision", name="pk_scopes"),
    )
    op.create_table(
        "set_aside",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_set_aside"),
        sa.UniqueConstraint("rollout", "hash", name="uq_set_aside_rollout_hash"),
    )
    op.create_table(
        "shown",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reviewer", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("what", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("page", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "reviewer", "at", "what", name="pk_shown"),
    )
    op.create_table(
        "slots",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "slot", name="pk_slots"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tallies",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("occurred", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("band", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "rollout", "slot", "occurred", "series", "kind", "band", name="pk_tallies"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tally_kinds",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("lever", sa.Text(), nullable=False),
        sa.Column("predicted", sa.Text(), nullable=False),
        sa.Column("decided", sa.Text(), nullable=False),
        sa.Column("second", sa.Text(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally_kinds"),
        sa.UniqueConstraint(
            "rollout",
            "lever",
            "predicted",
            "decided",
            "second",
            "level",
            name="uq_tally_kinds_class",
        ),
    )
    op.create_table(
        "tally_series",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("track", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally_series"),
        sa.UniqueConstraint(
            "rollout",
            "track",
            "version",
            "site",
            "window",
            "definition",
            "attempt",
            name="uq_tally_series_whose",
        ),
    )
    op.create_table(
        "versions",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("said_at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("trained_until", sa.BigInteger(), nullable=True),
        sa.Column("about", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "version", "revision", name="pk_versions"),
    )
    op.create_table(
        "keys",
        sa.Column("id", Serial, nullable=False),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_keys_person"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("prefix", name="uq_keys_prefix"),
    )
    op.create_index("ix_keys_person", "keys", ["person"])
    op.create_table(
        "rights",
        sa.Column("id", Serial, nullable=False),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=True),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("group", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_rights_person"),
        sa.PrimaryKeyConstraint("id", name="pk_rights"),
    )
    op.create_index("ix_rights_person", "rights", ["person"])
    op.create_table(
        "sessions",
        sa.Column("id", Serial, nullable=False),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("csrf", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_sessions_person"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("hash", name="uq_sessions_hash"),
    )
    op.create_index("ix_sessions_person", "sessions", ["person"])


def downgrade() -> None:
    """Drop everything."""
    for table in TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("drop function refuse_change()")
