"""The fast path answers as the routes do: the same bytes, headers, counts, logs and refusals."""

import gzip
import json
import logging
import re
import sys
from datetime import timedelta

import pytest
from hypothesis import given

from api import limits
from api.app import create_app
from api.assignments import fast_path
from api.assignments.ofrep import InvalidContextError, parse_any_context, parse_context
from api.assignments.routes import find_quick_answer
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.live.state_cache import MAX_STALENESS
from rollout.settings import REQUEST_RATE
from tests.api.assignments.test_assignments import ALONE, OTHER
from tests.api.assignments.test_quick_questions import EDGES, told
from tests.api.conftest import Asking
from tests.data.databases import on_sqlite
from tests.engine.files.spoilt import spoilt
from tests.factories import DAY, NOON
from tests.features import bear_field as field
from tests.features.bear_field import question

URL = "/v1/rollouts/bears/assignments"
FLAG_URL = "/ofrep/v1/evaluate/flags/gate.bears"
FACETS = ("decider", "model-may-act", "audit-rate", "stage", "decision")
CONTEXT = {"targetingKey": ALONE, "site": "creek", "at": NOON.isoformat(), "version": "v1"}
DURATION = re.compile(r"(_sum|_bucket)\{.*|process_.*|python_.*|db_client.*")


@pytest.fixture(autouse=True)
def _clocks_agree(monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))


class ClosedLane:
    """The application without the fast path."""

    def __init__(self, app, **_):
        self._app = app

    async def __call__(self, scope, receive, send):
        await self._app(scope, receive, send)


@pytest.fixture
def fast_answers(monkeypatch):
    """Return the list of what the fast path itself answers."""
    answers, send_json = [], fast_path._send_json

    async def send_and_note(send, body):
        answers.append(body)
        await send_json(send, body)

    monkeypatch.setattr(fast_path, "_send_json", send_and_note)
    return answers


@pytest.fixture
def both(service, database, door, monkeypatch, fast_answers):
    """Return clients of the service with its fast path open and with it closed."""
    field.autonomous(database)
    door.let_in("eve", AssignedRole("ingest", "other"), machine=True)
    door.let_in("box", AssignedRole("ingest", "bears", "lake"), machine=True)
    with Asking(create_app(service), raise_server_exceptions=False) as quick:
        monkeypatch.setattr("api.app.AssignmentFastPathMiddleware", ClosedLane)
        with Asking(create_app(service), raise_server_exceptions=False) as plain:
            quick.by("ingest").post(URL, json=question("warm", "creek"))
            plain.by("ingest").post(URL, json=question("warm", "creek"))
            fast_answers.clear()
            yield quick, plain


def send(client, caplog, *, method="POST", url=URL, by="ingest", body=b"", headers=()):
    """Return what is to be equal: answer, headers, counts and the log line."""
    caplog.clear()
    client.by(by)
    if by is None:
        del client.headers["Authorization"]
    with caplog.at_level(logging.INFO, "rollout.access"):
        answer = client.request(
            method,
            url,
            content=body,
            headers={"X-Request-ID": "r-1", **dict(headers)},
            follow_redirects=False,
        )
    lines = [
        {name: part for name, part in record.fields.items() if name != "duration_ms"}
        for record in caplog.records
        if record.name == "rollout.access"
    ]
    counts = client.app.state.counts
    return (
        answer.status_code,
        sorted(answer.headers.multi_items()),
        answer.content,
        lines,
        (counts.requests, counts.assignments),
    )


def list_metrics(client):
    """Return the lines of the metrics that depend on no duration."""
    lines = client.app.state.process_metrics.format().splitlines()
    return [line for line in lines if not DURATION.search(line)]


def text(value):
    return json.dumps(value).encode()


