"""One edit of each column of each table: `doctor` sees it, or docs/how-to/audit.md lists it."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    Integer,
    LargeBinary,
    Text,
    func,
    insert,
    select,
    text,
    type_coerce,
)

from rollout.data.ledger import scopes
from rollout.data.tables.record_tables import APPEND_ONLY, InstantType, JsonType
from rollout.data.tables.tables import metadata
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.engine.decide.incident_kinds import EVIDENCE_CHANGED
from rollout.features.process import health_checks
from rollout.features.reports.builder import ReportOptions, create_report
from rollout.kernel.calendar.instants import to_micros
from rollout.live import tick_passes
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.attacks.test_edited_credentials import give_credentials
from tests.attacks.test_edited_exposures import fill
from tests.data.databases import on_postgresql, on_sqlite
from tests.data.snapshots import filled_once
from tests.docs.pages import text_of
from tests.factories import NOON
from tests.features.process.test_health_checks import LOOSER, POLICY
from tests.features.review_room import START
from tests.live.test_evidence_check import attacking
from tests.live.test_whole_history import END, tell_history

pytestmark = pytest.mark.exhaustive
TABLES = {table.name: table for table in metadata.sorted_tables if table.name != "purging"}
ADDED = "added rows"
LIST = re.search(r"```text\n(account_names: .*?)```", text_of("docs/how-to/audit.md"), re.DOTALL)
UNSEEN = {
    line.split(": ")[0]: set(line.split(": ")[1].split("; ")[0].split(", "))
    for line in LIST[1].splitlines()
    if not line.startswith(" ")
}
"""By table the columns that the page lists, or `all`; `ADDED` where an added row is unseen."""
ELSEWHERE = {
    "evidence_snapshots": "tests/live/test_evidence_snapshots.py",
    "guard_snapshots": "tests/live/test_guard_snapshots.py",
}
"""Tables that the history of this module doesn't fill, by the test that edits them."""
PICKED = {  # the row to edit; the first, where nothing is said
    "account_names": "name = 'bo'",
    "exposures": "content = 'prediction'",
    "one_time_links": "used_at is null",
    "recovery_codes": "used_at is null",
    "users": "name = 'bo'",
    "reviews": "kind = 'assisted'",
}
OTHERS = {"role_assignments": {"rollout": 1}}  # an unknown rollout changes no right
INSERTED = {  # by table what a copy of the row has of its own
    "account_names": ("account", "name"),
    "api_keys": ("id", "prefix", "hash"),
    "counted_units": ("unit",),
    "credential_resets": ("id", "credential"),
    "decisions": ("reviewer",),
    "exposures": {"content": "decisions", "at": to_micros(START)},
    "identities": ("id", "issuer", "subject"),
    "one_time_links": ("id", "hash"),
    "permit_keys": ("id", "secret"),
    "proposals": ("proposal",),
    "recovery_codes": ("id", "hash"),
    "reviews": ("id", "task_number", "reviewer"),
    "role_assignments": ("id", "group"),
    "second_factors": ("user_id",),
    "sessions": ("id", "hash"),
    "users": ("id", "name", "email"),
}


