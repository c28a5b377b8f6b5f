"""Indexes of records: none of the due queue's cases, and of episodes only where a case has one.

Why: each case that comes in is written into every index; these two were for what is rare. Old
    cases are now looked up in the whole queue, once, when they are deleted.
Locks: writing into `cases` and `due` while the index of episodes is made anew: a read of `cases`.
Back: both indexes are made again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

QUEUED = "ix_due_rollout_case_id"
EPISODES = "ix_cases_rollout_episode"
NAMED = sa.text("episode is not null")


def upgrade() -> None:
    """Drop the one, and make the other smaller."""
    op.drop_index(QUEUED, "due")
    op.drop_index(EPISODES, "cases")
    op.create_index(
        EPISODES,
        "cases",
        ["rollout", "episode"],
        sqlite_where=NAMED,
        postgresql_where=NAMED,
    )


def downgrade() -> None:
    """Make them as they were."""
    op.drop_index(EPISODES, "cases")
    op.create_index(EPISODES, "cases", ["rollout", "episode"])
    op.create_index(QUEUED, "due", ["rollout", "case_id"])
