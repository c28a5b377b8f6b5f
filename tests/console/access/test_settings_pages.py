"""One's own settings: password, sessions, keys, clock, single keys."""

import re
from datetime import timedelta
from urllib.parse import unquote

import pytest

from rollout.features.access.keys import load_keys
from rollout.features.access.users import load_local_caller
from tests.features.houses import PASSWORD

NEW = "a new long sentence"
SCRIPT = '"><script>alert(1)</script>'


def keys(service, name):
    return load_keys(service.database, load_local_caller(service.database, name), name)


def once(text):
    return re.search(r'name="once" value="([0-9a-f]+)"', text)[1]


def test_settings_say_who_one_is_and_who_can_what_one_cannot(browser):
    text = browser.as_("ana").page("/settings")
    assert "You are ana: operator in all rollouts; viewer in all rollouts" in text
    assert "Only an admin of all rollouts can" in text
    assert "/console/settings/users" not in text
    text = browser.as_("ada").page("/settings")
    assert "/console/settings/users" in text
    assert "/console/new" in text


def test_a_new_password_ends_every_session_and_opens_the_next(browser, clock):
    browser.as_("ana")
    before = dict(browser.cookies)
    fields = {"current": PASSWORD, "password": NEW, "again": NEW}
    answer = browser.submit("/settings", 200, **fields)
    assert "Your password is set" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    clock.advance(timedelta(seconds=1))
    browser.cookies.update(before)
    assert browser.get("/console/settings", follow_redirects=False).status_code == 303
    browser.cookies.clear()
    fields = {"name": "ana", "password": NEW, "to": ""}
    assert "Sign out" in browser.post("/console/sign-in", data=fields).text


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"current": PASSWORD, "password": NEW, "again": "other"}, "again", "differ"),
        ({"current": "wrong horse", "password": NEW, "again": NEW}, "current", "is wrong"),
        ({"current": PASSWORD, "password": "short", "again": "short"}, "password", "12 to"),
    ],
)
def test_a_refused_password_is_said_at_its_field_and_nothing_typed_comes_back(
    browser, fields, field, says
):
    text = browser.as_("ana").submit("/settings", 422, **fields).text
    assert says in re.search(rf'id="{field}-error">(.*?)</span><input', text, re.DOTALL)[1]
    assert "<title>Error: Settings" in text
    assert not any(value in text for value in fields.values() if value != "other")


def test_signing_out_everywhere_is_a_form_of_the_settings(browser, clock):
    browser.as_("ana")
    other = dict(browser.cookies)
    browser.as_("ana").submit("/sign-out", on="/settings", everywhere="yes")
    clock.advance(timedelta(seconds=1))
    browser.cookies.clear()
    browser.cookies.update(other)
    assert browser.get("/console/settings", follow_redirects=False).status_code == 303


def test_single_keys_are_switched_off_in_a_cookie(browser):
    browser.as_("rita").submit("/settings/single-keys", on="/settings", keys="off")
    assert browser.cookies["rollout-keys"] == "off"
    assert 'value="off" checked' in browser.page("/settings")
    browser.submit("/settings/single-keys", on="/settings", keys="on")
    assert 'value="on" checked' in browser.page("/settings")
    assert "Single keys" in browser.as_("vic").page("/settings")  # one leads to the search


def test_without_scripts_the_zone_is_kept_by_a_form(browser):
    browser.as_("vic").submit("/settings/clock", on="/settings", zone="america/edmonton")
    assert unquote(browser.cookies["rollout-zone"]) == "America/Edmonton"
    assert (
        "your timezone, America/Edmonton, follows in brackets. This browser sent it."
        in browser.page("/settings")
    )
    text = browser.submit("/settings/clock", 422, on="/settings", zone=SCRIPT).text
    assert "there is none called" in text
    assert SCRIPT not in text
    assert 'value="&#34;&gt;&lt;script&gt;' in text


def test_a_key_is_shown_once_and_sending_the_form_again_makes_no_other(browser, service):
    text = browser.as_("ana").page("/settings/keys")
    form = {"once": once(text), "ends": ""}
    answer = browser.submit("/settings/keys", 200, **form)
    (secret,) = re.findall(r"ro_[0-9a-f]{12}_[0-9a-f]{64}", answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert (
        browser.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()["name"] == "ana"
    )
    again = browser.submit("/settings/keys", 422, **form).text
    assert "already created and shown once" in again
    assert secret not in again
    assert len(keys(service, "ana")) == 1
    assert secret not in browser.page("/settings/keys")


def test_a_page_that_is_opened_anew_makes_another_key(browser, service):
    for _ in range(2):
        browser.as_("ana").submit("/settings/keys", 200, once=once(browser.page("/settings/keys")))
    assert len(keys(service, "ana")) == 2


def test_a_key_ends_on_the_day_that_was_typed_or_says_what_is_wrong(browser, service):
    browser.as_("ana")
    form = {"once": once(browser.page("/settings/keys"))}
    text = browser.submit("/settings/keys", 422, ends=SCRIPT, **form).text
    assert "Refused: write a day as" in text
    assert SCRIPT not in text
    page = browser.submit("/settings/keys", 422, ends="2040-01-01", **form).text
    assert re.search('<a href="#ends">[^<]*within 730 days', page)
    browser.submit("/settings/keys", 200, ends="2027-07-31", **form)
    (key,) = keys(service, "ana")
    assert f"{key.expires_at:%Y-%m-%d %H:%M}" == "2027-08-01 00:00"


def test_a_key_is_revoked(browser, service):
    browser.as_("ana").submit("/settings/keys", 200, once=once(browser.page("/settings/keys")))
    (key,) = keys(service, "ana")
    browser.submit(f"/settings/keys/{key.prefix}/revoke", on="/settings/keys")
    assert keys(service, "ana")[0].revoked_at is not None
    assert "Revoked</span>" in browser.page("/settings/keys")


def test_nobody_revokes_somebody_elses_key(browser, service):
    browser.as_("ana").submit("/settings/keys", 200, once=once(browser.page("/settings/keys")))
    (key,) = keys(service, "ana")
    browser.as_("bo").submit(f"/settings/keys/{key.prefix}/revoke", 404, on="/settings/keys")
    assert keys(service, "ana")[0].revoked_at is None
