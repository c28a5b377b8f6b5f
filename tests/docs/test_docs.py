"""Docs are run: commands work as written, links lead somewhere, words and options are kept."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from api.app import create_app
from rollout.cli.main import app
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import OPERATOR, AssignedRole
from rollout.features.access import keys, users
from rollout.features.access.authentication import Authenticator
from rollout.features.reports.figures.report_version import compute_seal
from rollout.kernel.channels import read_channels
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from tests import recorded
from tests.commands import forget_settings
from tests.docs.pages import (
    PAGES,
    ROOT,
    Typed,
    fault_of,
    list_curl_requests,
    mentioned,
    text_of,
    typed,
)
from tests.served import served

HERE = "sqlite:///rollout.db"
LIVE_DECISIONS = 25

STARTED = datetime(2026, 9, 2, tzinfo=UTC)  # after the instant that docs/how-to/live.md applies at


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder as its reader has it: two recorded files, a policy, no database yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recorded, "START", STARTED)
    forget_settings(monkeypatch)
    recorded.write_records(tmp_path)
    run("rollout init predictions.csv decisions.csv --rollout ramps > policy.yaml")
    return tmp_path


def run(line, *, given="", **environment):
    """Run a line as it is typed; what it prints goes where its `>` says."""
    one = Typed(line, served=False)
    done = CliRunner().invoke(app, one.words, input=given, env=environment)
    assert done.exit_code == 0, f"{line}\n{done.output}"
    if one.target:
        Path(one.target).write_text(done.stdout, encoding="utf-8")
    return done.stdout


def filled(line, **environment):
    """Return a line with what it leaves open: the hash of P-1, the stop that holds."""
    if "HASH" in line and "--head" not in line:
        shown = json.loads(run("rollout proposals ramps P-1 --json", **environment))
        return line.replace("HASH", shown["evidence_hash"])
    if "STOP" in line:
        held = json.loads(run("rollout status ramps --json", **environment))["stops"]["items"]
        return line.replace("STOP", held[0]["id"])
    return line


def key_of(name, *, new):
    """Return a key of an operator of the folder's database; `new` brings them in first."""
    database, now = Database("sqlite:///rollout.db"), datetime.now(UTC)
    try:
        if new:
            users.create_first_admin(database, "ada", at=now)
            ada = users.load_local_caller(database, "ada")
            right = AssignedRole(OPERATOR, "ramps")
            users.create_account(database, ada, name, at=now, role_assignments=[right])
        ada = users.load_local_caller(database, "ada")
        return keys.create_key(
            database, ada, name, random_bytes=os.urandom(keys.KEY_BYTES), at=now
        ).text
    finally:
        database.close()


@pytest.mark.slow
def test_the_commands_of_replay_run_as_written(folder):
    lines = typed("docs/how-to/replay.md")
    assert len(lines) >= 4
    for one in lines:
        run(one.line)
    names = {path.name for path in (folder / "replay").iterdir()}
    assert names == {"report.html", "report.json", "ledger.jsonl", "divergences.csv"}


@pytest.mark.slow
@pytest.mark.enable_socket  # a server on this machine is asked
def test_the_commands_of_live_run_as_written(folder):
    here = [one.line for one in typed("docs/how-to/live.md") if not one.served]
    said = "".join(run(filled(line)) for line in here)
    assert "1 of 2 approvals" in said
    key = key_of("ana", new=True)
    with closing(Database(HERE)) as database, served(database) as url:
        there = {"ROLLOUT_SERVER": url, "ROLLOUT_API_KEY": key}
        for line in (one.line for one in typed("docs/how-to/live.md") if one.served):
            said = run(filled(line, **there), **there)
            assert ("approve" not in line) or "the last approval" in said


@pytest.mark.slow
def test_the_commands_of_the_ml_engineer_run_as_written(folder):
    (pairs,) = re.findall(r"```csv\n(.*?)```", text_of("docs/how-to/comparing.md"), re.DOTALL)
    Path("pairs.csv").write_text(pairs, encoding="utf-8")
    for one in typed("docs/roles/ml-engineer.md"):
        run(one.line)


def test_the_policy_of_the_guide_can_be_planned(folder):
    (text,) = re.findall(r"```yaml\n(.*?)```", text_of("docs/how-to/policy.md"), re.DOTALL)
    Path("guide.yaml").write_text(text, encoding="utf-8")
    assert "Plan of parcel-damage" in run("rollout plan guide.yaml")


