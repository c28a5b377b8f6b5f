"""What is not as it should be is named with what to do; a healthy database is said to be one."""

from contextlib import contextmanager

import pytest
from sqlalchemy import text, update

from rollout.data.database.append_failures import StoreError
from rollout.data.database.session import Database
from rollout.data.tables.tables import account_names, proposals, users
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.access.users import create_account, create_first_admin
from rollout.features.process.health_checks import run_health_checks
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.conftest import database, url
from tests.data.databases import fresh, on_sqlite
from tests.factories import NOON

__all__ = ["database", "url"]
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
LOOSER = POLICY.replace("95%", "90%")


@pytest.fixture
def ramps(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    apply_policy(database, LOOSER, Actor("zoe"), NOON)
    create_first_admin(database, "zoe", at=NOON)
    return database


def faults(database, **more):
    found = {check.title: check.faults for check in run_health_checks(database, **more)}
    owned = "the role of the service does not own the tables"  # tests migrate and serve by one role
    assert found.pop(owned) == () or database.engine.dialect.name == "postgresql"
    lost = "acknowledged records survive a power cut"
    assert found.pop(lost) == () or database.engine.dialect.name == "postgresql"
    return {what: said for what, said in found.items() if said}


@pytest.mark.slow
def test_a_healthy_database_has_no_faults(ramps):
    assert faults(ramps, rebuilds=True) == {}


def test_without_tables_only_that_is_said(tmp_path):
    with fresh("sqlite", tmp_path, migrated=False) as url:
        found = list(run_health_checks(Database(url)))
    assert [check.title for check in found][1:] == ["this program version works on the tables"]
    assert "rollout db upgrade" in found[-1].faults[0]


def test_a_derived_row_that_was_changed_is_found_by_rebuilding(ramps):
    with ramps.begin_write() as transaction:
        transaction.execute(update(proposals).values(state="applied"))
    assert faults(ramps) == {}
    (said,) = faults(ramps, rebuilds=True).values()
    assert "proposals" in said[0]


@on_sqlite
def test_a_ledger_that_was_changed_behind_its_triggers_is_found(ramps):
    with ramps.begin_write() as transaction:
        transaction.execute(text("drop trigger ledger_refuses_update"))
        transaction.execute(text("update ledger set actor = 'eve' where rollout = 1"))
    found = faults(ramps)
    assert "ledger_refuses_update" in found["triggers keep append-only tables unchanged"][0]
    assert "line 1" in found["ramps: the ledger is intact"][0]


@contextmanager
def attacking(database, table):
    """Begin a transaction in which a table may be changed; put its triggers back."""
    with database.begin_write() as transaction:
        query = text("select name, sql from sqlite_master where type = 'trigger' and tbl_name = :t")
        triggers = transaction.execute(query, {"t": table}).all()
        for trigger in triggers:
            transaction.execute(text(f"drop trigger {trigger.name}"))
        yield transaction
        for trigger in triggers:
            transaction.execute(text(trigger.sql))


def test_damaged_details_of_a_version_are_a_sentence_there_and_for_whoever_loads_it(ramps):
    insert = (
        "insert into versions (rollout, version, revision, recorded_at, source, details)"
        " select id, 'v1', 1, 1, 'records', '{bad' from rollouts"
    )
    with ramps.begin_write() as transaction:
        transaction.execute(text(insert))
    (said,) = faults(ramps)["ramps: its versions can be read"]
    assert said.startswith("the details of a version are damaged (Expecting property name")
    assert said.endswith("restore the database from a backup")
    with ramps.begin_read() as transaction, pytest.raises(StoreError, match="are damaged"):
        load_rollout_state(transaction, "ramps")


@on_sqlite
@pytest.mark.parametrize(
    ("table", "statement", "said"),
    [
        ("policies", "update policies set text = text || '#'", "not the text of its hash"),
        ("policies", "update policies set text = 'x: ['", "not the text of its hash"),
        ("rollouts", "update rollouts set salt = randomblob(32)", "salt that draws samples"),
        ("rollouts", "update rollouts set service_salt = x'00'", "salt that draws samples"),
        ("rollouts", "delete from rollouts", "the row of rollout 1 is missing"),
        ("ledger_heads", "delete from ledger_heads where rollout = 1", "No row was found"),
        ("evidence_heads", "delete from evidence_heads", "No row was found"),
    ],
)
def test_an_edit_beside_the_records_is_found(ramps, table, statement, said):
    with attacking(ramps, table) as transaction:
        assert transaction.execute(text(statement)).rowcount
    sentences = [sentence for part in faults(ramps, rebuilds=True).values() for sentence in part]
    assert any(said in sentence for sentence in sentences), sentences


def test_exchanged_names_of_two_accounts_are_found(ramps):
    zoe = Caller("zoe", role_assignments=(AssignedRole("admin"),))
    for name in ("ana", "bo"):
        create_account(ramps, zoe, name, at=NOON)
    assert faults(ramps) == {}
    with ramps.begin_write() as transaction:  # `name` is unique
        for old, new in (("ana", "eve"), ("bo", "ana"), ("eve", "bo")):
            statement = update(account_names).where(account_names.c.name == old)
            transaction.execute(statement.values(name=new))
    (sentences,) = faults(ramps).values()
    assert set(sentences) >= {
        "account 2 of the ledger is bo in account_names and ana in users",
        "account 3 of the ledger is ana in account_names and bo in users",
    }


def test_a_right_that_nobody_gave_is_found(ramps):
    with ramps.begin_write() as transaction:
        transaction.execute(
            users.insert().values(id=7_007, name="eve", service_account=False, created_at=NOON)
        )
        transaction.execute(
            text(
                "insert into role_assignments (user_id, role, \"group\") values (7007, 'admin', '')"
            )
        )
    (said,) = faults(ramps).values()
    assert "eve" in " ".join(said)


def test_two_owners_of_the_package_api_are_named(ramps, monkeypatch, tmp_path):
    installed = {
        "rollout-controller": {"RECORD": "a.py,,\napi/__init__.py,,\n"},
        "other": {"top_level.txt": "api\n", "RECORD": "b.py,,\n"},
        "neither": {"RECORD": "b/api/__init__.py,,\nhttpapi/a.py,,\n"},
    }
    for name, files in installed.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_text(content, "utf-8")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    (fault,) = faults(ramps)["no other installed package is called `api`"]
    assert fault.startswith("other and rollout-controller both")
