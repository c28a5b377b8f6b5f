"""The commands as a person meets them: help that teaches, refusals that say what to do."""

import json
import os
import re

import pytest

from tests.commands import create_tables, forget_settings, run
from tests.recorded import write_records

POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 92%}]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    return tmp_path


FILES = ("--predictions", "predictions.csv", "--decisions", "decisions.csv")


@pytest.mark.parametrize("command", ["demo", "replay", "plan", "init", "ledger verify"])
def test_help_shows_an_example(command):
    done = run(*command.split(), "--help")
    assert done.exit_code == 0
    assert f"rollout {command}" in re.sub(r"\s+", " ", done.stdout)
    assert "Example" in done.stdout


@pytest.mark.slow
def test_replay_prints_when_the_cell_was_widened(folder):
    done = run("replay", "policy.yaml", *FILES)
    assert done.exit_code == 0, done.output
    assert "ramp-a" in done.stdout
    assert "supervised" in done.stdout
    assert "simulated" in done.stdout


@pytest.mark.slow
def test_replay_as_json_prints_nothing_else(folder):
    done = run("replay", "policy.yaml", *FILES, "--json")
    assert json.loads(done.stdout)["schema"] == "rollout-report/1"


@pytest.mark.parametrize("words", [["plan"], ["apply", "--by", "zoe"]])
def test_a_policy_from_a_pipe_is_read_wholly(folder, monkeypatch, words):
    forget_settings(monkeypatch)
    create_tables(folder)
    reading, writing = os.pipe()
    os.write(writing, POLICY.encode())
    os.close(writing)
    command, *options = words
    done = run(command, f"/dev/fd/{reading}", *options)
    os.close(reading)
    assert done.exit_code == 0, done.output
    assert "ramp" in done.stdout


@pytest.mark.slow
def test_without_approvals_nothing_is_widened(folder):
    done = run("replay", "policy.yaml", *FILES, "--approve-after", "never", "--out", "out")
    assert done.exit_code == 0, done.output
    kinds = [
        json.loads(line)["kind"] for line in (folder / "out/ledger.jsonl").read_text().splitlines()
    ]
    assert "ProposalRaised" in kinds
    assert "Widened" not in kinds


@pytest.mark.slow
def test_the_same_files_give_the_same_ledger_and_another_salt_another(folder):
    for out, salt in (("a", "00"), ("b", "00"), ("c", "ff")):
        run("replay", "policy.yaml", *FILES, "--out", out, "--salt", salt * 32)
    ledgers = [(folder / out / "ledger.jsonl").read_bytes() for out in "abc"]
    assert ledgers[0] == ledgers[1] != ledgers[2]
    assert b"RecordsCounted" not in ledgers[0]  # its evidence is its files: decision record 0031


@pytest.mark.slow
def test_a_ledger_that_was_touched_is_refused_by_its_line(folder):
    run("replay", "policy.yaml", *FILES, "--out", "out")
    ledger = folder / "out/ledger.jsonl"
    assert run("ledger", "verify", str(ledger)).exit_code == 0
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if "ProposalRaised" in line)
    lines[place] = lines[place].replace("supervised", "autonomous")
    ledger.write_text("".join(lines), encoding="utf-8")
    done = run("ledger", "verify", str(ledger))
    assert done.exit_code == 1
    assert f"line {place + 1}" in done.output


@pytest.mark.slow
def test_a_ledger_cut_short_is_whole_unless_its_head_is_known(folder):
    run("replay", "policy.yaml", *FILES, "--out", "out")
    ledger = folder / "out/ledger.jsonl"
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    head = json.loads(lines[-1])["hash"]
    ledger.write_text("".join(lines[:-1]), encoding="utf-8")
    assert run("ledger", "verify", str(ledger)).exit_code == 0
    assert run("ledger", "verify", str(ledger), "--head", head).exit_code == 1
    earlier = json.loads(lines[2])["hash"]
    done = run("ledger", "verify", str(ledger), "--head", earlier)
    assert done.exit_code == 0
    assert f"{len(lines) - 4} entries follow the expected head" in done.output


def test_an_empty_file_says_which_ledger_may_have_no_entries(folder):
    file = folder / "access.jsonl"
    file.write_text("", encoding="utf-8")
    done = run("ledger", "verify", str(file))
    assert done.exit_code == 1
    assert "no entries until the first user is added" in done.output


@pytest.mark.parametrize("content", ["{}\n", "{\n", b"\xff\n"])
def test_a_file_that_is_no_ledger_is_not_called_changed(folder, content):
    file = folder / "other.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("ledger", "verify", str(file))
    assert (done.exit_code, "not an exported ledger" in done.output) == (1, True)
    assert "backup" not in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("replay", "none.yaml", *FILES), "none.yaml"),
        (("replay", "policy.yaml", *FILES, "--approve-after", "soon"), "never"),
        (("replay", "policy.yaml", *FILES, "--salt", "xyz"), "hex"),
        (("replay", "policy.yaml", *FILES, "--trained-until", "v1"), "v2=2025-10-23T23:00Z"),
        (("replay", "policy.yaml", *FILES, "--map", "predictions.label=nothing"), "nothing"),
        (("plan", "policy.yaml", "--predictions", "predictions.csv"), "--decisions"),
        (("plan", "policy.yaml", "--next", "100"), "--server"),
        (("plan", "policy.yaml", *FILES, "--next", "0"), "Invalid value for '--next'"),
        (("plan", "policy.yaml", *FILES, "--json"), "--next 1000"),
        (("ledger", "verify", "none.jsonl"), "none.jsonl"),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_two(folder, words, said):
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_wrong_policy_gets_one_line_for_each_fault(folder):
    wrong = POLICY.replace("92%", "92").replace("timezone: UTC", "timezone: Mars/Base")
    (folder / "policy.yaml").write_text(wrong, encoding="utf-8")
    done = run("plan", "policy.yaml")
    assert done.exit_code == 2
    assert len([line for line in done.output.splitlines() if "policy.yaml:" in line]) == 2


@pytest.mark.slow
def test_records_of_another_site_leave_nothing_to_replay_and_say_so(folder):
    (folder / "policy.yaml").write_text(POLICY.replace("ramp-a", "ramp-z"), encoding="utf-8")
    done = run("replay", "policy.yaml", *FILES)
    assert done.exit_code == 2
    assert "unknown site" in done.output


@pytest.mark.slow
def test_init_writes_a_policy_that_plan_reads(folder):
    drafted = run("init", "predictions.csv", "decisions.csv")
    (folder / "drafted.yaml").write_text(drafted.stdout, encoding="utf-8")
    assert run("plan", "drafted.yaml").exit_code == 0


@pytest.mark.slow
def test_plan_says_where_the_next_reviews_help_most(folder):
    (folder / "policy.yaml").write_text(POLICY.replace("92%", "98%"), encoding="utf-8")
    done = run("plan", "policy.yaml", *FILES, "--next", "300")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("The next 300 decisions: ")
    assert "ever opens" in done.stdout
    plan = json.loads(run("plan", "policy.yaml", *FILES, "--next", "300", "--json").stdout)
    assert plan["decisions"] == 300
    assert [row["site"] for row in plan["cells"]] == ["ramp-a"]
    assert plan["cells"][0]["version"] == "v1"


@pytest.mark.slow
def test_plan_takes_recorded_traffic(folder):
    done = run("plan", "policy.yaml", *FILES)
    assert done.exit_code == 0, done.output
    assert "days" in done.stdout
