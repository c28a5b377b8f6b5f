"""The console behind two service processes that take turns, request by request: nothing sticks."""

import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rollout.data.database.session import Database
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.sign_in import SignIn
from rollout.live.clock import SystemClock
from rollout.live.rollout_state import load_rollout_state
from tests.api import bears
from tests.api.test_serve import serving, until_ready
from tests.browser.chromium import chromium, needs_chromium
from tests.browser.console_pages import windows
from tests.browser.town import HASHER, served
from tests.data.databases import fresh
from tests.features.houses import PASSWORD, chance

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # servers on this machine are asked

HOP = {"content-length", "transfer-encoding", "connection", "content-encoding"}
PATIENCE = 20_000  # milliseconds: machines are busy


def furnished(url):
    """Make a rollout with a proposal, and three people; at the machine's time."""
    database, now = Database(url), datetime.now(UTC)
    bears.founded(database, now - timedelta(hours=2))
    bears.tick(database, now - timedelta(hours=1))
    users.create_first_admin(database, "ada", at=now)
    ada = users.load_local_caller(database, "ada")
    signing = SignIn(database, SystemClock(), chance, HASHER)
    for name in ("ana", "bo", "vic"):
        rights = (
            AssignedRole("viewer"),
            *((AssignedRole("operator"),) if name != "vic" else ()),
        )
        users.create_account(database, ada, name, at=now, role_assignments=rights)
        signing.set_password(ada, name, PASSWORD, at=now)
    return database


@contextmanager
def taking_turns(addresses):
    """Serve an address behind which each request goes to the next of `addresses`."""
    turns, lock = cycle(addresses), threading.Lock()
    asking = httpx2.Client(timeout=60)

    def forward(request: Request, body: bytes) -> Response:
        with lock:
            to = next(turns)
        query = f"?{request.url.query}" if request.url.query else ""
        headers = [(k, v) for k, v in request.headers.raw if k.decode() not in HOP]
        path = request.scope["raw_path"].decode()
        got = asking.request(request.method, f"{to}{path}{query}", headers=headers, content=body)
        answer = Response(got.content, got.status_code)
        kept = [(k.lower(), v) for k, v in got.headers.raw if k.decode().lower() not in HOP]
        answer.raw_headers = [*kept, (b"content-length", str(len(got.content)).encode())]
        return answer

    async def handle(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool  # noqa: PLC0415

        return await run_in_threadpool(forward, request, await request.body())

    methods = ["GET", "POST"]
    app = Starlette(routes=[Route("/{path:path}", handle, methods=methods)])
    with asking, served(app) as address:
        yield address


def test_two_people_approve_and_one_stops_while_each_request_goes_to_another_process(tmp_path):
    with fresh("postgresql", tmp_path) as url:
        database = furnished(url)
        try:
            with (
                serving(url) as (one, _),
                serving(url) as (other, _),
                chromium() as browser,
            ):
                until_ready(one)
                until_ready(other)
                with taking_turns([one, other]) as address, windows(browser, address) as opened:
                    _lived(opened, database)
        finally:
            database.close()


def _lived(opened, database):
    vic = opened().as_("vic").open("/rollouts/bears")
    for name in ("ana", "bo"):
        page = opened().as_(name).page
        page.click("a:has-text('Read and decide')", timeout=PATIENCE)
        page.fill("#reason", "seen")
        page.click("form button:has-text('Approve')")
    assert "2 of 2" in page.inner_text("aside")
    page.click("a:has-text('Stop…')")
    page.click("button:has-text('Continue')")
    page.click("button:has-text('Stop now')")
    vic.wait_for_selector("[aria-labelledby=cells-h] :text('Stopped')", timeout=PATIENCE)
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
    assert stood.scope.is_stopped(bears.CREEK)
