"""The addresses under which calendar programs read schedules.

Why: a calendar program can't sign in. Each user may have one secret address; its hash is stored.
Locks: none; the table is new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`).
With the program before it: it serves no calendars and leaves the table alone.
Back: the table is dropped; users have to subscribe again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "calendar_feeds",
        sa.Column("user_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_calendar_feeds_user_id"),
        sa.PrimaryKeyConstraint("user_id", name="pk_calendar_feeds"),
        sa.UniqueConstraint("hash", name="uq_calendar_feeds_hash"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("calendar_feeds")
