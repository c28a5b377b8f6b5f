"""Who may still judge a case blind reads what they may: none of it says what a model did."""

from datetime import timedelta

import pytest

from rollout.engine.decide.permissions import AssignedRole
from tests.factories import NOON
from tests.features import bear_field as field

pytestmark = pytest.mark.slow

BEARS = "/v1/rollouts/bears"
BLIND = field.keys(0.1, purpose="audit")[0]
"""The key of a case that the model decides and somebody judges blind: an audited one."""
PAGES = (
    "incidents",
    "ledger",
    "rejected-records",
    "cases",
    f"cases/{BLIND}",
    "cases?differs=true",
    "cells",
    "cells/creek/day",
    "cells/creek/day/timeline",
    "cause",
    "cause?site=creek&window=day&version=v1",
    "versions",
    "proposals",
    "stops",
    "",
)


@pytest.fixture
def seen(client, door, database, monkeypatch):
    """Return all that somebody who reviews, reads and operates is shown."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.autonomous(database)
    roles = ("viewer", "reviewer", "operator", "admin")
    door.let_in("eve", *(AssignedRole(role, "bears") for role in roles))

    def pages():
        answers = [client.by("eve").get(f"{BEARS}/{page}".rstrip("/")) for page in PAGES]
        assert {answer.status_code for answer in answers} == {200}
        return "\n".join(answer.text for answer in answers)

    return pages


def send(client, *items):
    return client.by("ingest").post(f"{BEARS}/records", json=[*items]).json()["items"]


def case(key, site="creek"):
    return {"kind": "case", "key": key, "site": site, "occurred_at": NOON.isoformat()}


def action(key, did="siren"):
    done = {"kind": "action", "key": key, "lever": "alarm", "action": did, "by": "model"}
    return done | {"at": NOON.isoformat(), "version": "v1"}


def test_an_incident_does_not_say_what_the_model_did_on_a_case(client, seen):
    (_, answer) = send(client, case(BLIND), action(BLIND))
    assert answer["reason"].startswith("unpermitted")
    assert "siren" not in seen().replace('"siren"', "")


@pytest.mark.parametrize(
    "said",
    [
        {"answers": {"alarm": "wolverine"}, "confidence": 7},
        {"answers": {"alarm": "wolverine"}, "at": "when the wolverine came"},
        {"answers": {"alarm": "wolverine"}, "probabilities": {"wolverine": "much"}},
        {"answers": {"wolverine": {"alarm": 1}}},
        {"answers": {"alarm": "wolverine"}, "wolverine": 1},
        {"answers": {"alarm": "wolverine\x00"}},
    ],
    ids=["a confidence", "a time", "a probability", "a lever", "a field", "nul"],
)
def test_what_is_set_aside_tells_nothing_of_what_was_predicted(client, seen, said):
    item = {"kind": "prediction", "key": BLIND, "version": "v1", **said}
    _, answer = send(client, case(BLIND), item)
    assert answer["status"] == "rejected"
    assert "wolverine" not in seen()


def test_a_contradiction_that_is_set_aside_tells_nothing(client, seen):
    said = {"kind": "prediction", "key": BLIND, "version": "v1", "answers": {"alarm": "none"}}
    other = said | {"answers": {"alarm": "wolverine"}}
    assert send(client, case(BLIND), said, other)[2]["status"] == "conflict"
    assert "wolverine" not in seen()
