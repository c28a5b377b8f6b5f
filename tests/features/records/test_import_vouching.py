"""Who imports files stands in the ledger, once, and in the proposals on their evidence."""

import csv
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import recorded
from tests.commands import create_tables, done, forget_settings, run

pytestmark = pytest.mark.slow

FILES = ("--predictions", "predictions.csv", "--decisions", "decisions.csv")
POLICY = """\
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recorded, "START", datetime(2026, 9, 2, tzinfo=UTC))
    forget_settings(monkeypatch)
    recorded.write_records(tmp_path)
    Path("policy.yaml").write_text(POLICY, "utf-8")
    return tmp_path


def imported(*words):
    create_tables(Path.cwd())
    done("apply", "policy.yaml", "--by", "ana", "--at", "2026-09-01T00:00Z")
    return done("import", "ramps", *FILES, "--by", "ana", *words)


def rows():
    lines = done("ledger", "export", "ramps").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "RecordsImported"]


@pytest.mark.slow
def test_an_import_is_vouched_for_once_and_shown_in_the_proposal(folder):
    imported()
    imported()
    (row,) = rows()
    body = row["body"]
    assert body["files"] == ["predictions.csv", "decisions.csv"]
    assert body["digests"] == [
        hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in body["files"]
    ]
    assert (body["cases"], body["stated_receipts"], body["cell_cases"]) == (1200, 0, [1200])
    assert row["at"] < body["imported_at"]  # the versions in the files are older than the import
    done("tick", "ramps")
    shown = json.loads(done("proposals", "ramps", "P-1", "--json"))
    (proof,) = shown["imports"]
    assert (proof["by"], proof["cases"], proof["files"]) == ("ana", 1200, body["files"])
    text = done("proposals", "ramps", "P-1")
    assert "1,200 cases are imported from predictions.csv, decisions.csv: ana vouches" in text


def test_times_of_receipt_come_from_the_file_and_never_from_the_future(folder):
    with Path("predictions.csv").open(encoding="utf-8") as file:
        rows_read = list(csv.DictReader(file))
    received = [
        datetime.fromisoformat(row["occurred_at"]) + timedelta(minutes=3) for row in rows_read
    ]
    write_cases(rows_read, received)
    imported("--cases", "cases.csv")
    (row,) = rows()
    assert (row["body"]["stated_receipts"], row["body"]["cases"]) == (1200, 1200)
    write_cases(rows_read, [*received[:-1], datetime(2400, 1, 1, tzinfo=UTC)])
    refused = run("import", "ramps", *FILES, "--by", "ana", "--cases", "cases.csv")
    assert (refused.exit_code, "received_at in the future, first" in refused.stderr) == (2, True)


def write_cases(rows_read, received):
    with Path("cases.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["case_key", "site", "occurred_at", "received_at"])
        for row, at in zip(rows_read, received, strict=True):
            table.writerow([row["case_key"], row["site"], row["occurred_at"], at.isoformat()])


def test_only_an_admin_may_vouch(folder):
    imported()
    done("users", "first-admin", "zoe")
    done("users", "add", "cy", "--by", "zoe", "--role", "operator", "--rollout", "ramps")
    refused = run("import", "ramps", *FILES, "--by", "cy")
    assert refused.exit_code == 2
    assert "administer" in refused.stderr


def test_an_import_without_a_name_is_refused(folder):
    refused = run("import", "ramps", *FILES)
    assert refused.exit_code == 2
    assert "--by" in refused.stderr


def test_a_column_that_may_hold_the_times_of_decisions_is_named(folder):
    text = Path("decisions.csv").read_text("utf-8")
    Path("decisions.csv").write_text(text.replace("decided_at", "Submitted At", 1), "utf-8")
    create_tables(Path.cwd())
    done("apply", "policy.yaml", "--by", "ana", "--at", "2026-09-01T00:00Z")
    words = ("import", "ramps", *FILES, "--by", "ana")
    hint = "decisions.csv: no column decided_at; did you mean --map"
    assert f"{hint} 'decisions.decided_at=Submitted At'?" in run(*words).stderr
    assert hint not in run(*words, "--map", "decisions.decided_at=Submitted At").stderr
