"""Who may ask what where: every route of the service by every role and site, written out.

A route without a row here fails: a new route gets a row with its callers.
"""

from dataclasses import replace
from typing import NamedTuple

import pytest
from fastapi.routing import APIRoute

from api.app import create_app
from api.ledger.routes import get_streams
from rollout.engine.decide.permissions import ROLES, AssignedRole
from rollout.features.access.users import create_first_admin
from rollout.kernel.policy.cell_evidence import GuardReading
from rollout.kernel.policy_files.reader import parse_policy
from tests.api.bears import CREEK, POLICY, STRICTER, V1, founded, scope_of, tick, widened
from tests.api.test_shell import problem_of
from tests.data.snapshots import filled_once
from tests.factories import HOUR, MET, NOON, TICK

READ = {"viewer", "operator", "approver", "admin"}
ASK = {"ingest", "ingest-predictions"}
SEND = ASK | {"ingest-decisions", "ingest-outcomes"}
READ_OR_SEND = READ | SEND
DECIDE = {"operator", "approver"}
KNOWN = set(ROLES)

SITE = "at its site"  # creek's: whoever has the role at lake alone is refused
SITES = "at every site"  # whoever has the role at one site alone is refused
PART = "at some site"  # one is enough: the answer is cut to it, or says what was left out
HOUSE = "in all rollouts"  # no rollout owns it
SELF = "themselves"  # whoever is known; what they are shown is theirs
DOOR = "nobody yet"


class Row(NamedTuple):
    roles: set[str]
    where: str
    body: object = None


