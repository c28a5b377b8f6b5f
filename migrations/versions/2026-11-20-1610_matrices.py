"""Who said what, summed over all slots, so that it is read without what grows with time.

Why: a version's confusion and the agreement of its cells are asked for at any time; summing the
    tallies of a year for it takes longer with every slot.
Locks: `tallies` against writing while it is read once to fill the new table: nobody counts
    meanwhile. Stop replicas of the release before: what they counted afterwards would be missing
    in the new table, and `rollout doctor --rebuild` would say so.
Back: the table is dropped. It is derived: what it holds stands in `tallies` and `counted`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and sum into it what was counted so far."""
    op.create_table(
        "matrices",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("series", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "series", "kind", name="pk_matrices"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("lock table tallies in share mode")
    op.execute(
        "insert into matrices (rollout, series, kind, n) "
        "select rollout, series, kind, sum(n) from tallies group by rollout, series, kind"
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("matrices")
