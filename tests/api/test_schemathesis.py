"""The OpenAPI document kept by the service: generated requests, sent with a key of each role.

Most requests aim at what is there; parts of each are left as they were generated. What the form
allows may still be refused (a lever that the policy does not have, a time in the future), so
nothing here asks that well-formed requests are accepted.
"""

import os
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import select

from api.app import create_app
from api.ledger.routes import get_streams
from rollout.data.tables.record_tables import metadata
from rollout.engine.decide.permissions import ROLES, AssignedRole, Caller
from rollout.features.access.users import create_account, create_first_admin
from rollout.kernel.policy.cell_evidence import GuardReading
from rollout.kernel.policy_files.reader import parse_policy
from tests.api.bears import CREEK, LAKE, LOOSER, POLICY, STRICTER, V1, founded, tick, widened
from tests.api.conftest import Asking
from tests.data.snapshots import filled_once
from tests.docs.pages import text_of
from tests.factories import DAY, MET, MINUTE, NOON, TICK
from tests.features.houses import chance

pytestmark = pytest.mark.exhaustive

PAST_401 = 0.95
"""At least this share of the requests is past the check of the key."""
TIMES = int(os.environ.get("ROLLOUT_FUZZ", "2"))
"""Requests of each form to each operation; by hand `ROLLOUT_FUZZ=200`."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CONFIDENCE, LATENCY, ERROR = 0.7318293, 48_151.62, "lens-4242-fogged"
MARKS = [str(CONFIDENCE), str(LATENCY), ERROR]  # of predictions alone
OWN = {
    *("api_keys", "sessions", "idempotency_keys", "permit_keys", "exposures"),
    *("notification_settings", "notification_channels", "notifications"),
}
"""Tables of what anybody may have of their own, as a key; `exposures` says what they have seen."""


def known_case(key, site):
    at = (NOON - 5 * MINUTE).isoformat()
    case = {"kind": "case", "key": key, "site": site, "occurred_at": at, "attributes": {"a": "b"}}
    said = {"kind": "prediction", "key": key, "version": "v1", "answers": {"alarm": "bear"}}
    marks = {"confidence": CONFIDENCE, "latency_ms": LATENCY, "error": ERROR}
    return [case, said | marks]


@filled_once
def settle(database):
    """Make an account for each role, and a rollout with a proposal and an incident."""
    create_first_admin(database, "admin", at=NOON)
    admin = Caller("admin", role_assignments=(AssignedRole("admin"),))
    for role in ROLES:
        if role != "admin":
            create_account(database, admin, role, at=NOON, is_service_account=role == "ingest")
    founded(database, NOON - DAY, "v1", "v2")
    widened(database, NOON - DAY)
    guards = parse_policy(POLICY).list_guards(CREEK)
    loud = {g.id: GuardReading(is_alarm=True, value=12, records=40) for g in guards}
    tick(database, NOON - DAY + TICK, of=replace(MET, guards=loud))
    tick(database, NOON - DAY + 2 * TICK, cells=(CREEK, LAKE))


@pytest.fixture
def app(service, database, door, monkeypatch):
    """Return the application of a rollout with a proposal, an incident, a stop, cases, people."""
    for module in ("state_cache", "autonomy"):
        monkeypatch.setattr(f"rollout.live.{module}.measure_clock_skew", lambda *_: timedelta(0))
    door.let_in("every", *(AssignedRole(role) for role in ROLES))
    settle(database)
    made = create_app(replace(service, entropy=chance))  # no two keys or links alike
    get_streams(made).close()  # a stream would never end
    return made


@pytest.fixture
def asking(app):
    with Asking(app, raise_server_exceptions=False) as client:
        send_cases(client)
        yield client


def send_cases(client):
    items = [one for n in range(6) for one in known_case(f"c{n}", ("creek", "lake")[n % 2])]
    told = client.by("ingest").post(f"{V1}/records", json={"items": items}).json()["items"]
    assert {one["status"] for one in told} == {"accepted"}, told
    client.by("every").post(f"{V1}/stops", json={"cells": [{"site": "lake", "window": "day"}]})


THERE = {
    "rollout": ["bears"] * 5 + ["wolves"],
    "site": ["creek", "lake", "pond"],
    "window": ["day", "night", "other"],
    "version": ["v1", "v2", "v/3"],
    "proposal": ["P-1", "P-2", "P-3", "P-999999999999999999999"],
    "incident": ["I-1", "I-2", "I-0"],
    "stop": ["S-14", "S-1", "14"],
    "delivery": [1, 2, 2**53 - 1],
    "review": [1, 2, 3, 4, 5, 6, 2**53 - 1],
    "report": [1, 2, 3, 2**53 - 1],
    "view": ["operator", "auditor"],
    "key": ["c0", "c1", "c5", "c/9", "gate.bears.decider", "gate.bears.decision"],
    "prefix": ["00", "no such"],
    "name": ["viewer", "ingest", "pat"],
    "case": ["c0", "c1", "c2", "nowhere"],
    "lever": ["alarm"],
    "action": ["siren", "nothing", "bear"],
    "answers": [{"alarm": "bear"}, {"alarm": "none"}, {"alarm": "wolf"}],
    "kind": ["case", "prediction", "decision", "blind", "takeover"],
    "reviewer": ["reviewer", "ana"],
    "holder": ["viewer", "ingest", "nobody"],
    "to": ["supervised", "autonomous", "shadow"],
    "targetingKey": ["c0"],
    "evidence_hash": ["0" * 64],
    "channel": ["mail", "hook", "no such"],
    "choice": ["relabel", "drop", "keep", "burn"],
    "token": ["no-such-address", "0" * 43],
}
TIMES_OF_DAY = [(NOON - MINUTE).isoformat(), NOON.isoformat(), (NOON - 30 * DAY).isoformat()]
THERE |= dict.fromkeys(("at", "occurred_at", "since", "until"), TIMES_OF_DAY)
TEXTS = [POLICY, STRICTER, LOOSER, POLICY.replace("rollout: bears", "rollout: wolves")]


def aimed(draw, body):
    """Return a body with most of its fields at something that is there."""
    if isinstance(body, list):
        return [aimed(draw, one) for one in body]
    if not isinstance(body, dict):
        return body
    return {
        name: draw(st.sampled_from(THERE[name]))
        if name in THERE and draw(st.integers(0, 3))
        else aimed(draw, value)
        for name, value in body.items()
    }


@st.composite
def requests_of(draw, operation, mode):
    """Return a request to an operation, whose path names what is there."""
    names = [one.name for one in operation.path_parameters]
    path = {name: draw(st.sampled_from(THERE[name])) for name in names}
    case = draw(operation.as_strategy(generation_mode=mode, path_parameters=path))
    if mode is GenerationMode.POSITIVE:
        if case.media_type == "application/yaml":
            case.body = draw(st.sampled_from([*TEXTS, case.body]))
        elif isinstance(case.body, dict | list):
            case.body = aimed(draw, case.body)
    return case


def requests(schema, times):
    """Yield generated requests of each form to each operation, the same ones at each run."""
    for operation in (found.ok() for found in schema.get_all_operations()):
        sends = [*operation.body, *operation.query, *operation.headers]
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 2 if sends else 1]:
            yield from drawn(requests_of(operation, mode), times)


def drawn(strategy, times):
    found = []

    @settings(
        max_examples=times,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def note(one):
        found.append(one)

    note()
    return found


def everything(database, but=()):
    """Return each row of each table."""
    with database.begin_read() as transaction:
        return {
            table.name: sorted(map(tuple, transaction.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
            if table.name not in but
        }


def faults_of(case, answer):
    """Return what is wrong with an answer, with what was asked."""
    try:
        case.validate_response(answer, checks=CHECKS)
    except schemathesis.errors.SchemathesisError as error:
        return [str(error)]
    except FailureGroup as group:
        return [str(group)]
    return []


def played(app, database, role, but=lambda _: False):
    """Send everything with a key of a role; return what was answered, and what was wrong."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    times = TIMES if database.engine.dialect.name == "sqlite" else 1
    headers = {"Authorization": f"Bearer {role}"}
    answers, wrong = [], []
    for case in requests(schema, times):
        if not but(case):
            answer = case.call(headers=headers)
            wrong += faults_of(case, answer)
            answers.append((case, answer))
    return answers, wrong


