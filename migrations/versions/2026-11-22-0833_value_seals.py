"""What digests cover of the attribute values of counted units: a hash with random bytes.

Why: an erasure replaces the values that only erased cases have. So that the digests of ticks stay
    true, they cover a hash of a unit's values with 16 random bytes; an erasure replaces the bytes
    by the hash, from which nobody can guess the values.
Locks: none beyond the moment that adds an empty column.
After it: nothing; digests cover the values themselves of units that were counted before.
With the program before it: it counts units without random bytes, which keep the digests that they
    have, and its `doctor` reports units of the new program as different.
Back: the column is dropped; digests of units that were counted meanwhile differ, so `doctor`
    reports these units. Erased values stay erased.
"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("counted_units", sa.Column("value_seal", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("counted_units", "value_seal")
