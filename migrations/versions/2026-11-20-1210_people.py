"""How people come in: one-time links, identity providers, and sessions that end when idle.

Why: the first admin and everybody after them set their own password by a link that works once; an
    identity provider names people by a subject, first believed by a verified e-mail address; a
    session ends when nobody used it for a while, on every replica.
Locks: `people` and `sessions`, for as long as it takes to add a column that may be null.
Back: the tables and columns are dropped. Open links end, and people sign in by password alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns, make the tables."""
    op.add_column("people", sa.Column("email", sa.Text(), nullable=True))
    op.create_index("ix_people_email", "people", ["email"], unique=True)
    op.add_column("sessions", sa.Column("seen_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "one_time_links",
        sa.Column("id", Serial, nullable=False),
        sa.Column("person", sa.Integer(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_one_time_links_person"),
        sa.PrimaryKeyConstraint("id", name="pk_one_time_links"),
        sa.UniqueConstraint("hash", name="uq_one_time_links_hash"),
    )
    op.create_index("ix_one_time_links_person", "one_time_links", ["person"])
    op.create_table(
        "identities",
        sa.Column("id", Serial, nullable=False),
        sa.Column("person", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("linked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_identities_person"),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("issuer", "subject", name="uq_identities_issuer_subject"),
        sa.UniqueConstraint("person", "issuer", name="uq_identities_person_issuer"),
    )
    op.create_index("ix_identities_person", "identities", ["person"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("identities")
    op.drop_table("one_time_links")
    op.drop_column("sessions", "seen_at")
    op.drop_index("ix_people_email", "people")
    op.drop_column("people", "email")
