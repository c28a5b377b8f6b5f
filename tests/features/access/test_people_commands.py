"""People and keys by command, on a database in the folder."""

import json

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.access.users import SecondFactors, Users
from rollout.data.database.session import Database
from rollout.features.access import credentials
from tests.data.databases import fresh
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD

POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 92%}]}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROLLOUT_DATABASE_URL", raising=False)
    monkeypatch.setattr(credentials, "create_hasher", lambda: QUICK)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        apply_ramps(database)
        yield tmp_path
        database.close()


@filled_once
def apply_ramps(_database):
    done("apply policy.yaml --by ana")


@pytest.fixture
def house(folder):
    database = Database(f"sqlite:///{folder / 'rollout.db'}")
    add_first_users(database)
    database.close()
    return folder


@filled_once
def add_first_users(_database):
    done("users first-admin ana")
    done("users add box --service-account --role ingest --rollout ramps --by ana")


def run(words, **more):
    return CliRunner().invoke(app, words.split(), **more)


def done(words, **more):
    found = run(words, **more)
    assert found.exit_code == 0, found.output
    return found.stdout


def refused(words, **more):
    found = run(words, **more)
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    return found.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("first-admin", "add", "list", "disable", "enable", "grant-role", "revoke-role"),
        *("set-password", "password-link"),
    ],
)
def test_help_of_users_shows_an_example(command):
    assert f"Example: rollout users {command}" in done(f"users {command} --help")


@pytest.mark.parametrize("command", ["create", "list", "revoke"])
def test_help_of_keys_shows_an_example(command):
    assert f"Example: rollout keys {command}" in done(f"keys {command} --help")


def test_from_nobody_to_a_house_with_a_chain_that_verifies(folder):
    assert "first-admin NAME" in done("users list")
    assert "first-admin NAME" in refused("users add eve --by eve")
    assert done("users first-admin ana") == "ana: admin in all rollouts\n"
    assert "ask an admin" in refused("users first-admin eve")
    done("users add bo --by ana --role operator --rollout ramps --site ramp-a")
    done("users grant-role bo approver --group safety --by ana")
    done("users revoke-role bo operator --rollout ramps --site ramp-a --by ana")
    assert "bo: approver of safety in all rollouts\n" in done("users list")
    done("users disable bo --by ana")
    assert "bo: disabled since" in done("users list")
    assert done("users enable bo --by ana") == "bo: no role\n"
    (folder / "access.jsonl").write_text(done("ledger export-access"), encoding="utf-8")
    assert "8 entries, intact" in done("ledger verify access.jsonl")
    touched = (folder / "access.jsonl").read_text(encoding="utf-8").replace("safety", "finance")
    (folder / "access.jsonl").write_text(touched, encoding="utf-8")
    assert run("ledger verify access.jsonl").exit_code == 1


def test_whoever_is_missing_since_a_change_is_named_and_nothing_is_refused(house):
    for name in ("bo", "cy", "dee"):
        done(f"users add {name} --role operator --by ana")
    assert run("users disable box --by ana").stderr == ""
    lacking = run("users disable bo --by ana")
    assert (lacking.exit_code, lacking.stdout[:20]) == (0, "bo: disabled since 2")
    assert lacking.stderr.startswith("warning: ramps: stops: a stop could not be ended")
    assert "give 1 more user the role operator" in lacking.stderr
    again = run("users revoke-role cy operator --by ana")
    assert "give 2 more users the role operator" in again.stderr
    assert run("users revoke-role cy operator --by ana").stderr == ""  # nothing changes
    assert json.loads(done("users disable dee --by ana --json"))["name"] == "dee"


@pytest.mark.parametrize("removal", ["users disable bo", "erase name bo --reason left"])
def test_who_lacks_a_required_factor_is_no_replacement(house, monkeypatch, removal):
    for name in ("bo", "cy", "dee", "eve"):
        done(f"users add {name} --role operator --by ana")
    database = Database(f"sqlite:///{house / 'rollout.db'}")
    with database.begin_write() as transaction:
        for name in ("bo", "cy", "dee"):
            user = Users(transaction).find(name)
            SecondFactors(transaction).add(user, b"secret", at=NOON)
            SecondFactors(transaction).confirm(user, at=NOON, code_hashes=[name.encode()])
    database.close()
    monkeypatch.setenv("ROLLOUT_REQUIRE_SECOND_FACTOR", "maybe")
    assert "ROLLOUT_REQUIRE_SECOND_FACTOR=maybe is no switch" in refused(f"{removal} --by ana")
    monkeypatch.setenv("ROLLOUT_REQUIRE_SECOND_FACTOR", "on")
    monkeypatch.setenv("ROLLOUT_LOG_FORMAT", "faulty settings of the service are no concern")
    warned = run(f"{removal} --by ana")
    assert (warned.exit_code, warned.stderr.count("\n")) == (0, 1), warned.output
    assert "give 1 more user the role operator" in warned.stderr


