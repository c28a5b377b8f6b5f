"""The live demo's links and speed: for this machine only, and safe from other pages."""

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from api.app import LazyConsole, create_app
from api.demo.live import DemoPages, Playback, create_tokens
from rollout.features.access.authentication import Authenticator
from rollout.features.demo.accounts import ROLES_BY_USER, create_demo_accounts, create_demo_keys
from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.kernel.policy_files.reader import load_policy
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.page_text import collapse_space

LOOPBACK, ELSEWHERE = ("127.0.0.1", 50_000), ("192.0.2.7", 50_000)
EXAMPLE = find_example(MAIL_ROOM)
OWN = {"Sec-Fetch-Site": "same-origin"}
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@filled_once
def create_accounts(database):
    create_demo_accounts(database, load_policy(EXAMPLE.policy_path), NOON)


@pytest.fixture
def demo(database):
    """Return the demo's application with its two clocks, years apart."""
    create_accounts(database)
    story, wall = ManualClock(NOON), ManualClock(NOON + timedelta(days=400))
    service = build_service(database, Authenticator(database, wall), story, wall_clock=wall)
    pages = DemoPages(EXAMPLE, Playback(360), create_tokens(list(ROLES_BY_USER)))
    return SimpleNamespace(
        app=create_app(service, demo=pages), pages=pages, story=story, wall=wall, database=database
    )


def browser(demo, *, peer=LOOPBACK, host="127.0.0.1:8000"):
    return TestClient(
        demo.app, base_url=f"http://{host}", client=peer, follow_redirects=False, headers=OWN
    )


def path_of(demo, name="ana"):
    return demo.pages.build_links("")[name]


def signed_in(demo, name="ana"):
    client = browser(demo)
    assert client.get(path_of(demo, name)).headers["location"] == "/console/"
    return client


def token_on(page):
    return re.search(r'name="page_token" value="([^"]+)"', page.text)[1]


@pytest.mark.parametrize("name", ROLES_BY_USER)
def test_each_link_signs_in_its_user(demo, name):
    page = signed_in(demo, name).get("/console/")
    assert page.status_code == 200
    assert f'<div class="who">{name}' in collapse_space(page.text)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_a_link_works_for_each_name_of_this_machine_and_more_than_once(demo, host):
    for _ in range(2):
        assert browser(demo, host=host).get(path_of(demo)).status_code == 303
    assert browser(demo, peer=("::1", 1)).get(path_of(demo)).status_code == 303


