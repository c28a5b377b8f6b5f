"""Triggers that keep the rows of append-only tables as they were written.

An update is refused, except of the tables in `ERASABLE`, where an erasure replaces names and texts.
That and a delete are refused unless a purge, an erasure or a correction of the clock, which takes
back what was counted ahead, has put a row into `purging` in the same transaction. That row refers,
deferred, to a row that can't exist, so no transaction can commit while it has the row, and no other
transaction sees it. SQLite's `insert or replace` deletes
too, and fires delete triggers only on connections with `recursive_triggers`; the ledger therefore
also refuses inserts over an existing revision.

The owner of a table can still drop its triggers. On PostgreSQL let the service connect as a role
that does not own them (`rollout.store.database.migrations`).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

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
        "counted_units": True,
        "counted_records": True,
        "counted_outcomes": True,
        "exposures": False,
        "reports": False,
        "erased_hashes": False,
        "planted_cases": False,
    }
)
"""The append-only tables, and whether their rows may be deleted within `purging`."""

ERASABLE: Final = frozenset(
    {
        "baselines",
        "cleanings",
        "counted_units",
        "decisions",
        "exposures",
        "policies",
        "reports",
    }
)
"""The append-only tables in which an erasure may replace names and texts."""

OPEN_PURGE = "insert into purging (id, closed) values (1, 0)"
CLOSE_PURGE = "delete from purging"

TRIGGER_FUNCTION = """\
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and tg_argv[0] = 'purgeable' then
        if exists (select from purging) then
            return old;
        end if;
    end if;
    if tg_op = 'UPDATE' and tg_argv[1] = 'erasable' then
        if exists (select from purging) then
            return new;
        end if;
    end if;
    raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end $$"""
"""The function that PostgreSQL's triggers call; create it before them."""


def list_triggers(engine: str) -> Mapping[str, str]:
    """Return the statements that create all triggers, by trigger name."""
    return {
        name: statement
        for table in APPEND_ONLY
        for name, statement in build_triggers(engine, table).items()
    }


def build_triggers(engine: str, table: str) -> Mapping[str, str]:
    """Return the statements that create a table's triggers, by trigger name."""
    build = _build_sqlite_triggers if engine == "sqlite" else _build_postgresql_triggers
    return dict(build(table, APPEND_ONLY[table], table in ERASABLE))


def _build_sqlite_triggers(
    table: str, purgeable: bool, erasable: bool
) -> Iterator[tuple[str, str]]:
    unless_open = " when not exists (select 1 from purging)"
    yield _build_refusal(table, "update", "update", unless_open if erasable else "")
    yield _build_refusal(table, "delete", "delete", unless_open if purgeable else "")
    if table == "ledger":
        existing_row = (
            "select 1 from ledger where rollout = new.rollout and revision = new.revision"
        )
        yield _build_refusal(table, "insert", "replace", f" when exists ({existing_row})")


def _build_refusal(table: str, event: str, operation: str, condition: str) -> tuple[str, str]:
    name = f"{table}_refuses_{operation}"
    statement = f"select raise(abort, '{table} is append-only: {operation} refused')"
    return (
        name,
        f"create trigger {name} before {event} on {table}{condition} begin {statement}; end",
    )


def _build_postgresql_triggers(
    table: str, purgeable: bool, erasable: bool
) -> Iterator[tuple[str, str]]:
    arguments = "'purgeable'" if purgeable else "'kept'"
    arguments += ", 'erasable'" if erasable else ""
    for events, each in (("update or delete", "row"), ("truncate", "statement")):
        name = f"{table}_refuses_{events.replace(' ', '_')}"
        statement = f"create trigger {name} before {events} on {table} for each {each}"
        yield name, f"{statement} execute function refuse_change({arguments})"
