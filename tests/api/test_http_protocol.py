"""Either parser refuses a head without end and unclear borders, and believes no trailer."""

import socket
import threading
import time
from importlib.util import find_spec

import pytest
import uvicorn

from api import serve
from api.http_protocol import HTTP_PROTOCOL, MAX_HEAD_BYTES
from api.limits import ConnectionLimits, build_protocol
from rollout.settings import Settings

pytestmark = pytest.mark.enable_socket  # a server on this machine is asked
KIB = 2**10
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
LIMITS = ConnectionLimits(1_000)
PARSERS = {
    "h11": "h11",
    "selected": HTTP_PROTOCOL,
    "h11 with limits": build_protocol(LIMITS, "h11"),
    "selected with limits": build_protocol(LIMITS),
}


async def describe_request(scope, receive, send):
    """Answer with the length of the body, and the headers that it has at the end."""
    size, has_more = 0, True
    while has_more:
        message = await receive()
        size += len(message.get("body", b""))
        has_more = message.get("more_body", False)
    text = b"%d %s" % (size, b" ".join(name + b"=" + value for name, value in scope["headers"]))
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture(params=PARSERS, scope="module")
def address(request):
    config = uvicorn.Config(
        describe_request,
        http=PARSERS[request.param],
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        lifespan="off",
        log_level="critical",
    )
    server, listening = uvicorn.Server(config), socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join(10)


def ask(address, *parts):
    """Return what the server sends until it closes, or b"" if it resets the connection."""
    with socket.create_connection(address, timeout=10) as line:
        answer = b""
        try:
            for part in parts:
                line.sendall(part)
            while part := line.recv(KIB):
                answer += part
        except ConnectionError:
            return answer
        return answer


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET /",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
    ],
    ids=["a header", "headers", "a path", "a trailer"],
)
def test_a_head_without_end_is_refused(address, start):
    more = b"X: a\r\n" * KIB if start.endswith(b"a\r\n") else b"a" * KIB
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(start)
        with pytest.raises(ConnectionError):  # closed, long before all is sent
            line.sendall(more * 16 * KIB)
    assert ask(address, HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na").startswith(
        b"HTTP/1.1 200"
    )


def test_a_long_body_is_no_long_head(address):
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (KIB * KIB)
    answer = ask(address, head, *[b"a" * KIB] * KIB)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"%d host=a" % (KIB * KIB) in answer


def test_a_head_in_pieces_is_read(address):
    head = HEAD + b"X: " + b"a" * 20 * KIB + b"\r\nConnection: close\r\nContent-Length: 1\r\n\r\n"
    answer = ask(address, *(head[n : n + 100] for n in range(0, len(head), 100)), b"a")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x=" + b"a" * 20 * KIB in answer


def test_a_trailer_is_no_header(address):
    body = b"1\r\na\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    answer = ask(address, HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"1 host=a" in answer
    assert b"1.2.3.4" not in answer


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ],
)
def test_a_body_of_unclear_length_hides_no_second_request(address, lengths):
    hidden = b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: b\r\n\r\n"
    answer = ask(address, HEAD + lengths + b"\r\n" + hidden)
    assert answer.count(b"HTTP/1.1 200") <= 1
    assert b"host=b" not in answer


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0"])
@pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "later"])
def test_a_body_after_an_offer_of_a_protocol_is_no_second_request(address, protocol, pause):
    """Some clients offer h2c with each first request, and send a body."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: b\r\n\r\n"
    offer = b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"
    head = HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(hidden)
    last = HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(head)
        time.sleep(pause)
        line.sendall(hidden + last)
        answer = b"".join(iter(lambda: line.recv(KIB), b""))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"%d host=a" % len(hidden) in answer
    assert b"host=b" not in answer


def test_serve_takes_the_faster_parser_that_is_installed():
    config = serve.build_server_config(describe_request, Settings(), "127.0.0.1", 0)
    config.load()
    names = [parent.__name__ for parent in config.http_protocol_class.__mro__]
    assert names[:2] == ["LimitedProtocol", "GuardedConnection"]
    assert names[2] == ("BoundedHttpProtocol" if find_spec("httptools") else "H11Protocol")
    assert config.h11_max_incomplete_event_size == MAX_HEAD_BYTES  # either reads as long a head