@pytest.mark.parametrize(
    "more",
    [
        {"peer": ELSEWHERE},
        {"host": "rebound.example:8000"},
        {"host": "127.0.0.1.example"},
        {"peer": ("", 0)},
    ],
    ids=["peer", "host", "host-like", "no-peer"],
)
def test_a_link_works_for_no_other_peer_or_host(demo, more):
    answer = browser(demo, **more).get(path_of(demo))
    assert answer.status_code == 403
    assert "own machine only" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_proxy_header_makes_nobody_local(demo):
    answer = browser(demo, peer=ELSEWHERE).get(
        path_of(demo), headers={"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "127.0.0.1"}
    )
    assert answer.status_code == 403


def test_a_page_elsewhere_can_not_sign_its_reader_in(demo):
    answer = browser(demo).get(path_of(demo), headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize("token", ["", "x", "ä"])
def test_a_wrong_token_signs_nobody_in(demo, token):
    for name in ("ana", "nobody", "cy", "scanners"):
        answer = browser(demo).get(f"/console/demo/sign-in/{name}", params={"token": token})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    other = path_of(demo, "vic").partition("?")[2]
    assert browser(demo).get(f"/console/demo/sign-in/ada?{other}").status_code == 401


def test_a_session_lives_on_the_wall_clock(demo):
    client = signed_in(demo)
    demo.story.advance(timedelta(days=20))
    assert client.get("/console/").status_code == 200
    demo.wall.advance(timedelta(hours=13))
    assert client.get("/console/").status_code == 303


def test_a_key_lives_on_the_wall_clock(demo):
    key = create_demo_keys(demo.database, load_policy(EXAMPLE.policy_path), demo.wall.now())["ana"]
    client = browser(demo)
    client.headers["Authorization"] = f"Bearer {key}"
    demo.story.advance(timedelta(days=400))
    assert client.get("/v1/rollouts").status_code == 200
    demo.wall.advance(timedelta(days=91))
    assert client.get("/v1/rollouts").status_code == 401


def test_the_rate_limit_counts_wall_seconds(demo):
    client = browser(demo)
    for _ in range(60):
        demo.story.advance(timedelta(hours=1))
        answer = client.get("/v1/rollouts")
    assert answer.status_code == 429
    demo.wall.advance(timedelta(seconds=2))
    assert client.get("/v1/rollouts").status_code == 401


def test_a_form_without_script_changes_the_speed_and_comes_back(demo):
    client = signed_in(demo, "vic")
    page = client.get("/console/settings")
    assert "360 times as fast as the clock" in page.text
    form = {"page_token": token_on(page), "to": "/console/settings", "speed": "1440"}
    answer = client.post("/console/demo/speed", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/settings")
    assert (demo.pages.speed, demo.pages.is_paused) == (1440, False)
    client.post("/console/demo/speed", data={**form, "speed": "0"})
    assert demo.pages.is_paused
    page = client.get("/console/settings").text
    assert "Live demo, paused." in page
    assert page.count("aria-pressed") == 1
    client.post("/console/demo/speed", data={**form, "speed": "60", "to": "//elsewhere.example"})
    assert (demo.pages.speed, demo.pages.is_paused) == (60, False)


@pytest.mark.parametrize("speed", ["", "-1", "7", "1e3", "fast"])
def test_a_speed_without_a_button_is_refused(demo, speed):
    client = signed_in(demo)
    token = token_on(client.get("/console/settings"))
    answer = client.post("/console/demo/speed", data={"page_token": token, "speed": speed})
    assert answer.status_code == 422
    assert demo.pages.speed == 360


def test_another_page_can_not_change_the_speed(demo):
    client = signed_in(demo)
    token = token_on(client.get("/console/settings"))
    form = {"page_token": token, "speed": "60"}
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/console/demo/speed", data=form, headers=elsewhere).status_code == 403
    assert client.post("/console/demo/speed", data={"speed": "60"}).status_code == 403
    other = token_on(signed_in(demo, "bo").get("/console/settings"))
    assert client.post("/console/demo/speed", data={**form, "page_token": other}).status_code == 403
    assert browser(demo).post("/console/demo/speed", data=form).status_code in {303, 401, 403}
    assert demo.pages.speed == 360


def test_the_sign_in_page_points_to_the_links(demo):
    page = browser(demo).get("/console/sign-in").text
    assert "the links that the terminal printed" in page
    assert "password" not in page


def test_another_service_has_none_of_it(database):
    create_demo_accounts(database, load_policy(EXAMPLE.policy_path), NOON)
    clock = ManualClock(NOON)
    service = build_service(database, Authenticator(database, clock), clock)
    client = TestClient(
        create_app(service), base_url="http://127.0.0.1", client=LOOPBACK, headers=OWN
    )
    assert client.get("/console/demo/sign-in/ana?token=x").status_code == 404
    assert client.post("/console/demo/speed", data={"speed": "60"}).status_code == 404
    assert "demo" not in client.get("/console/sign-in").text


def test_the_console_of_a_demo_is_made_before_its_first_request(demo, monkeypatch):
    made = []

    def create(console):
        made.append(console)

    monkeypatch.setattr(LazyConsole, "create", create)
    service = demo.app.state.service
    create_app(service)
    assert made == []
    create_app(service, demo=demo.pages)
    assert len(made) == 1
