"""Each page and form while the database does not respond: 503, and when to try again."""

import re
from datetime import timedelta
from http import HTTPStatus

import pytest

from api.app import load_parts
from api.console import create_console
from tests.api.test_database_outages import let_fail
from tests.data.databases import on_sqlite

pytestmark = [on_sqlite, pytest.mark.exhaustive]
WITHOUT_DATABASE = {
    "GET /assets/{name}": HTTPStatus.NOT_FOUND,
    "GET /sign-in": HTTPStatus.OK,
    "GET /set-password": HTTPStatus.OK,
    "POST /sign-in/code": HTTPStatus.UNPROCESSABLE_ENTITY,
    "POST /rollouts/{rollout}/stop/confirm": HTTPStatus.FORBIDDEN,  # the form lacks its token
    "POST /rollouts/{rollout}/narrow/confirm": HTTPStatus.FORBIDDEN,
}


def list_operations(service):
    """Return method and path of each page and form."""
    return [
        (method, route.path)
        for route in create_console(service, parts=load_parts()).routes
        for method in sorted(route.methods - {"HEAD"})
    ]


def test_each_page_and_form_is_to_be_repeated(browser, service, clock, monkeypatch):
    browser.as_("ana").page("/")
    let_fail(monkeypatch, service.database)
    operations, others = list_operations(service), {}
    for method, route in operations:
        path = re.sub(r"\{[^}]*\}", "x", route.replace("{rollout}", "bears"))
        clock.advance(timedelta(seconds=1))  # for the limit of requests
        answer = browser.request(method, f"/console{path}", follow_redirects=False)
        if (answer.status_code, answer.headers.get("Retry-After")) != (503, "1"):
            others[f"{method} {route}"] = answer.status_code
    assert len(operations) > 100
    assert others == WITHOUT_DATABASE
