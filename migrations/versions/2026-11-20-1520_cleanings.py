"""What people choose about cases that stand out, for training: relabel, drop or keep.

Why: a version is trained quickly, cleaned with, and trained again; what was chosen about a case,
    by whom and why, has to stand for as long as the case does, and an export has to find it.
Locks: nothing; it makes a table, its index, and the triggers that keep its rows as they are.
Back: the table is dropped with what was chosen. Records are as they were: a choice changes none.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table, and let nobody change its rows; a purge deletes them with their cases."""
    op.create_table(
        "cleanings",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("lever", sa.Text(), nullable=False),
        sa.Column("choice", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cleanings"),
    )
    op.create_index("ix_cleanings_rollout_case_id", "cleanings", ["rollout", "case_id"])
    for made in build_triggers(op.get_bind().dialect.name, "cleanings", purgeable=True).values():
        op.execute(made)


def downgrade() -> None:
    """Drop it; its triggers go with it."""
    op.drop_table("cleanings")
