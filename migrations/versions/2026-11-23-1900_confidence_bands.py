"""The confidence band of counted units, by which several confidence floors count them.

Why: a service can carry several confidence floors. Each has a gate on the units at or above it, so
    a unit keeps the band of the confidence that it was counted with.
Locks: none beyond the moment that adds an empty column.
After it: nothing; units counted before were counted under one floor and have no band.
With the program before it: it refuses policies with several floors. Stop it before such a policy is
    applied: it would answer by the lowest floor alone, and count units without a band.
Back: refused while a unit has a band, because the program before would answer by the lowest floor
    alone. Else the column is dropped.
"""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("counted_units", sa.Column("band", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop it, unless a unit has a band.

    Raises:
        RuntimeError: the program before would ignore the floors of cells.
    """
    query = "select count(*) from counted_units where band is not null"
    count = op.get_bind().execute(sa.text(query)).scalar()
    if count:
        raise RuntimeError(
            f"{count} counted units have a confidence band, and the program before would ignore the"
            " floors of cells; apply a policy with one confidence floor in a rollout of another"
            " name, or restore a backup from before"
        )
    op.drop_column("counted_units", "band")
