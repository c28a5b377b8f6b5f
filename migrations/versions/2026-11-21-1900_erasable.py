"""Let an erasure replace names and texts in append-only tables.

Why: names of users and reviewers stand in decisions, counted units, exposures, cleanings,
    baselines and policies, and rows of cases in sealed reports; an erasure puts pseudonyms and
    salted hashes in their place, within the row of `purging` that a purge needs too.
Locks: each of these tables for the moment of replacing a trigger; no row is touched.
After it: on PostgreSQL grant the service's role `update` on these tables.
Back: the triggers of before are made again; erased names and texts stay erased.
"""

from alembic import op

from rollout.store.tables.append_only import TRIGGER_FUNCTION, build_triggers

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

FORMER_FUNCTION = """\
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and tg_argv[0] = 'purgeable' then
        if exists (select from purging) then
            return old;
        end if;
    end if;
    raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end $$"""

TABLES = {  # whether a purge may delete there
    "baselines": False,
    "cleanings": True,
    "counted_units": False,
    "decisions": True,
    "exposures": False,
    "policies": False,
    "reports": False,
}


def upgrade() -> None:
    """Let an erasure update the tables."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(TRIGGER_FUNCTION)
    _replace_triggers(erasable=True)


def downgrade() -> None:
    """Refuse every update again."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(FORMER_FUNCTION)
    _replace_triggers(erasable=False)


def _replace_triggers(*, erasable: bool) -> None:
    engine = op.get_bind().dialect.name
    for table, purgeable in TABLES.items():
        triggers = build_triggers(engine, table, purgeable=purgeable, erasable=erasable)
        for name, statement in triggers.items():
            op.execute(f"drop trigger {name}" + (f" on {table}" if engine != "sqlite" else ""))
            op.execute(statement)
