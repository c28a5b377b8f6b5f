"""What really hit such systems, as tests: safety.md, section 8.

The matrix of rights (`test_rights_matrix`) and the limits of bodies (`test_limits`) are part of
it. Names that resolve to inside addresses come with the webhooks.
"""

import gzip
import re
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import ROLES, AssignedRole
from rollout.features.access import keys
from rollout.features.access.authentication import MAX_CACHE_AGE, Authenticator
from rollout.features.access.users import AccountUpdate, update_account
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from tests.api.bears import POLICY, V1
from tests.api.test_schemathesis import app, asking, everything
from tests.api.test_shell import problem_of
from tests.docs.pages import ROOT
from tests.factories import DAY, HOUR, NOON
from tests.features.houses import ADA, chance, furnish

__all__ = ["app", "asking"]

WOLVES = "/v1/rollouts/wolves"

# An allow-list by path that is not normalised

ODD = [
    "//v1/rollouts/bears/scope",
    "/v1//rollouts/bears/scope",
    "/V1/rollouts/bears/scope",
    "/v1/rollouts/bears/scope/",
    "/v1/rollouts/bears/scope;x=1",
    "/v1/rollouts/bears/./scope",
    "/v1/rollouts/bears%2fscope",
    "/v1/rollouts/x/../bears/scope",
    "/v1/rollouts/x/%2e%2e/bears/scope",
    "/health/../v1/rollouts/bears/scope",
    "/health/live/%2e%2e/%2e%2e/v1/rollouts/bears/scope",
    "/docs/../v1/rollouts/bears/scope",
    "/v1/rollouts/bears/scope%00",
    "/v1/rollouts/bears/cases/..%2f..%2fscope",
    "/metrics/../v1/rollouts/bears/policy",
]
OPEN = {"/openapi.json", "/docs", "/", "/console"}  # where the console's own door is


@pytest.mark.slow
@pytest.mark.parametrize("path", ODD)
def test_no_spelling_of_a_path_opens_a_door(asking, path):
    del asking.headers["Authorization"]
    answer = asking.get(path)
    assert answer.status_code in {401, 404}, answer.text
    door = asking.app.state.service.authenticator
    door.let_in("eve", AssignedRole("viewer", "wolves"))
    answer = asking.by("eve").get(path)
    assert answer.status_code in {403, 404}, answer.text
    assert "creek" not in answer.text


@pytest.mark.slow
def test_what_is_open_is_a_short_list(asking, clock):
    del asking.headers["Authorization"]
    paths = asking.get("/openapi.json").json()["paths"]
    found = {path for path in paths if asking.get(path).status_code == 200}
    assert found == {"/health/live", "/health/ready"}
    clock.advance(HOUR)  # tries without a key are few at once
    others = {getattr(route, "path", "") for route in asking.app.routes} - set(paths) - {""}
    assert {path for path in others if "{" not in path} == OPEN
    assert asking.get("/docs").status_code == 200  # what the API can do is no secret
    for path in ("/metrics", "/scope", "/policy", "/v1/metrics", "/v1/scope", "/redoc"):
        assert asking.get(path).status_code in {401, 404}


def test_figures_are_for_whoever_reads_everything_and_are_right(asking, door):
    door.let_in("eve", AssignedRole("viewer", "bears"), AssignedRole("ingest"))
    assert problem_of(asking.by("eve").get("/metrics")) == (403, "not-allowed")
    asking.by("ingest").post(f"{V1}/assignments", json={"key": "k", "site": "creek"})
    asking.by("every").get(f"{V1}/cases/c0")
    answer = asking.by("viewer").get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'rollout_assignments_total{rollout="bears",decider="human"} 1' in lines
    assert 'rollout_records_total{rollout="bears",status="accepted"} 12' in lines
    assert 'rollout_open_proposals{rollout="bears"} 2' in lines
    assert 'rollout_open_incidents{rollout="bears"} 2' in lines
    route = 'route="/v1/rollouts/{rollout}/cases/{key:path}",status="200"'
    assert f'rollout_http_requests_total{{method="GET",{route}}} 1' in lines
    assert 'rollout_http_requests_total{method="GET",route="/metrics",status="403"} 1' in lines


def test_metrics_have_these_names_types_and_labels(asking, snapshot):
    """Monitors and alerts cite these names: a rename is a change for every user."""
    asking.by("ingest").post(f"{V1}/assignments", json={"key": "k", "site": "creek"})
    lines = asking.by("viewer").get("/metrics").text.splitlines()
    described = [line for line in lines if line.startswith("# ")]
    labels = {
        line.split()[0].partition("{")[0]: tuple(re.findall(r'[{,]([a-z_]+)="', line))
        for line in lines
        if not line.startswith("# ")
    }
    types = {line.split()[2]: line.split()[3] for line in described if "# TYPE" in line}
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in types.items())
    page = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    assert [name for name in types if f"`{name}`" not in page] == []
    assert {"described": described, "labels": labels} == snapshot


