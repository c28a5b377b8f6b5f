"""The client's README against a service on this machine, and what its connection refuses."""

import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from rollout.store.database.session import Database
from rollout_client.connection import ServiceConnection
from rollout_client.seen_heads import LedgerHead
from tests.api.conftest import Doorkeeper
from tests.docs.pages import text_of
from tests.served import served
from tests.services import bear_field as field
from tests.services.bear_field import keys
from tests.store.databases import fresh

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
