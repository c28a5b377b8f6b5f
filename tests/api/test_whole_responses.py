"""A client of tests that asks in one step is answered as Starlette's own client is."""

from contextlib import nullcontext

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient, _TestClientTransport

from tests.whole_responses import WholeResponseTransport

NUMBERS = list(range(500))
METHODS = ["GET", "POST", "HEAD", "OPTIONS"]
REQUESTS = [
    ("GET", "/echo?x=1&x=%20", {}),
    ("POST", "/echo", {"content": b"body", "headers": {"X-Two": "1"}}),
    ("POST", "/echo", {"data": {"name": "ana", "to": "é"}}),
    ("POST", "/echo", {"content": (b"in ", b"parts")}),
    ("HEAD", "/echo", {}),
    ("GET", "/redirect", {}),
    ("GET", "/redirect", {"follow_redirects": False}),
    ("GET", "/stream", {}),
    ("GET", "/sp%C3%A4te/a%2Fb", {}),
    ("GET", "/späte/name", {"headers": {"Host": "elsewhere.example:81"}}),
    ("GET", "/nowhere", {}),
    ("OPTIONS", "/stream", {}),
]
"""Method, path, and what else is sent."""


def build_app(done):
    async def echo(request):
        scope = request.scope
        told = {name: str(scope[name]) for name in ("path", "raw_path", "query_string", "server")}
        body = (await request.body()).decode()
        task = BackgroundTask(done.append, request.method)
        headers = sorted(request.headers.items())
        return JSONResponse([told, body, headers, NUMBERS], status_code=201, background=task)

    def redirect(_request):
        answer = RedirectResponse("/echo?a=b c", status_code=303)
        answer.set_cookie("seen", "yes")
        return answer

    def stream(_request):
        return StreamingResponse(f"{number}\n" for number in NUMBERS)

    def fail(_request):
        raise LookupError("it fails")

    endpoints = {"/echo": echo, "/redirect": redirect, "/stream": stream, "/fail": fail}
    endpoints["/späte/{name}"] = echo
    app = Starlette(routes=[Route(path, e, methods=METHODS) for path, e in endpoints.items()])
    app.add_middleware(GZipMiddleware, minimum_size=1_000)
    return app


@pytest.fixture(params=[_TestClientTransport, WholeResponseTransport])
def transport(request, monkeypatch):
    monkeypatch.setattr("starlette.testclient._TestClientTransport", request.param)
    return request.param


def ask_everything(transport, monkeypatch, *, is_entered):
    """Return each answer with the client's cookies, and what was done in the background."""
    monkeypatch.setattr("starlette.testclient._TestClientTransport", transport)
    done, answers = [], []
    client = TestClient(build_app(done))
    with client if is_entered else nullcontext():
        for method, path, how in REQUESTS:
            answer = client.request(method, path, **how)
            headers = answer.headers.multi_items()
            answers.append((answer.status_code, headers, answer.content, dict(client.cookies)))
    return answers, done


@pytest.mark.slow
@pytest.mark.parametrize("is_entered", [True, False], ids=["one loop", "a loop for each"])
def test_each_answer_is_that_of_starlettes_client(monkeypatch, is_entered):
    own = ask_everything(_TestClientTransport, monkeypatch, is_entered=is_entered)
    whole = ask_everything(WholeResponseTransport, monkeypatch, is_entered=is_entered)
    assert whole == own
    assert {answer[0] for answer in own[0]} == {200, 201, 303, 404}
    assert len(own[1]) == 7


def test_a_fault_is_raised_or_answered_with_500_as_asked(transport):
    with pytest.raises(LookupError, match="it fails"):
        TestClient(build_app([])).get("/fail")
    answer = TestClient(build_app([]), raise_server_exceptions=False).get("/fail")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_an_application_that_sends_nothing_is_noticed(transport):
    async def say_nothing(_scope, _receive, _send):
        pass

    with pytest.raises(AssertionError, match="response"):
        TestClient(say_nothing).get("/")
    assert TestClient(say_nothing, raise_server_exceptions=False).get("/").status_code == 500


def test_an_event_stream_is_read_while_it_is_sent(monkeypatch):
    async def send_for_ever(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"data\n", "more_body": True})

    monkeypatch.setattr("starlette.testclient._TestClientTransport", WholeResponseTransport)
    with TestClient(send_for_ever).stream("GET", "/v1/events") as stream:
        assert next(stream.iter_lines()) == "data"
