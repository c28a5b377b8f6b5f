"""Users and service accounts as an admin sees and changes them, and as nobody else does."""

import re
from datetime import timedelta

import pytest

from api.access.user_pages import compute_review_coverage
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.users import load_local_caller
from rollout.kernel.policy_files.reader import parse_policy
from tests.api.bears import POLICY
from tests.console.access.test_settings_pages import keys, once
from tests.features.houses import PASSWORD

SCRIPT = '"><script>alert(1)</script>'


def member(service, name):
    ada = load_local_caller(service.database, "ada")
    return next(one for one in users.load_accounts(service.database, ada) if one.name == name)


def access_revision(text):
    return re.search(r'name="access_revision" value="(\d+)"', text)[1]


@pytest.mark.parametrize(
    "path",
    ["/settings/users", "/settings/users/bo", "/settings/users/bo/link", "/settings/reviewers"],
)
@pytest.mark.parametrize("who", ["ana", "rita"])
def test_none_but_admins_see_people_and_are_told_who_can(browser, who, path):
    text = browser.as_(who).page(path, 403)
    assert "may not administer; it needs the role admin: ask an admin" in text


@pytest.mark.parametrize("path", ["", "/bo", "/bo/link", "/bo/keys"])
def test_none_but_admins_change_people(browser, service, path):
    before, fields = member(service, "bo"), {"do": "disable", "name": "x", "once": "1"}
    browser.as_("ana").submit(f"/settings/users{path}", 403, on="/settings", **fields)
    assert member(service, "bo") == before
    assert keys(service, "bo") == ()


def test_everybody_is_listed_with_what_they_may_do(browser):
    text = browser.as_("ada").page("/settings/users")
    assert "approver of safety in all rollouts" in text
    assert "operator in bears at creek" in text
    assert "None yet. Programs that send records" in text


def test_somebody_is_added_with_a_first_right(browser, service):
    fields = {"name": "dee", "kind": "person", "role": "approver", "rollout": "bears"}
    answer = browser.as_("ada").submit("/settings/users", group="safety", site="", **fields)
    assert answer.headers["location"] == "/console/settings/users/dee"
    assert member(service, "dee").rights == (AssignedRole("approver", "bears", "", "safety"),)
    assert "They have no password yet" in browser.page("/settings/users/dee")


def test_a_refused_addition_keeps_what_was_typed(browser, service):
    fields = {"name": f"x{SCRIPT}", "kind": "machine", "role": "operator", "site": SCRIPT}
    text = browser.as_("ada").submit("/settings/users", 422, **fields).text
    assert "can&#39;t be a name" in text
    assert SCRIPT not in text
    assert 'value="machine" checked' in text
    assert "<option selected>operator</option>" in text
    text = browser.submit("/settings/users", 422, name="box", kind="machine", role="operator").text
    assert "ingest-outcomes or viewer, not operator" in text


def test_rights_are_given_and_taken(browser, service):
    right = {"role": "operator", "rollout": "bears", "site": "lake", "group": ""}
    browser.as_("ada").submit("/settings/users/vic", do="give", **right)
    assert AssignedRole("operator", "bears", "lake") in member(service, "vic").rights
    browser.submit("/settings/users/vic", do="take", **right)
    assert member(service, "vic").rights == (AssignedRole("viewer"),)


def test_a_right_at_a_site_that_no_policy_has_is_marked(browser):
    right = {"role": "operator", "rollout": "bears", "site": f"lakke{SCRIPT}"}
    browser.as_("ada").submit("/settings/users/vic", do="give", **right)
    text = browser.page("/settings/users/vic")
    assert "No such site in the policy" in text
    assert SCRIPT not in text
    assert "No such site" not in browser.page("/settings/users/cleo")


def test_the_last_admin_stays(browser, service):
    text = browser.as_("ada").submit("/settings/users/ada", 422, do="disable").text
    assert "last admin" in text
    assert member(service, "ada").disabled_at is None


def test_disabling_ends_everything_and_enabling_brings_nothing_back(browser, service):
    browser.as_("ada").submit("/settings/users/bo", do="disable")
    assert "Disabled</span>" in browser.page("/settings/users/bo")
    browser.submit("/settings/users/bo", do="enable")
    assert member(service, "bo").rights == ()
    assert not member(service, "bo").has_password


def test_an_address_is_kept_or_refused(browser, service):
    browser.as_("ada").submit("/settings/users/bo", do="email", email="bo@example.org")
    assert member(service, "bo").email == "bo@example.org"
    text = browser.submit("/settings/users/bo", 422, do="email", email="bo").text
    assert 'value="bo"' in text