@pytest.mark.parametrize("role", ["reviewer", "operator", "approver", "ingest", "admin"])
def test_every_answer_is_as_the_document_says(app, asking, database, role):
    answers, wrong = played(app, database, role)
    assert wrong == []
    statuses = Counter(answer.status_code for _, answer in answers)
    assert set(statuses) >= {200, 403, 404, 422}, "too little was reached to say anything"
    share = 1 - statuses[401] / statuses.total()
    assert share >= PAST_401, f"only {share:.1%} of the requests were past 401"
    if role == "reviewer":
        assert marks_in(answers) == []
        assert asking.by("viewer").get(f"{V1}/cases/c5").text.count(ERROR), "no mark was planted"


def test_the_share_past_401_stands_in_the_readme_of_the_tests():
    (percent,) = re.findall(r"at least (\d+) % of them are past\s+401", text_of("tests/README.md"))
    assert int(percent) == PAST_401 * 100


def test_a_viewer_adds_reports_and_changes_nothing_else(app, asking, database):
    before = of_rollouts(database)
    answers, wrong = played(app, database, "viewer", but=of_own_password)
    assert wrong == []
    assert of_rollouts(database) == before
    assert 200 in {answer.status_code for _, answer in answers}


def test_who_reads_and_may_still_judge_sees_no_prediction(app, asking, database, door):
    door.let_in("both", AssignedRole("viewer"), AssignedRole("reviewer"), AssignedRole("operator"))
    answers, wrong = played(app, database, "both", but=judging)
    assert wrong == []
    assert marks_in(answers) == []


def of_rollouts(database):
    """Return each row that is not somebody's own; a key is noted in the access ledger.

    Every reader may have a report made, which is counted and which the ledger cites.
    """
    found = everything(database, {*OWN, "reports", "report_requests", "ledger_heads"})
    own = [row for row in found["ledger"] if row[0] and "ReportSealed" not in row]
    return found | {"ledger": own}


def of_own_password(case):
    return case.operation.label == "PUT /v1/me/password"


def judging(case):
    return case.operation.label.endswith("/decision")


def marks_in(answers):
    """Return the answers that hold what only predictions hold."""
    held = [
        (case.operation.label, answer.content.decode(errors="replace")) for case, answer in answers
    ]
    return [(label, text) for label, text in held if any(mark in text for mark in MARKS)]


def test_every_operation_has_an_example_of_what_is_sent_and_answered(service):
    described = create_app(service).openapi()
    schemas = described["components"]["schemas"]

    def shown(content):
        named = content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
        form = content.get("schema", {}) | schemas.get(named, {})
        return bool({"example", "examples"} & (content | form).keys())

    bare = [
        (method, path, kind)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for kind, content in contents(operation)
        if not shown(content)
    ]
    assert bare == []


def contents(operation):
    """Yield what an operation is sent, and answers when all is well."""
    yield from operation.get("requestBody", {}).get("content", {}).items()
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield from answer.get("content", {}).items()
