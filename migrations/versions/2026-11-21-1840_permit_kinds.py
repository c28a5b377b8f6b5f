"""The kind of each action's permit, an index of cases by receipt, and a count of incidents.

Why: reports count permits that are bound to an answer, and those that aren't. A purge read all
    cases each hour to find those that are due. Incidents beyond 50 open ones a cell were dropped.
Locks: `actions` for the moment of adding a column; no row is rewritten. Writing cases while the
    index is made.
With the program before it: it leaves the column and the table empty, and reads as before.
Back: the column, the index and the table are dropped.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

RECEIVED = "ix_cases_rollout_received_at"


def upgrade() -> None:
    """Add the column, and make the index and the table."""
    op.add_column("actions", sa.Column("permit_kind", sa.Text(), nullable=True))
    op.create_index(RECEIVED, "cases", ["rollout", "received_at"])
    op.create_table(
        "unopened_incidents",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("window", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "kind", "site", "window", name="pk_unopened_incidents"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("unopened_incidents")
    op.drop_index(RECEIVED, "cases")
    op.drop_column("actions", "permit_kind")
