"""`rollout clean` and `rollout training` in files: what they write, and what they refuse."""

import csv
import json

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from tests import recorded


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded.write_records(tmp_path, cases=240)
    drafted = invoke("init", "predictions.csv", "decisions.csv", "--rollout", "ramps")
    (tmp_path / "policy.yaml").write_text(drafted.stdout)


FILES = ("policy.yaml", "--predictions", "predictions.csv", "--decisions", "decisions.csv")


def invoke(*words):
    return CliRunner().invoke(app, words)


def listed(*words):
    done = invoke("clean", "list-files", *FILES, *words)
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(done.stdout.splitlines()))


def chosen(tmp_path, *rows):
    lines = ["case_key,choice,label", *rows]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")


def exported(*words, out="rows.jsonl"):
    return invoke("training", "export-files", *FILES, "--out", out, *words)


def test_a_list_names_what_stands_out_and_what_was_chosen_before(tmp_path):
    rows = listed()
    assert [row["case_key"] for row in rows] == ["c-00007", "c-00067", "c-00127", "c-00187"]
    chosen(tmp_path, "c-00067,relabel,damaged", "c-00127,,")
    again = {row["case_key"]: row["choice"] for row in listed("--choices", "list.csv")}
    assert again["c-00067"] == "relabel"
    assert again["c-00127"] == ""


def test_rows_and_their_manifest_stand_side_by_side(tmp_path):
    chosen(tmp_path, "c-00067,relabel,damaged", "c-00007,drop,")
    done = exported("--choices", "list.csv")
    assert done.exit_code == 0, done.output
    assert "239 rows of 239 cases: 238 blind, 1 assisted" in done.stdout
    assert "excluded: 1 dropped" in done.stdout
    made = json.loads((tmp_path / "rows.jsonl.manifest.json").read_text())
    assert made["sha256"] in done.stdout
    assert (made["rows"], made["rollout"]) == (239, "ramps")
    assert invoke("training", "verify", "rows.jsonl").exit_code == 0


def test_a_source_alone_can_be_asked_for():
    done = exported("--source", "assisted", out="rows.csv")
    assert "0 rows of 0 cases: no data" in done.stdout
    assert invoke("training", "verify", "rows.csv").exit_code == 0


def test_rows_that_were_changed_are_told(tmp_path):
    exported()
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text.replace('"damaged"', '"sound"', 1))
    done = invoke("training", "verify", "rows.jsonl")
    assert done.exit_code == 1
    assert "the rows differ from rows.jsonl.manifest.json" in done.stderr


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("c-00007,burn,", "list.csv, line 2: burn is no choice"),
        ("c-00007,relabel,lost", "line 2: answer: one of sound, damaged"),
        ("none,drop,", "line 2: no case none in these records"),
        (",drop,", "line 2: no case_key"),
    ],
)
def test_a_list_that_means_nothing_is_refused_with_its_line(tmp_path, row, says):
    chosen(tmp_path, row)
    done = exported("--choices", "list.csv")
    assert (done.exit_code, says in done.stderr) == (2, True), done.output
    assert not (tmp_path / "rows.jsonl").exists()


def test_what_can_not_be_written_is_refused(tmp_path):
    assert "end it in .jsonl, .csv, .parquet" in exported(out="rows.txt").stderr
    assert "no source hearsay" in exported("--source", "hearsay").stderr
    (tmp_path / "list.csv").write_text("key\n")
    assert "no column case_key" in exported("--choices", "list.csv").stderr
