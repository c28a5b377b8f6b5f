"""A column of actions for the kind of their permit, and an index of cases by their receipt.

Why: reports count permits that are bound to an answer, and those that aren't. A purge read all
    cases each hour to find those that are due.
Locks: `actions` for the moment of adding a column; no row is rewritten. Writing cases while the
    index is made.
With the program before it: it leaves the column empty, and reads as before.
Back: the column and the index are dropped.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

RECEIVED = "ix_cases_rollout_received_at"


def upgrade() -> None:
    """Add the column and make the index."""
    op.add_column("actions", sa.Column("permit_kind", sa.Text(), nullable=True))
    op.create_index(RECEIVED, "cases", ["rollout", "received_at"])


def downgrade() -> None:
    """Drop both."""
    op.drop_index(RECEIVED, "cases")
    op.drop_column("actions", "permit_kind")
