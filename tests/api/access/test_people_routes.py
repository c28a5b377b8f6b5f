"""People, keys and sessions over HTTP, with the real door: who comes in, and who no longer does."""

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from rollout.features.access import keys
from rollout.features.access.authentication import MAX_CACHE_AGE, Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import AccountUpdate, create_first_link, update_account
from rollout.live.service import build_service
from tests.factories import DAY, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import ADA, BO, PASSWORD, chance, furnish

HERE = {"Sec-Fetch-Site": "same-origin"}
OTHER = "staple horse correct"


@pytest.fixture
def service(database, clock):
    made = build_service(database, Authenticator(database, clock), clock, chance)
    return replace(made, sign_in=SignIn(database, clock, chance, QUICK))


@pytest.fixture
def house(database):
    furnish(database)
    return database


@pytest.fixture
def browser(service):
    with TestClient(create_app(service), base_url="https://rollout.example.org") as made:
        yield made


def keyed(browser, database, name):
    """Return headers of somebody's key."""
    made = keys.create_key(database, ADA, name, random_bytes=chance(), at=NOON)
    return {"Authorization": f"Bearer {made.text}"}


@pytest.fixture
def as_ada(browser, house):
    return keyed(browser, house, "ada")


@pytest.fixture
def as_bo(browser, house):
    return keyed(browser, house, "bo")


def sign_in(browser, service, **more):
    service.sign_in.set_password(ADA, "bo", PASSWORD, at=NOON)
    body = {"name": "bo", "password": PASSWORD, **more}
    return browser.post("/v1/session", json=body, headers=HERE)


def code(answer):
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


# People


def test_an_admin_adds_a_person_changes_them_and_lists_everybody(browser, as_ada):
    right = {"role": "approver", "rollout": "ramps", "site": "", "group": "safety"}
    added = browser.post("/v1/users", json={"name": "cy", "roles": [right]}, headers=as_ada)
    assert (added.status_code, added.json()["roles"]) == (201, [right])
    change = {"revoke_roles": [right], "email": "cy@example.org"}
    changed = browser.patch("/v1/users/cy", json=change, headers=as_ada).json()
    assert (changed["roles"], changed["email"]) == ([], "cy@example.org")
    found = browser.get("/v1/users", headers=as_ada).json()
    assert [one["name"] for one in found["items"]] == ["ada", "bo", "box", "cy"]
    assert found["next"] is None


def test_a_list_goes_on_where_its_page_ended(browser, as_ada):
    seen, after = [], ""
    while after is not None:
        given = f"&after={after}" if after else ""
        page = browser.get(f"/v1/users?limit=2{given}", headers=as_ada).json()
        seen += [one["name"] for one in page["items"]]
        after = page["next"]
    assert seen == ["ada", "bo", "box"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/users", None),
        ("POST", "/v1/users", {"name": "eve"}),
        ("PATCH", "/v1/users/bo", {"grant_roles": [{"role": "admin"}]}),
        ("POST", "/v1/users/bo/link", None),
        ("POST", "/v1/keys", {"holder": "box"}),
        ("GET", "/v1/keys?holder=box", None),
    ],
)
def test_who_is_no_admin_changes_nobody(browser, as_bo, method, path, body):
    assert code(browser.request(method, path, json=body, headers=as_bo)) == (403, "not-allowed")


@pytest.mark.parametrize(
    ("path", "body", "refused"),
    [
        ("/v1/users/eve", {"disabled": True}, (404, "unknown-user")),
        ("/v1/users/ada", {"disabled": True}, (409, "last-admin")),
        ("/v1/users/box", {"grant_roles": [{"role": "operator"}]}, (422, "user-refused")),
        ("/v1/users/bo", {"grant_roles": [{"role": "boss"}]}, (422, "malformed")),
        ("/v1/users/bo", {"name": "ada"}, (422, "malformed")),
        (
            "/v1/users/bo",
            {"grant_roles": [{"role": "viewer", "rollout": "no"}]},
            (404, "unknown-rollout"),
        ),
    ],
)
def test_a_change_that_can_not_be_is_a_problem(browser, as_ada, path, body, refused):
    assert code(browser.patch(path, json=body, headers=as_ada)) == refused


def test_a_taken_name_is_a_conflict(browser, as_ada):
    answer = browser.post("/v1/users", json={"name": "BO"}, headers=as_ada)
    assert code(answer) == (409, "name-taken")


def test_a_link_lets_somebody_in_once(browser, as_ada):
    token = browser.post("/v1/users/bo/link", headers=as_ada).json()["token"]
    body = {"token": token, "password": PASSWORD}
    assert browser.post("/v1/session/link", json=body).json()["name"] == "bo"
    assert browser.get("/v1/me").json()["name"] == "bo"
    assert code(browser.post("/v1/session/link", json=body)) == (401, "unauthenticated")


