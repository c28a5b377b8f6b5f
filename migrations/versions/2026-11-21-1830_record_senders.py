"""Columns for the sender of each record, and for the source of each decision.

Why: evidence names where it came from. Rows of before have neither, and count as they did.
Locks: each table of records for the moment of adding a column; no row is rewritten.
Back: the columns are dropped with what they hold; nothing else is lost.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

RECORD_TABLES = ("cases", "predictions", "decisions", "actions", "outcomes")


def upgrade() -> None:
    """Add the columns, empty."""
    for table in RECORD_TABLES:
        op.add_column(table, sa.Column("sender", sa.Text(), nullable=True))
    op.add_column("decisions", sa.Column("source", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("decisions", "source")
    for table in RECORD_TABLES:
        op.drop_column(table, "sender")
