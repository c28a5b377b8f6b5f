"""The values of outcomes, and the units that were counted with one.

Why: gates and guards on gain compare what an outcome brought, such as a profit, in two arms. Each
    unit is counted once, when its deadline passes, so that later values change nothing.
Locks: the table of outcomes for the moment that adds an empty column; the other table is new.
After it: on PostgreSQL grant the service's role what it needs (`rollout db grant`).
With the program before it: it stores outcomes without values and refuses policies with `outcomes`.
    Its `doctor` names hash form 5, of outcomes with values, as one that does not exist.
Back: column and table are dropped. Ticks that counted values then have other digests, and outcomes
    with values other hashes; `doctor` reports both.
"""

import sqlalchemy as sa
from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None
TABLE = "counted_outcomes"


def upgrade() -> None:
    """Add the column, and make the table."""
    op.add_column("outcomes", sa.Column("outcome_values", sa.Text(), nullable=True))
    op.create_table(
        TABLE,
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("unit", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("occurred", sa.BigInteger(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("drawn", sa.Text(), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("known_share", sa.Double(), nullable=False),
        sa.Column("record_hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "unit", "version", "outcome", name=f"pk_{TABLE}"),
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{TABLE}_rollout_slot", TABLE, ["rollout", "slot"])
    engine = op.get_bind().dialect.name
    for statement in build_triggers(engine, TABLE, purgeable=False).values():
        op.execute(statement)


def downgrade() -> None:
    """Drop both."""
    op.drop_table(TABLE)
    op.drop_column("outcomes", "outcome_values")