# One huge body

HUGE = b'{"items": ["' + b"x" * 40 * 2**20 + b'"]}'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{V1}/records"),
        ("POST", f"{V1}/assignments"),
        ("POST", "/v1/plan"),
        ("PUT", f"{V1}/policy"),
        ("POST", "/ofrep/v1/evaluate/flags"),
    ],
)
def test_a_huge_body_is_refused_raw_and_packed_and_the_service_goes_on(asking, method, path):
    asking.by("every")
    for body, encoding in ((HUGE[: 10 * 2**20], "identity"), (gzip.compress(HUGE, 1), "gzip")):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        answer = asking.request(method, path, content=body, headers=headers)
        assert problem_of(answer) == (413, "too-large")
    assert asking.get(V1).status_code == 200


# Over-full answers

FREE = {"body", "value", "metadata", "context", "condition", "alarms", "values"}
"""Fields of any form by intent: an event's body, OFREP's values, facts as the ledger has them."""


ELSEWHERE = {"get /v1/rollouts/{rollout}/reports/{report} 200 "}
"""Answers whose form is a file of its own: a report is as `config/report.schema.json` says."""


@pytest.mark.slow
def test_every_answer_has_a_closed_form(asking):
    described = asking.get("/openapi.json").json()
    loose = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get("application/json")
                if status.startswith("2") and content is not None:
                    where = f"{method} {path} {status}"
                    loose += [f"{where} {at}" for at in open_parts(content["schema"], described)]
    assert {where.removesuffix("(all)") for where in loose} == ELSEWHERE


