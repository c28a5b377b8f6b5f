"""The same key and the same content: the same answer. Other content under it: refused."""

import re
from datetime import timedelta
from itertools import count

import pytest
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.app import add_routes, create_app
from api.auth import Permission, RequirePermission
from api.idempotency import CHANGING_METHODS, SECRET_PATHS, SELF_KEYED_PATHS
from rollout import faults
from tests.api.conftest import Asking
from tests.docs.api_page import build_document

KEY = {"Idempotency-Key": "k-1"}


@pytest.fixture
def counting(service):
    numbers, app = count(1), create_app(service)
    for prefix in ("/v1/counted", "/v1/keys/counted"):
        router = APIRouter(prefix=prefix, include_in_schema=False)

        @router.post("", dependencies=[RequirePermission(Permission.IDENTIFY)])
        def counted(status: int = 200) -> JSONResponse:
            return JSONResponse({"n": next(numbers)}, status)

        add_routes(app, router)
    with Asking(app, raise_server_exceptions=False) as asking:
        yield asking.by("ana")


def asked(client, content="{}", path="/v1/counted", headers=KEY):
    answer = client.post(path, content=content, headers=headers)
    return answer.status_code, answer.json().get("n") or answer.json()["code"]


def test_asking_again_gets_the_first_answer(counting):
    assert [asked(counting) for _ in range(3)] == [(200, 1)] * 3
    assert asked(counting, headers={}) == (200, 2)


def test_other_content_under_the_same_key_is_refused(counting):
    asked(counting)
    assert asked(counting, '{"other": 1}') == (409, "conflict")
    assert asked(counting, path="/v1/counted?status=201") == (409, "conflict")


def test_keys_are_each_callers_own(counting):
    asked(counting)
    assert asked(counting.by("bo")) == (200, 2)


def test_a_kept_answer_expires(counting, clock):
    asked(counting)
    clock.advance(timedelta(days=1))
    assert [asked(counting) for _ in range(2)] == [(200, 2)] * 2


def test_a_refusal_is_kept_and_a_fault_of_ours_is_not(counting):
    assert [asked(counting, path="/v1/counted?status=409")[1] for _ in range(2)] == [1, 1]
    other = {"Idempotency-Key": "k-2"}
    assert [asked(counting, path="/v1/counted?status=503", headers=other)[1] for _ in range(2)] == [
        2,
        3,
    ]


def test_every_path_that_answers_with_a_secret_is_one_of_the_service(service):
    paths = {route.path for route in create_app(service).routes}
    assert [path for path in SECRET_PATHS if path not in paths] == []
    with_secrets = {"/v1/keys", "/v1/users/{name}/link", "/v1/session", "/v1/session/link"}
    assert with_secrets <= paths
    assert all(path.startswith(SECRET_PATHS) for path in with_secrets)


def list_properties(schema, schemas, *above):
    """Return the names of all properties of a schema of the document."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in above:
        return set()
    if name:
        return list_properties(schemas[name], schemas, name, *above)
    parts = [*schema.get("properties", {}).values(), schema.get("items")]
    parts += [part for kind in ("anyOf", "allOf", "oneOf") for part in schema.get(kind, ())]
    inner = (list_properties(part, schemas, *above) for part in parts if part)
    return set(schema.get("properties", ())).union(*inner)


def test_no_answer_whose_form_has_a_secret_is_kept():
    document = build_document()
    schemas = document["components"]["schemas"]
    secrets = re.compile(r"(.*_)?(token|secret|password|permit|recovery_codes?)")
    answers = {
        path: list_properties(content["schema"], schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method.upper() in CHANGING_METHODS
        for status, response in operation["responses"].items()
        if status.startswith("2")
        for content in response.get("content", {}).values()
    }
    with_secrets = {
        path
        for path, names in answers.items()
        if any(secrets.fullmatch(name) and not name.startswith("has_") for name in names)
    }
    assert {"/v1/users/{name}/link", "/v1/rollouts/{rollout}/assignments"} <= with_secrets
    assert [
        path
        for path in sorted(with_secrets)
        if not path.startswith(SECRET_PATHS) and not path.endswith(SELF_KEYED_PATHS)
    ] == []


def test_an_answer_with_a_secret_is_never_kept(counting):
    assert [asked(counting, path="/v1/keys/counted")[1] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_key_that_is_none_is_refused(counting, key):
    assert asked(counting, headers={"Idempotency-Key": key}) == (400, "malformed")


def test_what_can_not_be_kept_is_not_said(counting):
    def fails(_point):
        raise OSError("no space left on device")

    with faults.install_action(fails, "reply.kept"):
        assert asked(counting) == (503, "outcome-unknown")
    assert [asked(counting) for _ in range(2)] == [(200, 2)] * 2


def test_of_two_who_ask_at_once_both_hear_the_answer_that_stands(counting):
    inner = []

    def asks_too(_point):
        if not inner:
            inner.append(None)
            inner[0] = asked(counting)

    with faults.install_action(asks_too, "reply.sought"):
        outer = asked(counting)
    assert inner == [outer] == [(200, 1)]
