"""No body kills the service: what is too large, too slow or no gzip is a problem without effect."""

import asyncio
import gzip
from datetime import timedelta

import pytest
from fastapi import APIRouter, Request

from api import limits
from api.app import add_routes, create_app
from api.auth import Permission, RequirePermission
from api.limits import RequestRates
from rollout.settings import REQUEST_RATE
from tests.api.conftest import Asking

MIB = 2**20
router = APIRouter(prefix="/v1/echo", include_in_schema=False)


@router.post("", dependencies=[RequirePermission(Permission.IDENTIFY)])
async def echo(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@pytest.fixture
def app(service):
    made = create_app(service)
    add_routes(made, router)
    return made


@pytest.fixture
def echoing(app):
    with Asking(app, raise_server_exceptions=False) as asking:
        yield asking.by("ana")


def sent(client, body, **headers):
    answer = client.post("/v1/echo", content=body, headers=headers)
    return answer.status_code, answer.json().get("code") or answer.json()["bytes"]


def test_a_body_within_the_limits_comes_through(echoing):
    assert sent(echoing, b"x" * MIB) == (200, MIB)
    assert sent(echoing, gzip.compress(b"x" * MIB), **{"Content-Encoding": "gzip"}) == (200, MIB)
    two = gzip.compress(b"one") + gzip.compress(b"two")
    assert sent(echoing, two, **{"Content-Encoding": "gzip"}) == (200, 6)


def test_a_body_of_ten_megabytes_is_refused(echoing):
    assert sent(echoing, b"x" * 10 * MIB) == (413, "too-large")
    pieces = (b"x" * MIB for _ in range(10))  # in chunks, without a length
    assert sent(echoing, pieces) == (413, "too-large")


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_before_it_is_whole(echoing):
    bomb = gzip.compress(b"\0" * 64 * MIB)
    assert len(bomb) < MIB
    assert sent(echoing, bomb, **{"Content-Encoding": "gzip"}) == (413, "too-large")
    many = gzip.compress(b"\0" * 20 * MIB) * 2
    assert sent(echoing, many, **{"Content-Encoding": "gzip"}) == (413, "too-large")


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"cut short")[:-9], gzip.compress(b"x") + b"?"],
    ids=["no gzip", "cut short", "followed by more"],  # a gzip holds the time it was made at
)
def test_what_is_no_whole_gzip_is_refused(echoing, body):
    assert sent(echoing, body, **{"Content-Encoding": "gzip"}) == (400, "broken-encoding")


def test_another_encoding_is_refused_with_what_would_be_right(echoing):
    assert sent(echoing, b"x", **{"Content-Encoding": "br"}) == (415, "unknown-encoding")


def test_strangers_may_send_little(echoing):
    del echoing.headers["Authorization"]
    assert sent(echoing, b"x" * MIB) == (413, "too-large")
    assert sent(echoing, b"x") == (401, "unauthenticated")


def test_what_is_held_is_given_back(echoing, app):
    for _ in range(3):
        sent(echoing, b"x" * MIB)
        sent(echoing, b"x" * 10 * MIB)
    middleware = app.middleware_stack
    while not isinstance(middleware, limits.LimitsMiddleware):
        middleware = middleware.app
    assert middleware.held_bytes == 0


def test_too_much_at_once_is_refused_shortly(echoing, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TOTAL_BYTES", MIB - 1)
    assert sent(echoing, b"x" * MIB) == (503, "too-many-requests")
    assert sent(echoing, b"x") == (200, 1)


def test_a_body_may_be_as_large_as_each_limit(echoing, monkeypatch):
    monkeypatch.setattr(limits, "MAX_RAW_BYTES", 8)
    monkeypatch.setattr(limits, "MAX_TOTAL_BYTES", 8)
    assert sent(echoing, b"x" * 8) == (200, 8)
    monkeypatch.setattr(limits, "MAX_TOTAL_BYTES", 9)
    assert sent(echoing, b"x" * 9) == (413, "too-large")


def answer_to_pieces(clock, pieces):
    """Return the body that the application gets of these messages, or the status in its place."""
    messages, answers = list(pieces), []

    async def receive():
        return messages.pop(0)

    async def send(message):
        answers.append(message.get("status"))

    async def take(scope, receive, send):
        answers.append((await receive())["body"])

    scope = {"type": "http", "method": "POST", "path": "/v1/echo", "headers": [], "state": {}}
    asyncio.run(limits.LimitsMiddleware(take, RequestRates(clock))(scope, receive, send))
    return answers[0]


@pytest.mark.parametrize(("last", "answer"), [(3, b"x" * 8), (4, 413)])
def test_a_body_in_pieces_may_be_as_large_as_the_limit(clock, monkeypatch, last, answer):
    monkeypatch.setattr(limits, "MAX_ANONYMOUS_BYTES", 8)
    pieces = [{"body": b"x" * 5, "more_body": True}, {"body": b"x" * last}]
    assert answer_to_pieces(clock, pieces) == answer


@pytest.mark.parametrize("pieces", [[], [{"body": b"rollout: bears\n", "more_body": True}]])
def test_a_body_that_is_cut_has_no_effect(clock, pieces):
    assert answer_to_pieces(clock, [*pieces, {"type": "http.disconnect"}]) == 408


def test_a_body_that_never_ends_is_given_up(service, monkeypatch):
    monkeypatch.setattr(limits, "BODY_TIMEOUT", 0.05)
    said = []

    async def never():
        await asyncio.sleep(60)

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/echo", "headers": [], "state": {}}
    asyncio.run(
        limits.LimitsMiddleware(create_app(service), RequestRates(service.clock))(
            scope, never, send
        )
    )
    assert said[0]["status"] == 408


def test_one_caller_can_not_take_all_the_time_and_a_stop_is_never_held_up(
    echoing, clock, monkeypatch
):
    monkeypatch.setattr(limits, "BURST_SECONDS", 2 / REQUEST_RATE)
    assert [sent(echoing, b"x")[0] for _ in range(3)] == [200, 200, 429]
    assert sent(echoing.by("bo"), b"x")[0] == 200
    stop = echoing.by("ana").post("/v1/rollouts/none/stops")
    assert stop.status_code != 429
    clock.advance(timedelta(seconds=1))
    assert sent(echoing, b"x")[0] == 200


def test_every_answer_says_how_browsers_may_use_it(echoing):
    headers = echoing.get("/v1/rollouts").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    rules = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(rules)
    assert "strict-transport-security" not in headers  # without TLS, browsers ignore it


def test_no_other_origin_is_let_in(echoing):
    origin = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for answer in (
        echoing.get("/v1/rollouts", headers=origin),
        echoing.options("/v1/rollouts", headers=origin),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/v1/me/", "/v1/rollouts/?site=creek", "/health/live/"])
def test_no_redirect_follows_the_host_header(echoing, path):
    answer = echoing.get(path, headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (
        307,
        path.replace("/?", "?").rstrip("/"),
    )
    assert echoing.get(path).is_success


def test_trace_is_no_method(echoing):
    assert echoing.request("TRACE", "/v1/rollouts").status_code == 405


def test_over_tls_browsers_are_told_to_stay_there(echoing):
    answer = echoing.get("https://testserver/v1/rollouts")
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
