"""The four clients of `examples/clients`, run against the service."""

import runpy
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from rollout.data.database.session import Database
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from tests.api.conftest import Doorkeeper
from tests.data.databases import fresh
from tests.features import bear_field as field
from tests.features.bear_field import keys

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
POLICY = field.POLICY.replace("08:00-20:00", "24/7").replace(
    "answer_within: 2m", "answer_within: 1s"
)
NIGHT = ", {id: night, hours: 24/7}"
ALONE, OTHER = keys(0.1, below=False)[0], keys(0.1)[0]


@pytest.fixture
def database(tmp_path):
    with fresh("sqlite", tmp_path) as url:
        made = Database(url)
        field.set_up_field(made, datetime.now(UTC) - timedelta(days=1), POLICY.replace(NIGHT, ""))
        yield made
        made.close()


@pytest.fixture
def app(database):
    with TestClient(create_app(build_service(database, Doorkeeper(), SystemClock()))) as client:
        yield client


class Bridge:
    """httpx2's way into the application, without a network."""

    def __init__(self, client):
        self.client = client
        self.broken = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def handle_request(self, request):
        if self.broken:
            raise httpx2.ConnectError("no network")
        answer = self.client.request(
            request.method,
            str(request.url.copy_with(scheme="http", host="testserver")),
            content=request.read(),
            headers=dict(request.headers) | {"host": "testserver"},
        )
        return httpx2.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )


@pytest.fixture
def run(app, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(CLIENTS))
    bridge = Bridge(app)

    def running(name, *arguments, **more):
        common = ("--url", "http://testserver", "--key", "ingest", "--rollout", "bears")
        asked = [*common, "--site", "creek", "--version", "v1", *arguments]
        main = runpy.run_path(str(CLIENTS / f"{name}.py"))["main"]
        main(asked, transport=bridge, **more)
        return capsys.readouterr().out.strip()

    running.bridge = bridge
    yield running
    sys.modules.pop("service", None)


def explained(app, key):
    return app.get(
        f"/v1/rollouts/bears/cases/{key}", headers={"Authorization": "Bearer viewer"}
    ).json()


def widen(database, to="autonomous"):
    field.widen(database, ("creek", "day"), to=to, at=datetime.now(UTC) - timedelta(hours=1))


PICTURE = ("--case", ALONE, "--label", "bear")


def test_a_client_in_shadow_sends_predictions_and_a_human_decides(run, app):
    assert run("shadow_client", *PICTURE) == f"{ALONE}: human (shadow: a human decides)"
    (prediction,) = explained(app, ALONE)["predictions"]
    assert (prediction["answers"], prediction["decider"]) == ({"alarm": "bear"}, "human")


def test_a_supervised_client_does_what_the_person_said(run, app, database):
    widen(database, "supervised")
    verdict = {"kind": "decision", "key": ALONE, "reviewer": "ana", "answers": {"alarm": "none"}}
    verdict["site"] = "creek"  # its case comes later
    sent = app.post(
        "/v1/rollouts/bears/records", json=[verdict], headers={"Authorization": "Bearer ingest"}
    )
    assert sent.status_code == 200
    assert run("supervised_client", *PICTURE, "--every", "0.1").endswith("did nothing")
    (action,) = explained(app, ALONE)["actions"]
    assert (action["action"], action["by"]) == ("nothing", "person")


@pytest.mark.slow
def test_a_supervised_client_waits_no_longer_than_the_policy_says(run, app, database):
    widen(database, "supervised")
    assert run("supervised_client", *PICTURE, "--every", "0.1").endswith("did siren")


def test_an_autonomous_client_acts_at_once_by_its_permit(run, app, database):
    widen(database)
    assert run("autonomous_client", *PICTURE).endswith("did siren")
    (action,) = explained(app, ALONE)["actions"]
    assert (action["by"], action["authorization"]) == ("model", "authorized")


def test_an_autonomous_client_without_a_network_leaves_it_to_people(run, database):
    widen(database)
    run.bridge.broken = True
    assert run("autonomous_client", *PICTURE) == f"{ALONE}: a human decides (no network)"


def test_an_offline_client_decides_by_its_snapshot_and_sends_at_night(run, app, database, tmp_path):
    widen(database)
    day = ("--folder", str(tmp_path), "--case", f"{ALONE}=bear", "--case", f"{OTHER}=none")
    said = run("offline_client", *day).splitlines()
    assert said == [
        f"{ALONE}: model (the model decides)",
        f"{OTHER}: model (the model decides)",
        "sent 6: accepted",
    ]
    (action,) = explained(app, ALONE)["actions"]
    assert (action["by"], action["authorization"]) == ("model", "authorized")
    (prediction,) = explained(app, ALONE)["predictions"]
    assert (prediction["decider"], prediction["exposure"], prediction["share"]) == (
        *("model", "blind", 1.0),
    )
    assert (tmp_path / "head.json").exists()
    assert not (tmp_path / "spool.ndjson").exists()


def test_an_offline_client_past_its_lease_does_what_is_done_unanswered(run, app, tmp_path):
    said = run("offline_client", "--folder", str(tmp_path), "--case", f"{ALONE}=none").splitlines()
    assert said[0] == f"{ALONE}: human (shadow: a human decides)"
    (action,) = explained(app, ALONE)["actions"]
    assert (action["action"], action["by"]) == ("siren", "person")


def test_an_offline_client_hands_over_after_harm_and_still_does_after_a_restart(
    run, app, database, tmp_path
):
    widen(database)
    cases = ("--case", f"{ALONE}=bear", "--case", f"{OTHER}=none")
    day = ("--folder", str(tmp_path), *cases, "--harm", f"{ALONE}=harsh-brake")
    handed_over = "human (handed over to a human until a newer scope is read)"
    assert run("offline_client", *day).splitlines() == [
        f"{ALONE}: model (the model decides)",
        f"{OTHER}: {handed_over}",
        "sent 6: accepted",
    ]
    (outcome,) = explained(app, ALONE)["outcomes"]
    assert outcome["harm"] == "harsh-brake"
    (again, _) = run("offline_client", "--folder", str(tmp_path), *cases[2:]).splitlines()
    assert again == f"{OTHER}: {handed_over}"


@pytest.mark.parametrize(
    "name", ["shadow_client", "supervised_client", "autonomous_client", "offline_client"]
)
def test_each_says_what_it_does(run, name, capsys):
    with pytest.raises(SystemExit):
        runpy.run_path(str(CLIENTS / f"{name}.py"))["main"](["--help"])
    assert "--rollout" in capsys.readouterr().out


def test_a_prediction_that_was_not_stored_is_named(run, capsys):
    main = runpy.run_path(str(CLIENTS / "shadow_client.py"))["main"]
    there = ("--url", "http://testserver", "--key", "ingest", "--rollout", "bears")
    for label in ("bear", "none"):
        asked = [*there, "--site", "creek", "--version", "v1", "--case", ALONE, "--label", label]
        main(asked, transport=run.bridge)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == [ALONE]
