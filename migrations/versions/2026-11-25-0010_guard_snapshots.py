"""Snapshots of what guards observed, so that a process's first tick reads only what came after.

Why: with guards of failures, latency, silence or harm a first tick read the records of up to 56
    days. One row a rollout has what guards use of them as compressed arrays, derived from the
    records and bound to an entry of the ledger.
Locks: none; the table is new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`). The next tick
    of a rollout with enough cases writes its row.
With the program before it: it doesn't know the table, so its erasures leave a snapshot until the
    next tick of the new program. Stop it before you erase cases or names.
Back: the table is dropped; nothing is lost.
"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "guard_snapshots",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", name="pk_guard_snapshots"),
    )


def downgrade() -> None:
    """Drop it; the program before reads the records."""
    op.drop_table("guard_snapshots")
