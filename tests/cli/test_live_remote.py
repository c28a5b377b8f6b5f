"""Commands through a service: the same words and the same JSON as on the local database."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import ADMIN, OPERATOR, AssignedRole, Caller
from rollout.features.access.keys import KEY_BYTES, create_key
from rollout.features.access.users import create_account, create_first_admin
from tests.api.bears import CREEK, POLICY, STRICTER, founded, scope_of, tick
from tests.data.databases import fresh
from tests.served import served

pytestmark = pytest.mark.enable_socket  # a server on this machine is asked
ADMINISTRATOR = Caller("zoe", role_assignments=(AssignedRole(ADMIN),))
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


@pytest.fixture
def database(tmp_path, monkeypatch):
    with fresh("sqlite", tmp_path) as url:
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        monkeypatch.delenv("ROLLOUT_SERVER", raising=False)
        made = Database(url)
        founded(made, NOW)
        tick(made, NOW)
        yield made
        made.close()


@pytest.fixture
def keys(database):
    """Return a key each of two operators and of a machine that only reads."""
    create_first_admin(database, "zoe", at=NOW)
    for name in ("ana", "bo"):
        create_account(
            database,
            ADMINISTRATOR,
            name,
            at=NOW,
            role_assignments=(AssignedRole(OPERATOR), AssignedRole(ADMIN)),
        )
    create_account(
        database,
        ADMINISTRATOR,
        "screen",
        at=NOW,
        is_service_account=True,
        role_assignments=(AssignedRole("viewer"),),
    )
    now = datetime.now(UTC)
    return {
        name: create_key(
            database, ADMINISTRATOR, name, random_bytes=bytes([n]) * KEY_BYTES, at=now
        ).text
        for n, name in enumerate(("ana", "bo", "screen"), start=1)
    }


@pytest.fixture
def url(database, keys):
    with served(database) as found:
        yield found


def run(*words, key="", server=""):
    environment = {"ROLLOUT_API_KEY": key or None, "ROLLOUT_SERVER": server or None}
    return CliRunner().invoke(app, list(words), env=environment)


def done(*words, **there):
    found = run(*words, **there)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *("status bears", "proposals bears", "incidents bears --all"),
        *("ledger export bears", "ledger verify --rollout bears"),
    ],
)
def test_what_is_read_is_the_same_both_ways(database, keys, url, words):
    there = {"key": keys["ana"], "server": url}
    local, remote, again = (done(*words.split(), **where) for where in ({}, there, {}))
    assert "bears" in local or "P-1" in local or "no incident" in local
    assert remote in {local, again}  # what would be allowed until when moves on with the minute
    if "ledger" not in words:
        told = (json.loads(done(*words.split(), "--json", **w)) for w in ({}, there, {}))
        local, remote, again = map(_told_to_all, told)
        assert remote in (local, again)


def _told_to_all(found):
    """Leave out what is said to the caller about themselves."""
    if isinstance(found, dict):
        own = {"can_approve", "cannot_approve_reason"}
        return {key: _told_to_all(value) for key, value in found.items() if key not in own}
    return [_told_to_all(value) for value in found] if isinstance(found, list) else found


@pytest.mark.slow
def test_an_approval_a_stop_and_a_resume_through_the_service(database, keys, url):
    ana, bo = ({"key": keys[name], "server": url} for name in ("ana", "bo"))
    evidence = scope_of(database).proposals["P-1"].evidence_hash
    first = done("approve", "bears", "P-1", "--evidence-hash", evidence, **ana)
    assert "1 of 2 approvals" in first
    assert done("approve", "bears", "P-1", "--evidence-hash", evidence, **ana) == first
    last = done("approve", "bears", "P-1", "--evidence-hash", evidence, **bo)
    assert "the last approval" in last
    tick(database, datetime.now(UTC))
    assert scope_of(database).get_holder(CREEK) == "v1"
    assert "Stopped" in done("stop", "bears", "--all", "--reason", "smoke", **bo)
    (stop,) = json.loads(done("status", "bears", "--json", **ana))["stops"]["items"]
    assert (stop["by"], stop["reason"]) == ("bo", "smoke")
    assert "nothing changed" in done("stop", "bears", "--site", "creek", **ana)
    assert "ProposalRaised" in done("resume", "bears", stop["id"], **bo)
    assert "Narrowed" in done("narrow", "bears", "--to", "shadow", "--all", **ana)
    assert "VersionRetired v1" in done("retire", "bears", "v1", **ana)
    row = json.loads(done("ledger", "export", "bears", **ana).splitlines()[-1])
    assert (row["actor"][:2], row["access_head"] > 0) == ("u-", True)


@pytest.mark.slow
def test_a_policy_through_the_service(tmp_path, keys, url):
    there = {"key": keys["ana"], "server": url}
    path = tmp_path / "policy.yaml"
    path.write_text(STRICTER, encoding="utf-8")
    assert "the policy takes effect at once" in done("plan", str(path), **there)
    assert "the policy takes effect at once" in done("apply", str(path), "--dry-run", **there)
    assert "policy 2 of bears is in force" in done("apply", str(path), **there)
    path.write_text(POLICY, encoding="utf-8")
    assert "proposed as P-2" in done("apply", str(path), **there)


@pytest.mark.slow
def test_a_review_plan_of_a_running_rollout(tmp_path, keys, url):
    there = {"key": keys["screen"], "server": url}
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    assert "The next 50 decisions: 0 planned" in done("plan", str(path), "--next", "50", **there)
    told = json.loads(done("plan", str(path), "--next", "50", "--json", **there))
    assert {row["outlook"] for row in told["cells"]} == {"no data"}
    assert told["unplanned"] == 50


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("stop bears --all", "it needs the role operator"),
        ("proposals bears P-9", "there is no proposal P-9"),
        ("status wolves", "wolves"),
        ("stop bears --all --by ana", "leave it out"),
        ("status bears --at 2025-01-01T00:00Z", "leave it out"),
    ],
)
def test_a_refusal_is_printed_in_the_words_of_the_service(keys, url, words, says):
    found = run(*words.split(), key=keys["screen"], server=url)
    assert (found.exit_code, says in found.stderr) == (2, True), found.output


@pytest.mark.slow
def test_a_key_that_is_none_and_a_server_that_is_not_there(database, url):
    found = run("status", "bears", key="ro_00_00", server=url)
    assert (found.exit_code, bool(found.stderr)) == (2, True)
    found = run("status", "bears", key="ro_00_00", server="http://127.0.0.1:1")
    assert (found.exit_code, "can't be reached" in found.stderr) == (2, True)
    found = run("status", "bears", key="ro_00_00", server="nonsense")
    assert (found.exit_code, "check --server" in found.stderr) == (2, True)


def test_without_httpx_it_says_what_to_install(database, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("rollout.terminal.remote.import_module", missing)
    found = run("status", "bears", key="ro_00_00", server="http://127.0.0.1:1")
    assert (found.exit_code, "pip install httpx2" in found.stderr) == (2, True)