def open_parts(schema, described, at="", seen=()):
    """Yield where a schema says nothing of what may stand there."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        if name not in seen:
            inner = described["components"]["schemas"][name]
            yield from open_parts(inner, described, at, (*seen, name))
        return
    for part in (
        *schema.get("anyOf", ()),
        *schema.get("allOf", ()),
        *schema.get("prefixItems", ()),
    ):
        yield from open_parts(part, described, at, seen)
    if at.rpartition(".")[2] in FREE:
        return
    if "items" in schema:
        yield from open_parts(schema["items"], described, at, seen)
    for name, inner in schema.get("properties", {}).items():
        yield from open_parts(inner, described, f"{at}.{name}", seen)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        yield from open_parts(more, described, f"{at}.*", seen)
    said = {"type", "anyOf", "allOf", "const", "enum"} & schema.keys()
    bare = schema.get("type") == "object" and "properties" not in schema and not more
    if not said or bare or more is True:
        yield at or "(all)"


# Tokens: any string, expired ones, and those that outlive their person


@pytest.fixture
def replicas(database, other, clock):
    """Return a client of each of two services on one database, with people in it."""
    furnish(database)
    made = [
        build_service(one, Authenticator(one, clock), clock, chance) for one in (database, other)
    ]
    with TestClient(create_app(made[0])) as one, TestClient(create_app(made[1])) as two:
        yield one, two


def key_of(database, name):
    return keys.create_key(database, ADA, name, random_bytes=chance(), at=NOON)


def statuses(replicas, key, path="/v1/me"):
    headers = {"Authorization": f"Bearer {key}"}
    return [client.get(path, headers=headers).status_code for client in replicas]


NO_KEYS = ["x", "ro_", "ro__", "ro_000000000000_x", "null", "Bearer", "' or 1=1 --", "ro_*", "é"]


def test_no_other_text_is_a_key(replicas, database, clock):
    text = key_of(database, "bo").text
    assert statuses(replicas, text) == [200, 200]
    for wrong in (
        *NO_KEYS,
        text[:-1],
        text + "x",
        text.upper(),
        text[::-1],
        text.rpartition("_")[0],
    ):
        clock.advance(timedelta(minutes=1))  # tries without a key are few at once
        found = [
            client.get("/v1/me", headers={"Authorization": b"Bearer " + wrong.encode()})
            for client in replicas
        ]
        assert [problem_of(one) for one in found] == [(401, "unauthenticated")] * 2, wrong


def test_a_key_is_over_when_it_expires(replicas, database, clock):
    made = key_of(database, "bo")
    assert statuses(replicas, made.text) == [200, 200]
    clock.advance(made.expires_at - NOON)
    assert statuses(replicas, made.text) == [401, 401]


def revoked(database, made, at):
    keys.revoke_key(database, ADA, made.prefix, at=at)


def disabled(database, made, at):
    update_account(database, ADA, "bo", AccountUpdate(is_disabled=True), at=at)


@pytest.mark.parametrize("ended", [revoked, disabled])
def test_a_key_that_is_ended_opens_nothing_on_any_replica_within_a_second(
    replicas, database, clock, ended
):
    made = key_of(database, "bo")
    assert statuses(replicas, made.text) == [200, 200]
    ended(database, made, clock.now())
    clock.advance(timedelta(seconds=MAX_CACHE_AGE))
    assert MAX_CACHE_AGE < 1
    assert statuses(replicas, made.text) == [401, 401]


def test_a_right_that_is_taken_is_gone_on_every_replica_within_a_second(replicas, database, clock):
    made = key_of(database, "bo")
    update_account(
        database,
        ADA,
        "bo",
        AccountUpdate(roles_to_revoke=(AssignedRole("operator", "ramps"),)),
        at=clock.now(),
    )
    clock.advance(timedelta(seconds=MAX_CACHE_AGE))
    assert statuses(replicas, made.text, "/v1/rollouts/ramps") == [404, 404]


# Ids that reach another rollout's objects, and texts that tell of it


@pytest.fixture
def packs(asking, database, door):
    """Return a client that asks as somebody with every right in `wolves`, beside `bears`."""
    text = POLICY.replace("rollout: bears", "rollout: wolves")
    apply_policy(database, text, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32))
    door.let_in("eve", *(AssignedRole(role, "wolves") for role in ROLES))
    return asking.by("eve")


YES = {"evidence_hash": "0" * 64}
OF_BEARS = [
    ("GET", "/proposals/P-2", None),
    ("POST", "/proposals/P-2/approvals", YES),
    ("POST", "/proposals/P-2/rejection", {}),
    ("GET", "/incidents/I-1", None),
    ("POST", "/incidents/I-1/acknowledgement", {}),
    ("POST", "/stops/S-14/resume", None),
    ("GET", "/cases/c0", None),
    ("POST", "/reviews/1/decision", {"answers": {"alarm": "bear"}}),
    ("POST", "/reviews/1/release", None),
    ("POST", "/reviews/adjudications", {"case": "c0"}),
    ("POST", "/reviews/gold-cases", {"case": "c0", "answers": {"alarm": "bear"}, "reviewers": 1}),
    ("POST", "/versions/v2/retirement", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), OF_BEARS, ids=lambda part: str(part)[:30])
def test_what_is_another_rollouts_is_not_there(packs, database, method, path, body):
    before = everything(database, {"idempotency_keys"})
    answer = packs.request(method, WOLVES + path, json=body)
    assert answer.status_code == 404, answer.text
    assert problem_of(answer)[1].startswith("unknown-")
    assert everything(database, {"idempotency_keys"}) == before


def test_several_yeses_reach_no_proposal_of_another_rollout(packs, database):
    before = everything(database, {"idempotency_keys"})
    body = {"approvals": [{"proposal": "P-2", **YES}]}
    answer = packs.post(f"{WOLVES}/approvals", json=body)
    assert "unknown-proposal" in answer.text, answer.text
    assert "creek" not in answer.text
    assert everything(database, {"idempotency_keys"}) == before


def test_a_rollout_not_to_be_seen_and_one_not_there_are_told_of_alike(packs):
    paths = [
        "",
        "/proposals/P-2",
        "/policy",
        "/scope",
        "/cells",
        "/cells/creek/day",
        "/cases/c0",
        "/ledger",
        "/reviews",
        "/events",
    ]
    for path in paths:
        seen = packs.get(f"{V1}{path}")
        absent = packs.get(f"/v1/rollouts/nowhere{path}")
        assert seen.status_code == absent.status_code == 404, path
        assert seen.text.replace("bears", "nowhere") == absent.text, path


def test_a_plan_of_a_rollout_not_to_be_seen_tells_nothing_of_it(packs):
    there = packs.post("/v1/plan", content=POLICY).json()
    absent = packs.post("/v1/plan", content=POLICY.replace("bears", "nowhere")).json()
    assert there["changes"] == absent["changes"]


def test_a_key_of_somebody_else_can_not_be_told_from_none(replicas, database):
    box, bo = key_of(database, "box"), key_of(database, "bo")
    as_bo = {"Authorization": f"Bearer {bo.text}"}
    theirs = replicas[0].delete(f"/v1/keys/{box.prefix}", headers=as_bo)
    absent = replicas[0].delete("/v1/keys/000000000000", headers=as_bo)
    assert problem_of(theirs) == problem_of(absent)
    assert theirs.text.replace(box.prefix, "000000000000") == absent.text
    assert statuses(replicas, box.text) == [200, 200]


def test_who_holds_a_case_is_not_told_to_others(asking, door):
    for name in ("vera", "walt"):
        door.let_in(name, AssignedRole("reviewer"))
    (task,) = asking.by("vera").post(f"{V1}/reviews/claims", json={"claims": 1}).json()["tasks"]
    where, body = f"{V1}/reviews/{task['review']}", {"answers": {"alarm": "bear"}}
    asking.by("walt")
    told = [
        asking.post(f"{where}/decision", json=body),
        asking.post(f"{where}/release"),
        asking.get(f"{V1}/reviews"),
    ]
    assert not any("vera" in one.text for one in told)
    assert {one.status_code for one in told[:2]} <= {403, 404, 409}