ONE = question(ALONE, "creek")
MANY = [question(key, site) for key in (ALONE, OTHER, 'ö"\\\n') for site in ("creek", "lake")]
ANSWERED = {
    "one": {"body": text(ONE)},
    "one with a confidence": {"body": text(ONE | {"confidence": 0.9})},
    "one with attributes": {"body": text(ONE | {"attributes": {"weather": "dry"}})},
    "one at an unknown site": {"body": text(ONE | {"site": "moon"})},
    "one of another day": {"body": text(ONE | {"at": (NOON - DAY).isoformat()})},
    "one without a zone": {"body": text(ONE | {"at": "2027-06-01T12:00:00"})},
    "one without a key": {"body": text(ONE | {"key": ""})},
    "one where people decide": {"body": text(ONE | {"site": "dale"})},
    "many": {"body": text({"questions": MANY})},
    "none": {"body": text({"questions": []})},
    "gzip": {"body": gzip.compress(text(ONE)), "headers": [("Content-Encoding", "gzip")]},
    "another type": {"body": text(ONE), "headers": [("Content-Type", "text/plain")]},
    "an idempotency key": {"body": text(ONE), "headers": [("Idempotency-Key", "k-1")]},
    "a site of one's own": {"body": text(ONE | {"site": "lake"}), "by": "box"},
    "a quoted path": {"body": text(ONE), "url": "/v1/rollouts/be%61rs/assignments"},
} | {
    f"flag {facet} {key}": {
        "url": f"{FLAG_URL}.{facet}",
        "body": text({"context": CONTEXT | changed}),
    }
    for facet in FACETS
    for key, changed in {
        "alone": {},
        "other": {"targetingKey": OTHER},
        "shadow": {"site": "dale"},
        "attributes": {"weather": "dry", "grade": 2},
    }.items()
}
PASSED_ON = {
    "empty": {},
    "no JSON": {"body": b"{"},
    "no UTF-8": {"body": b'{"site": "\xff"}'},
    "a list": {"body": b"[]"},
    "an unknown field": {"body": text(ONE | {"more": 1})},
    "both forms": {"body": text(ONE | {"questions": [ONE]})},
    "too many": {"body": text({"questions": [ONE] * 1_001})},
    "too large": {"body": b" " * 9 * 2**20},
    "no gzip": {"body": b"x", "headers": [("Content-Encoding", "gzip")]},
    "a time finer than microseconds": {"body": text(ONE | {"at": "2027-06-01T12:00:00.1234567Z"})},
    "an unknown version": {"body": text(ONE | {"version": ""})},
    "another content": {"body": text(ONE | {"content": "x"})},
    "an unknown rollout": {"body": text(ONE), "url": "/v1/rollouts/none/assignments"},
    "an unknown head": {"body": text(ONE | {"ledger_head": {"revision": 999, "hash": "f"}})},
    "no key": {"body": text(ONE), "by": None},
    "an unknown caller": {"body": text(ONE), "by": "nobody"},
    "without permission": {"body": text(ONE), "by": "viewer"},
    "of another rollout": {"body": text(ONE), "by": "eve"},
    "at another site": {"body": text(ONE), "by": "box"},
    "one of many elsewhere": {"body": text({"questions": MANY}), "by": "box"},
    "GET": {"method": "GET"},
    "PUT": {"method": "PUT", "body": text(ONE)},
    "OPTIONS": {"method": "OPTIONS"},
    "a slash more": {"body": text(ONE), "url": f"{URL}/"},
    "a slash within": {"body": text(ONE), "url": "/v1/rollouts/a%2Fbears/assignments"},
    "a line's end": {"body": text(ONE), "url": f"{URL}%0A"},
    "two slashes": {"body": text(ONE), "url": "/v1/rollouts//bears/assignments"},
    "capitals": {"body": text(ONE), "url": "/v1/Rollouts/bears/assignments"},
} | {
    f"flag {name}": {"url": f"{FLAG_URL}.decider", "body": text({"context": CONTEXT})} | changed
    for name, changed in {
        "empty": {"body": b""},
        "no JSON": {"body": b"{"},
        "without a key": {"body": text({"context": {}})},
        "of a long key": {"body": text({"context": CONTEXT | {"targetingKey": "k" * 201}})},
        "of an unknown version": {"body": text({"context": CONTEXT | {"version": "v9\0"}})},
        "of an unknown head": {"body": text({"context": CONTEXT | {"ledger_head": "bears:9:f:c"}})},
        "of a bad idempotency key": {"headers": [("Idempotency-Key", "k" * 201)]},
        "without permission": {"by": "viewer"},
        "of another rollout": {"by": "eve"},
        "at another site": {"by": "box"},
        "without a caller": {"by": None},
        "unknown": {"url": f"{FLAG_URL}.nothing"},
        "of an unknown rollout": {"url": "/ofrep/v1/evaluate/flags/gate.none.decider"},
        "GET": {"method": "GET"},
        "all": {"url": "/ofrep/v1/evaluate/flags"},
        "a slash more": {"url": f"{FLAG_URL}.decider/"},
        "a line's end": {"url": f"{FLAG_URL}.decider%0A"},
    }.items()
}


@on_sqlite
def test_what_memory_answers_is_as_the_route_answers_it(both, caplog, fast_answers):
    quick, plain = both
    for name, request in ANSWERED.items():
        fast_answers.clear()
        answered = send(quick, caplog, **request)
        assert (answered[0], len(fast_answers)) == (200, 1), name
        assert answered == send(plain, caplog, **request), name
        assert len(fast_answers) == 1, name
    assert list_metrics(quick) == list_metrics(plain)


@pytest.mark.slow
@on_sqlite
def test_what_is_refused_or_unsure_is_left_to_the_route(both, caplog, fast_answers):
    quick, plain = both
    for name, request in PASSED_ON.items():
        # an incident or a version that the first one makes is there for both
        send(plain, caplog, **request)
        send(quick, caplog, **request)
        assert send(quick, caplog, **request) == send(plain, caplog, **request), name
        assert not fast_answers, name
    assert list_metrics(quick) == list_metrics(plain)


