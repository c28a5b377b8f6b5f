"""Hashes of records and units, and a table of the hashes that a purge or an erasure took.

Why: an edited record is found only if its hash covers everything that decides how it counts, and
    if each counted unit names the records behind it.
Locks: each table for the moment of adding a column; no row is rewritten.
Meanwhile: the program before writes records of hash form 1 and units without hashes; both are read.
Back: the columns and the table are dropped with their hashes; the ledger keeps its digests.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

RECORD_TABLES = ("cases", "predictions", "decisions", "actions", "outcomes")


def upgrade() -> None:
    """Add the columns and make the table."""
    for table in RECORD_TABLES:
        form = sa.Column("hash_form", sa.Integer(), nullable=False, server_default="1")
        op.add_column(table, form)
        op.add_column(table, sa.Column("salt", sa.LargeBinary(), nullable=True))
        op.add_column(table, sa.Column("record_hash", sa.LargeBinary(), nullable=True))
    op.add_column("counted_units", sa.Column("record_hashes", sa.LargeBinary(), nullable=True))
    op.create_table(
        "erased_hashes",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "revision", name="pk_erased_hashes"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_erased_hashes_rollout_revision", "erased_hashes", ["rollout", "revision"])
    engine = op.get_bind().dialect.name
    for statement in build_triggers(engine, "erased_hashes", purgeable=False).values():
        op.execute(statement)


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("erased_hashes")
    op.drop_column("counted_units", "record_hashes")
    for table in reversed(RECORD_TABLES):
        for column in ("record_hash", "salt", "hash_form"):
            op.drop_column(table, column)
