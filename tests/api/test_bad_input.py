"""Whatever is sent to whatever route: a named problem with what to do, and nothing half done.

Bodies are made from the examples of the OpenAPI document, with one value of each bent at a time.
"""

import copy
import json
import time

import pytest

from tests.api import bears
from tests.api.bears import POLICY, V1
from tests.api.table_rows import read_tables_of
from tests.api.test_schemathesis import THERE, app, asking, everything
from tests.factories import NOON

pytestmark = pytest.mark.exhaustive

__all__ = ["app", "asking"]

JSON = "application/json"
GONE_WRONG = {
    "a lone surrogate": "\ud800",
    "NUL": "a\0b",
    "a list": [],
    "a mapping": {},
    "a huge number": 10**400,
    "a huge exponent": float("inf"),
    "no number": float("nan"),
    "nothing": None,
    "a time without its zone": "2027-06-01T12:00:00",
    "a long text": "x" * 100_000,
}
WHOLE = {
    "nothing at all": b"",
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "a brace": b"{",
    "a bare word": b"yes",
    "NaN": b"NaN",
    "nesting": b"[" * 100_000,
    "nesting of mappings": b'{"a":' * 100_000,
    "digits": b"9" * 100_000,
    "NUL": b"\0",
    "two values": b"{} {}",
    "a list": b"[1, 2]",
    "ten megabytes": b'{"a": "' + b"x" * 10 * 2**20 + b'"}',
}


def operations(client):
    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def changing(client):
    """Yield each operation that takes a body, with an example of it as JSON."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for method, path, operation in operations(client):
        form = operation.get("requestBody", {}).get("content", {}).get(JSON)
        if form is not None:
            schema = form["schema"]
            schema = schemas[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema
            yield method, there(path), form.get("example") or schema["example"]


def there(path):
    """Return a path with something in each of its places that is there."""
    for name, values in THERE.items():
        path = path.replace(f"{{{name}}}", str(values[0]))
    return path.replace("flags/c0", "flags/gate.bears.decider")


def bent(example, wrong):
    """Yield an example once for each value in it, with `wrong` in its place."""
    for place in list(places(example, ())):
        made = copy.deepcopy(example)
        inner = made
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = wrong
        yield place, made


@pytest.fixture
def held(database):
    with read_tables_of(database) as found:
        yield found


def test_what_is_held_is_read_again_once_somebody_wrote(database, held):
    before = held()
    assert held() is before
    bears.founded(database, NOON)
    assert held() == everything(database) != before


def places(value, at):
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    for step, inner in rows:
        yield (*at, step)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, step))


def refused(answer, told):
    """See that a refusal is a problem that says what to do; of OFREP in the protocol's form."""
    said = answer.json()
    if "errorCode" in said:
        assert said["errorDetails"], told
        return
    assert answer.headers["content-type"] == "application/problem+json", told
    assert said["code"], told
    assert len(said["detail"]) > 10, told
    assert "Traceback" not in answer.text, told


@pytest.mark.parametrize("name", GONE_WRONG)
def test_a_bent_value_is_a_named_problem_without_effect(asking, held, name):
    asking.by("every")
    before, sends = held(), 0
    for method, path, example in changing(asking):
        for place, body in bent(example, GONE_WRONG[name]):
            sent = json.dumps(body).encode()
            answer = asking.request(method, path, content=sent, headers={"Content-Type": JSON})
            told = (method, path, place, answer.status_code, answer.text[:200])
            assert answer.status_code < 500, told
            sends += 1
            if answer.status_code >= 400:
                refused(answer, told)
                assert held() == before, told
            else:
                before = held()  # one may leave much out
    assert sends > 50


@pytest.mark.parametrize("name", WHOLE)
def test_a_body_of_no_form_is_a_named_problem_without_effect(asking, database, name):
    asking.by("every")
    before = everything(database)
    for method, path, _ in changing(asking):
        answer = asking.request(method, path, content=WHOLE[name], headers={"Content-Type": JSON})
        told = (method, path, answer.status_code, answer.text[:200])
        if path.endswith("/records") and name == "a list":
            assert {one["status"] for one in answer.json()["items"]} == {"rejected"}
            before = everything(database)  # they are set aside
            continue
        assert 400 <= answer.status_code < 500, told
        refused(answer, told)
    assert everything(database) == before