def test_the_first_admin_comes_in_by_the_link_that_serve_printed(browser, service):
    token = create_first_link(service.database, NOON, chance(32).hex())
    body = {"token": token, "password": PASSWORD, "name": "zoe"}
    browser.post("/v1/session/link", json=body).raise_for_status()
    assert browser.get("/v1/me").json()["roles"] == [
        {"role": "admin", "rollout": "", "site": "", "group": ""}
    ]
    assert create_first_link(service.database, NOON, chance(32).hex()) is None


# Keys


def test_a_key_is_shown_once_and_opens_the_door(browser, as_ada):
    made = browser.post("/v1/keys", json={"holder": "box"}, headers=as_ada).json()
    own = {"Authorization": f"Bearer {made['key']}"}
    me = browser.get("/v1/me", headers=own)
    assert (me.status_code, me.json()["name"], me.json()["service_account"]) == (200, "box", True)
    listed = browser.get("/v1/keys?holder=box", headers=as_ada)
    assert made["key"].split("_")[2] not in listed.text
    assert listed.json()["items"][0]["prefix"] == made["prefix"]


def test_a_revoked_key_opens_nothing_within_half_a_second(browser, clock, as_ada, as_bo):
    assert browser.get("/v1/me", headers=as_bo).status_code == 200
    (mine,) = browser.get("/v1/keys", headers=as_bo).json()["items"]
    assert mine["holder"] == "bo"
    for _ in range(2):
        gone = browser.delete(f"/v1/keys/{mine['prefix']}", headers=as_ada)
        assert (gone.status_code, gone.content) == (204, b"")
    clock.since_boot += MAX_CACHE_AGE
    assert code(browser.get("/v1/me", headers=as_bo)) == (401, "unauthenticated")


def test_people_make_their_own_keys_and_machines_none(browser, house, as_bo):
    assert browser.post("/v1/keys", json={}, headers=as_bo).json()["holder"] == "bo"
    as_box = keyed(browser, house, "box")
    assert code(browser.post("/v1/keys", json={}, headers=as_box)) == (403, "not-allowed")
    assert code(browser.delete("/v1/keys/ff", headers=as_box)) == (404, "unknown-key")


def test_a_key_that_would_never_end_is_refused(browser, as_bo):
    late = {"expires_at": "2099-01-01T00:00:00Z"}
    assert code(browser.post("/v1/keys", json=late, headers=as_bo)) == (422, "user-refused")
    naive = {"expires_at": "2027-09-01T00:00:00"}
    assert code(browser.post("/v1/keys", json=naive, headers=as_bo)) == (422, "malformed")


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Basic Ym86Ym8=", "Bearer ro_a_b", "bo"]
)
def test_not_any_bearer_is_somebody(browser, house, header):
    answer = browser.get("/v1/me", headers={"Authorization": header})
    assert code(answer) == (401, "unauthenticated")


# Sessions


def test_a_session_is_a_cookie_that_no_script_and_no_other_site_gets(browser, service, house):
    answer = sign_in(browser, service)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-rollout=")
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert "Domain" not in cookie
    token = cookie.split("=")[1].split(";")[0]
    assert token not in answer.text
    assert browser.get("/v1/me").json()["name"] == "bo"


def test_on_ones_own_machine_a_plain_cookie_does(service, house):
    with TestClient(create_app(service), base_url="http://localhost:8000") as near:
        cookie = sign_in(near, service).headers["set-cookie"]
        assert cookie.startswith("rollout=")
        assert "Secure" not in cookie
        assert near.get("/v1/me").status_code == 200


def test_a_plain_cookie_is_nobody_elsewhere(browser, service, house):
    token = sign_in(browser, service).headers["set-cookie"].split("=")[1].split(";")[0]
    browser.cookies.clear()
    for name, known in (("rollout", False), ("__Host-rollout", True)):
        answer = browser.get("/v1/me", headers={"Cookie": f"{name}={token}"})
        assert (answer.status_code == 200) == known


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        ({}, (403, "cross-site")),
        ({"Sec-Fetch-Site": "same-origin"}, (403, "cross-site")),
        ({"Sec-Fetch-Site": "same-origin", "X-CSRF-Token": "AAAA"}, (403, "cross-site")),
        ({"Sec-Fetch-Site": "cross-site", "X-CSRF-Token": "right"}, (403, "cross-site")),
        ({"Sec-Fetch-Site": "same-site", "X-CSRF-Token": "right"}, (403, "cross-site")),
        ({"X-CSRF-Token": "right"}, (403, "cross-site")),
    ],
)
def test_another_site_changes_nothing_by_a_cookie(browser, service, house, sent, refused):
    csrf = sign_in(browser, service).json()["csrf"]
    headers = {name: csrf if value == "right" else value for name, value in sent.items()}
    assert code(browser.post("/v1/keys", json={}, headers=headers)) == refused
    assert keys.load_keys(house, BO) == ()


