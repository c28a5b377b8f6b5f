"""Stops while the database does not respond: who stops is identified by what was read before."""

import shutil
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import pytest
from starlette.testclient import TestClient

from api import auth
from api.app import create_app
from api.web_kit.page_context import TOKEN_FIELD, mask_token
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.data.database.session import SQLITE_PRAGMAS, Database
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from rollout.features.access.authentication import (
    MAX_CACHE_AGE,
    SESSION_IDLE_TIMEOUT,
    Authenticator,
)
from rollout.features.access.sign_in import SignIn
from rollout.features.stops.stops import ALSO_AFTER_RESTART, NARROWING_KEPT, UNTIL_RESTART
from rollout.live.stop_latches import LatchFolder
from tests.api.access.test_sign_in_queue import SECONDS, wait_until
from tests.api.assignments.test_autonomy import CREEK, V1, Replica, _clocks_agree, events
from tests.api.test_database_outages import is_problem, let_fail
from tests.api.test_shell import problem_of
from tests.data.databases import on_sqlite
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.features import bear_field as field
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import ADA, PASSWORD, chance

__all__ = ["_clocks_agree"]
CONSOLE_STOP = "/console/rollouts/bears/stop/confirm"
NARROWING = {"sites": ["creek"], "to": "shadow"}
PEOPLE = {
    "oli": (AssignedRole("operator"),),
    "cleo": (AssignedRole("operator", "bears", "lake"),),
}


@filled_once
def inhabit(database):
    """Let the model decide everywhere, and add operators with a password."""
    field.autonomous(database)
    users.create_first_admin(database, "ada", at=NOON)
    for name, roles in PEOPLE.items():
        users.create_account(database, ADA, name, at=NOON, role_assignments=roles)
    box = (AssignedRole("ingest"), AssignedRole("viewer"))
    users.create_account(
        database, ADA, "box", at=NOON, is_service_account=True, role_assignments=box
    )


@dataclass
class Town:
    """A replica with real authentication, which knows everybody's key and oli's session."""

    replica: Replica
    keys: dict
    session: object
    browser: TestClient

    @property
    def latches(self):
        return self.replica.service.autonomy.latches

    def by(self, name):
        return self.replica.client.by(self.keys[name])

    def stop(self, name="oli", body=CREEK):
        return self.by(name).post(f"{V1}/stops", json=body)

    def stop_by_session(self, csrf=None):
        headers = {"X-CSRF-Token": self.session.csrf if csrf is None else csrf}
        return self.browser.post(f"{V1}/stops", json=CREEK, headers=headers)

    def stop_by_form(self, page_token=None):
        token = mask_token(self.session.csrf, chance) if page_token is None else page_token
        form = {TOKEN_FIELD: token, "target": "site/creek", "reason": "smoke"}
        return self.browser.post(CONSOLE_STOP, data=form, follow_redirects=False)

    def narrow(self):
        return self.by("oli").post(f"{V1}/narrowings", json=NARROWING)

    def decider(self, site="creek"):
        self.replica.pass_time()
        self.by("box")
        self.replica.client.by = lambda _name: self.replica.client
        try:
            return self.replica.decider(site)
        finally:
            del self.replica.client.by

    def recover(self):
        """Repeat what is latched, as the heartbeats' thread does once the database is back."""
        self.replica.beat()
        self.replica.beat()


def build_town(database, clock, folder):
    inhabit(database)
    signing = SignIn(database, clock, chance, QUICK)
    signing.set_password(ADA, "oli", PASSWORD, at=NOON)
    session = signing.sign_in_with_password("oli", PASSWORD, address="a", at=NOON)
    texts = {
        name: keys.create_key(database, ADA, name, random_bytes=chance(), at=NOON).text
        for name in (*PEOPLE, "box")
    }
    door = Authenticator(database, clock)
    replica = Replica(database, door, clock, LatchFolder(folder / "kept"))
    replica.beat()
    browser = TestClient(create_app(replica.service), base_url="http://localhost:8000")
    browser.cookies.set("rollout", session.token)
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    made = Town(replica, texts, session, browser)
    assert browser.get("/v1/me").status_code == 200
    assert made.decider() == "model"
    clock.since_boot += MAX_CACHE_AGE
    return made


