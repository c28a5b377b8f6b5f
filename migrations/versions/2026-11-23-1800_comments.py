"""Comments on proposals and incidents.

Why: the people who decide on a proposal or look into an incident ask and answer each other. The
    ledger has a comment's salted hash, this table its text, which an erasure removes.
Locks: none; the table is new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`).
With the program before it: it can't read a ledger that has a comment; stop it before the first one.
Back: refused while there are comments, because the program before can't read their entries.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and let only an erasure change its rows."""
    op.create_table(
        "comments",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=True),
        sa.Column("case_id", sa.BigInteger(), nullable=True),
        sa.Column("salt", sa.LargeBinary(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "revision", name="pk_comments"),
    )
    for column in ("about", "case_id"):
        op.create_index(f"ix_comments_rollout_{column}", "comments", ["rollout", column])
    engine = op.get_bind().dialect.name
    for statement in build_triggers(engine, "comments", purgeable=False, erasable=True).values():
        op.execute(statement)


def downgrade() -> None:
    """Drop it; its triggers go with it.

    Raises:
        RuntimeError: there are comments.
    """
    count = op.get_bind().execute(sa.text("select count(*) from comments")).scalar()
    if count:
        raise RuntimeError(
            f"{count} comments have entries in ledgers that the program before can't read;"
            " restore a backup from before the first comment instead"
        )
    op.drop_table("comments")