@filled_once
def fill_town(database):
    """Fill the tables: a history, reviews, accounts, a proposal, an incident and a report."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (scopes, tick_passes):
            patch.setattr(module, "REVISIONS_BETWEEN", 10)
        tell_history(database)
    fill(database)
    with TemporaryDirectory() as folder:
        give_credentials(database, Path(folder))
    for policy in (POLICY, LOOSER):
        apply_policy(database, policy, Actor("ada"), NOON, salt=bytes(32))
    incident = OpenIncident(at=END, kind=EVIDENCE_CHANGED.name, reason="a test")
    execute_command(database, "story", lambda _: incident)
    create_report(database, "story", "week", ReportOptions(), END)
    with database.begin_write() as transaction:
        user = {"user_id": transaction.execute(select(func.min(TABLES["users"].c.id))).scalar_one()}
        for name, table in TABLES.items():
            if name not in ELSEWHERE and transaction.execute(select(table)).first() is None:
                row = {each.name: user.get(each.name) or make_value(each) for each in table.c}
                transaction.execute(insert(table).values(row))


def make_value(column):
    """Return a value for a row that nothing made: no check may rest on it."""
    if isinstance(column.type, InstantType):
        return END
    made = {Integer: 1, BigInteger: 1, Boolean: True, Double: 0.5, LargeBinary: bytes(32)}
    made |= {JsonType: {"x": "y"}, Text: "x"}
    return next(value for kind, value in made.items() if isinstance(column.type, kind))


def change(value, column):
    """Return another stored value that the column can have."""
    kind = column.type
    if isinstance(kind, Boolean):
        return not value
    if isinstance(kind, Double):
        return (value or 0) / 2 + 0.1
    if isinstance(kind, LargeBinary):
        return bytes([value[0] ^ 1]) + bytes(value[1:]) if value else bytes(32)
    if isinstance(kind, Integer | InstantType):
        return (value or 0) + 100_000
    if isinstance(kind, JsonType) or str(value)[:1] == "{":
        changed = change_json(json.loads(value or "{}"))
        return json.dumps(changed, separators=(",", ":"), sort_keys=True)
    return (value or "") + "z"


def change_json(value):
    match value:
        case dict():
            first = min(value, default="x")
            return {**value, first: change_json(value.get(first))}
        case list():
            return [change_json(value[0]), *value[1:]] if value else ["x"]
        case bool():
            return not value
        case None:
            return "x"
    return value + ("x" if isinstance(value, str) else 1)


def select_row(database, name):
    """Return the row to edit, in its stored form."""
    table = TABLES[name]
    raw = {InstantType: BigInteger, JsonType: Text}
    columns = [
        type_coerce(each, raw.get(type(each.type), each.type)).label(each.name) for each in table.c
    ]
    query = select(*columns).where(text(PICKED.get(name, "1 = 1")))
    with database.begin_read() as transaction:
        return dict(transaction.execute(query.limit(1)).mappings().one())


def run(database, name, *statements):
    """Run SQL with its values behind the triggers of a table, without foreign keys."""
    path = database.engine.url.database
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.execute("begin")
        query = "select name, sql from sqlite_master where type = 'trigger' and tbl_name = ?"
        triggers = opened.execute(query, [name]).fetchall()
        for trigger, _ in triggers:
            opened.execute(f"drop trigger {trigger}")
        for statement, values in statements:
            assert opened.execute(statement, values).rowcount == 1, statement
        for _, statement in triggers:
            opened.execute(statement)
        opened.execute("commit")


def build_update(name, row, values):
    """Return the statement that gives columns of a row other values, and its values."""
    keys = [each.name for each in TABLES[name].primary_key]
    changes = ", ".join(f'"{column}" = ?' for column in values)
    same = " and ".join(f'"{key}" = ?' for key in keys)
    statement = f'update "{name}" set {changes} where {same}'  # noqa: S608 - own names
    return statement, [*values.values(), *(row[key] for key in keys)]


def find_first_fault(database):
    """Return the first fault of doctor, if any: those of the machine that tests run on are none."""
    expected = ("the role of the service", "acknowledged records", "no other installed package")
    checks = health_checks.run_health_checks(database, rebuilds=True)
    return next(
        (each for each in checks if each.faults and not each.title.startswith(expected)), None
    )


def list_unseen(name):
    columns = UNSEEN.get(name, set())
    return {each.name for each in TABLES[name].c} if "all" in columns else columns - {ADDED}


def test_the_page_lists_tables_and_columns_that_there_are():
    assert UNSEEN.keys() <= TABLES.keys()
    for name, columns in UNSEEN.items():
        assert columns <= {"all", ADDED, *(each.name for each in TABLES[name].c)}, name


@on_sqlite
@pytest.mark.parametrize("name", sorted(TABLES.keys() - ELSEWHERE))
def test_each_single_edit_is_seen_or_listed(database, monkeypatch, name):
    monkeypatch.setattr(health_checks, "_find_api_package_conflicts", lambda: ())
    fill_town(database)
    row, unseen, wrong = select_row(database, name), list_unseen(name), []
    edits = {each.name: {each.name: change(row[each.name], each)} for each in TABLES[name].c}
    edits |= {column: {column: value} for column, value in OTHERS.get(name, {}).items()}
    together = {column: edits.pop(column)[column] for column in sorted(unseen)}
    for column, edit in [*edits.items(), *([("those listed", together)] if together else ())]:
        run(database, name, build_update(name, row, edit))
        fault = find_first_fault(database)
        if (fault is None) == (column in edits):
            wrong.append((column, fault))
        own = {key: row[key] for key in edit}
        run(database, name, build_update(name, {**row, **edit}, own))
    assert wrong == []
    assert together or find_first_fault(database) is None


@on_sqlite
@pytest.mark.parametrize("name", INSERTED)
def test_an_added_row_that_gives_something_is_seen_or_listed(database, monkeypatch, name):
    monkeypatch.setattr(health_checks, "_find_api_package_conflicts", lambda: ())
    fill_town(database)
    row, own = select_row(database, name), INSERTED[name]
    if not isinstance(own, dict):
        own = {column: change(row[column], TABLES[name].c[column]) for column in own}
    names, marks = ", ".join(f'"{column}"' for column in row), ", ".join("?" for _ in row)
    statement = f'insert into "{name}" ({names}) values ({marks})'  # noqa: S608 - own names
    run(database, name, (statement, [*{**row, **own}.values()]))
    assert (find_first_fault(database) is None) == (ADDED in UNSEEN.get(name, set()))


SAMPLE = {
    "api_keys": "hash",
    "cases": "attributes",
    "counted_outcomes": "score",
    "counted_units": "bucket",
    "counts": "n",
    "decisions": "exposure",
    "exposures": "page",
    "planted_cases": "declared_at",
    "predictions": "hash",
    "proposals": "state",
    "reports": "body",
    "reviews": "kind",
    "users": "password",
}


@on_postgresql
def test_single_edits_are_seen_on_postgresql_too(database):
    fill_town(database)
    assert find_first_fault(database) is None
    for name, column in SAMPLE.items():
        row, table = select_row(database, name), TABLES[name]
        changed = change(row[column], table.c[column])
        same = " and ".join(f'"{key.name}" = :{key.name}' for key in table.primary_key)
        statement = text(f'update "{name}" set "{column}" = :other where {same}')  # noqa: S608 - own
        triggers = (name,) if name in APPEND_ONLY else ()
        for value, is_seen in ((changed, True), (row[column], False)):
            with attacking(database, *triggers) as transaction:
                keys = {key.name: row[key.name] for key in table.primary_key}
                assert transaction.execute(statement, {**keys, "other": value}).rowcount
            assert (find_first_fault(database) is not None) == is_seen, name
