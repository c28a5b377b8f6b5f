"""The outcomes of faults: complete, and run anew or marked when the code has changed."""

from dataclasses import replace
from datetime import date
from functools import partial

import pytest

from tests.docs.code_age import is_history_whole, is_in_history
from tests.docs.pages import ROOT
from tests.docs.reliability_page import write_reliability
from tests.faults import outcomes
from tests.faults.outcomes import (
    OUTCOMES,
    FaultOutcome,
    list_old_outcomes,
    load_covers,
    load_outcomes,
    main,
    record_outcome,
)

OUTCOME = FaultOutcome(
    fault="a \"full\" disk \\ 'x'",
    engine="sqlite",
    tried=2,
    lost=0,
    recovery_seconds=1.25,
    command="python -m x",
    date=date(2026, 11, 21),
    commit="abc",
    note="ä",
)


def test_an_outcome_names_its_run_and_was_tried_or_says_why_not():
    names = [(row.fault, row.engine) for row in load_outcomes()]
    assert len(set(names)) == len(names)
    for row in load_outcomes():
        assert row.tried > 0 or row.note.startswith("not run: "), row
        assert row.command.startswith("python -m tests."), row


def test_an_outcome_is_as_new_as_the_code_or_marked():
    assert all((ROOT / path).exists() for path in load_covers())
    for commit in {row.commit for row in load_outcomes() if not row.stale}:
        if not is_in_history(commit) and not is_history_whole():
            pytest.skip(f"no history here back to {commit}")
    assert not list_old_outcomes()


def test_an_old_outcome_is_named_until_it_is_marked(monkeypatch, tmp_path, capsys):
    file = tmp_path / "outcomes.toml"
    file.write_text('covers = ["rollout"]\n')
    record_outcome(file, OUTCOME)
    monkeypatch.setattr(outcomes, "load_outcomes", partial(load_outcomes, file))
    monkeypatch.setattr(outcomes, "OUTCOMES", file)
    monkeypatch.setattr(outcomes, "is_in_history", lambda _commit: True)
    monkeypatch.setattr(outcomes, "list_changed_files", lambda _commit, _covers: ["rollout/a.py"])
    assert main([]) == 1
    assert "outcomes of abc are older than 1 files: rollout/a.py." in capsys.readouterr().out
    assert main(["the code moved"]) == 0
    assert [row.stale for row in load_outcomes(file)] == ["the code moved"]
    assert main([]) == 0


def test_an_outcome_of_a_commit_that_is_gone_is_old_where_the_history_is_whole(monkeypatch):
    monkeypatch.setattr(outcomes, "load_outcomes", lambda: [replace(OUTCOME, commit="0" * 10)])
    for is_whole, count in ((True, 1), (False, 0)):
        monkeypatch.setattr(outcomes, "is_history_whole", lambda answer=is_whole: answer)
        assert len(list_old_outcomes()) == count


def test_an_outcome_replaces_the_one_of_its_fault_and_engine(tmp_path):
    file = tmp_path / "outcomes.toml"
    file.write_text('# why\ncovers = ["rollout"]\n')
    other = replace(OUTCOME, engine="postgresql", stale="old")
    for outcome in (OUTCOME, other, OUTCOME, replace(OUTCOME, lost=3), replace(other, stale="")):
        record_outcome(file, outcome)
    assert load_outcomes(file) == [replace(OUTCOME, lost=3), replace(other, stale="")]
    assert file.read_text().startswith('# why\ncovers = ["rollout"]\n\n[[outcome]]\n')
    assert load_covers(file) == ["rollout"]


def test_the_page_shows_each_rows_run_what_is_stale_and_what_was_not_measured(monkeypatch):
    later = replace(OUTCOME, engine="y", commit="def", stale="the code moved")
    tests = replace(OUTCOME, engine="x", note="", tried=1, recovery_seconds=None)
    rows = [replace(OUTCOME, stale="the code moved"), tests, later]
    monkeypatch.setattr("tests.docs.reliability_page.load_outcomes", lambda: rows)
    page = write_reliability()
    assert "| sqlite | 2 runs | 0 | – | – | – | 1.2 | 1 | ä. STALE 1 |\n" in page
    assert "| x | 1 test | 0 | – | – | – | – | 1 |  |\n" in page
    assert "| y | 2 runs | 0 | – | – | – | 1.2 | 2 | ä. STALE 1 |\n" in page
    assert "| 1 | `python -m x` | 2026-11-21 | `abc` | 2 |\n" in page
    assert "| 2 | `python -m x` | 2026-11-21 | `def` | 1 |\n" in page
    assert "1. 2 of 3 rows (STALE 1); since their run: the code moved.\n" in page
    assert (
        "\n**2 of 3 rows are STALE: the code has changed [since their run](#stale-rows).**" in page
    )
    assert OUTCOMES.name in page


def test_a_row_of_dashes_says_what_its_tests_proved():
    """Seen: rows without any figure or note."""
    for row in load_outcomes():
        figures = (row.lost, row.doubled, row.late_stops, row.recovery_seconds)
        assert row.note or any(figure is not None for figure in figures), row.fault


def test_the_page_has_the_place_that_it_points_to_with_and_without_stale_rows():
    """Seen: with no stale row the site did not build, for nothing stood where its link led."""
    for rows in ([OUTCOME], [OUTCOME, replace(OUTCOME, engine="postgresql", stale="newer")]):
        page = write_reliability(rows)
        assert (
            ("#stale-rows" in page) == ("\n## Stale rows\n" in page) == any(r.stale for r in rows)
        )
        assert ("STALE means" in page) == any(row.stale for row in rows)