def test_the_channels_of_the_guide_are_read(folder):
    page = text_of("docs/how-to/delivery.md")
    policy, channels, readers = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Path("policy.yaml").write_text(Path("policy.yaml").read_text("utf-8") + without_zone(policy))
    assert "Plan of ramps" in run("rollout plan policy.yaml")
    for text, names in ((channels, "rangers"), (readers, "archive")):
        Path("channels.yaml").write_text(text, encoding="utf-8")
        Path("channels.yaml").chmod(0o600)
        assert names in run("rollout channels list", ROLLOUT_CHANNELS_FILE="channels.yaml")


def test_the_channels_of_users_of_the_guide_are_read(folder):
    (text,) = re.findall(r"```yaml\n(.*?)```", text_of("docs/how-to/notifications.md"), re.DOTALL)
    Path("channels.yaml").write_text(text, encoding="utf-8")
    assert read_channels(Path("channels.yaml")).personal_names == ("chat", "hook", "mail")


def without_zone(policy):
    return "".join(line for line in policy.splitlines(True) if not line.startswith("timezone"))


@pytest.mark.slow
def test_history_from_before_the_rollout_is_said_to_be_no_evidence(folder):
    run("rollout db upgrade")
    run("rollout apply policy.yaml --by ana")
    line = "import ramps --predictions predictions.csv --decisions decisions.csv --by ana"
    done = CliRunner().invoke(app, line.split())
    assert "1200 cases occurred before the rollout was created" in done.stderr


@pytest.mark.slow
@pytest.mark.enable_socket  # a server on this machine is asked
def test_the_first_hour_of_the_service_runs_as_written(folder):
    """`serve` itself is run by tests/api/test_serve.py: here its application is served."""
    for line in (one.line for one in typed("docs/how-to/run-a-service.md") if not one.served):
        if not line.startswith("rollout serve"):
            run(line)
    with closing(Database(HERE)) as database, served(database) as url:
        there = {"ROLLOUT_SERVER": url, "ROLLOUT_API_KEY": key_of("ana", new=False)}
        for line in (one.line for one in typed("docs/how-to/run-a-service.md") if one.served):
            run(filled(line, **there), **there)
        (told,) = posted(url, "ramp-a-camera", "docs/how-to/run-a-service.md")
        assert (told["decider"], told["recorded"]["status"]) == ("human", "accepted")
        claimed, judged = posted(url, "rui", "docs/how-to/reviews.md")
        assert [task["case"] for task in claimed["tasks"]] == ["case-1"] == [judged["case"]]


