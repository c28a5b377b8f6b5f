"""The client's README against a service on this machine, and what its connection refuses."""

import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from rollout.data.database.session import Database
from rollout_client import connection
from rollout_client.connection import ServiceConnection
from rollout_client.seen_heads import LedgerHead
from tests.api.conftest import Doorkeeper
from tests.data.databases import fresh
from tests.docs.pages import text_of
from tests.features import bear_field as field
from tests.features.bear_field import keys
from tests.served import served

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]  # a service on this machine
(SNIPPET,) = re.findall(r"```python\n(.*?)```", text_of("clients/python/README.md"), re.DOTALL)


@pytest.fixture
def database(tmp_path):
    policy = field.POLICY.replace("08:00-20:00", "24/7")
    with fresh("sqlite", tmp_path) as url:
        made = Database(url)
        field.set_up_field(
            made,
            datetime.now(UTC) - timedelta(days=1),
            policy.replace(", {id: night, hours: 24/7}", ""),
        )
        yield made
        made.close()


@pytest.mark.parametrize("is_widened", [True, False])
def test_the_readmes_example_decides_and_uploads(
    tmp_path, monkeypatch, database, capsys, is_widened
):
    if is_widened:
        field.widen(
            database,
            ("creek", "day"),
            to="autonomous",
            at=datetime.now(UTC) - timedelta(hours=1),
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(database, Doorkeeper()) as url:
        code = SNIPPET.replace("https://rollout.example.org", url).replace("ro_…", "ingest")
        code = code.replace('"bear-alarm"', '"bears"').replace(
            "creek-000123", keys(0.1, below=False)[0]
        )
        names = {}
        exec(code, names)  # noqa: S102 - the page's own lines
    decider = "model" if is_widened else "human"
    assert capsys.readouterr().out.splitlines()[-1] == f"{decider} 2"
    assert names["spool"].list_refused() == []
    assert names["client"].head_store.load().revision > 0


class OddServer(BaseHTTPRequestHandler):
    """Redirects reads, and asks uploads to wait."""

    seen_paths: tuple[str, ...] = ()

    def do_GET(self):
        type(self).seen_paths += (self.path,)
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503)
        self.send_header("Retry-After", "7")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_key_follows_no_redirect_and_a_wait_is_read(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), OddServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        service = ServiceConnection(f"http://127.0.0.1:{server.server_port}", "ro_key", "a/b")
        with pytest.raises(OSError, match="GET scope got 302"):
            service.fetch_scope(LedgerHead(7, "9f", 1, "1.1.2"), ("creek", "lake"))
        reply = service.send_lines(b"{}\n")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    path, _, query = OddServer.seen_paths[0].partition("?")
    assert (len(OddServer.seen_paths), path) == (1, "/v1/rollouts/a%2Fb/scope")
    head = "form=table-1&ledger_revision=7&ledger_hash=9f&ledger_code=1.1.2"
    assert query == f"{head}&site=creek&site=lake"
    assert (reply.status, reply.retry_after) == (503, 7.0)


class BrokenServer(BaseHTTPRequestHandler):
    """Sends what its address names: no JSON, half a body, no HTTP, or the request's own headers."""

    def do_GET(self):
        kind = self.path.split("/")[-2]
        if kind == "garbage":
            self.wfile.write(b"\0\0\0\r\n\r\n")
            return
        self.send_response(400 if kind == "echo" else 200)
        body = {"page": b"<html>log in</html>", "echo": str(self.headers).encode()}
        body |= {"half": b'{"revision"', "deep": b"[" * 100_000, "huge": b" " * 5_000}
        length = len(body[kind]) + (10 if kind == "half" else 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[kind])

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("kind", ["page", "half", "garbage", "deep", "huge", "echo"])
def test_each_broken_answer_is_an_os_error_without_the_key(monkeypatch, kind):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(connection, "MAX_BODY_BYTES", 200_000 if kind == "deep" else 1_000)
    server = HTTPServer(("127.0.0.1", 0), BrokenServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        service = ServiceConnection(f"http://127.0.0.1:{server.server_port}", "ro_secret", kind)
        with pytest.raises(OSError, match=r"GET scope got|response|HTTP|closed") as caught:
            service.fetch_scope(LedgerHead())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "secret" not in f"{caught.value!r} {caught.value.__context__!r} {service!r}"


@pytest.mark.parametrize("key", ["ro_secret\n", "", "ro_secret…", "ro_ secret"])
def test_a_key_that_no_header_takes_is_refused_without_showing_it(key):
    with pytest.raises(ValueError, match="the API key") as caught:
        ServiceConnection("https://rollout.example.org", key, "bears")
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize("url", ["https:", "https://", "http:host", "ftp://host"])
def test_an_address_without_a_host_is_refused(url):
    with pytest.raises(ValueError, match="no http"):
        ServiceConnection(url, "ro_key", "bears")
