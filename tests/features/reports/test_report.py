"""`rollout report` on a database in the folder, and of a service."""

import json

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from rollout.cli.main import app
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from rollout.terminal import remote
from tests.api.conftest import Doorkeeper
from tests.commands import forget_settings
from tests.data.databases import fresh
from tests.data.snapshots import filled_once
from tests.factories import DAY, HOUR, NOON
from tests.features import bear_field as field
from tests.features.reports.in_process import _reports_in_this_process
from tests.features.reports.test_builder import keep

__all__ = ["_reports_in_this_process"]
BEGAN = NOON - 400 * DAY
SPAN = ("--since", BEGAN.isoformat(), "--until", (BEGAN + DAY).isoformat())


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)
    with fresh("sqlite", tmp_path) as url:
        made = Database(url)
        counted_cases(made)
        yield made
        made.close()


@filled_once
def counted_cases(database):
    field.set_up_field(database, BEGAN)
    for number in range(5):
        keep(database, f"case-{number}", BEGAN + HOUR, model="bear" if number == 3 else "none")
    Ticker(database, "bears", "one").tick(BEGAN + 3 * DAY)


def run(*words, **environment):
    return CliRunner().invoke(app, ["report", "bears", *words], env=environment)


def test_without_a_file_the_reports_number_state_and_seal_are_printed(database):
    done = run(*SPAN)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("report 1 (on-demand), version 1, FINAL; sealed as ")


@pytest.mark.parametrize(
    ("file", "begins"),
    [
        ("r.html", "<!doctype html>"),
        ("r.json", '{"actions":'),
        ("r.CSV", "case_key,version"),
    ],
)
def test_a_file_is_written_as_its_name_ends(database, tmp_path, file, begins):
    done = run(*SPAN, "--out", file)
    assert done.exit_code == 0, done.output
    assert (tmp_path / file).read_text("utf-8").startswith(begins)
    assert done.stdout.startswith(f"{file}: report 1 (on-demand), version 1, FINAL; sealed as ")


@pytest.mark.slow
def test_made_again_it_is_the_same_and_json_says_which(database, tmp_path):
    first = json.loads(run(*SPAN, "--out", "r.json", "--name", "week", "--json").stdout)
    again = json.loads(run(*SPAN, "--out", "r.json", "--name", "week", "--json").stdout)
    assert first == again
    assert (first["name"], first["file"]) == ("week", "r.json")
    seal = CliRunner().invoke(app, ["ledger", "seal", "r.json"]).stdout.strip()
    assert seal == first["hash"]


@pytest.mark.slow
def test_the_form_and_the_view_are_as_asked(database, tmp_path):
    assert run(*SPAN, "--format", "csv").stdout.startswith("case_key,version")
    run(*SPAN, "--out", "page", "--format", "html", "--view", "auditor")
    page = (tmp_path / "page").read_text("utf-8")
    assert 'id="checks"' in page
    assert 'id="operate"' not in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--out", "r.pdf"), "end it in .csv, .html, .json, or add"),
        (("--format", "pdf"), "one of csv, html, json"),
        (("--view", "boss"), "one of operator, engineer, auditor"),
        (("--since", "june"), "write it as 2027-06-01T00:00Z"),
        (("--until", "2025-06-01T00:00"), "has no offset; add one"),
        (("--until", "2020-06-01T00:00Z"), "let the span end after it"),
    ],
)
def test_what_can_not_be_is_refused_with_what_would_be_right(database, words, says):
    done = run(*words)
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.slow
def test_a_service_gives_the_same(database, tmp_path, monkeypatch):
    door = Doorkeeper()
    door.callers["vi"] = Caller("vi", role_assignments=(AssignedRole("viewer", "bears"),))
    service = build_service(database, door, ManualClock(NOON), entropy=bytes)
    client = TestClient(create_app(service), raise_server_exceptions=False)

    class Http:
        HTTPError = InvalidURL = ConnectionError

        @staticmethod
        def request(method, url, *, content, params, headers, timeout):  # noqa: ARG004 - its form
            path = url.removeprefix("http://here")
            return client.request(method, path, content=content, params=params, headers=headers)

    monkeypatch.setattr(remote, "_import_httpx2", lambda: Http)
    there = {"ROLLOUT_SERVER": "http://here", "ROLLOUT_API_KEY": "vi"}
    told = json.loads(run(*SPAN, "--out", "there.json", "--json", **there).stdout)
    done = run(*SPAN, "--out", "here.json")
    assert told["hash"] in done.stdout
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()
    assert run(*SPAN, "--by", "zoe", **there).exit_code == 2
