"""Deliveries over HTTP: what was sent to whom, what was given up and why, and one more try."""

from dataclasses import replace

import pytest

from api.app import create_app
from rollout.data.database.rollouts import Rollouts
from rollout.data.reports.reports import (
    FAILED,
    DeliveryStore,
    NewDelivery,
    Outbox,
    ReportStore,
    StoredReport,
)
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.kernel.channels import Channels
from rollout.live.policy_application import apply_policy
from tests.api.bears import POLICY, V1, founded
from tests.api.conftest import Asking
from tests.api.test_shell import problem_of
from tests.factories import HOUR, NOON

REPORTS = "reports: [{name: morning, to: [ops, rangers]}]\n"
UNHEARD = "reports[0]: the channel rangers is not configured, so it gets no reports"


@pytest.fixture
def sent(database):
    """Return a rollout with a delivery that was sent, one that was given up, one that waits."""
    founded(database, NOON)
    apply_policy(database, POLICY + REPORTS.replace("ops", "ops, chat"), Actor("zoe"), NOON)
    with database.begin_write() as transaction:
        own = DeliveryStore(transaction, Rollouts(transaction).find("bears"))
        for channel in ("ops", "chat", "rangers"):
            own.add(NewDelivery(12, channel, "schedule", "morning report", "- lead"), at=NOON)
    settle(database, "record_sent", at=NOON)
    settle(database, "close", state=FAILED, error="refused")


def settle(database, how, **more):
    with database.begin_write() as transaction:
        outbox = Outbox(transaction)
        taken = outbox.take_next(at=NOON, lease=HOUR)
        assert getattr(outbox, how)(taken, **more)


def sealed(database):
    """Return the number of a report that says nothing."""
    report = StoredReport(
        name="week",
        since=NOON - HOUR,
        until=NOON,
        version=1,
        state="final",
        due=None,
        view="operator",
        schema="1",
        body="{}",
        divergences="",
        made_at=NOON,
        sealed_in=1,
    )
    with database.begin_write() as transaction:
        return ReportStore(transaction, Rollouts(transaction).find("bears")).store(report)


def found(client, **params):
    return client.get(f"{V1}/deliveries", params=params).json()


def test_each_says_where_it_is_and_why(client, sent):
    items = found(client.by("viewer"))["items"]
    assert [(one["channel"], one["state"]) for one in items] == [
        ("rangers", "waiting"),
        ("chat", "failed"),
        ("ops", "sent"),
    ]
    chat = items[1]
    assert chat | {"id": 0} == {
        "id": 0,
        "report": 12,
        "channel": "chat",
        "reason": "schedule",
        "subject": "morning report",
        "state": "failed",
        "attempts": 1,
        "queued_at": chat["queued_at"],
        "next_at": None,
        "sent_at": None,
        "error": "refused",
    }
    assert [one["channel"] for one in found(client, state="failed")["items"]] == ["chat"]


def test_pages_go_on(client, sent):
    first = found(client, limit=2)
    second = found(client, limit=2, after=first["next"])
    assert [one["channel"] for one in (*first["items"], *second["items"])] == [
        "rangers",
        "chat",
        "ops",
    ]
    assert second["next"] is None


def test_what_was_given_up_is_seen_and_tried_again_once_an_operator_says_so(client, sent):
    assert client.by("viewer").get(V1).json()["undelivered"] == 1
    assert 'rollout_failed_deliveries{rollout="bears"} 1' in client.get("/metrics").text
    (failed,) = found(client, state="failed")["items"]
    path = f"{V1}/deliveries/{failed['id']}/retry"
    assert problem_of(client.by("viewer").post(path)) == (403, "not-allowed")
    again = client.by("operator").post(path)
    assert (again.status_code, again.json()["state"]) == (200, "waiting")
    assert client.get(V1).json()["undelivered"] == 0
    assert client.post(path).json()["state"] == "waiting", "waiting, it waits on"


def test_a_report_is_sent_to_channels_of_the_policy_alone(client, database):
    apply_policy(
        database,
        POLICY + REPORTS,
        Actor("zoe"),
        NOON - HOUR,
        salt=bytes(32),
        service_salt=bytes(32),
    )
    body = {"report": sealed(database), "channels": ["ops", "rangers"]}
    assert problem_of(client.by("viewer").post(f"{V1}/deliveries", json=body))[0] == 403
    items = client.by("operator").post(f"{V1}/deliveries", json=body).json()["items"]
    told = [(one["channel"], one["state"], one["reason"], one["subject"]) for one in items]
    assert told == [(name, "waiting", "demand", "week report") for name in ("ops", "rangers")]
    again = client.post(f"{V1}/deliveries", json=body).json()["items"]
    assert again == items
    other = client.post(f"{V1}/deliveries", json=body | {"channels": ["ops", "wolves"]})
    assert problem_of(other) == (404, "unknown-channel")
    assert "it names ops, rangers" in other.json()["detail"]
    none = client.post(f"{V1}/deliveries", json=body | {"report": 99})
    assert problem_of(none) == (404, "unknown-report")
    assert len(found(client)["items"]) == 2


def test_what_arrived_or_never_was_is_refused(client, sent):
    (ops,) = found(client, state="sent")["items"]
    assert problem_of(client.post(f"{V1}/deliveries/{ops['id']}/retry")) == (409, "delivery-sent")
    assert problem_of(client.post(f"{V1}/deliveries/99/retry")) == (404, "unknown-delivery")


def test_of_another_rollout_none_is_there(client, door, sent):
    door.let_in("eve", AssignedRole("operator", "wolves"))
    assert problem_of(client.by("eve").get(f"{V1}/deliveries")) == (404, "unknown-rollout")


@pytest.fixture
def told(service):
    """Return a client of a service that knows one channel."""
    channels = Channels({"ops": "json://ops.example.org/hunter2"})
    with Asking(create_app(replace(service, channels=channels))) as asking:
        yield asking.by("ana")


def test_a_policy_is_warned_of_channels_that_nobody_configured(told):
    planned = told.post("/v1/plan", content=POLICY + REPORTS).json()
    assert [one for one in planned["warnings"] if "channel" in one] == [UNHEARD]
    assert UNHEARD in planned["text"]
    assert "hunter2" not in str(planned)
    done = told.put(f"{V1}/policy", content=POLICY + REPORTS).json()
    assert done["warnings"] == [UNHEARD]
    assert told.put(f"{V1}/policy", content=POLICY).json()["warnings"] == []
