"""What a client at the bears' field asks and sends over the API, and what came of its actions."""

from datetime import timedelta

import pytest

from tests.factories import NOON
from tests.features import bear_field as field

BEARS = "/v1/rollouts/bears"
SECOND = timedelta(seconds=1)
FLOORED = field.POLICY.replace("{unit: case}", "{unit: case, confidence_floor: 80%}")
BURSTS = field.POLICY.replace("{unit: case}", "{unit: episode, episode_span: 10m}").replace(
    "sites:",
    "stages: [{id: supervised, blind: 50%}, {id: autonomous, blind: 50%, audit: 10%}]\nsites:",
)


@pytest.fixture(autouse=True)
def steady(monkeypatch):
    """Set the clock of tests; a database's own is not."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))


def case(key="c1", site="creek", at=NOON, **more):
    return {"kind": "case", "key": key, "site": site, "occurred_at": at.isoformat(), **more}


def prediction(key="c1", **more):
    answers = {"alarm": "bear"}
    return {"kind": "prediction", "key": key, "version": "v1", "answers": answers, **more}


def action(permit, key="c1", at=NOON, **more):
    done = {"kind": "action", "key": key, "lever": "alarm", "action": "siren", "by": "model"}
    return done | {"at": at.isoformat(), "version": "v1", "permit": permit} | more


def request_permit(client, key="c1", **more):
    """Ask who decides a case; return the permit, None where a person does."""
    answer = (
        client.by("ingest").post(f"{BEARS}/assignments", json=field.question(key, **more)).json()
    )
    return answer["permit"] if answer["decider"] == "model" else None


def send(client, *items):
    return client.by("ingest").post(f"{BEARS}/records", json=[*items]).json()["items"]


def permissions(client, key="c1"):
    """Return what permission each action about a case had."""
    actions = client.by("viewer").get(f"{BEARS}/cases/{key}").json()["actions"]
    return [done["authorization"] for done in actions]