def test_an_erasure_after_which_a_stop_can_not_be_ended_is_told_of(house):
    for name in ("bo", "cy", "dee", "eve"):
        done(f"users add {name} --role operator --by ana")
    assert run("erase name eve --reason left --by ana").stderr == ""
    warned = run("erase name bo --reason left --by ana --json")
    assert warned.stderr.startswith("warning: ramps: stops: a stop could not be ended")
    assert json.loads(warned.stdout)["warnings"] != []


def test_as_json_everything_can_be_read_by_a_program(house):
    (ana, box) = json.loads(done("users list --json"))
    assert (ana["name"], ana["roles"][0]["role"], box["service_account"]) == ("ana", "admin", True)
    key = json.loads(done("keys create box --by ana --json"))
    assert key["key"].startswith(f"ro_{key['prefix']}_")
    (listed,) = json.loads(done("keys list --json"))
    assert (listed["prefix"], listed["holder"]) == (key["prefix"], "box")
    assert "key" not in listed
    assert json.loads(done(f"keys revoke {key['prefix']} --by ana --json"))
    assert json.loads(done("users password-link ana --by ana --json"))["token"]
    changed = json.loads(done("users grant-role box viewer --by ana --json"))
    assert [right["role"] for right in changed["roles"]] == ["ingest", "viewer"]


def test_a_key_is_printed_alone_and_listed_by_its_prefix(house):
    made = run("keys create box --by ana")
    key = made.stdout.strip()
    assert "it is not shown again" in made.stderr
    prefix = key.split("_")[1]
    assert f"{prefix} of box: until" in done("keys list box")
    assert "never used" in done("keys list")
    done(f"keys revoke {prefix} --by ana")
    assert f"{prefix} of box: revoked" in done("keys list")
    assert "keys create NAME" in done("keys list ana")


def test_a_password_is_typed_twice_or_read_and_never_a_word_of_the_command(house):
    assert "password of ana set" in done(
        "users set-password ana --by ana", input=f"{PASSWORD}\n" * 2
    )
    assert "password of ana set" in done(
        "users set-password ana --by ana --stdin", input=f"{PASSWORD}\n"
    )
    assert "12 to 128" in refused("users set-password ana --by ana --stdin", input="short\n")
    assert json.loads(done("users list --json"))[0]["has_password"]


def test_a_link_is_printed_alone(house):
    made = run("users password-link ana --by ana")
    assert len(made.stdout.strip()) == 43
    assert "/console/set-password" in made.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("users add bo --by eve", "no user is called eve"),
        ("users add policy --by ana", "can't be a name"),
        ("users grant-role box operator --by ana", "ingest-outcomes or viewer"),
        ("users grant-role ana approver --by ana", "needs the group"),
        ("users grant-role ana viewer --rollout none --by ana", "no rollout none"),
        ("users disable ana --by ana", "last admin"),
        ("keys create box --by ana --expires soon", "write it as 2028-01-01T00:00Z"),
        ("keys create box --by ana --expires 2028-01-01", "has no offset"),
        ("keys create box --by ana --expires 2999-01-01T00:00Z", "within 730 days"),
        ("keys revoke ff --by ana", "rollout keys list"),
    ],
)
def test_what_can_not_be_is_said_with_what_would_be_right(house, words, says):
    assert says in refused(words)


STAYS = (
    "stops: a stop could not be ended: 3 users are needed, an operator to propose the resume and "
    "2 operators to approve; give 1 more user the role operator\n"
)


def test_apply_warns_while_too_few_are_here_to_take_a_stop_back_and_resume_says_so(house):
    done("users grant-role ana operator --rollout ramps --by ana")
    done("users add bo --role operator --rollout ramps --by ana")
    assert STAYS in done("apply policy.yaml --by ana")
    assert STAYS in done("apply policy.yaml --by ana --dry-run")
    done("stop ramps --all --by bo")
    said = done("resume ramps S-3 --by bo")
    assert "ana alone can approve it, but it needs 2 operators other than bo; give 1 more" in said
    done("users add cy --role operator --rollout ramps --by ana")
    assert "stops:" not in done("apply policy.yaml --by ana")
    assert "P-1 needs 2 operators other than bo" in done("resume ramps S-3 --by ana")
