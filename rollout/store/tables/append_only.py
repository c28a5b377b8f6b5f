"""Triggers by which the database itself keeps rows of append-only tables as they were written.

An update is refused always. A delete is refused unless a purge has put a row into `purging`
within the same transaction: that row refers, deferred, to one that can't exist, so no transaction
that still has it commits, and no other transaction sees it. SQLite's `insert or replace` deletes
too, and fires delete triggers only on connections with `recursive_triggers`; the ledger therefore
also refuses to be inserted over.

What this can't stop: who owns the tables can drop the triggers. On PostgreSQL let the service
connect as a role that does not (`rollout.store.database.database_roles`).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

APPEND_ONLY: Mapping[str, bool] = MappingProxyType(
    {
        "policies": False,
        "versions": False,
        "ledger": False,
        "cases": True,
        "predictions": True,
        "decisions": True,
        "actions": True,
        "outcomes": True,
        "heartbeats": True,
        "rejected_records": True,
        "cleanings": True,
        "baselines": False,
        "counted_units": False,
        "exposures": False,
        "reports": False,
    }
)
"""The append-only tables, and whether a purge may delete there."""

OPEN = "insert into purging (id, closed) values (1, 0)"
CLOSE = "delete from purging"

FUNCTION = """\
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
"""What PostgreSQL's triggers call; it is made before the first of them."""


def triggers(engine: str, table: str, *, purgeable: bool) -> Mapping[str, str]:
    """Return the triggers of one table, by name, each as the statement that makes it."""
    return dict((_sqlite if engine == "sqlite" else _postgresql)(table, purgeable))


def _sqlite(table: str, purgeable: bool) -> Iterator[tuple[str, str]]:
    purge_condition = " when not exists (select 1 from purging)" if purgeable else ""
    yield _refusal(table, "update", "update", "")
    yield _refusal(table, "delete", "delete", purge_condition)
    if table == "ledger":
        existing_row = (
            "select 1 from ledger where rollout = new.rollout and revision = new.revision"
        )
        yield _refusal(table, "insert", "replace", f" when exists ({existing_row})")


def _refusal(table: str, event: str, refused: str, when: str) -> tuple[str, str]:
    name = f"{table}_refuses_{refused}"
    statement = f"select raise(abort, '{table} is append-only: {refused} refused')"
    return name, f"create trigger {name} before {event} on {table}{when} begin {statement}; end"


def _postgresql(table: str, purgeable: bool) -> Iterator[tuple[str, str]]:
    kind = "purgeable" if purgeable else "kept"
    for events, each in (("update or delete", "row"), ("truncate", "statement")):
        name = f"{table}_refuses_{events.replace(' ', '_')}"
        statement = f"create trigger {name} before {events} on {table} for each {each}"
        yield name, f"{statement} execute function refuse_change('{kind}')"