MANY = {
    "a key of letters that JSON writes in two halves": json.dumps({"\U00011d5c": 1}),
    "sites": POLICY.replace(
        "sites: [", "sites: [" + ", ".join(f"s{n}" for n in range(5_001)) + ", "
    ),
    "labels": POLICY.replace("[bear,", "[" + ", ".join(f"b{n}" for n in range(501)) + ", bear,"),
    "keys": POLICY + "".join(f"k{n}: 1\n" for n in range(501)),
    "letters": POLICY.replace("06:00-20:00", "; ".join(["Mo 06:00-20:00"] * 300)),
    "guards": POLICY.replace(
        "guards:\n",
        "guards:\n" + "  - {measure: agreement, at_least: 93%, sites: [creek]}\n" * 100,
    ).replace("sites: [creek, {id", "sites: [" + "".join(f"s{n}, " for n in range(2_000)) + "{id"),
    "faults": POLICY.replace("[bear, none]", "[" + ", ".join(["{a: b}"] * 400) + "]"),
}


@pytest.mark.parametrize("name", MANY)
def test_a_policy_that_would_take_minutes_is_refused_within_seconds(asking, name):
    began = time.process_time()
    answer = asking.by("every").post("/v1/plan", content=MANY[name])
    assert answer.status_code == 422, answer.text[:300]
    refused(answer, name)
    assert "at most" in answer.text or name in {"faults", next(iter(MANY))}
    assert time.process_time() - began < 5


CURSORS = ["", "x", "!!", "é", "a" * 501, "MTA", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5", "\0", "AA=="]
LIMITS = ["0", "-1", "1e3", "NaN", "99999999999999999999", "", "1;2"]


def test_bad_cursors_and_limits_are_named(asking):
    asking.by("every")
    for method, path, operation in operations(asking):
        named = {one["name"] for one in operation.get("parameters", ())}
        for name, values in (("after", CURSORS), ("limit", LIMITS)):
            for value in values if name in named and method == "GET" else ():
                answer = asking.get(there(path), params={name: value})
                told = (path, name, value, answer.status_code, answer.text[:200])
                assert answer.status_code < 500, told
                if answer.status_code != 200:
                    refused(answer, told)
                if name == "limit":
                    assert answer.status_code == 422, told


HEADERS = [
    {"Idempotency-Key": "k" * 10_000},
    {"Idempotency-Key": b"\xff\xfe"},
    {"If-None-Match": '"' * 5_000},
    {"Last-Event-ID": "-1"},
    {"Content-Encoding": "gzip, gzip"},
    {"Content-Type": "application/json; charset=utf-7"},
    {"Content-Type": "text/" + "x" * 5_000},
    {"Sec-Fetch-Site": "\x7f"},
    {"X-CSRF-Token": "x" * 5_000},
    {"Cookie": "rollout=" + "x" * 5_000},
    {"Accept": "*/*;q=x"},
]


PASSING = ("idempotency_keys", "permit_keys", "exposures")
"""Made by asking for the scope and the divergences."""


def test_absurd_headers_break_nothing(asking, database):
    asking.by("every")
    before = everything(database, but=PASSING)
    for method, path, operation in operations(asking):
        for headers in HEADERS:
            content = b"{" if method != "GET" and "requestBody" in operation else None
            if method == "GET" or content:
                answer = asking.request(method, there(path), content=content, headers=headers)
                told = (method, path, headers, answer.status_code, answer.text[:200])
                assert answer.status_code < 500, told
                if answer.status_code >= 400:
                    refused(answer, told)
    assert everything(database, but=PASSING) == before


def test_a_parameter_given_twice_counts_once(asking):
    asking.by("every")
    assert asking.get(f"{V1}/proposals?limit=1&limit=2").status_code == 200
    assert asking.get(f"{V1}/scope?at=2027-06-01T12:00:00Z&at=never").status_code in {200, 422}


def test_what_was_stored_stands_after_other_content_under_its_keys(asking, database):
    asking.by("every")
    kept = asking.get(f"{V1}/cases/c0").json()
    other = [
        {"kind": "case", "key": "c0", "site": "lake", "occurred_at": "2027-05-01T11:55:00Z"},
        {"kind": "prediction", "key": "c0", "version": "v1", "answers": {"alarm": "none"}},
        {"kind": "case", "key": "c0"},
        {"kind": "case", "key": "c0\0", "site": "creek", "occurred_at": "2027-05-01T11:55:00Z"},
    ]
    told = asking.by("ingest").post(f"{V1}/records", json=other).json()["items"]
    assert [one["status"] for one in told] == ["conflict", "conflict", "rejected", "rejected"]
    assert asking.by("every").get(f"{V1}/cases/c0").json() == kept
    aside = asking.get(f"{V1}/rejected-records").json()["items"]
    assert len(aside) == len(other)
