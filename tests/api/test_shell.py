"""What holds for every route: who asks is known, and what is refused is a problem."""

from typing import Annotated

import pytest
from fastapi import APIRouter, FastAPI

from api.app import add_routes, create_app
from api.auth import Caller, Permission, RequirePermission
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.policy_application import apply_policy
from tests.api.conftest import Asking
from tests.factories import NOON

POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, ramp-b]
evidence:
  unit: case
  sources: {accounts: [{account: ingest-decisions, reviewers: ["*"]}]}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""


@pytest.fixture
def ramps(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON)


def problem_of(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def test_the_process_lives_and_is_ready(client):
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/health/ready").status_code in {200, 503}  # the clock of tests is set


def test_nobody_comes_in_without_a_key(client):
    del client.headers["Authorization"]
    answer = client.get("/v1/rollouts")
    assert problem_of(answer) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_rollout_is_listed_and_shown(client, ramps):
    assert [one["name"] for one in client.get("/v1/rollouts").json()["items"]] == ["ramps"]
    assert client.get("/v1/rollouts/ramps").json()["policy"] == 1


def test_a_rollout_that_is_not_there_and_one_not_to_be_seen_answer_alike(client, door, ramps):
    door.let_in("eve", AssignedRole("viewer", "other"))
    assert problem_of(client.by("eve").get("/v1/rollouts/ramps")) == (404, "unknown-rollout")
    assert problem_of(client.by("ana").get("/v1/rollouts/none")) == (404, "unknown-rollout")
    assert client.by("eve").get("/v1/rollouts").json() == {"items": []}


def test_a_reviewer_reads_no_rollout(client, ramps):
    assert problem_of(client.by("reviewer").get("/v1/rollouts/ramps")) == (403, "not-allowed")


def test_a_page_that_is_not_there_is_a_problem(client):
    assert problem_of(client.get("/v1/nothing")) == (404, "not-found")
    assert problem_of(client.delete("/v1/rollouts")) == (405, "method-not-allowed")


def test_a_route_that_says_not_who_may_ask_keeps_the_service_from_starting(service):
    router = APIRouter(prefix="/v1/open", include_in_schema=False)

    @router.get("/door")
    def nobody_is_asked() -> None: ...

    with pytest.raises(RuntimeError, match="/v1/open/door"):
        add_routes(create_app(service), router)


def test_a_form_of_another_site_is_refused(client, door):
    del client.headers["Authorization"]
    client.cookies["__Host-rollout"] = "ana"
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/v1/rollouts", headers=headers).status_code == 200
    assert problem_of(client.post("/v1/rollouts", headers=headers)) != (401, "unauthenticated")


def test_a_fault_of_ours_is_a_problem_without_its_text(service):
    app = create_app(service)

    def broken(who: Annotated[Caller, RequirePermission(Permission.IDENTIFY)]) -> None:
        raise ZeroDivisionError("secret")

    app.get("/v1/broken")(broken)
    answer = Asking(app, raise_server_exceptions=False).by("ana").get("/v1/broken")
    assert problem_of(answer) == (500, "internal-error")
    assert "secret" not in answer.text


@pytest.mark.slow
def test_the_api_describes_itself(client):
    described = client.get("/openapi.json").json()
    assert "Problem" in described["components"]["schemas"]
    assert isinstance(client.app, FastAPI)