@on_sqlite
def test_an_idempotency_key_repeats_the_flag_of_the_lane(both, caplog, clock, fast_answers):
    request = ANSWERED["flag decider alone"] | {"headers": [("Idempotency-Key", "k-1")]}
    first = send(both[0], caplog, **request)
    clock.advance(timedelta(seconds=0.1))  # another answer would have another permit
    assert send(both[0], caplog, **request)[2] == first[2]
    assert len(fast_answers) == 1


@on_sqlite
@pytest.mark.parametrize("request_name", ["one", "flag decider alone"])
def test_the_rate_limit_holds_in_the_lane(both, caplog, monkeypatch, request_name):
    quick, plain = both
    monkeypatch.setattr(limits, "BURST_SECONDS", 4 / REQUEST_RATE)
    statuses = [
        [send(client, caplog, **ANSWERED[request_name])[0] for _ in range(6)]
        for client in (quick, plain)
    ]
    assert statuses[0] == statuses[1]
    assert set(statuses[0]) == {200, 429}


@on_sqlite
@pytest.mark.parametrize("request_name", ["one", "many", "flag decider alone"])
def test_a_stop_holds_in_the_lane_within_the_staleness(both, caplog, clock, database, request_name):
    quick, _ = both
    request = ANSWERED[request_name]
    assert b'"decider":"model"' in send(quick, caplog, **request)[2].replace(b": ", b":")
    field.stop(database, ("creek", "day"), ("lake", "day"))
    clock.advance(timedelta(seconds=MAX_STALENESS))
    for _ in range(2):  # the route reads the stop, the fast path has it then
        assert b'"decider":"model"' not in send(quick, caplog, **request)[2].replace(b": ", b":")


@on_sqlite
@pytest.mark.parametrize("request_name", ["one", "flag decider alone"])
def test_an_error_in_the_lane_is_left_to_the_route(both, caplog, monkeypatch, request_name):
    quick, plain = both

    def fail(*_):
        raise ValueError("a fault of the fast path")

    expected = send(plain, caplog, **ANSWERED[request_name])
    monkeypatch.setattr("api.assignments.routes.answer_from_memory", fail)
    monkeypatch.setattr("api.assignments.ofrep.answer_from_memory", fail)
    assert send(quick, caplog, **ANSWERED[request_name]) == expected


@on_sqlite
@pytest.mark.parametrize("request_name", ["one", "many", "flag decider alone"])
def test_an_answer_of_the_lane_asks_no_thread_and_no_database(
    both, caplog, monkeypatch, database, request_name
):
    quick, _ = both

    def refuse(*_, **__):
        raise AssertionError("the database was asked")

    monkeypatch.setattr(database, "begin_read", refuse)
    monkeypatch.setattr(database, "begin_write", refuse)
    monkeypatch.setattr("api.priority_threads.ASSIGNMENT_THREADS", None)
    assert send(quick, caplog, **ANSWERED[request_name])[0] == 200


def read(parse, body):
    try:
        context = parse(body)
    except InvalidContextError as error:
        return error.code, error.details
    return told(context.question), context.head_text


@pytest.mark.parametrize("name", [*CONTEXT, "episode", "confidence", "ledger_head", "weather", ""])
def test_each_field_of_a_context_is_read_as_by_the_rules(name):
    for edge in EDGES:
        body = text({"context": CONTEXT | {name: edge}})
        assert read(parse_context, body) == read(parse_any_context, body), body


@given(spoilt(json.dumps({"context": CONTEXT | {"confidence": 0.5, "ledger_head": "a:1:f:c"}})))
def test_a_spoilt_context_is_read_as_by_the_rules(body):
    assert read(parse_context, body) == read(parse_any_context, body)


def test_a_context_without_attributes_is_read_at_once(monkeypatch):
    monkeypatch.setattr("api.assignments.ofrep.parse_any_context", None)
    assert parse_context(text({"context": CONTEXT})).question.key == ALONE


def count_calls(client, count):
    """Return the calls, also of built-in functions, that answering from memory makes."""
    body = json.dumps({"questions": [question(f"case-{n}", "creek") for n in range(count)]})
    state, calls = client.app.state, []
    caller = Caller("box", role_assignments=(AssignedRole("ingest", "bears"),))
    state.service.state_cache.reload_rollout("bears")
    sys.setprofile(lambda _frame, kind, _: calls.append(kind in {"call", "c_call"}))
    try:
        answer = find_quick_answer(state.service, state.counts, caller, "bears", body.encode())
    finally:
        sys.setprofile(None)
    assert answer.count(b'"decider": "model"') == count
    return sum(calls)


@on_sqlite
def test_each_more_question_of_a_batch_costs_few_calls(both):
    """Seen: `json.dumps` of a null in each answer made a batch dearer by a third."""
    quick, _ = both
    count_calls(quick, 40)
    assert (count_calls(quick, 40) - count_calls(quick, 20)) / 20 <= 23
