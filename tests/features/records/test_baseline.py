"""`rollout baseline` on a database in the folder."""

import pytest

from rollout.data.database.session import Database
from tests.commands import forget_settings, run
from tests.data.databases import fresh
from tests.data.snapshots import filled_once

POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
HEAD = "site,window,lever,action,n,since,until\n"
ROW = "ramp-a,always,parcel,sound,41,2025-01-01T00:00Z,2026-01-01T00:00Z\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        apply_ramps(database)
        yield tmp_path
        database.close()


@filled_once
def apply_ramps(_database):
    done = run("apply", "policy.yaml", "--by", "zoe")
    assert done.exit_code == 0, done.output


def imported(folder, text):
    (folder / "manual.csv").write_text(text, encoding="utf-8")
    return run("baseline", "ramps", "manual.csv", "--by", "zoe")


def test_a_manual_history_is_imported_once(folder):
    assert imported(folder, HEAD + ROW).output == "1 of 1 rows are new\n"
    assert imported(folder, HEAD + ROW).output == "0 of 1 rows are new\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("site,window\nramp-a,always\n", "column lever, action, n, since, until is missing"),
        (HEAD + ROW.replace("41", "many"), "manual.csv, line 2: invalid literal"),
        (HEAD + ROW.replace("2025-01-01T00:00Z", "last year"), "line 2: Invalid isoformat"),
        (HEAD + ROW.replace("00:00Z", "00:00"), "no zone"),
        (HEAD + ROW.replace("ramp-a", "moon"), "no site moon"),
        (HEAD + "ramp-a\n", "line 2"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_kept(folder, text, says):
    done = imported(folder, text)
    assert done.exit_code == 2
    assert says in done.output


SETS = POLICY.replace("labels: [damaged, sound]", "labels: [wet, torn], many: true")
SET_ROWS = ROW.replace("sound,41", "wet; torn,4") + ROW.replace("sound,41", '"[""wet""]",5')


def test_a_set_is_counted_as_its_text_however_it_is_written(folder):
    (folder / "sets.yaml").write_text(SETS.replace("ramps", "rolls"), encoding="utf-8")
    assert run("apply", "sets.yaml", "--by", "zoe").exit_code == 0

    def import_sets(text):
        (folder / "sets.csv").write_text(HEAD + text, encoding="utf-8")
        return run("baseline", "rolls", "sets.csv", "--by", "zoe")

    assert import_sets(SET_ROWS).output == "2 of 2 rows are new\n"
    again = SET_ROWS.replace("wet; torn", "torn;wet").replace('"[""wet""]"', "wet")
    assert import_sets(again).output == "0 of 2 rows are new\n"
    assert import_sets(ROW.replace("sound,41", "[],3")).output == "1 of 1 rows are new\n"
    wrong = import_sets(ROW.replace("sound,41", "wet;dry,3"))
    assert (wrong.exit_code, "dry is none of its labels" in wrong.output) == (2, True)
