"""Tables for heartbeats of replicas, stops before the ledger has them, and damage.

Why: a replica lets the model decide only while it can write. A stop that the ledger can't take
    is obeyed by every replica as soon as this small table has it. Rollouts with damaged rows stay
    with humans until an admin has checked them.
Locks: none; the tables are new, and the program before doesn't know them.
Back: the tables are dropped, but only while they hold no stop and no damage.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0020"
branch_labels = None
depends_on = None

IN_FORCE = "select (select count(*) from pending_stops) + (select count(*) from damages)"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "replica_heartbeats",
        sa.Column("owner", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_replica_heartbeats"),
    )
    op.create_table(
        "pending_stops",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("cells", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("drill", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("access_head", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_pending_stops"),
    )
    op.create_table(
        "damages",
        sa.Column("rollout", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", name="pk_damages"),
    )


def downgrade() -> None:
    """Drop them.

    Raises:
        RuntimeError: a stop or damage is in force, which the program before would not obey.
    """
    if op.get_bind().execute(sa.text(IN_FORCE)).scalar_one():
        raise RuntimeError(
            "stops or damage are in force; see `rollout status` and `rollout doctor`"
        )
    for table in ("damages", "pending_stops", "replica_heartbeats"):
        op.drop_table(table)
