"""The scheduler queues and sends notifications, to a real mail server and a real webhook."""

import threading

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import TickSlots
from rollout.engine.decide.commands import OpenIncident
from rollout.features.notifications.settings import NotificationJob, NotificationPlanner
from rollout.live import autonomy
from rollout.live.rollout_state import execute_command
from rollout.worker.jobs import JobScheduler
from tests.api.bears import CREEK, LAKE, tick
from tests.api.conftest import clock, database, door, url
from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.features.notifications.mailing_list import (
    Mailroom,
    add_users,
    build_notified_service,
    choose,
)
from tests.features.receivers import mailbox, webhook

__all__ = ["clock", "database", "door", "url"]
MAIL_REST = "?from=rollout@example.org&to={address}&mode=insecure"


@pytest.fixture(autouse=True)
def _silent_database_clock(monkeypatch):
    """PostgreSQL's clock, which no test can set, says nothing."""
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: None)


@pytest.fixture
def mailroom():
    return Mailroom()


@pytest.fixture
def service(database, door, clock):
    add_users(database)
    return build_notified_service(database, door, clock)


@pytest.fixture
def still(service, mailroom):
    """Return a scheduler whose jobs only the test runs."""
    return JobScheduler(service, "here", sending_jobs=[NotificationJob(service, mailroom)])


def start(service, *send):
    sending_jobs = [NotificationJob(service, *send)]
    jobs = JobScheduler(
        service, "here", interval=0.02, pass_interval=0.02, sending_jobs=sending_jobs
    )
    jobs.start()
    return jobs


def happens(condition):
    turn = threading.Event()
    return any(condition() or turn.wait(0.02) for _ in range(1_500))


def open_incident(database, at=NOON, cell=CREEK, case="c-1"):
    command = OpenIncident(at=at, kind="unauthorized", reason=f"case {case}", cell=cell)
    execute_command(database, "bears", lambda _: command)


def list_titles(mailroom):
    return [message.title for message in mailroom.messages if "Confirm" not in message.title]


def load_last_slot(database):
    with database.begin_read() as transaction:
        return TickSlots(transaction, Rollouts(transaction).find("bears")).load_last_done()


@pytest.mark.slow
@pytest.mark.enable_socket
@on_sqlite  # receivers on this machine
def test_messages_leave_with_the_clock_by_a_real_mail_server_and_a_real_webhook(
    database, door, clock
):
    add_users(database)
    with mailbox() as mail, webhook() as hook:
        mail_port, hook_port = (server.server_address[1] for server in (mail, hook))
        urls = {
            "mail": f"mailto://127.0.0.1:{mail_port}{MAIL_REST}",
            "hook": f"json://127.0.0.1:{hook_port}/{{address}}",
        }
        service = build_notified_service(database, door, clock, urls)
        choose(service, "olga", ["reminders"])
        choose(service, "vic", ["incidents"], channel="hook")
        tick(database, NOON, cells=(CREEK,))
        jobs = start(service)
        try:
            open_incident(database)
            assert happens(lambda: hook.came)
            assert mail.came == []
            clock.advance(7 * DAY)
            assert happens(lambda: mail.came)
        finally:
            jobs.stop()
    ((_, body),) = hook.came
    assert body["title"] == "bears: Incident I-1, unauthorized"
    assert [(letter["To"], letter["Subject"]) for letter in mail.came] == [
        ("olga@example.org", "bears: Reminder P-1")
    ]


@pytest.mark.slow
def test_a_mail_server_that_takes_long_holds_up_no_tick_and_a_stop_waits_for_it(
    service, mailroom, database, clock
):
    sending, over, left = threading.Event(), threading.Event(), []

    def send(message):
        sending.set()
        over.wait(20)
        left.append(message)
        return ""

    choose(service, "vic", ["incidents"])
    open_incident(database)
    jobs = start(service, send)
    assert sending.wait(20)
    assert happens(lambda: load_last_slot(database) is not None)
    before = load_last_slot(database)
    clock.advance(HOUR)
    assert happens(lambda: load_last_slot(database) > before)
    assert not over.is_set()
    threading.Timer(0.2, over.set).start()
    jobs.stop()
    assert len(left) == 1, "the message that was being sent, and none after it"


@pytest.mark.parametrize("jump", [900 * DAY, -900 * DAY])
def test_while_clocks_disagree_incidents_are_told_and_nothing_else(
    still, service, mailroom, database, clock, jump
):
    choose(service, "olga", ["incidents", "proposals", "reminders", "daily-digest"])
    still._sending_jobs["notifications"].run()
    tick(database, NOON, cells=(CREEK,))
    NotificationPlanner(service).queue_notifications(NOON)
    clock.advance(MINUTE)
    clock.at += jump  # the wall clock alone: no such time has passed
    for case, cell in (("c-1", CREEK), ("c-2", CREEK), ("c-3", LAKE)):
        open_incident(database, NOON + MINUTE, cell, case)
    still._run_tick()
    still._sending_jobs["notifications"].run()
    assert sorted(list_titles(mailroom)) == [
        "bears: 2 incidents at creek",
        "bears: Incident I-4, clock",
    ]
    open_incident(database, NOON + 2 * MINUTE, case="c-5")
    still._sending_jobs["notifications"].run()
    assert list_titles(mailroom)[2:] == ["bears: Incident I-5, unauthorized"]
    clock.at -= jump
    still._sending_jobs["notifications"].run()
    assert list_titles(mailroom)[3:] == ["bears: Approve P-1?"]
    with database.begin_read() as transaction:
        events = list(Ledger(transaction, Rollouts(transaction).find("bears")).list_events())
    assert max(event.at for event in events) <= NOON + 2 * MINUTE, "no entry of a later time"


def test_a_message_that_failed_while_clocks_disagreed_is_tried_again(
    still, service, mailroom, database, clock
):
    choose(service, "olga", ["incidents"])
    still._sending_jobs["notifications"].run()
    clock.at += 900 * DAY
    open_incident(database)
    mailroom.faults["olga"] = "no answer"
    still._sending_jobs["notifications"].run()
    mailroom.faults.clear()
    clock.since_boot += 120
    still._sending_jobs["notifications"].run()
    assert list_titles(mailroom) == ["bears: Incident I-1, unauthorized"]