CREEK_DAY = {"site": "creek", "window": "day"}
YES = {"evidence_hash": "0" * 64}
TAKEOVER = {"kind": "takeover", **CREEK_DAY, "version": "v2", "to": "supervised"}
STOP = {"cells": [CREEK_DAY]}
CONTEXT = {"context": {"targetingKey": "k"}}
QUESTION = {"site": "creek", "key": "k", "version": "v1", "at": NOON.isoformat()}
ERASURE = {"kind": "case", "key": "k", "reason": "asked"}
BEARS = "/v1/rollouts/{rollout}"
MATRIX = {
    "GET /": Row(KNOWN, DOOR),
    "GET /docs": Row(KNOWN, DOOR),
    "GET /health/live": Row(KNOWN, DOOR),
    "GET /health/ready": Row(KNOWN, DOOR),
    "GET /metrics": Row(READ, HOUSE),
    "POST /v1/session": Row(KNOWN, DOOR),
    "POST /v1/session/link": Row(KNOWN, DOOR),
    "GET /v1/session": Row(KNOWN, SELF),
    "DELETE /v1/session": Row(KNOWN, SELF),
    "GET /v1/me": Row(KNOWN, SELF),
    "PUT /v1/me/password": Row(KNOWN, SELF),
    "GET /v1/me/notifications": Row(KNOWN, SELF),
    "PUT /v1/me/notifications": Row(KNOWN, SELF, {"timezone": "UTC"}),
    "PUT /v1/me/notifications/channels/{channel}": Row(
        KNOWN, SELF, {"address": "a@example.org", "kinds": []}
    ),
    "DELETE /v1/me/notifications/channels/{channel}": Row(KNOWN, SELF),
    "POST /v1/me/notifications/channels/{channel}/code": Row(KNOWN, SELF),
    "POST /v1/me/notifications/channels/{channel}/confirmation": Row(
        KNOWN, SELF, {"code": "12345678"}
    ),
    "GET /v1/keys": Row(KNOWN, SELF),
    "POST /v1/keys": Row(KNOWN, SELF),
    "DELETE /v1/keys/{prefix}": Row(KNOWN, SELF),
    "GET /v1/rollouts": Row(KNOWN, SELF),
    "POST /v1/plan": Row(READ, SELF, POLICY.replace("bears", "wolves")),
    "POST /ofrep/v1/evaluate/flags": Row(KNOWN, SELF, CONTEXT),
    "POST /ofrep/v1/evaluate/flags/{key:path}": Row(ASK, SELF, CONTEXT),
    "GET /v1/users": Row({"admin"}, HOUSE),
    "POST /v1/users": Row({"admin"}, HOUSE, {"name": "pat"}),
    "PATCH /v1/users/{name}": Row({"admin"}, HOUSE, {}),
    "POST /v1/users/{name}/link": Row({"admin"}, HOUSE),
    "DELETE /v1/users/{name}/second-factor": Row({"admin"}, HOUSE),
    "POST /v1/users/{name}/erasure": Row({"admin"}, HOUSE, {"reason": "asked"}),
    "GET /v1/users/{name}/data": Row({"admin"}, HOUSE),
    f"POST {BEARS}/erasures": Row({"admin"}, SITES, ERASURE),
    f"GET {BEARS}": Row(READ, PART),
    f"GET {BEARS}/cells": Row(READ, PART),
    f"GET {BEARS}/cause": Row(READ, PART),
    f"GET {BEARS}/cells/{{site}}/{{window}}": Row(READ, SITE),
    f"GET {BEARS}/cells/{{site}}/{{window}}/timeline": Row(READ, SITE),
    f"GET {BEARS}/proposals": Row(READ, PART),
    f"GET {BEARS}/proposals/{{proposal}}": Row(READ, SITE),
    f"POST {BEARS}/proposals": Row({"operator"}, SITE, TAKEOVER),
    f"POST {BEARS}/proposals/{{proposal}}/approvals": Row(DECIDE, SITE, YES),
    f"POST {BEARS}/proposals/{{proposal}}/rejection": Row(DECIDE, SITE, {}),
    f"POST {BEARS}/approvals": Row(DECIDE, PART, {"approvals": [{"proposal": "P-9", **YES}]}),
    f"GET {BEARS}/schedule": Row(READ, PART),
    f"GET {BEARS}/review-plan": Row(READ, PART),
    f"GET {BEARS}/stops": Row(READ, PART),
    f"POST {BEARS}/stops": Row({"operator"}, SITE, STOP),
    f"POST {BEARS}/stops/{{stop}}/resume": Row({"operator"}, SITE),
    f"POST {BEARS}/narrowings": Row({"operator"}, SITE, {**STOP, "to": "shadow"}),
    f"POST {BEARS}/attempts": Row({"operator"}, SITE, {**STOP, "version": "v1"}),
    f"GET {BEARS}/policy": Row(READ, PART),
    f"PUT {BEARS}/policy": Row({"admin"}, PART, STRICTER),
    f"GET {BEARS}/versions": Row(READ, PART),
    f"GET {BEARS}/versions/{{version:path}}/matrix": Row(READ, PART),
    f"PUT {BEARS}/versions/{{version:path}}": Row({*ASK, "admin"}, PART, {}),
    f"POST {BEARS}/versions/{{version:path}}/retirement": Row({"operator"}, SITES, {}),
    f"GET {BEARS}/incidents": Row(READ, PART),
    f"GET {BEARS}/incidents/{{incident}}": Row(READ, SITE),
    f"GET {BEARS}/incidents/{{incident}}/cause": Row(READ, SITE),
    f"GET {BEARS}/incidents/{{incident}}/detector": Row(READ, SITE),
    f"POST {BEARS}/incidents/{{incident}}/acknowledgement": Row({"operator"}, SITE, {}),
    f"GET {BEARS}/deliveries": Row(READ, PART),
    f"POST {BEARS}/deliveries": Row({"operator"}, SITES, {"report": 1, "channels": ["ops"]}),
    f"POST {BEARS}/deliveries/{{delivery}}/retry": Row({"operator"}, PART),
    f"GET {BEARS}/ledger": Row(READ, SITES),
    f"GET {BEARS}/ledger/checkpoint": Row(READ, PART),
    f"GET {BEARS}/ledger/verification": Row(READ, SITES),
    f"GET {BEARS}/events": Row(READ_OR_SEND, PART),
    f"GET {BEARS}/scope": Row(READ_OR_SEND, PART),
    f"GET {BEARS}/cases": Row(READ_OR_SEND, PART),
    f"GET {BEARS}/cases/{{key:path}}": Row(READ_OR_SEND, PART),
    f"GET {BEARS}/divergences": Row(READ_OR_SEND, PART),
    f"GET {BEARS}/rejected-records": Row(READ, SITES),
    f"GET {BEARS}/reports": Row(READ, SITES),
    f"POST {BEARS}/reports": Row(READ, SITES, {"until": (NOON - HOUR).isoformat()}),
    f"GET {BEARS}/reports/{{report}}": Row(READ, SITES),
    f"GET {BEARS}/baselines": Row(READ, PART),
    f"POST {BEARS}/baselines": Row({"admin"}, PART),
    f"POST {BEARS}/planted-cases": Row({"admin"}, PART),
    f"GET {BEARS}/cleanings": Row(READ, PART),
    f"GET {BEARS}/cleanings/choices": Row(READ, PART),
    f"GET {BEARS}/cleanings/top-losses": Row(READ, PART),
    f"POST {BEARS}/cleanings": Row({"operator"}, PART, {"items": []}),
    f"GET {BEARS}/training": Row(READ, PART),
    f"GET {BEARS}/training/manifest": Row(READ, PART),
    f"POST {BEARS}/assignments": Row(ASK, SITE, QUESTION),
    f"POST {BEARS}/records": Row(SEND, PART),
    f"GET {BEARS}/reviews": Row({"reviewer"}, PART),
    f"POST {BEARS}/reviews/claims": Row({"reviewer"}, PART),
    f"POST {BEARS}/reviews/{{review}}/decision": Row({"reviewer"}, PART),
    f"POST {BEARS}/reviews/{{review}}/release": Row({"reviewer"}, PART),
    f"POST {BEARS}/reviews/adjudications": Row({"operator"}, PART),
    f"POST {BEARS}/reviews/gold-cases": Row({"admin"}, PART),
    f"POST {BEARS}/reviews/reassignments": Row({"operator"}, PART),
    f"GET {BEARS}/reviews/overdue": Row({"operator"}, PART),
}
OF_BEARS = {name: row for name, row in MATRIX.items() if "{rollout}" in name}
REFUSED = {(401, "unauthenticated"), (403, "not-allowed"), (404, "unknown-rollout")}


