"""Quickstart and simulate refuse a database that holds anything else, and name what."""

import csv
import json
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from api.app import create_app
from rollout.data.database.session import Database
from rollout.engine.decide.approvals import find_missing_for_resume
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.scope import GivenApproval, count_filled_needs
from rollout.features.access.authentication import Authenticator
from rollout.features.demo import quickstart as command
from rollout.features.demo import simulated_cases
from rollout.features.demo.accounts import (
    list_operators,
    list_quickstart_accounts,
    parse_key_file,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy_files.reader import load_policy, parse_policy
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from tests.commands import done, forget_settings, refused, run
from tests.page_text import collapse_space
from tests.served import served
from tests.shipped_policies import SHIPPED_POLICIES

KEYS = Path("rollout-quickstart/keys.env")
CHECK_PORT = command._check_port
SITES = {"ramp-a", "ramp-b"}


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Let quickstart run in an empty folder, but serve nothing; return where it would listen."""
    served_at = []
    prepare(monkeypatch, tmp_path, served_at)
    return served_at


def prepare(patch, folder, served_at):
    patch.chdir(folder)
    forget_settings(patch)
    patch.setenv("ROLLOUT_PUBLIC_URL", "http://127.0.0.1:8000")
    patch.setattr(command, "_check_port", lambda _: None)  # these tests may open no socket
    patch.setattr(
        command, "load_service_command", lambda _: lambda host, port: served_at.append((host, port))
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return a folder in which quickstart ran, to be copied."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, folder, [])
        done("quickstart")
    return folder


@pytest.fixture
def stopped(filled, started):
    """Return the same as `started`, in a folder in which quickstart ran before."""
    shutil.copytree(filled, Path.cwd(), dirs_exist_ok=True)
    return started


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """Return a folder in which quickstart was interrupted after its import, to be copied."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, folder, [])
        patch.setattr(simulated_cases, "MAX_CASES", 40)
        interrupt_quickstart("import_record_files")
    return folder


@pytest.fixture
def interrupted(broken_off, started):
    """Return the same as `started`, in a folder in which quickstart was interrupted."""
    shutil.copytree(broken_off, Path.cwd(), dirs_exist_ok=True)
    return started


@pytest.mark.slow
def test_it_creates_accounts_keys_and_history_and_listens_on_this_machine_alone(started):
    said = done("quickstart", "--port", "8123")
    assert started == [("127.0.0.1", 8123)]
    assert "1,680 accepted" in said
    assert stat.S_IMODE(KEYS.stat().st_mode) == 0o600
    variables = parse_key_file(KEYS.read_text("utf-8"), str(KEYS))
    people = {
        f"{name}_{what}"
        for name in ("ADA", "ANA", "BO", "CY", "RUI")
        for what in ("KEY", "PASSWORD")
    }
    programs = {f"RAMP_{site}_{what}_KEY" for site in "AB" for what in ("MODEL", "DECISIONS")}
    assert set(variables) == {"ROLLOUT_SERVER", *people, *programs}
    assert variables["ROLLOUT_SERVER"] == "http://127.0.0.1:8123"
    words = ["sh", "-c", f". ./{KEYS}; echo $ANA_KEY"]
    loaded = subprocess.run(words, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == variables["ANA_KEY"]
    roles = done("users", "list").splitlines()
    assert "ramp-a-model (service account): ingest-predictions in parcels at ramp-a" in roles
    assert [line.partition(":")[0] for line in roles if "operator" in line] == ["ana", "bo", "cy"]
    done("tick", "parcels")
    assert "ada vouches" in done("proposals", "parcels", "P-1")


@pytest.mark.slow
def test_it_starts_the_same_service_again_and_nothing_else(stopped):
    before = KEYS.read_text("utf-8")
    assert "accepted" not in done("quickstart")
    assert (KEYS.read_text("utf-8"), len(stopped)) == (before, 1)
    done("quickstart", "--port", "8124")
    assert KEYS.read_text("utf-8") == before.replace(":8000", ":8124")
    assert stat.S_IMODE(KEYS.stat().st_mode) == 0o600
    done("users", "add", "eve", "--by", "ada")
    assert "holds the account eve" in refused("quickstart")
    assert len(stopped) == 2


@pytest.mark.enable_socket  # a port of this machine is taken
def test_a_port_in_use_is_refused_before_anything_is_created(started, monkeypatch):
    monkeypatch.setattr(command, "_check_port", CHECK_PORT)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} is in use; choose another" in refused(
            "quickstart", "--port", str(port)
        )
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_a_database_of_others_is_refused_and_left_as_it_is(started):
    Path("policy.yaml").write_text(
        command.find_policy_file(None)
        .read_text("utf-8")
        .replace("rollout: parcels", "rollout: ramps"),
        "utf-8",
    )
    done("db", "upgrade")
    done("apply", "policy.yaml", "--by", "ana")
    assert "holds the rollout ramps" in refused("quickstart")
    assert "no users yet" in done("users", "list")
    assert not KEYS.exists()


