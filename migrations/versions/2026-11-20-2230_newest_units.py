"""An index of what was counted of a version at closing, by when it occurred.

Why: the list of divergences read the records of thousands of cases for one page.
Locks: writing into `counted`, so counting, while the index is made. Records still come in.
Back: the index is dropped.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NEWEST = "ix_counted_newest"
OF_GATE = sa.text("track = 'gate'")


def upgrade() -> None:
    """Make it."""
    op.create_index(
        NEWEST,
        "counted",
        ["rollout", "version", "occurred", "unit", "series"],
        sqlite_where=OF_GATE,
        postgresql_where=OF_GATE,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index(NEWEST, "counted")
