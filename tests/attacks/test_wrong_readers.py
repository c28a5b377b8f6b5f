"""Reports go to whom the policy names and to nobody else, and carry nobody else's markup."""

from datetime import timedelta

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.reports.reports import FAILED, DeliveryStore, NewDelivery, Outbox
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.delivery.delivery import RenderedReport, deliver_due_reports
from rollout.features.incidents.incidents import build_incident_notification
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.channels import Channels
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.service import build_service
from tests.api.bears import POLICY, founded
from tests.api.reports.test_deliveries import REPORTS, sealed
from tests.api.test_shell import problem_of
from tests.factories import HOUR, NOON

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
PASS = timedelta(minutes=1)
DELIVERIES = "/v1/rollouts/bears/deliveries"


@pytest.fixture
def bears(database):
    """Return a rollout whose policy sends reports to ops and rangers."""
    founded(database, NOON - HOUR)
    apply_policy(database, POLICY + REPORTS, Actor("zoe"), NOON - HOUR / 2)
    return database


def queued(database, *channels, reports=(12,)):
    with database.begin_write() as transaction:
        own = DeliveryStore(transaction, Rollouts(transaction).find("bears"))
        for report in reports:
            for channel in channels:
                own.add(NewDelivery(report, channel, "schedule", "morning report"), at=NOON)


@on_sqlite
def test_who_operates_at_one_site_sends_no_report_of_every_site(client, door, bears):
    number = sealed(bears)
    door.let_in("cy", AssignedRole("operator", "bears", "creek"))
    body = {"report": number, "channels": ["ops"]}
    assert problem_of(client.by("cy").post(DELIVERIES, json=body)) == (403, "not-allowed")
    assert client.by("ana").get(DELIVERIES).json()["items"] == []


@on_sqlite
def test_what_a_policy_takes_a_channel_away_from_is_not_tried_again(client, bears):
    queued(bears, "ops")
    with bears.begin_write() as transaction:
        outbox = Outbox(transaction)
        outbox.close(outbox.take_next(at=NOON, lease=HOUR), FAILED, error="refused")
    apply_policy(bears, POLICY + REPORTS.replace("ops, ", ""), Actor("zoe"), NOON)
    assert problem_of(client.post(f"{DELIVERIES}/1/retry")) == (404, "unknown-channel")


@pytest.fixture
def send(bears, door, clock):
    """Return what sends what is due; channels called hung take half a minute and fail."""
    urls = {name: f"json://{name}.example.org" for name in ("ops", "rangers", "hung-1", "hung-2")}
    service = build_service(bears, door, clock, entropy=bytes, channels=Channels(urls))
    given = []

    def post(message):
        given.append(message.url.split("//")[1].split(".")[0])
        if "hung" not in given[-1]:
            return ""
        clock.advance(timedelta(seconds=30))
        return "no answer within 30 s"

    def write(_name, _report):
        return RenderedReport("3fe1" * 16, "# all is well", "")

    def sent(last):
        began = clock.now()
        return deliver_due_reports(
            service, write, post, lambda: clock.now() - began < PASS, last
        ).failed_channels

    sent.given = given
    return sent


@on_sqlite
def test_two_channels_that_hang_hold_up_no_other_for_longer_than_a_pass(send, bears):
    """Each has much to be sent, and all of it is older than what goes to the others."""
    policy = (POLICY + REPORTS).replace("to: [ops, rangers]", "to: [ops, rangers, hung-1, hung-2]")
    apply_policy(bears, policy, Actor("zoe"), NOON - HOUR / 3)
    queued(bears, "hung-1", "hung-2", reports=range(10, 30))
    queued(bears, "ops")
    send(send(frozenset()))
    assert "ops" in send.given


@on_sqlite
def test_what_a_box_calls_its_version_is_no_markup_in_a_chat(bears):
    name = "[win](https://example.org)\n# <!channel> `v1`"
    incident = OpenIncident(
        at=NOON, kind="unauthorized", reason="it acted", cell=Cell("creek", "day"), version=name
    )
    execute_command(bears, "bears", lambda _: incident)
    with bears.begin_read() as transaction:
        note = build_incident_notification(transaction, Rollouts(transaction).find("bears"), None)
    outside = "".join(note.lead.split("`")[::2])
    assert not set("[]<>#") & set(outside)
    assert "\n" not in note.lead
