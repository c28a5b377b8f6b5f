"""The live loop as a person drives it: commands on a database in the folder."""

import json

import pytest

from tests.commands import create_tables, done, forget_settings, run
from tests.recorded import write_records

POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case, outside: blind}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: LINE}], risk: 20%,
     minimum: {units: 10, days: 1, reviewers: 1}, approvals: [operator]}
"""
FILES = ("--predictions", "predictions.csv", "--decisions", "decisions.csv")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)
    write_records(tmp_path)
    for file in tmp_path.glob(
        "*.csv"
    ):  # live, what is in the future; name a past time has not happened
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("2027-", "2025-"), encoding="utf-8")
    (tmp_path / "policy.yaml").write_text(POLICY.replace("LINE", "60%"), encoding="utf-8")
    return tmp_path


def state(*words):
    return json.loads(done("status", "ramps", "--json", *words))


@pytest.mark.parametrize(
    "command",
    [
        *("db upgrade", "db current", "apply", "import", "tick", "status", "approve", "reject"),
        *("narrow", "stop", "resume", "retire", "acknowledge", "proposals", "incidents"),
        *("ledger export", "ledger verify"),
    ],
)
def test_help_shows_an_example(command):
    assert "Example:" in done(*command.split(), "--help")


@pytest.mark.slow
def test_from_two_files_to_a_stop_and_a_verified_ledger(folder):
    missing = run("db", "current")
    assert (missing.exit_code, "no such database" in missing.stderr) == (2, True)
    done("db", "upgrade")
    assert "this program" in done("db", "current")
    assert "is created" in done("apply", "policy.yaml", "--by", "ana", "--at", "2025-01-01T00:00Z")
    assert "accepted" in done("import", "ramps", *FILES, "--by", "ana")
    again = json.loads(done("import", "ramps", *FILES, "--by", "ana", "--json"))
    assert set(again["case"]) == set(again["prediction"]) == {"duplicate"}
    assert "ProposalRaised P-1 ramp-a always v1 supervised" in done("tick", "ramps")
    assert "this slot is done" in done("tick", "ramps")
    (proposal,) = state()["proposals"]
    assert "is widened to supervised at ramp-a" in done("proposals", "ramps")
    assert "agreement at least 60 %" in done("proposals", "ramps", "P-1")
    refused = run("approve", "ramps", "P-1", "--by", "bo", "--evidence-hash", "0" * 64)
    assert (refused.exit_code, "other evidence" in refused.stderr) == (2, True)
    sealed = proposal["evidence_hash"]
    yes = done("approve", "ramps", "P-1", "--by", "bo", "--evidence-hash", sealed)
    assert "the last approval" in yes
    assert (
        done("approve", "ramps", "P-1", "--by", "bo", "--evidence-hash", proposal["evidence_hash"])
        == yes
    )
    assert [y["by"] for y in state()["proposals"][0]["approvals"]] == ["bo"]
    stopped = done("stop", "ramps", "--all", "--by", "bo", "--reason", "smoke")
    assert "Stopped" in stopped
    assert "ramp-a within 1 min 1 s" in stopped
    (stop,) = state()["stops"]["items"]
    assert "nothing changed" in done("stop", "ramps", "--all", "--by", "bo")
    done("resume", "ramps", stop["id"], "--by", "bo")
    (resume, _) = state()["proposals"]
    assert (resume["kind"], resume["about"]) == ("resume", stop["id"])
    done("reject", "ramps", resume["id"], "--by", "cy", "--reason", "not yet")
    done("narrow", "ramps", "--to", "shadow", "--site", "ramp-*", "--by", "cy")
    assert state()["proposals"] == []
    assert "VersionRetired v1" in done("retire", "ramps", "v1", "--by", "cy")
    assert "no open incidents" in done("incidents", "ramps")
    assert run("acknowledge", "ramps", "I-1", "--by", "cy").exit_code == 2
    written = folder / "ledger.jsonl"
    written.write_text(done("ledger", "export", "ramps"), encoding="utf-8")
    assert "intact" in done("ledger", "verify", "ledger.jsonl")
    assert "intact" in done("ledger", "verify", "--rollout", "ramps")
    assert run("ledger", "verify", "--rollout", "ramps", "--head", "00").exit_code == 1
    lines = written.read_text(encoding="utf-8").splitlines()
    assert len(lines) == state()["rollout"]["revision"]


def test_a_looser_policy_waits(folder):
    create_tables(folder)
    done("apply", "policy.yaml", "--by", "ana")
    (folder / "policy.yaml").write_text(POLICY.replace("LINE", "55%"), encoding="utf-8")
    assert "needs approval" in done("apply", "policy.yaml", "--by", "ana", "--dry-run")
    assert state()["proposals"] == []
    assert "proposed as P-1" in done("apply", "policy.yaml", "--by", "ana")
    assert "P-1: policy of" in done("status", "ramps")


def test_once_somebody_is_in_the_house_their_rights_hold(folder):
    create_tables(folder)
    done("apply", "policy.yaml", "--by", "ana")
    done("users", "first-admin", "ana")
    found = run("stop", "ramps", "--all", "--by", "ana")
    assert (found.exit_code, "operator" in found.stderr) == (2, True)
    found = run("stop", "ramps", "--all", "--by", "mallory")
    assert (found.exit_code, "no user is called mallory" in found.stderr) == (2, True)
    assert state()["stops"]["items"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("status ramps", "rollout db upgrade"),
        ("tick ramps --at tomorrow", "write it as 2027-06-01T12:00Z"),
        ("tick ramps --at 2025-01-01T00:00", "has no offset; add one"),
        ("tick ramps --at 2225-01-01T00:00Z", "is in the future; name a past time"),
        ("stop ramps --by bo", "--all"),
        ("stop ramps --all", "--by NAME"),
        ("ledger verify", "name one ledger: FILE"),
        ("status ramps --server http://localhost:1", "ROLLOUT_API_KEY"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(folder, words, says):
    if "--at" in words:
        create_tables(folder)
    found = run(*words.split())
    assert found.exit_code == 2
    assert says in found.stderr


def test_a_rollout_that_is_not_there_is_named_with_those_that_are(folder):
    create_tables(folder)
    done("apply", "policy.yaml", "--by", "ana")
    found = run("status", "ramp")
    assert (found.exit_code, "rollouts: ramps" in found.stderr) == (2, True)
    found = run("stop", "ramps", "--site", "nowhere", "--by", "bo")
    assert (found.exit_code, "cells:" in found.stderr) == (2, True)