def posted(url, name, page):
    """Ask what a page's curl lines ask, and return the answers."""
    headers = {"Authorization": f"Bearer {key_of(name, new=False)}"}
    for path, body in list_curl_requests(page):
        answer = httpx2.post(f"{url}{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        yield answer.json()


@pytest.mark.slow
def test_the_commands_of_users_run_as_written(folder):
    run("rollout db upgrade")
    first, *rest = (one.line for one in typed("docs/how-to/users.md"))
    run(first)
    run("rollout apply policy.yaml --by ana")
    for line in rest:
        given = "a sentence is fine\n" * 2 if " set-password " in line else ""
        if "5f1c2a9be077" in line:
            (found,) = json.loads(run("rollout keys list --json"))
            line = line.replace("5f1c2a9be077", found["prefix"])  # noqa: PLW2901 - as a reader does
        run(line, given=given)


@pytest.mark.slow
def test_the_commands_of_reports_run_as_written(folder):
    for one in typed("docs/how-to/live.md"):
        if not one.served and not one.line.startswith("rollout ledger"):
            run(filled(one.line))
    for one in typed("docs/how-to/reports.md"):
        run(one.line)
    sealed = compute_seal(Path("sealed.json").read_text(encoding="utf-8"))
    assert Path("ledger.jsonl").read_text("utf-8").count(sealed) == 1
    assert Path("ramps.html").read_text("utf-8").startswith("<!doctype html>")
    assert Path("divergences.csv").read_text("utf-8").startswith("case_key")


@pytest.mark.slow
def test_the_audit_runs_as_written(folder, monkeypatch):
    before = [one.line for one in typed("docs/how-to/live.md") if not one.served]
    for line in [one for one in before if not one.startswith("rollout ledger")]:
        run(filled(line))
    run("rollout users first-admin ada")
    export, access, verify, verify_access, create_key, *compare = (
        one.line for one in typed("docs/how-to/audit.md")
    )
    run(export)
    run(access)
    lines = Path("ledger.jsonl").read_text("utf-8").splitlines()
    head = json.loads(lines[-1])["hash"]
    assert [f'"hash":"{head}"' in line for line in lines] == [False] * (len(lines) - 1) + [True]
    run(verify.replace("HASH", head))
    run(verify_access)
    key = run(create_key).strip()
    monkeypatch.setenv("ROLLOUT_CHECKPOINT_KEY_FILE", "checkpoint.key")
    run("rollout ledger checkpoint --out checkpoints.jsonl")
    for line in compare:
        run(line.replace("KEY", key))
    page = text_of("docs/how-to/audit.md")
    alone = re.findall(r"^python verify_ledger.py (.*)$", page, re.MULTILINE)
    assert len(alone) == 3
    for line in alone:
        code, printed = verified(line.replace("KEY", key))
        assert code == 0, printed
        assert head in printed
    recomputed, drawn = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert audited(recomputed, "ledger.jsonl")[0] == 0
    (query,) = re.findall(r"`(select .*?)`", page)
    with closing(sqlite3.connect("rollout.db")) as database:
        ((_, salt, service_salt),) = database.execute(query).fetchall()
    hashes = json.loads(lines[0])["body"]
    for name, purpose, used in (
        ("salt_hash", "stage", salt),
        ("service_salt_hash", "audit", service_salt),
    ):
        code, printed = audited(drawn, purpose, used)
        assert (code, hashes[name] in printed) == (0, True)
    ledger = Path("ledger.jsonl").read_text("utf-8")
    Path("ledger.jsonl").write_text(ledger.replace("[1180,20]", "[1190,10]"), "utf-8")
    assert [verified(line.replace("KEY", key))[0] for line in alone] == [1, 1, 1]
    assert audited(recomputed, "ledger.jsonl")[0] == 1


def verified(line):
    """Run the page's verifier as a process without the product."""
    words = [sys.executable, "-I", ROOT / "docs/how-to/verify_ledger.py", *line.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def audited(snippet, *arguments):
    words = [sys.executable, "-c", snippet, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_exists_with_its_options(page):
    faults = {one.line: fault_of(one.words) for one in mentioned(page)}
    assert {line: fault for line, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("rollout ledgers verify", "there is no command ledgers"),
        ("rollout ledger check", "there is no command check"),
        ("rollout stop ramps --every", "stop takes no --every"),
        ("rollout stop ramps --all", ""),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line, fault):
    assert fault_of(Typed(line, served=False).words) == fault


def test_every_address_of_a_page_exists(tmp_path):
    clock, database = SystemClock(), Database(f"sqlite:///{tmp_path}/none.db")
    known = list(
        create_app(build_service(database, Authenticator(database, clock), clock)).openapi()[
            "paths"
        ]
    )
    for page in PAGES:
        for found in re.findall(r"(?<!ofrep)(/v1/[a-z{][^\s`\"'?)]*)", text_of(page)):
            parts = found.rstrip(".,;/").split("/")
            assert any(fits(parts, path.split("/")) for path in known), f"{page}: {found}"
    database.close()


def fits(asked, known):
    return len(asked) == len(known) and all(
        a == k or k.startswith("{") for a, k in zip(asked, known, strict=True)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_decision_stands_in_the_list():
    folder = ROOT / "docs/decisions"
    listed = folder.joinpath("README.md").read_text(encoding="utf-8")
    records = {page.name for page in folder.glob("0*.md")}
    assert set(re.findall(r"\((0[^)]+\.md)\)", listed)) == records
    assert len(records) <= LIVE_DECISIONS


def test_a_decision_is_a_page_or_a_line_of_history():
    folder = ROOT / "docs/decisions"
    past = set(re.findall(r"^\| (\d{4}) ", text_of("docs/decisions/history.md"), re.MULTILINE))
    assert past.isdisjoint(page.name[:4] for page in folder.glob("0*.md"))


def test_make_help_lists_every_recipe_of_the_readme():
    recipes = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = set(re.findall(r"(?:^|`)make ([a-z]+)", text_of("README.md"), re.MULTILINE))
    assert asked - {"help"} <= recipes
