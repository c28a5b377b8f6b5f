"""Deliveries are their own outbox; what makes reports on schedule notes how far it came.

Why: a delivery is named by its number where somebody has it tried again, says what failed last and
    when it is tried next, and is written with the report that it sends, so that a second queue
    beside it has nothing to hold; a report that is due is made by one replica.
Locks: `deliveries` and `outbox`, for as long as it takes to drop an empty table and make another.
    No release has written to either.
Back: both tables are made as they were; what was on its way to channels, and how far reports were
    made, is lost with the new ones. Reports stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make `deliveries` anew, and `report_runs`; drop `outbox`."""
    op.drop_table("outbox")
    op.drop_table("deliveries")
    op.create_table(
        "deliveries",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("report", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("lead", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint(
            "rollout", "report", "channel", name="uq_deliveries_rollout_report_channel"
        ),
    )
    op.create_index("ix_deliveries_next_at", "deliveries", ["next_at"])
    op.create_table(
        "report_runs",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("what", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("mark", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "what", "mark", name="pk_report_runs"),
    )


def downgrade() -> None:
    """Make both tables as they were."""
    op.drop_table("report_runs")
    op.drop_table("deliveries")
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