def test_tables_of_another_program_are_refused(started):
    with sqlite3.connect("rollout.db") as connection:
        connection.execute("create table bookings (id integer)")
    connection.close()
    assert "holds the table bookings" in refused("quickstart")


@pytest.mark.slow
def test_another_policy_or_lost_keys_are_refused(stopped):
    text = command.find_policy_file(None).read_text("utf-8")
    Path("other.yaml").write_text(text.replace("92%", "93%"), "utf-8")
    assert "under another policy" in refused("quickstart", "other.yaml")
    KEYS.unlink()
    assert "whose keys are not in" in refused("quickstart")


STEPS = ("_create_rollout", "create_quickstart_accounts", "format_key_file")


def interrupt_quickstart(step):
    """Press Ctrl-C when quickstart has finished a step."""
    with pytest.MonkeyPatch.context() as patch:
        work = getattr(command, step)

        def work_and_stop(*words, **options):
            work(*words, **options)
            raise KeyboardInterrupt

        patch.setattr(command, step, work_and_stop)
        one = run("quickstart")
    assert one.exit_code == 130
    assert "run the same command again" in one.stderr
    assert not KEYS.exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_quickstart_is_repeated(started, step, monkeypatch):
    monkeypatch.setattr(simulated_cases, "MAX_CASES", 40)
    interrupt_quickstart(step)
    said = done("quickstart")
    assert "An earlier quickstart was interrupted" in said
    assert "cases: 40 accepted" in said
    assert len(started) == 1
    assert KEYS.exists()
    assert not KEYS.with_name(command.UNFINISHED_FILE).exists()


@pytest.mark.slow
def test_an_interrupted_quickstart_with_anything_else_is_refused_and_left_as_it_is(interrupted):
    before = ledger_kinds()
    done("users", "add", "eve", "--by", "ada")
    assert "holds the account eve" in refused("quickstart")
    assert "eve" in done("users", "list")
    assert (ledger_kinds(), interrupted) == (before, [])


@pytest.mark.parametrize(
    ("words", "foreign"),
    [
        (("stop", "parcels", "--all", "--by", "ana"), "the event"),
        (("import", "parcels", "--predictions", "p.csv", "--decisions", "d.csv", "--by", "ada"),
         "the case own-1"),
    ],
)  # fmt: skip
def test_work_in_an_interrupted_quickstart_is_not_thrown_away(interrupted, words, foreign):
    write_own_case()
    done(*words)
    before = ledger_kinds()
    assert f"holds {foreign}" in refused("quickstart")
    assert (ledger_kinds(), interrupted) == (before, [])


@pytest.mark.slow
def test_the_mark_of_an_interrupted_quickstart_is_of_one_database(stopped, monkeypatch):
    (Path("rollout-quickstart") / command.UNFINISHED_FILE).write_bytes(
        command._build_unfinished_mark("sqlite:///other.db")
    )
    before = ledger_kinds()
    assert "interrupted" not in done("quickstart")
    assert ledger_kinds() == before


def ledger_kinds():
    return [json.loads(line)["kind"] for line in done("ledger", "export", "parcels").splitlines()]


GATE = """\
gates:
  - to: supervised
    approvals: {approvals}"""


