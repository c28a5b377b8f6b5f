"""Reviews get a number, a due time, and room for known cases.

Why: a review is named by its number in links and on the decision that it led to; seats are given
    out by when they are due; a seeded case keeps its right answer and the verdict on it apart from
    the records, so that it can never be evidence; one person sits at a case once.
Locks: `reviews`, for as long as it takes to make an empty table. No release has written to it.
Back: the table is made as it was. Open reviews are lost with what was seeded; verdicts stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INDEXES = (
    ("rollout", "state", "due_at"),
    ("rollout", "state", "answer_by"),
    ("rollout", "reviewer", "state"),
)


def upgrade() -> None:
    """Make the table anew."""
    op.drop_table("reviews")
    op.create_table(
        "reviews",
        sa.Column("id", Serial, nullable=False),
        sa.Column("rollout", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("answer_by", sa.BigInteger(), nullable=True),
        sa.Column("turn", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("known", sa.Text(), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.UniqueConstraint(
            "rollout", "case_id", "kind", "seat", name="uq_reviews_rollout_case_id_kind_seat"
        ),
        sa.UniqueConstraint(
            "rollout", "case_id", "reviewer", name="uq_reviews_rollout_case_id_reviewer"
        ),
    )
    for columns in INDEXES:
        op.create_index(f"ix_reviews_{'_'.join(columns)}", "reviews", list(columns))


def downgrade() -> None:
    """Make the table as it was."""
    op.drop_table("reviews")
    op.create_table(
        "reviews",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("seat", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout", "case_id", "kind", "seat", name="pk_reviews"),
    )
    op.create_index(
        "ix_reviews_rollout_state_site_opened_at",
        "reviews",
        ["rollout", "state", "site", "opened_at"],
    )