@pytest.fixture
def town(database, clock, tmp_path):
    return build_town(database, clock, tmp_path)


@contextmanager
def outage(database):
    """Let every transaction fail, as while a server is down."""
    with pytest.MonkeyPatch.context() as patch:
        let_fail(patch, database)
        yield


STOPS = {
    "key": Town.stop,
    "session": Town.stop_by_session,
    "form": Town.stop_by_form,
    "narrowing": Town.narrow,
}


@pytest.mark.slow
@pytest.mark.parametrize("way", STOPS)
def test_a_stop_is_latched_and_later_names_who_it_was(town, database, tmp_path, way):
    with outage(database):
        answer = STOPS[way](town)
        assert answer.status_code == 503
        text = NARROWING_KEPT if way == "narrowing" else ALSO_AFTER_RESTART
        if way == "form":
            assert text[:40] in answer.text[: answer.text.index("</main>")].replace("This", "this")
        else:
            assert (problem_of(answer)[1], answer.json()["detail"]) == ("stop-not-stored", text)
        assert len(town.latches.stops) + len(town.latches.narrowings) == 1
        assert len(list((tmp_path / "kept").glob("*.json"))) == 1
    kind = "Narrowed" if way == "narrowing" else "Stopped"
    assert events(database, kind) == []
    town.recover()
    (row,) = events(database, kind)
    head = town.replica.service.authenticator.authenticate_key(town.keys["oli"], NOON).access_head
    assert (row.by, row.access_head) == ("oli", head)
    assert (town.decider(), town.decider("lake")) == ("human", "model")


@pytest.fixture
def deaf(town, monkeypatch):
    """Let authentication alone meet no database, so that who is identified is served."""
    door = town.replica.service.authenticator

    class Gone:
        def begin_read(self):
            raise DatabaseUnavailableError("the database does not respond; nothing was done, retry")

    monkeypatch.setattr(door, "_database", Gone())
    return town


@on_sqlite
def test_a_stop_that_finds_the_database_back_is_written(deaf, database):
    assert deaf.stop().status_code == 201
    assert [row.by for row in events(database, "Stopped")] == ["oli"]


@on_sqlite
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{V1}/cells"),
        ("GET", f"{V1}/stops"),
        ("GET", "/v1/me"),
        ("GET", "/console/rollouts/bears/stop"),
        ("POST", f"{V1}/stops/S-1/resume"),
        ("POST", f"{V1}/proposals/P-1/approvals"),
        ("POST", f"{V1}/proposals/P-1/rejection"),
        ("POST", f"{V1}/versions/v1/retirement"),
        ("POST", f"{V1}/records"),
        ("POST", "/v1/keys"),
        ("PUT", f"{V1}/stops"),
        ("POST", f"{V1}/proposals/stops"),
    ],
)
def test_nothing_but_stops_and_narrowings_is_identified(deaf, monkeypatch, method, path):
    identified = []
    app = "api.limits.RequestRates.take_for_caller"
    monkeypatch.setattr(app, lambda _rates, caller, _key: identified.append(caller) or True)
    headers = {"X-CSRF-Token": deaf.session.csrf}
    for answer in (
        deaf.by("oli").request(method, path, json={}),
        deaf.browser.request(method, path, json={}, headers=headers),
    ):
        assert answer.status_code in {405, 503}, answer.text
    assert identified == []


@on_sqlite
def test_the_permissions_last_read_hold(deaf):
    refused = deaf.stop("cleo")
    assert problem_of(refused) == (403, "not-allowed")
    assert deaf.stop("cleo", {"sites": ["lake"]}).status_code == 201
    assert deaf.stop("box").status_code == 403


