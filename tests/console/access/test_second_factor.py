"""The second factor in the console: set up, asked for at sign-in, removed by user and admin."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from api.app import create_app
from rollout.features.access.authentication import Authenticator
from rollout.live.service import build_service
from tests.api import bears
from tests.console.conftest import Browsing, inhabited
from tests.factories import NOON
from tests.features.access.factors import build_signing, code_at
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance

pytestmark = pytest.mark.slow

PATH = "/settings/second-factor"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def browser(database, clock, tmp_path):
    inhabited(database)
    door = Authenticator(database, clock, requires_second_factor=True)
    service = replace(
        build_service(database, door, clock, chance),
        sign_in=build_signing(database, clock, tmp_path, QUICK),
    )
    with Browsing(create_app(service), base_url="http://localhost:8000") as made:
        made.headers["Sec-Fetch-Site"] = "same-origin"
        yield made


def set_up(browser, clock, name):
    """Set up a factor as a user does; return its secret and the recovery codes."""
    browser.as_(name).submit(PATH, do="begin")
    page = browser.page(PATH)
    secret = re.search(r'class="secret">([A-Z2-7]+)<', page)[1]
    assert '<svg role="img"' in page
    fields = {"do": "confirm", "code": code_at(secret, clock.now()), "password": PASSWORD}
    answer = browser.submit(PATH, 200, **fields)
    clock.advance(MINUTE)
    return secret, re.findall(r"<code>((?:[a-z2-7]{4}-){5}[a-z2-7]{4})</code>", answer.text)


def sign_in(browser, name, code):
    browser.cookies.clear()
    fields = {"name": name, "password": PASSWORD, "to": "/console/ledger"}
    asked = browser.post("/console/sign-in", data=fields, follow_redirects=False)
    assert asked.status_code == 200
    assert "Enter your code" in asked.text
    assert not browser.cookies
    challenge = re.search(r'name="challenge" value="([^"]+)"', asked.text)[1]
    fields = {"challenge": challenge, "code": code, "to": "/console/ledger"}
    return browser.post("/console/sign-in/code", data=fields, follow_redirects=False)


def test_a_factor_is_set_up_asked_for_and_removed(browser, clock):
    secret, codes = set_up(browser, clock, "ana")
    assert len(codes) == 10
    wrong = sign_in(browser, "ana", "000000")
    assert (wrong.status_code, browser.cookies.get("rollout")) == (422, None)
    answer = sign_in(browser, "ana", code_at(secret, clock.now()))
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/ledger")
    assert "10 recovery codes left" in browser.page(PATH)
    browser.submit(PATH, 422, do="remove", code="000000")
    browser.submit(PATH, do="remove", code=codes[0])
    clock.advance(MINUTE)
    assert "You have none" in browser.as_("ana").page(PATH)


def test_codes_to_remove_a_factor_are_not_guessed_from_a_session(browser, clock):
    _, codes = set_up(browser, clock, "ana")
    for _ in range(5):
        answer = browser.submit(PATH, 422, do="remove", code="000000")
        assert "wrong or was used" in answer.text
    answer = browser.submit(PATH, 422, do="remove", code=codes[0])
    assert "Refused: too many failed attempts" in answer.text
    clock.advance(MINUTE)
    browser.submit(PATH, do="remove", code=codes[0])


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"code": "000000", "password": PASSWORD}, "wrong or was used"),
        ({"code": "", "password": "wrong horse"}, "current password is wrong"),
    ],
)
def test_a_factor_is_confirmed_by_code_and_password(browser, clock, fields, text):
    browser.as_("ana").submit(PATH, do="begin")
    assert text in browser.submit(PATH, 422, do="confirm", **fields).text


def test_where_it_is_required_it_is_asked_for_before_an_approval_and_not_before_a_stop(
    browser, clock, database
):
    bears.tick(database, NOON)
    (proposal,) = bears.scope_of(database).proposals.values()
    browser.as_("ana")
    assert "may look, stop and narrow" in browser.page("/settings")
    page = browser.page(f"/rollouts/bears/proposals/{proposal.id}")
    assert "this needs a second factor" in page.replace("This", "this")
    token = re.search(r'name="[a-z_]*token[a-z_]*" value="([^"]*)"', page)
    assert token is not None
    secret, _ = set_up(browser, clock, "ana")
    sign_in(browser, "ana", code_at(secret, clock.now()))
    page = browser.page(f"/rollouts/bears/proposals/{proposal.id}")
    assert "second factor" not in page


def test_an_admin_without_a_factor_administers_nothing_and_with_one_resets_others(browser, clock):
    browser.as_("ada").page("/settings/users", 403)
    set_up(browser, clock, "ana")
    secret, _ = set_up(browser, clock, "ada")
    sign_in(browser, "ada", code_at(secret, clock.now()))
    assert "On since" in browser.page("/settings/users/ana")
    browser.submit("/settings/users/ana", do="reset-factor")
    assert "The user sets it up under Settings" in browser.page("/settings/users/ana")
    clock.advance(MINUTE)
    browser.as_("ana")  # by the password alone again
