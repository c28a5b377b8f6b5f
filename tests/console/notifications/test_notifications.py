"""A user chooses notifications in the console."""

from dataclasses import replace

import pytest

from api.app import create_app
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.notifications import settings
from rollout.kernel.channels import Channels
from rollout.live.service import build_service
from tests.console.conftest import Browsing, inhabited
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import chance
from tests.features.notifications.mailing_list import URLS, build_user

PATH = "/settings/notifications"
MAIL = {"channel": "mail", "field": "address-1"}
ADDRESS = {"address-1": "ana@example.org"}


@pytest.fixture
def service(database, clock):
    inhabited(database)
    door = Authenticator(database, clock)
    made = build_service(database, door, clock, bytes, channels=Channels(URLS))
    return replace(made, sign_in=SignIn(database, clock, chance, QUICK), entropy=bytes)


@pytest.fixture
def browser(service):
    with Browsing(create_app(service), base_url="http://localhost:8000") as opened:
        opened.headers["Sec-Fetch-Site"] = "same-origin"
        yield opened.as_("ana")


def load(service):
    return settings.load_notification_settings(service, build_user("ana"))


def test_a_user_chooses_confirms_and_deletes_a_channel(browser, service):
    page = browser.page(PATH)
    assert "Proposals that you can approve" in page
    assert "rangers" not in page.lower()
    browser.submit(PATH, do="save", kinds=["proposals", "incidents"], **MAIL, **ADDRESS)
    assert "Waits for its code" in browser.page(PATH)
    code = {"channel": "mail", "field": "code-1"}
    wrong = browser.submit(PATH, 422, do="confirm", **code, **{"code-1": "1"})
    assert "Refused: this code is wrong" in wrong.text
    browser.submit(PATH, do="code", **code)
    browser.submit(PATH, do="confirm", **code, **{"code-1": "00000000"})
    (status,) = load(service).channels
    assert status.channel.confirmed_at is not None
    assert set(status.channel.kinds) == {"proposals", "incidents"}
    page = browser.page(PATH)
    assert 'value="proposals" checked' in page
    assert 'value="reviews" checked' not in page
    browser.submit(PATH, do="delete", **MAIL)
    assert load(service).channels == ()


def test_an_address_that_does_not_fit_is_refused_beside_its_field(browser, service):
    refused = browser.submit(
        PATH, 422, do="save", kinds=["proposals"], **MAIL, **{"address-1": "ana@x,bo@x"}
    )
    assert "Refused: mail takes one mail address" in refused.text
    assert 'value="ana@x,bo@x"' in refused.text
    assert 'id="address-1-error"' in refused.text
    assert load(service).channels == ()


def test_quiet_hours_are_saved(browser, service):
    fields = {"timezone": "europe/vienna", "quiet_from": "22:00", "quiet_until": "7"}
    refused = browser.submit(PATH, 422, do="times", field="timezone", **fields)
    assert "7 is no time of day" in refused.text
    browser.submit(PATH, do="times", field="timezone", **{**fields, "quiet_until": "07:00"})
    assert load(service).times == settings.NotificationTimes("Europe/Vienna", "22:00", "07:00")


def test_a_service_without_channels_says_who_adds_one(service):
    bare = replace(service, channels=Channels())
    with Browsing(create_app(bare), base_url="http://localhost:8000") as opened:
        opened.headers["Sec-Fetch-Site"] = "same-origin"
        assert "No channel is set up for users" in opened.as_("ana").page(PATH)


def test_opening_the_page_of_a_message_does_nothing_without_a_sign_in(browser):
    browser.cookies.clear()
    for page in ("proposals/P-1", "incidents/I-1", "review"):
        answer = browser.get(f"/console/rollouts/bears/{page}", follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in")