def test_a_button_that_is_none_does_nothing(browser, service):
    before = member(service, "bo")
    assert (
        "Refused: press one of the buttons"
        in browser.as_("ada").submit("/settings/users/bo", 422).text
    )
    assert member(service, "bo") == before


def test_somebody_is_signed_out_by_an_admin(browser, clock):
    browser.as_("bo")
    session = dict(browser.cookies)
    browser.as_("ada").submit("/settings/users/bo", do="sign-out")
    clock.advance(timedelta(seconds=1))
    browser.cookies.clear()
    browser.cookies.update(session)
    assert browser.get("/console/settings", follow_redirects=False).status_code == 303


@pytest.mark.slow
def test_a_link_is_shown_once_with_the_consoles_address_and_opens_the_door(browser):
    here = "/settings/users/vic"
    number = access_revision(browser.as_("ada").page(here))
    answer = browser.submit(f"{here}/link", 200, on=here, access_revision=number)
    found = re.search(r"http://localhost:8000/console/set-password\?token=([\w-]+)", answer.text)
    assert answer.headers["cache-control"] == "no-store"
    again = browser.submit(f"{here}/link", 422, on=here, access_revision=number).text
    assert "was created since this page was opened, and shown once" in again
    assert found[1] not in again
    assert browser.get(f"/console{here}/link").url.path == f"/console{here}"
    browser.cookies.clear()
    fields = {
        "token": found[1],
        "name": "",
        "password": "a new long one",
        "again": "a new long one",
    }
    assert "Sign out" in browser.post("/console/set-password", data=fields).text


def test_a_link_never_follows_the_host_header(browser):
    here = "/settings/users/vic"
    number = access_revision(browser.as_("ada").page(here))
    browser.headers["host"] = "localhost:9999"
    answer = browser.submit(f"{here}/link", 200, on=here, access_revision=number)
    assert "http://localhost:8000/console/set-password?token=" in answer.text
    assert "localhost:9999" not in answer.text


def test_a_page_that_is_opened_anew_makes_another_link(browser):
    here = "/settings/users/vic"
    browser.as_("ada")
    for _ in range(2):
        number = access_revision(browser.page(here))
        browser.submit(f"{here}/link", 200, on=here, access_revision=number)


def test_no_link_is_made_for_a_machine(browser, service):
    browser.as_("ada").submit("/settings/users", name="box", kind="machine", role="ingest")
    assert "/link" not in browser.page("/settings/users/box")
    browser.submit("/settings/users/box/link", 422, on="/settings/users/box")


def test_a_machines_key_is_shown_once(browser, service):
    browser.as_("ada").submit("/settings/users", name="box", kind="machine", role="ingest")
    here = "/settings/users/box"
    form = {"once": once(browser.page(here)), "ends": ""}
    made = browser.submit(f"{here}/keys", 200, on=here, **form).text
    (secret,) = re.findall(r"ro_[0-9a-f]{12}_[0-9a-f]{64}", made)
    assert browser.get("/v1/me", headers={"Authorization": f"Bearer {secret}"}).json()[
        "service_account"
    ]
    assert secret not in browser.submit(f"{here}/keys", 422, on=here, **form).text
    prefix = secret.split("_")[1]
    browser.submit(f"/settings/keys/{prefix}/revoke", on=here, holder="box")
    assert "Revoked</span>" in browser.page(here)


def test_nobody_of_that_name_is_not_found(browser):
    assert "Refused: there is no account zed" in browser.as_("ada").page("/settings/users/zed", 404)


@pytest.mark.slow
def test_who_reviews_where_names_the_sites_without_anybody(browser, service):
    ada = load_local_caller(service.database, "ada")
    policy = parse_policy(POLICY)
    everybody = users.load_accounts(service.database, ada)
    assert compute_review_coverage(everybody, "bears", policy).single_reviewer_sites == (
        "creek",
        "lake",
    )
    assert "One reviewer" in browser.as_("ada").page("/settings/reviewers")
    browser.submit("/settings/users/rita", do="take", role="reviewer")
    right = {"role": "reviewer", "rollout": "bears", "site": "creek"}
    browser.submit("/settings/users/rita", do="give", **right)
    text = browser.page("/settings/reviewers")
    assert " at lake" in text
    assert "1 of 2" in text
    assert PASSWORD not in text
