"""Reports get versions, a state, and their divergences.

Why: a report is provisional while verdicts are due, and says what changed when one comes in late:
    of one span several versions are kept, and the ledger cites each by its hash.
Locks: `reports`, for as long as it takes to add columns with constant defaults; no row is touched.
Back: the columns are dropped, with what stands in them; bodies and hashes stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEX = "ix_reports_versions"
VERSIONED = ["rollout", "name", "since", "until", "version"]


def upgrade() -> None:
    """Add the columns."""
    for column in (
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("state", sa.Text(), nullable=False, server_default="final"),
        sa.Column("view", sa.Text(), nullable=False, server_default="operator"),
        sa.Column("divergences", sa.Text(), nullable=False, server_default=""),
        sa.Column("sealed_in", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("due", sa.BigInteger(), nullable=True),
    ):
        op.add_column("reports", column)
    op.create_index(INDEX, "reports", VERSIONED, unique=True)


def downgrade() -> None:
    """Drop them."""
    op.drop_index(INDEX, "reports")
    for column in ("due", "sealed_in", "divergences", "view", "state", "version"):
        op.drop_column("reports", column)