@on_sqlite
@pytest.mark.parametrize("way", ["session", "form"])
def test_a_session_needs_its_page_token(town, database, way):
    with outage(database):
        assert STOPS[way](town, "AAAA").status_code == 403
        town.browser.headers["Sec-Fetch-Site"] = "cross-site"
        assert STOPS[way](town).status_code == 403
    assert town.latches.stops == ()


def end_session(town, database, clock):
    town.replica.service.sign_in.sign_out(town.session.token, at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    town.browser.get("/v1/me")


def sign_out(town, database, clock):
    answer = town.browser.delete("/v1/session", headers={"X-CSRF-Token": town.session.csrf})
    assert answer.status_code == 204
    town.browser.cookies.set("rollout", town.session.token)


def disable(town, database, clock):
    users.update_account(database, ADA, "oli", users.AccountUpdate(is_disabled=True), at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    town.by("box").get("/v1/me")


def wait_long(town, database, clock):
    clock.since_boot += 3600


def stay_idle(town, database, clock):
    clock.at += SESSION_IDLE_TIMEOUT


@on_sqlite
@pytest.mark.parametrize(
    ("way", "change"),
    [
        ("session", end_session),
        ("session", sign_out),
        ("session", disable),
        ("key", disable),
        ("session", wait_long),
        ("key", wait_long),
        ("session", stay_idle),
    ],
)
def test_who_was_seen_to_leave_or_was_read_long_ago_is_refused(town, database, clock, way, change):
    change(town, database, clock)
    with outage(database):
        assert is_problem(STOPS[way](town))
    assert town.latches.stops == ()


@on_sqlite
def test_a_database_that_responds_decides(town, database):
    users.update_account(database, ADA, "oli", users.AccountUpdate(is_disabled=True), at=NOON)
    assert town.stop().status_code == 401
    assert town.stop_by_session().status_code == 401
    assert town.latches.stops == ()


@on_sqlite
def test_a_stop_does_not_wait_for_a_database_that_hangs(town, database, monkeypatch):
    is_over, ended = Event(), []

    @contextmanager
    def hang(**_):
        ended.append(is_over.wait(SECONDS))
        raise ConnectionError
        yield

    monkeypatch.setattr(auth, "LOOK_UP_SECONDS", 0.02)
    monkeypatch.setattr(type(database), "begin_read", lambda _self: hang())
    monkeypatch.setattr(type(database), "begin_write", lambda _self, **_: hang())
    answers = []
    stop = Thread(target=lambda: answers.append(town.stop()))
    stop.start()
    try:
        wait_until(lambda: town.latches.stops)
        assert ended == [], "not even the look-up of the caller"
    finally:
        is_over.set()
        stop.join()
    assert answers[0].status_code == 503


@pytest.mark.slow
@on_sqlite
def test_a_stop_holds_while_another_program_locks_the_file(database, clock, tmp_path, monkeypatch):
    monkeypatch.setitem(SQLITE_PRAGMAS, "busy_timeout", ("20", 20))
    shutil.copy(database.file, tmp_path / "own.db")  # which no other connection of a test has open
    own = Database(f"sqlite:///{tmp_path / 'own.db'}")
    town = build_town(own, clock, tmp_path)
    own.close()
    with locked(own.file):
        assert town.stop().json()["detail"] == ALSO_AFTER_RESTART
        assert town.stop_by_form().status_code == 503
    town.recover()
    assert [row.by for row in events(own, "Stopped")] == ["oli", "oli"]  # a window, then the site
    assert town.decider() == "human"
    own.close()


@contextmanager
def locked(file):
    """Keep all others out of SQLite's file, and prove it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("pragma locking_mode=exclusive")
        connection.execute("begin exclusive")
        with (
            closing(sqlite3.connect(file, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("select count(*) from users")
        yield
        connection.execute("rollback")


@on_sqlite
def test_without_a_folder_the_answer_says_until_when(town, database):
    town.latches.folder = LatchFolder()
    with outage(database):
        assert town.stop().json()["detail"] == UNTIL_RESTART
