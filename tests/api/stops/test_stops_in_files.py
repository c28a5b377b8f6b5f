"""Stops and narrowings by commands that the database can't take: replicas obey their files."""

import json
import os

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.ledger.scopes import load_safety_rows
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.stops.stops import NARROWING_KEPT
from rollout.live.autonomy import UNREADABLE_FILE
from rollout.live.stop_latches import LatchFolder, StopLatches
from tests.api.assignments.test_autonomy import EVERY_WRITE, LEDGER, V1, Replica, events, failing
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field
from tests.features.houses import ADA

pytestmark = on_sqlite
STOP = ("stop", "bears", "--site", "creek", "--reason", "smoke")
NARROW = ("narrow", "bears", "--site", "creek", "--to", "shadow")


@pytest.fixture(autouse=True)
def _on_this_machine(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ROLLOUT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
    monkeypatch.setenv("ROLLOUT_LATCH_FOLDER", str(tmp_path / "kept"))


@pytest.fixture
def replica(database, door, clock, tmp_path):
    """Return a replica beside which an operator types commands."""
    field.autonomous(database)
    users.create_first_admin(database, "ada", at=NOON)
    roles = (AssignedRole("operator"),)
    users.create_account(database, ADA, "oli", at=NOON, role_assignments=roles)
    made = Replica(database, door, clock, LatchFolder(tmp_path / "kept"))
    made.beat()
    assert (made.decider(), made.decider("lake")) == ("model", "model")
    return made


def run(*words):
    return CliRunner().invoke(app, [*words, "--by", "oli"])


def files(tmp_path):
    return [path.name.partition("-")[0] for path in (tmp_path / "kept").glob("*")]


@pytest.mark.parametrize(
    ("words", "kind"), [(STOP, "Stopped"), (NARROW, "Narrowed")], ids=["stop", "narrowing"]
)
def test_a_command_that_the_database_cant_take_is_obeyed_and_repeated(
    words, kind, replica, database, tmp_path, caplog
):
    with failing(EVERY_WRITE):
        typed = run(*words)
        assert not [line for line in caplog.records if line.exc_info], "a command prints no trace"
        assert typed.exit_code == 2, typed.output
        assert f"it is kept in {tmp_path / 'kept'}" in " ".join(typed.output.split())
        replica.beat()
        assert (replica.decider(), replica.decider("lake")) == ("human", "human")
        replica.beat()
    assert events(database, kind) == []
    assert replica.beat() == ()
    replica.pass_time()
    assert (replica.decider(), replica.decider("lake")) == ("human", "model")
    replica.beat()
    (event,) = events(database, kind)
    assert event.by == "oli"
    assert files(tmp_path) == []


def test_a_restart_repeats_a_failed_narrowing(replica, other, door, clock, database, tmp_path):
    with failing(LEDGER):
        body = {"sites": ["creek"], "to": "shadow"}
        answer = replica.client.by("bo").post(f"{V1}/narrowings", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (503, NARROWING_KEPT)
        replica.beat()
        assert files(tmp_path) == ["narrowing"]
        after = Replica(other, door, clock, LatchFolder(tmp_path / "kept"))
        after.beat()
        assert (after.decider(), after.decider("lake")) == ("human", "human")
    after.beat()
    after.pass_time()
    assert (after.decider(), after.decider("lake")) == ("human", "model")
    assert files(tmp_path) == []
    assert [event.by for event in events(database, "Narrowed")] == ["bo"]


def test_without_a_file_the_command_says_that_no_replica_knows(replica, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("ROLLOUT_LATCH_FOLDER", str(tmp_path / "blocked"))
    for words in (STOP, NARROW):
        with failing(EVERY_WRITE):
            assert "no replica knows of it" in " ".join(run(*words).output.split())


def test_a_file_that_cant_be_read_hands_cases_to_people_until_it_is_gone(replica, tmp_path):
    (tmp_path / "kept").mkdir(exist_ok=True)
    file = tmp_path / "kept" / "stop-1.json"
    file.write_text("{")
    (error,) = replica.beat()
    assert str(file) in str(error)
    assert (replica.decider(), replica.reason()) == ("human", UNREADABLE_FILE)
    file.unlink()
    replica.beat()
    assert replica.decider() == "model"


def test_a_folder_that_cant_be_read_hands_cases_to_people_and_refuses_a_start(replica, tmp_path):
    folder = tmp_path / "kept"
    folder.symlink_to(folder)  # it can't be listed, also by root
    (error,) = replica.beat()
    assert str(folder) in str(error)
    assert (replica.decider(), replica.reason()) == ("human", UNREADABLE_FILE)
    with pytest.raises(ValueError, match="keeps stops and can't be read"):
        StopLatches().open_folder(LatchFolder(folder))
    folder.unlink()
    replica.beat()
    assert replica.decider() == "model"


@pytest.mark.parametrize("words", [STOP, NARROW], ids=["stop", "narrowing"])
@pytest.mark.parametrize("has_cells", [True, False])
def test_an_order_of_a_rollout_that_is_not_here_stays_for_its_own_service(
    words, has_cells, replica, database, tmp_path
):
    with failing(EVERY_WRITE):
        run(*words)
    (file,) = (tmp_path / "kept").glob("*.json")
    cells = [["creek", "day"]] if has_cells else []
    of_others = json.loads(file.read_text()) | {"rollout": "ramps", "cells": cells}
    file.write_text(json.dumps(of_others | ({"order": None} if has_cells else {})))
    assert [replica.beat() for _ in "12"] == [(), ()]
    assert json.loads(file.read_text())["rollout"] == "ramps"
    with database.begin_read() as transaction:
        assert load_safety_rows(transaction).stops == (), "nothing to be written each second"
    assert replica.decider() == "model"
    assert not database.append_failures.failures