@pytest.mark.parametrize(
    ("approvals", "groups"),
    [
        ("2", {"ana": (), "bo": (), "cy": ()}),
        ("[operator, safety]", {"ana": (), "bo": ("safety",), "cy": ()}),
        ("[safety, operator]", {"ana": (), "bo": ("safety",), "cy": ()}),
        ("[legal, safety]", {"ana": ("legal",), "bo": ("safety",), "cy": ()}),
        ("[operator, safety, safety]",
         {"ana": (), "bo": ("safety",), "cy": ("safety",), "operator-4": ()}),
    ],
)  # fmt: skip
def test_operators_get_the_groups_of_the_gates_split_between_them(approvals, groups):
    policy = parse_policy(policy_with(approvals))
    operators = list_operators(policy)
    assert {operator.name: operator.groups for operator in operators} == groups
    (needs,) = {gate.approvals for gate in policy.gates}
    given = tuple(
        GivenApproval(operator.name, Caller("", role_assignments=operator.roles)
                      .as_actor(policy.rollout).groups, datetime.now(UTC))
        for operator in operators
    )  # fmt: skip
    assert count_filled_needs(needs, given) == len(needs)
    assert all(count_filled_needs(needs, (one,)) <= 1 for one in given)


@pytest.mark.parametrize("path", SHIPPED_POLICIES.values(), ids=SHIPPED_POLICIES)
def test_each_gate_of_each_shipped_policy_has_its_approvers(path):
    policy = load_policy(path)
    given = tuple(
        GivenApproval(operator.name, ("operator", *operator.groups), datetime.now(UTC))
        for operator in list_operators(policy)
    )
    for gate in policy.gates:
        assert count_filled_needs(gate.approvals, given) == len(gate.approvals)
        assert not find_missing_for_resume(gate.approvals, {one.by: one.groups for one in given})


def policy_with(approvals):
    text = command.find_policy_file(None).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("  - to: supervised")]
    return "\n".join(lines).replace("gates:", GATE.format(approvals=approvals))


@pytest.mark.slow
def test_a_policy_whose_gate_needs_a_group_is_widened_by_two_operators(started):
    quick = policy_with("[operator, safety]").replace("tick: 5s", "tick: 1s")
    Path("policy.yaml").write_text(quick, "utf-8")
    said = done("quickstart", "policy.yaml")
    assert "ana, bo (approves for safety) and cy, operators" in said
    done("tick", "parcels")
    (found,) = re.findall(r"\b[0-9a-f]{64}\b", done("proposals", "parcels", "P-1"))[:1]
    done("approve", "parcels", "P-1", "--evidence-hash", found, "--by", "ana")
    done("approve", "parcels", "P-1", "--evidence-hash", found, "--by", "bo")
    time.sleep(1)  # the policy's tick
    done("tick", "parcels")
    assert "Widened" in ledger_kinds()


def test_cases_that_are_not_simulated_are_refused(stopped):
    write_own_case()
    files = ("--predictions", "p.csv", "--decisions", "d.csv", "--by", "ada")
    done("import", "parcels", *files)
    assert "holds the case own-1, which is not simulated" in refused("quickstart")


