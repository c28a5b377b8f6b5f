"""The counted pairs that differ, by how sure the version was, so that the surest come by an index.

Why: the largest losses of a version are asked for at any time; finding them in the records takes
    longer with every case.
Locks: `counted` against writing while it is read once to fill the new table: nobody counts
    meanwhile. Stop replicas of the release before: what they counted afterwards would be missing
    in the new table, and `rollout doctor --rebuild` would say so.
Back: the table is dropped. It is derived: what it holds stands in `counted` and `predictions`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

EACH_KIND = {
    "sqlite": "json_each(c.kinds) as e on true join tally_kinds k on k.id = e.value",
    "postgresql": "lateral json_array_elements_text(c.kinds::json) as e (value) on true "
    "join tally_kinds k on k.id = e.value::bigint",
}
FILL = """
insert into losses (rollout, case_id, version, kind, confidence, series)
select c.rollout, c.case_id, c.version, k.id, p.confidence, min(c.series)
from counted c join {each}
join predictions p on p.rollout = c.rollout and p.case_id = c.case_id and p.version = c.version
where c.track = 'gate' and c.excluded is null and p.confidence is not null
and p.revision = (
    select max(o.revision) from predictions o
    where o.rollout = p.rollout and o.case_id = p.case_id and o.version = p.version
)
and k.lever <> '*' and k.predicted <> k.decided
and k.decided not in ('', '(not listed)')
and k.predicted not in ('(failed)', '(late)', '(outside)')
and not (k.decided = 'agree' and k.predicted in ('under', 'over'))
group by c.rollout, c.case_id, c.version, k.id, p.confidence
"""


def upgrade() -> None:
    """Make the table, and fill it with what was counted so far."""
    op.create_table(
        "losses",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("case_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "case_id", "version", "kind", name="pk_losses"),
        sqlite_with_rowid=False,
    )
    surest = ["rollout", "version", "kind", "confidence", "case_id", "series"]
    op.create_index("ix_losses_surest", "losses", surest)
    engine = op.get_bind().dialect.name
    if engine == "postgresql":
        op.execute("lock table counted in share mode")
    op.execute(FILL.format(each=EACH_KIND[engine]))


def downgrade() -> None:
    """Drop it."""
    op.drop_table("losses")
