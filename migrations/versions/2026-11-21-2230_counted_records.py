"""The hashes of actions and outcomes that each tick counted.

Why: an action or outcome that somebody deletes, or edits together with its hash, was in no digest.
    The digest of each tick now also covers the actions and outcomes stored since the tick before.
Locks: none; the table is new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`).
With the program before it: its ticks delete the queue's new entries unread, so `doctor` counts
    their actions and outcomes as those that no digest covers.
Back: the table is dropped, and the ledger keeps digests that cover it.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0022"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "counted_records",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record_hash", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "record_hash", name="pk_counted_records"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_counted_records_rollout_slot", "counted_records", ["rollout", "slot"])
    engine = op.get_bind().dialect.name
    for statement in build_triggers(engine, "counted_records", purgeable=False).values():
        op.execute(statement)


def downgrade() -> None:
    """Drop it."""
    op.drop_table("counted_records")
