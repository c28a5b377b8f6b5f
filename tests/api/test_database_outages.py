"""Over HTTP while the database does not respond: `human` in time, else 503."""

import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from api import priority_threads
from api.app import create_app
from api.limits import MAX_ANONYMOUS_BYTES
from api.priority_threads import is_assignment
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.features.assignments.assignments import DATABASE_UNAVAILABLE
from rollout.live.state_cache import MAX_STALENESS
from tests.data.databases import fresh
from tests.features import bear_field as field
from tests.features.bear_field import question

ASSIGNMENTS = "/v1/rollouts/bears/assignments"
FLAGS = "/ofrep/v1/evaluate/flags"
CONTEXT = {"context": {"targetingKey": "c1", "site": "creek", "version": "v7"}}
MAX_AGE = timedelta(seconds=MAX_STALENESS)
PREDICTION = {"answers": {"alarm": "bear"}, "confidence": 0.9, "latency_ms": 84.0}


@pytest.fixture
def url(tmp_path):
    """Return SQLite alone: what fails here is injected above the engines."""
    with fresh("sqlite", tmp_path) as made:
        yield made


def let_fail(patch, database):
    @contextmanager
    def fail(**_):
        raise DatabaseUnavailableError("the database does not respond; nothing was done, retry")
        yield

    patch.setattr(type(database), "begin_read", lambda _self: fail())
    patch.setattr(type(database), "begin_write", lambda _self, **more: fail(**more))


@pytest.fixture
def bears(database, client):
    field.autonomous(database)
    assert client.by("ingest").post(FLAGS, json=CONTEXT).status_code == 200


@pytest.fixture
def gone(bears, database, clock, monkeypatch):
    """Let every transaction fail, as while a server is down."""
    clock.advance(2 * MAX_AGE)
    let_fail(monkeypatch, database)


@pytest.fixture
def frozen(bears, database, clock, monkeypatch):
    """Let every transaction hang until the test ends, and the time limit be short."""
    clock.advance(2 * MAX_AGE)
    released = threading.Event()

    @contextmanager
    def hang(**_):
        released.wait(10)
        raise RuntimeError("the answer waited for the database")
        yield

    monkeypatch.setattr(priority_threads, "ASSIGNMENT_SECONDS", 0.05)
    monkeypatch.setattr(type(database), "begin_read", lambda _self: hang())
    monkeypatch.setattr(type(database), "begin_write", lambda _self, **more: hang(**more))
    yield released
    released.set()


@pytest.fixture
def unidentified(door, monkeypatch):
    """Let no caller be looked up."""

    def fail(*_args, **_more):
        raise DatabaseUnavailableError("the database does not respond; nothing was done, retry")

    monkeypatch.setattr(door, "find_cached_caller", lambda *_, **_more: None, raising=False)
    monkeypatch.setattr(door, "authenticate_key", fail, raising=False)


def ask(client, **more):
    return client.by("ingest").post(ASSIGNMENTS, json=question("c1", "creek", **more))


def is_problem(answer):
    return (
        answer.status_code == 503
        and answer.headers["Retry-After"] == "1"
        and answer.headers["Content-Type"] == "application/problem+json"
        and answer.json()["code"] == "database-unavailable"
    )


def are_humans(client):
    """Tell whether each way of asking who decides gives `human`, and a snapshot 503."""
    single = ask(client)
    assert single.status_code == 200, single.text
    assert (single.json()["decider"], single.json()["reason"]) == ("human", DATABASE_UNAVAILABLE)
    assert (single.json()["lease"], single.json()["permit"]) == (0.0, None)
    questions = [question(key, "creek") for key in ("c1", "c2")]
    batch = client.by("ingest").post(ASSIGNMENTS, json={"questions": questions}).json()["answers"]
    assert [answer["decider"] for answer in batch] == ["human", "human"]
    flag = client.by("ingest").post(f"{FLAGS}/gate.bears.decider", json=CONTEXT).json()
    assert flag["value"] == "human"
    may_act = client.by("ingest").post(f"{FLAGS}/gate.bears.model-may-act", json=CONTEXT).json()
    assert may_act["value"] is False
    assert is_problem(client.by("ingest").get("/v1/rollouts/bears/scope"))
    return True


def test_humans_decide_while_the_database_is_gone(client, gone):
    assert are_humans(client)
    flags = client.by("ingest").post(FLAGS, json=CONTEXT).json()["flags"]
    deciders = {f["value"] for f in flags if f["key"] == "gate.bears.decider"}
    assert deciders == {"human"}


def test_humans_decide_while_the_database_hangs(client, frozen):
    assert are_humans(client)
    assert client.by("ingest").post(FLAGS, json=CONTEXT).status_code == 200


def test_humans_decide_where_no_caller_can_be_looked_up(client, gone, unidentified):
    assert are_humans(client)
    assert is_problem(client.by("ingest").post(FLAGS, json=CONTEXT)), "whose flags is not known"


def test_a_prediction_that_cannot_be_stored_gets_an_error(client, gone):
    assert is_problem(ask(client, prediction=PREDICTION))


def test_a_prediction_that_hangs_gets_an_error(client, frozen):
    assert is_problem(ask(client, prediction=PREDICTION))


def test_every_other_route_is_a_problem_to_retry(client, gone, caplog):
    paths = ["/v1/rollouts", "/v1/rollouts/bears/cells", "/v1/rollouts/bears/ledger", "/metrics"]
    for path in paths:
        assert is_problem(client.by("ana").get(path)), path
    stop = client.by("ana").post("/v1/rollouts/bears/stops", json={"all": True, "reason": "smoke"})
    assert stop.status_code == 503
    headers = {"Idempotency-Key": "k1"}
    sent = client.by("ana").post("/v1/rollouts/bears/versions", json={}, headers=headers)
    assert is_problem(sent), "also where the key itself can't be looked up"
    assert "Traceback" not in caplog.text


def test_a_large_body_of_an_unidentified_caller_is_to_be_sent_again(client, gone, unidentified):
    body = b" " * (MAX_ANONYMOUS_BYTES + 1)
    assert is_problem(client.by("ingest").post("/v1/rollouts/bears/records", content=body))
    answers = [client.by("ingest").get("/v1/rollouts") for _ in range(60)]
    assert all(map(is_problem, answers)), "none is 429"


def test_a_caller_without_a_key_stays_a_stranger(service, gone, unidentified):
    with TestClient(create_app(service)) as stranger:
        assert stranger.post(ASSIGNMENTS, json=question("c1", "creek")).status_code == 401


def test_the_model_decides_again_when_the_database_is_back(client, bears, database, clock):
    clock.advance(2 * MAX_AGE)
    with pytest.MonkeyPatch.context() as patch:
        let_fail(patch, database)
        assert ask(client).json()["decider"] == "human"
    assert ask(client).json()["decider"] == "model"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", ASSIGNMENTS, True),
        ("POST", FLAGS, True),
        ("POST", f"{FLAGS}/gate.bears.decider", True),
        ("GET", "/v1/rollouts/bears/scope", True),
        ("GET", ASSIGNMENTS, False),
        ("POST", "/v1/rollouts/bears/records", False),
        ("GET", "/console/rollouts/bears/scope", False),
    ],
)
def test_what_counts_as_asking_who_decides(method, path, expected):
    assert is_assignment({"path": path, "method": method}) is expected
