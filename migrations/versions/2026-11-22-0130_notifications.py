"""The channels that users chose, what for, and their notifications.

Why: users choose how they are notified of proposals, incidents and reviews. The tables hold what
    they chose, and each notification once.
Locks: none; the tables are new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`).
With the program before it: it notifies nobody and leaves the tables alone.
Back: the tables are dropped, with the addresses; users have to choose again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "notification_settings",
        _user_column(),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("quiet_from", sa.Text(), nullable=True),
        sa.Column("quiet_until", sa.Text(), nullable=True),
        _user_constraint("notification_settings"),
        sa.PrimaryKeyConstraint("user_id", name="pk_notification_settings"),
    )
    op.create_table(
        "notification_channels",
        _user_column(),
        sa.Column("channel", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("kinds", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("code_sent_at", sa.BigInteger(), nullable=True),
        sa.Column("wrong_codes", sa.Integer(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        _user_constraint("notification_channels"),
        sa.PrimaryKeyConstraint("user_id", "channel", name="pk_notification_channels"),
    )
    _create_outbox()


def _create_outbox() -> None:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "notifications",
        sa.Column("id", kind, autoincrement=True, nullable=False),
        _user_column(),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        _user_constraint("notifications"),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint(
            "user_id", "channel", "rollout", "kind", "about", name="uq_notifications_key"
        ),
    )
    for column in ("next_attempt_at", "queued_at"):
        op.create_index(f"ix_notifications_{column}", "notifications", [column])


def _user_column() -> sa.Column[int]:
    return sa.Column("user_id", sa.Integer(), autoincrement=False, nullable=False)


def _user_constraint(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id")


def downgrade() -> None:
    """Drop them."""
    for table in ("notifications", "notification_channels", "notification_settings"):
        op.drop_table(table)
