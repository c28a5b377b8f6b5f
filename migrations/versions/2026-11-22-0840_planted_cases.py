"""Planted cases: declared by a user before anything else is known of them, and never natural.

Why: scenarios and seeded rare events are planted to see what a model does with them. They are a
    population of their own: no figure about the cases that occur may count them.
Locks: none beyond the moment that adds an empty column; the table is new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`).
With the program before it: it knows no planted cases, so declare none before each replica runs
    this program; it would count them with the others.
Back: refused while a case is declared as planted, because the program before would count it.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0034"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and make the table."""
    op.add_column("cases", sa.Column("planted", sa.Boolean(), nullable=True))
    op.create_table(
        "planted_cases",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("declared_at", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", name="pk_planted_cases"),
        sqlite_with_rowid=False,
    )
    for statement in build_triggers(
        op.get_bind().dialect.name, "planted_cases", purgeable=False
    ).values():
        op.execute(statement)


def downgrade() -> None:
    """Drop both, unless a case is planted.

    Raises:
        RuntimeError: a case is planted.
    """
    count = op.get_bind().execute(sa.text("select count(*) from planted_cases")).scalar()
    if count:
        raise RuntimeError(
            f"{count} cases are declared as planted, and the program before would count them as"
            " cases that occur; restore a backup from before the first declaration instead"
        )
    op.drop_table("planted_cases")
    op.drop_column("cases", "planted")
