"""The attribute values of each counted unit's cases.

Why: a policy may ask for familiar cases only. What was familiar when follows from the values of the
    units counted before, so each unit holds them; the digests of ticks cover them.
Locks: the table for the moment of adding a column; no row is rewritten.
Meanwhile: the program before counts units without values, which count as under a policy that asks
    for none. It can't read a policy that does.
Back: the column is dropped with its values; doctor then finds other digests than the ledger's for
    ticks that counted units with values.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("counted_units", sa.Column("attribute_values", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("counted_units", "attribute_values")
