"""An index of ledger entries by time, for the scope at a past instant.

Why: to find the last entry by an old instant, every later entry was read.
Locks: writing into `ledger`, so decisions, while the index is made. Records still come in.
With the program before it: it works as before.
Back: the index is dropped.
"""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

TIMES = "ix_ledger_times"


def upgrade() -> None:
    """Make it."""
    op.create_index(TIMES, "ledger", ["rollout", "at", "revision"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index(TIMES, "ledger")
