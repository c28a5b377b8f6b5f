"""`rollout clean list` of a live rollout: of a span's records, and of what was counted."""

import csv
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.session import Database
from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.training import cli
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from rollout.live.versions import record_new_versions
from tests.api.test_shell import POLICY
from tests.data.databases import fresh
from tests.data.snapshots import filled_once

NOW = datetime.now(UTC)
AT = NOW - timedelta(days=3)
PAIRS = (
    ("here", "damaged", "sound", 0.99),
    ("there", "damaged", "sound", 0.4),
    ("hurt", "damaged", "damaged", 0.6),  # v1 is sure of it from there on
)


@pytest.fixture(autouse=True)
def _ramps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROLLOUT_DATABASE_URL", raising=False)
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        keep_pairs(database)
        database.close()
        yield


@filled_once
def keep_pairs(database):
    apply_policy(database, POLICY, Actor("zoe"), AT - timedelta(days=1))
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, "ramps")
        items = [item for pair in PAIRS for item in records(*pair)]
        record_new_versions(transaction, database, stood, items, AT, {})
        kept = RecordStore(transaction, stood.rollout).store(items, received_at=AT)
        queue_new_cases(transaction, stood, kept, AT)


def records(key, said, judged, sure):
    told = {"submitted_at": AT, "exposure": "blind"}
    return [
        Case(key=key, site="ramp-a", occurred_at=AT, window="always"),
        Prediction(key=key, version="v1", answers={"parcel": said}, confidence=sure, at=AT),
        Decision(key=key, reviewer="ana", answers={"parcel": judged}, **told),
    ]


def tick():
    database = Database("sqlite:///rollout.db")
    Ticker(database, "ramps", "one").tick(NOW)
    database.close()


def run(*words, code=0):
    done = CliRunner().invoke(app, ("clean", "list", "ramps", *words))
    assert done.exit_code == code, done.output
    return done


def rows(*words):
    return list(csv.DictReader(run(*words).stdout.splitlines()))


def test_what_was_counted_is_listed_in_the_form_of_the_work_list():
    span, unsure = rows()
    assert (span["case_key"], unsure["case_key"], unsure["kind"]) == (
        "here",
        "there",
        "model unsure and different",
    )
    assert run("--top-losses").stderr.startswith(
        "no counted case has a human decision that differs"
    )
    tick()
    first, second = rows("--top-losses")
    assert (first["case_key"], second["case_key"]) == ("here", "there")
    assert first == {**span, "kind": "people said otherwise", "loss": first["loss"]}
    assert float(first["loss"]) == pytest.approx(float(span["loss"]))
    assert rows("--top-losses", "--limit", "1") == [first]


def test_a_shortened_list_says_how_many_there_are(monkeypatch):
    monkeypatch.setattr(cli, "MAX_LISTED_CASES", 1)
    done = run()
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "1 of 2 cases shown; --all lists all of them\n"
    assert (len(rows("--all")), run("--all").stderr) == (2, "")


def test_what_was_counted_has_no_span():
    done = run("--top-losses", "--since", "2026-06-01T00:00Z", code=2)
    assert "omit --since and --until" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_bound_that_is_no_past_time_is_refused_by_its_own_name(option):
    assert run(option, "2026-13-01", code=2).stderr.startswith(f"{option} 2026-13-01 is no time")
    ahead = run(option, "2199-01-01T00:00Z", code=2).stderr
    assert ahead.startswith(f"{option} 2199-01-01T00:00Z is in the future")
