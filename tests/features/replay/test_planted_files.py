"""A file of planted cases: declared before their answers, for a replay or an import."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollout.engine.files.files import read_planted_rows
from rollout.engine.files.mapped_rows import RecordError
from rollout.features.replay.replay import build_replay_command, replay_files
from rollout.features.replay.requests import LateDeclarationError
from rollout.kernel.calendar.instants import to_micros
from tests.commands import create_tables, done, forget_settings, refused
from tests.features.replay.test_replay import an_order, rows

EARLY, LATE = "2025-03-01T00:00Z", "2025-03-03T09:05Z"  # p0's prediction comes at 10:00 in Vienna


def write_declarations(folder, *lines, head="case_key,declared_at"):
    file = folder / "planted.csv"
    file.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return file


def test_a_replay_counts_the_declared_cases_apart_and_names_the_file(tmp_path):
    file = write_declarations(tmp_path, f"p0,{EARLY}", f"p3,{EARLY}", f"elsewhere,{EARLY}")
    order = an_order(tmp_path, *rows(20), planted=file)
    replayed = replay_files(order)
    whole = replay_files(replace(order, planted=None))
    assert set(whole.units["case_key"]) - set(replayed.units["case_key"]) == {"p0", "p3"}
    assert set(replayed.records.planted.cases["case_key"]) == {"p0", "p3"}
    assert "--planted planted.csv" in build_replay_command(order, order.policy)


def test_a_case_declared_after_an_answer_is_refused(tmp_path):
    order = an_order(tmp_path, *rows(20), planted=write_declarations(tmp_path, f"p0,{LATE}"))
    with pytest.raises(LateDeclarationError, match=r"case p0 was declared as planted at .* after"):
        replay_files(order)


@pytest.mark.parametrize(
    ("lines", "head", "fault"),
    [
        (["p1,2025-03-01"], None, "line|planted.csv:2: declared_at: unreadable-time"),
        ([f"p1,{EARLY}", f"p1,{EARLY}"], None, "p1 is declared in line 2"),
        (["p1"], "case_key", "declared_at: missing"),
        ([f"p1,{EARLY},p2"], None, "planted.csv:2: field-count"),
        ([f"p1,{EARLY},seen"], "case_key,declared_at,note", "note: unknown"),
        ([f",{EARLY}"], None, "case_key: missing-value"),
    ],
)
def test_a_row_that_declares_nothing_is_named(tmp_path, lines, head, fault):
    more = {} if head is None else {"head": head}
    with pytest.raises(RecordError, match=fault):
        read_planted_rows(write_declarations(tmp_path, *lines, **more))


@pytest.mark.slow
def test_an_import_declares_the_file_when_it_comes_and_refuses_what_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)
    create_tables(Path.cwd())
    an_order(tmp_path, *rows(12))
    done("apply", "policy.yaml", "--by", "ana", "--at", "2025-03-01T00:00Z")
    files = ("--predictions", "predictions.csv", "--decisions", "decisions.csv")
    order = ("import", "parcels", *files, "--planted", "planted.csv", "--by", "ana")
    write_declarations(tmp_path, f"p0,{EARLY}")  # a time that nobody can check
    text = refused(*order)
    assert "case p0 has an answer of 2025-03-03 09:00 UTC, and its declaration as planted" in text
    write_declarations(tmp_path, f"later-1,{EARLY}", f"later-2,{LATE}")
    for _ in range(2):
        done(*order)
    bodies = [json.loads(line) for line in done("ledger", "export", "parcels").splitlines()]
    (planted,) = (row for row in bodies if row["kind"] == "CasesPlanted")
    assert (planted["body"]["cases"], len(planted["body"]["file_digest"])) == (2, 64)
    assert planted["at"] > to_micros(datetime(2026, 1, 1, tzinfo=UTC))
    Path("more.txt").write_text("p1\nnew-1\n", "utf-8")
    text = refused("plant", "parcels", "more.txt", "--reason", "late", "--by", "ana")
    assert "records of p1 came before" in text
    Path("more.txt").write_text("new-1\n", "utf-8")
    said = done("plant", "parcels", "more.txt", "--reason", "a dent", "--by", "ana")
    assert said == "1 cases declared as planted, 0 were before\n"
    assert "declarations in the ledger: 3 declared, 0 received" in done("doctor")
    an_order(tmp_path, *([line.replace("p11,", "new-1,") for line in part] for part in rows(12)))
    text = refused(*order)
    assert "case new-1 has an answer of 2025-03-04" in text
    assert "Remove the records of the case; declare cases before" in text