def test_the_page_itself_changes_something_also_after_it_was_loaded_again(browser, service, house):
    csrf = sign_in(browser, service).json()["csrf"]
    again = browser.get("/v1/session").json()
    assert again["csrf"] == csrf
    made = browser.post("/v1/keys", json={}, headers={**HERE, "X-CSRF-Token": csrf})
    assert made.status_code == 201


def test_a_form_on_another_site_signs_nobody_in(browser, service, house):
    service.sign_in.set_password(ADA, "bo", PASSWORD, at=NOON)
    body = {"name": "bo", "password": PASSWORD}
    answer = browser.post("/v1/session", json=body, headers={"Sec-Fetch-Site": "cross-site"})
    assert code(answer) == (403, "cross-site")
    as_form = browser.post("/v1/session", data=body, headers=HERE)
    assert as_form.status_code in {415, 422}
    assert not browser.cookies


def test_signing_out_ends_the_session_and_forgets_the_cookie(browser, service, clock, house):
    answer = sign_in(browser, service)
    token = answer.headers["set-cookie"].split(";")[0]
    page = {**HERE, "X-CSRF-Token": answer.json()["csrf"]}
    ended = browser.delete("/v1/session", headers=page)
    assert ended.status_code == 204
    assert ended.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert not browser.cookies
    clock.since_boot += MAX_CACHE_AGE
    assert code(browser.get("/v1/me", headers={"Cookie": token})) == (401, "unauthenticated")


def test_a_browser_that_signs_in_again_ends_its_earlier_session(browser, house, service, clock):
    assert sign_in(browser, service).status_code == 200
    earlier = browser.cookies["__Host-rollout"]
    body = {"name": "bo", "password": PASSWORD}
    assert browser.post("/v1/session", json=body, headers=HERE).status_code == 200
    assert browser.cookies["__Host-rollout"] != earlier
    clock.since_boot += MAX_CACHE_AGE
    assert browser.get("/v1/session", headers=HERE).status_code == 200
    browser.cookies.clear()
    stale = {**HERE, "Cookie": f"__Host-rollout={earlier}"}
    assert code(browser.get("/v1/session", headers=stale)) == (401, "unauthenticated")


def test_signing_out_everywhere_ends_every_session(browser, service, clock, as_bo):
    one, two = (sign_in(browser, service).headers["set-cookie"].split(";")[0] for _ in "12")
    browser.cookies.clear()
    assert browser.delete("/v1/session?everywhere=true", headers=as_bo).status_code == 204
    clock.since_boot += MAX_CACHE_AGE
    for cookie in (one, two):
        assert browser.get("/v1/me", headers={"Cookie": cookie}).status_code == 401


def test_a_wrong_password_is_no_session_and_guessing_waits(browser, service, house):
    for _ in range(5):
        answer = sign_in(browser, service, password=OTHER)
        assert code(answer) == (401, "unauthenticated")
    answer = sign_in(browser, service)
    assert code(answer) == (429, "too-many-requests")
    assert "retry-after" in answer.headers


def test_ones_own_password_is_set_with_the_present_one(browser, service, clock, house):
    page = {**HERE, "X-CSRF-Token": sign_in(browser, service).json()["csrf"]}
    wrong = {"password": OTHER, "current": OTHER}
    assert code(browser.put("/v1/me/password", json=wrong, headers=page)) == (403, "not-allowed")
    right = {"password": OTHER, "current": PASSWORD}
    assert browser.put("/v1/me/password", json=right, headers=page).status_code == 204
    clock.since_boot += MAX_CACHE_AGE
    assert browser.get("/v1/me").status_code == 401
    body = {"name": "bo", "password": OTHER}
    assert browser.post("/v1/session", json=body, headers=HERE).status_code == 200


@pytest.mark.parametrize("what", ["disabled", "expired"])
def test_nothing_outlives_its_person_or_its_time(browser, service, clock, house, what):
    sign_in(browser, service)
    assert browser.get("/v1/me").status_code == 200
    if what == "disabled":
        update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
        clock.since_boot += MAX_CACHE_AGE
    else:
        clock.advance(DAY)
    assert code(browser.get("/v1/me")) == (401, "unauthenticated")
