"""A lying box: it asks about one thing, does another, and brings back a permit that is real."""

from datetime import timedelta

import pytest

from rollout.core.commands import Person
from rollout.services.applying import apply
from tests.api.bears import approved
from tests.factories import DAY, MINUTE, NOON
from tests.services import bear_field as field

BEARS = "/v1/rollouts/bears"
SECOND = timedelta(seconds=1)
FLOORED = field.POLICY.replace("{unit: case}", "{unit: case, confidence_floor: 80%}")
BURSTS = field.POLICY.replace("{unit: case}", "{unit: episode, episode_span: 10m}").replace(
    "sites:",
    "stages: [{id: supervised, blind: 50%}, {id: autonomous, blind: 50%, audit: 10%}]\nsites:",
)


@pytest.fixture(autouse=True)
def _steady(monkeypatch):
    """Set the clock of tests; a database's own is not."""
    monkeypatch.setattr("rollout.services.watching.askew", lambda *_: timedelta(0))


def autonomous(database, policy=field.POLICY):
    field.found(database, policy=policy)
    field.widen(database, ("creek", "day"))


def case(key="c1", site="creek", **more):
    return {"kind": "case", "key": key, "site": site, "occurred_at": NOON.isoformat(), **more}


def prediction(key="c1", **more):
    answers = {"alarm": "bear"}
    return {"kind": "prediction", "key": key, "version": "v1", "answers": answers, **more}


def action(permit, key="c1", at=NOON, **more):
    done = {"kind": "action", "key": key, "lever": "alarm", "action": "siren", "by": "model"}
    return done | {"at": at.isoformat(), "version": "v1", "permit": permit} | more


def asked(client, key="c1", **more):
    told = client.by("ingest").post(f"{BEARS}/assignments", json=field.question(key, **more)).json()
    return told["permit"] if told["decider"] == "model" else None


def send(client, *items):
    return client.by("ingest").post(f"{BEARS}/records", json=[*items]).json()["items"]


def permission(client, key="c1"):
    return [
        a["permission"] for a in client.by("viewer").get(f"{BEARS}/cases/{key}").json()["actions"]
    ]


def test_a_permit_asked_for_at_one_site_permits_nothing_at_another(client, database):
    autonomous(database)
    permit = asked(client)
    send(client, case(site="dale"), action(permit))
    assert permission(client) == ["unpermitted"]


def test_nor_does_a_lease_that_was_asked_for_at_one_site_lead_to_another(client, database, clock):
    autonomous(database)
    permit = asked(client)
    field.stop(database, ("lake", "day"), at=NOON + SECOND)  # any later row of the ledger will do
    clock.move(30 * SECOND)
    send(client, case(site="dale"), action(permit, at=NOON + 20 * SECOND))
    assert permission(client) == ["unpermitted"]


def test_who_asks_surely_and_records_a_doubt_has_no_permission(client, database):
    autonomous(database, FLOORED)
    permit = asked(client, confidence=0.99)
    assert permit is not None
    send(client, case(), prediction(confidence=0.3), action(permit))
    assert permission(client) == ["unpermitted"]


def test_who_asks_surely_and_is_as_sure_when_it_is_recorded_has_permission(client, database):
    autonomous(database, FLOORED)
    permit = asked(client, confidence=0.99)
    send(client, case(), prediction(confidence=0.99), action(permit))
    assert permission(client) == ["permitted"]


def bursts():
    """Return a burst whose cases are people's, and one whose cases are the model's."""
    return field.keys(0.5)[0], field.keys(0.5, below=False)[0]


def test_a_burst_that_is_named_for_its_draw_alone_permits_nothing_in_another(client, database):
    blind, models = bursts()
    autonomous(database, BURSTS)
    permit = asked(client, episode=models)
    assert permit is not None
    assert asked(client, "c2", episode=blind) is None
    send(client, case(episode=blind), action(permit))
    send(client, case("c2", episode=models), action(asked(client, "c2", episode=models), "c2"))
    assert (permission(client), permission(client, "c2")) == (["unpermitted"], ["permitted"])


def test_a_permit_does_one_action_and_a_correction_is_judged_once_more(client, database, clock):
    autonomous(database)
    permit = asked(client)
    items = send(client, case(), action(permit), action(permit), action(permit, at=NOON + SECOND))
    assert [i["verdict"] for i in items] == ["accepted", "accepted", "duplicate", "conflict"]
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    clock.move(10 * MINUTE)
    send(client, action(permit, at=NOON + 5 * MINUTE, revision=2, action="nothing"))
    assert "unpermitted" in permission(client)


def test_an_action_dated_ahead_of_a_stop_is_none_before_the_stop(client, database):
    autonomous(database)
    (answer,) = send(client, action(asked(client), at=NOON + DAY))
    assert answer["verdict"] == "rejected"


def test_a_policy_that_calls_the_hours_otherwise_takes_no_lease_back(client, database, clock):
    autonomous(database)
    permit = asked(client)
    apply(database, field.POLICY.replace("id: day", "id: light"), Person("zoe"), NOON + SECOND)
    approved(database, NOON + SECOND)
    clock.move(30 * SECOND)
    assert asked(client) is None
    send(client, case(), action(permit, at=NOON + 20 * SECOND))
    assert permission(client) == ["in-lease"]
