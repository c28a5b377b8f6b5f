"""A second Host header fools no check of the first: such a request has no effect."""

import asyncio
import json

import pytest

from api.app import create_app
from tests.api.bears import CREEK, V1, founded, scope_of, widened
from tests.data.databases import on_sqlite
from tests.factories import NOON

pytestmark = on_sqlite  # what is attacked is the edge
HOSTS = [b"localhost", b"example.org"]


def ask(service, method, path, hosts, body=b"", kind=b"application/json"):
    """Return the status and body of a request as a server hands it on, whatever parsed it."""
    headers = [(b"authorization", b"Bearer bo"), (b"content-type", kind)]
    headers += [(b"host", host) for host in hosts]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.1", 5),
        "state": {},
        "server": ("testserver", 80),
    }
    said = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        said.append(message)

    asyncio.run(create_app(service)(scope, receive, send))
    return said[0]["status"], b"".join(part.get("body", b"") for part in said[1:])


@pytest.mark.parametrize("hosts", [HOSTS, HOSTS[::-1], HOSTS[:1] * 2])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/me"), ("GET", "/health/live"), ("GET", "/console/"), ("POST", "/console/files")],
)
def test_a_request_with_two_hosts_is_refused(service, method, path, hosts):
    status, body = ask(service, method, path, hosts, kind=b"multipart/form-data; boundary=a")
    assert (status, json.loads(body)["code"]) == (400, "repeated-host")
    assert "\n" not in json.loads(body)["detail"]


@pytest.mark.parametrize("hosts", [HOSTS[:1], HOSTS[1:], [b""], []])
def test_one_host_or_none_is_as_before(service, hosts):
    assert ask(service, "GET", "/v1/me", hosts)[0] == 200


def test_what_is_refused_has_no_effect(service, database):
    founded(database, NOON)
    widened(database, NOON, CREEK)
    body = json.dumps({"sites": ["creek"], "to": "shadow"}).encode()
    assert ask(service, "POST", f"{V1}/narrowings", HOSTS, body)[0] == 400
    assert scope_of(database).get_holder(CREEK) is not None
    assert ask(service, "POST", f"{V1}/narrowings", HOSTS[:1], body)[0] == 201
    assert scope_of(database).get_holder(CREEK) is None