def routes_of(routes):
    for route in routes:
        if isinstance(route, APIRoute):
            yield from (f"{method} {route.path}" for method in sorted(route.methods))


def test_every_route_has_a_row_and_every_row_a_route(service):
    found = sorted(routes_of(create_app(service).routes))
    assert found == sorted(MATRIX)


@filled_once
def settle(database):
    create_first_admin(database, "eve", at=NOON)  # who changes people is one of them
    founded(database, NOON, "v1", "v2")
    widened(database, NOON)
    guards = parse_policy(POLICY).list_guards(CREEK)
    loud = {g.id: GuardReading(is_alarm=True, value=12, records=40) for g in guards}
    tick(database, NOON + TICK, of=replace(MET, guards=loud))
    tick(database, NOON + 2 * TICK)


@pytest.fixture
def bears(database):
    """Return what paths name: a proposal, a stop and an incident, all of creek by day."""
    settle(database)
    scope = scope_of(database)
    (incident, *_), (proposal,) = scope.open_incidents, scope.proposals
    return {
        "{rollout}": "bears",
        "{site}": "creek",
        "{window}": "day",
        "{proposal}": proposal,
        "{incident}": incident,
        "{version:path}": "v1",
        "{review}": "1",
        "{delivery}": "1",
        "{key:path}": "gate.bears.decider",
        "{prefix}": "00",
        "{report}": "1",
        "{name}": "nobody",
    }


@pytest.fixture
def stopped(client, bears):
    """Return the same, with a stop of the cell."""
    done = client.by("ana").post(f"{V1}/stops", json=STOP).json()
    return bears | {"{stop}": done["active_stops"][0]["id"]}


@pytest.fixture
def asked(client, door, stopped):
    """Return what asks a route as somebody with one right, and says how it was answered."""
    get_streams(client.app).close()  # a stream would never end

    def ask(name, *rights):
        door.let_in("eve", *rights)
        method, path = name.split()
        for part, value in stopped.items():
            path = path.replace(part, value)
        body = MATRIX[name].body
        sent = {"content": body} if isinstance(body, str) else {"json": body or {}}
        answer = client.by("eve").request(method, path, **sent)
        if answer.status_code < 400:
            return answer.status_code, ""
        return problem_of(answer)

    return ask


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_may_not_do_is_refused_and_changes_nothing(asked, database, role):
    before = scope_of(database)
    for name, row in MATRIX.items():
        if role not in row.roles:
            assert asked(name, AssignedRole(role)) in REFUSED, name
    assert scope_of(database) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_may_do_it_may(asked, role):
    for name, row in MATRIX.items():
        if role in row.roles and row.where not in {DOOR, SELF}:
            status, code = asked(name, AssignedRole(role))
            assert (status, code) not in REFUSED, name
            assert status != 500, name  # 503: people decide while the clock is set by a test


@pytest.mark.parametrize("role", ROLES)
def test_a_role_at_another_site_is_none_here(asked, database, role):
    before = scope_of(database)
    for name, row in OF_BEARS.items():
        if role in row.roles and row.where in {SITE, SITES}:
            assert asked(name, AssignedRole(role, "bears", "lake")) == (403, "not-allowed"), name
        if role in row.roles and row.where == SITES:
            assert asked(name, AssignedRole(role, "bears", "creek")) == (403, "not-allowed"), name
    assert scope_of(database) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", sorted(READ_OR_SEND | {"reviewer"}))
def test_a_role_at_the_site_is_enough_there(asked, role):
    for name, row in OF_BEARS.items():
        if role in row.roles and row.where in {SITE, PART} and role != "admin":
            assert asked(name, AssignedRole(role, "bears", "creek")) not in REFUSED, name


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", ROLES)
def test_of_another_rollout_nothing_is_there(asked, database, role):
    before = scope_of(database)
    for name in OF_BEARS:
        assert asked(name, AssignedRole(role, "wolves")) == (404, "unknown-rollout"), name
    for name, row in MATRIX.items():
        if row.where == HOUSE:
            assert asked(name, AssignedRole(role, "wolves")) == (403, "not-allowed"), name
    assert scope_of(database) == before


def test_nobody_without_a_key_comes_further_than_the_door(client, clock, stopped):
    del client.headers["Authorization"]
    for name, row in MATRIX.items():
        clock.advance(HOUR)  # tries without a key are few at once
        if row.where != DOOR:
            method, path = name.split()
            for part, value in stopped.items():
                path = path.replace(part, value)
            assert client.request(method, path, json={}).status_code == 401, name
