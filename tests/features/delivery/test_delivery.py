"""Reports are sent, tried again and again, given up; secrets stay where they are."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from rollout import faults
from rollout.data.database.rollouts import Rollouts
from rollout.data.reports.reports import DeliveryStore, NewDelivery
from rollout.data.tables.record_tables import metadata
from rollout.engine.decide.commands import Actor
from rollout.features.delivery.delivery import (
    DELIVERY_LEASE,
    FIRST_RETRY_DELAY,
    MAX_ATTEMPTS,
    MAX_RETRY_DELAY,
    DeliverySentError,
    RenderedReport,
    UnknownDeliveryError,
    compute_retry_delay,
    deliver_due_reports,
    load_deliveries,
    requeue_delivery,
)
from rollout.kernel.channels import Channels
from rollout.kernel.errors import NotAllowedError
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from tests.api.bears import POLICY, founded
from tests.api.conftest import clock, door
from tests.factories import DAY, HOUR, MINUTE, NOON

__all__ = ["clock", "door"]
HASH = "3fe1c0de" * 8
MARK = "hunter2-token"
URLS = {"ops": f"json://bo:{MARK}@ops.example.org/{MARK}", "chat": f"slack://{MARK}/b/c"}


class Post:
    """Takes messages, or fails of what it is told; what it was given is kept."""

    def __init__(self):
        self.given, self.fails = [], {}

    def __call__(self, message):
        self.given.append(message)
        return self.fails.get(message.url, "")


@pytest.fixture
def post():
    return Post()


@pytest.fixture
def service(database, door, clock):
    founded(database, NOON)
    apply_policy(
        database, f"{POLICY}reports: [{{name: morning, to: [ops, chat]}}]\n", Actor("zoe"), NOON
    )
    channels = Channels(URLS, "https://rollout.example")
    return build_service(database, door, clock, entropy=bytes, channels=channels)


@pytest.fixture
def queue(service):
    def queued(*channels, report=12, lead=""):
        with service.database.begin_write() as transaction:
            rollout = Rollouts(transaction).find("bears")
            for channel in channels:
                letter = NewDelivery(report, channel, "schedule", "morning report", lead)
                DeliveryStore(transaction, rollout).add(letter, at=service.clock.now())

    return queued


def write(name, report):
    assert name == "bears"
    return RenderedReport(HASH, f"# report {report}\n\nall is well", f"<p>report {report}</p>", 2)


@pytest.fixture
def send(service, post, clock):
    def sent(at=NOON, by=service, write=write):
        clock.at = at
        return deliver_due_reports(by, write, send_message=post)

    return sent


@pytest.fixture
def listed(service, door):
    def found(**more):
        return load_deliveries(service.database, door.callers["viewer"], "bears", **more).items

    return found


def test_a_message_says_what_it_is_and_how_to_know_a_repeat(send, post, queue, listed):
    queue("ops", lead="- I-1 alarm")
    assert send().sent_count == 1
    (one,) = post.given
    assert one.url == URLS["ops"]
    assert one.title == "bears: morning report"
    assert one.body.startswith("- I-1 alarm\n\n# report 12\n\nall is well\n\n2 cases are excluded")
    assert "https://rollout.example/console/rollouts/bears/reports/12/about" in one.body
    assert HASH in one.body
    assert one.key in one.body
    assert one.page == "<p>report 12</p>"
    (there,) = listed()
    assert (there.state, there.attempts, there.sent_at) == ("sent", 1, NOON)


def test_what_was_sent_is_not_sent_again(send, post, queue):
    queue("ops", "chat")
    assert send().sent_count == 2
    assert send(NOON + 9 * DAY).sent_count == 0
    assert len(post.given) == 2


def test_a_channel_that_fails_is_tried_again_and_the_others_are_served(send, post, queue, listed):
    queue("ops", "chat")
    queue("ops", report=13)
    post.fails[URLS["ops"]] = "no answer"
    passed = send()
    assert passed.sent_count == 1
    ops, _, later = listed()[::-1]
    says = f"delivery {ops.id} of bears to ops failed, attempt 1 of 12; it is retried: no answer"
    assert passed.failures == (says,)
    assert [one.url for one in post.given] == [URLS["ops"], URLS["chat"]], "it is silent: once"
    waiting = {one.id: one for one in listed(state="waiting")}
    assert waiting[ops.id].error == "no answer"
    assert (waiting[ops.id].next_at, waiting[later.id].next_at) == (
        NOON + 0.75 * FIRST_RETRY_DELAY,
        NOON,
    )
    post.fails.clear()
    assert send(NOON + HOUR).sent_count == 2


def test_the_key_is_the_same_at_every_try(send, post, queue):
    queue("ops")
    post.fails[URLS["ops"]] = "no answer"
    for hours in range(3):
        send(NOON + hours * HOUR)
    assert len({one.key for one in post.given}) == 1
    assert len(post.given) == 3


def test_after_twelve_tries_it_is_given_up_and_an_operator_has_it_tried_again(
    send, post, queue, listed, service, door
):
    queue("ops")
    post.fails[URLS["ops"]] = "refused"
    at = NOON
    for _ in range(MAX_ATTEMPTS + 5):
        passed = send(at)
        at += MAX_RETRY_DELAY * 2
    assert len(post.given) == MAX_ATTEMPTS
    assert passed.failures == ()
    (one,) = listed(state="failed")
    assert (one.attempts, one.next_at, one.error) == (MAX_ATTEMPTS, None, "refused")
    with pytest.raises(NotAllowedError, match="it needs the role operator"):
        requeue_delivery(service.database, door.callers["viewer"], "bears", one.id, at=at)
    again = requeue_delivery(service.database, door.callers["operator"], "bears", one.id, at=at)
    assert (again.state, again.attempts, again.next_at) == ("waiting", 0, at)
    post.fails.clear()
    assert send(at).sent_count == 1


def test_what_arrived_or_never_was_is_not_tried_again(send, queue, service, door, listed):
    queue("ops")
    send()
    (one,) = listed()
    with pytest.raises(DeliverySentError, match="arrived at"):
        requeue_delivery(service.database, door.callers["operator"], "bears", one.id, at=NOON)
    with pytest.raises(UnknownDeliveryError, match="no delivery 999999 in bears"):
        requeue_delivery(service.database, door.callers["operator"], "bears", 999_999, at=NOON)


def test_a_channel_that_nobody_configured_waits_for_somebody_to(send, post, queue, listed):
    queue("rangers")
    send()
    assert post.given == []
    (one,) = listed()
    assert one.error == "the channel rangers is not configured here"


def test_a_channel_of_users_gets_no_report(send, post, queue, listed, service):
    queue("ops")
    personal = Channels({"ops": "json://ops.example.org/{address}"})
    send(by=replace(service, channels=personal))
    assert post.given == []
    (there,) = listed()
    assert there.error.startswith("the channel ops is for notifications of users")


def test_a_report_that_can_not_be_written_out_is_tried_again(send, post, queue, listed):
    def broken(name, report):
        raise ZeroDivisionError(MARK)

    queue("ops")
    send(write=broken)
    assert post.given == []
    (one,) = listed()
    assert one.error == "the report could not be written out (ZeroDivisionError)"


class Killed(BaseException):
    """The process ends here."""


def killed_at(name, job):
    def end(_):
        raise Killed

    with pytest.raises(Killed), faults.install_action(end, name):
        job()


def test_who_dies_before_it_is_noted_has_it_sent_twice_and_no_more(send, post, queue):
    queue("ops")
    killed_at("outbox.sent", send)
    assert send(NOON + DELIVERY_LEASE - MINUTE).sent_count == 0
    assert send(NOON + DELIVERY_LEASE).sent_count == 1
    assert send(NOON + DAY).sent_count == 0
    assert len(post.given) == 2
    assert len({one.key for one in post.given}) == 1


def test_what_kills_every_process_that_takes_it_is_given_up(send, post, queue, listed):
    queue("ops")
    for n in range(MAX_ATTEMPTS):
        killed_at("outbox.taken", lambda n=n: send(NOON + n * DELIVERY_LEASE))
    passed = send(NOON + DAY)
    assert post.given == []
    assert passed.failures[0].endswith("every try broke off before its end")
    assert [one.state for one in listed()] == ["failed"]


def test_while_one_sends_nobody_else_sends_the_same(send, post, queue, service, other, door, clock):
    there = build_service(other, door, clock, entropy=bytes, channels=service.channels)
    meanwhile = []

    def sending(message):
        meanwhile.append(deliver_due_reports(there, write, send_message=post).sent_count)
        return ""

    queue("ops")
    assert deliver_due_reports(service, write, send_message=sending).sent_count == 1
    assert meanwhile == [0]
    assert post.given == []


def test_it_stops_between_two_messages_when_told_to(post, queue, service):
    queue("ops", "chat")
    deliver_due_reports(service, write, send_message=post, should_continue=lambda: not post.given)
    assert len(post.given) == 1


def test_no_secret_is_in_the_database_or_the_log_or_a_repr(
    send, post, queue, service, database, caplog
):
    queue("ops", "chat", "rangers")
    post.fails[URLS["ops"]] = "no answer"
    with caplog.at_level(logging.DEBUG):
        told = send()
    with database.begin_read() as transaction:
        rows = [transaction.execute(select(table)).all() for table in metadata.sorted_tables]
    assert "no answer" in repr(rows)
    everything = (rows, caplog.text, told, service, post.given, service.channels)
    assert [one for one in everything if MARK in repr(one)] == []


@given(st.integers(1, MAX_ATTEMPTS), st.floats(0, 1, exclude_max=True))
def test_waits_grow_and_are_never_all_alike(tries, chance):
    wait = compute_retry_delay(tries, chance)
    assert timedelta(seconds=45) <= wait <= 1.25 * MAX_RETRY_DELAY
    assert 0.75 * compute_retry_delay(tries, 0.5) <= wait <= 1.25 * compute_retry_delay(tries, 0.5)
    assert compute_retry_delay(tries + 1, chance) >= wait
