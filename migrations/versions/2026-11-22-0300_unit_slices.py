"""The attribute values of counted units, which gates and guards by slice read.

Why: a gate may ask that every value of an attribute passes by itself. A case's attributes may be
    corrected or erased later, so each unit keeps the values that it was counted with.
Locks: none beyond the moment that adds an empty column.
After it: nothing; units counted before have no values, and slices name them `(not recorded)`.
With the program before it: it counts units without values, and its `doctor` takes digests of units
    with values for different ones.
Back: the column is dropped, with the values; digests cover them, so `doctor` reports these units.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("counted_units", sa.Column("slices", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("counted_units", "slices")