def write_own_case():
    now = datetime.now(UTC).isoformat()
    tables = {
        "p.csv": [
            ["case_key", "site", "occurred_at", "model_version", "label", "confidence"],
            ["own-1", "ramp-a", now, "v1", "sound", "0.9"],
        ],
        "d.csv": [
            ["case_key", "reviewer", "label", "decided_at", "exposure"],
            ["own-1", "me", "sound", now, "blind"],
        ],
    }
    for name, rows in tables.items():
        with Path(name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


@pytest.mark.slow
@pytest.mark.enable_socket  # a server on this machine is asked
def test_simulate_sends_over_http_and_refuses_a_service_with_anything_else(stopped):
    database = Database("sqlite:///rollout.db")
    with served(database) as url:
        text = KEYS.read_text("utf-8")
        KEYS.write_text(text.replace("http://127.0.0.1:8000", url), "utf-8")
        said = done("simulate", "--agreement", "90%", "--fault", "drift@1s", "--for", "3s")
        assert "agreement 90 %" in said
        assert "model and humans agree in 50 % of cases at ramp-a" in said
        assert "for humans to decide, 0 decided by the model." in said
        Path("other.yaml").write_text(
            command.find_policy_file(None).read_text("utf-8").replace("92%", "93%"), "utf-8"
        )
        assert "under another policy" in refused("simulate", "other.yaml")
        done("users", "add", "eve", "--by", "ada")
        assert "holds the account eve" in refused("simulate")
    assert "can't be reached" in refused("simulate")
    database.close()


@pytest.mark.slow
@pytest.mark.enable_socket  # a server on this machine is asked
def test_an_operator_signs_in_and_reads_who_vouches_for_the_evidence(stopped):
    done("tick", "parcels")
    password = parse_key_file(KEYS.read_text("utf-8"), str(KEYS))["ANA_PASSWORD"]
    database = Database("sqlite:///rollout.db")
    with served(database) as url, httpx2.Client(**a_browser(url)) as browser:
        fields = {"name": "ana", "password": password, "to": ""}
        assert browser.post("/console/sign-in", data=fields).status_code == 200
        page = collapse_space(browser.get("/console/rollouts/parcels/proposals/P-1").text)
    database.close()
    assert "840 cases of this cell were imported on" in page
    assert "from cases.csv, predictions.csv, decisions.csv. ada vouches" in page


def a_browser(url):
    headers = {"Sec-Fetch-Site": "same-origin"}
    return {"base_url": url, "follow_redirects": True, "headers": headers, "timeout": 60}


def test_simulate_says_what_is_missing(started):
    assert "run `rollout quickstart` here" in refused("simulate")
    KEYS.parent.mkdir()
    KEYS.write_text("nothing", "utf-8")
    assert "is no key file" in refused("simulate")
    assert "--agreement" in refused("simulate", "--agreement", "97 out of 100")
    assert "write drift@2m" in refused("simulate", "--fault", "flood")


def test_sites_that_share_a_variable_are_refused():
    policy = load_policy(command.find_policy_file(None))
    text = command.find_policy_file(None).read_text("utf-8")
    names = [account.name for account in list_quickstart_accounts(policy)]
    assert [name for name in names if "ramp" in name] == [
        f"{site}-{what}" for site in sorted(SITES) for what in ("model", "decisions")
    ]
    with pytest.raises(RefusalError, match="RAMP_A_MODEL_KEY; rename one of the two sites"):
        list_quickstart_accounts(parse_policy(text.replace("id: ramp-b", "id: ramp_a")))


@pytest.mark.slow
def test_no_request_takes_a_time_of_receipt(tmp_path):
    database, clock = Database(f"sqlite:///{tmp_path}/none.db"), SystemClock()
    schema = create_app(build_service(database, Authenticator(database, clock), clock)).openapi()
    database.close()
    operations = [one for path in schema["paths"].values() for one in path.values()]
    fields, components = set(), set()
    left = [operation.get("requestBody") for operation in operations]
    while left:
        node = left.pop()
        fields |= field_names(node)
        new = references(node) - components
        components |= new
        left += [schema["components"]["schemas"][name] for name in new]
    parameters = {
        one["name"] for operation in operations for one in operation.get("parameters", ())
    }
    assert {"occurred_at", "submitted_at", "evidence_hash"} <= fields
    assert [name for name in fields | parameters if "receiv" in name] == []


def nodes_of(node):
    """Yield every object of a part of a schema."""
    if isinstance(node, dict):
        yield node
    for value in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from nodes_of(value)


def field_names(node):
    return {name for one in nodes_of(node) for name in one.get("properties", ())}


def references(node):
    found = (one["$ref"] for one in nodes_of(node) if isinstance(one.get("$ref"), str))
    return {one.rpartition("/")[2] for one in found if one.startswith("#/components/schemas/")}


def test_the_shipped_policy_says_what_is_for_trying_only():
    lines = command.find_policy_file(None).read_text("utf-8").splitlines()
    for key in ("grace", "tick", "waves", "lease"):
        (line,) = [one for one in lines if one.strip().startswith(f"{key}:")]
        assert "for trying only" in line
    assert "for trying only" in lines[1]
