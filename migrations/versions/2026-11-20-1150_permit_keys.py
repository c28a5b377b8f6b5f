"""Keys that permits are signed with.

Why: an answer "the model decides" carries a permit that the action brings back, so that any
    replica can check it afterwards; all replicas need the same secret, and two while it turns.
Locks: nothing that exists.
Back: the table is dropped; actions that come in with permits made before count as unpermitted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "permit_keys",
        sa.Column("id", Serial, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_permit_keys"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("permit_keys")
