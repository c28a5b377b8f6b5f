"""Who is notified of what, once, when it still applies, and tried again when it fails."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from rollout import faults
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.commands import Actor, ApproveProposal, OpenIncident
from rollout.features.access import users
from rollout.features.delivery.delivery import DELIVERY_LEASE, MAX_ATTEMPTS, MAX_RETRY_DELAY
from rollout.features.incidents.incidents import record_acknowledgement
from rollout.features.notifications import settings
from rollout.features.notifications.settings import NotificationPlanner, send_due_notifications
from rollout.kernel.channels import Channels
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK, LAKE, scope_of, tick
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.features.notifications.mailing_list import (
    ADMIN,
    AT_CREEK,
    build_notified_service,
    build_user,
    choose,
    run_pass,
)

ASK = ("olga", "bears: Approve P-1?")


@pytest.fixture
def run(service, mailroom, clock):
    """Return a function that runs a pass at a time, without the messages that have codes."""

    def run_at(at=NOON, by=service):
        clock.at = at
        return [item for item in run_pass(by, mailroom) if "Confirm" not in item[1]]

    return run_at


def open_incident(database, cell=CREEK, at=NOON, case="c-1"):
    command = OpenIncident(at=at, kind="unauthorized", reason=f"case {case}", cell=cell)
    execute_command(database, "bears", lambda _: command)


def approve(database, name="zed", at=NOON):
    proposal = scope_of(database).proposals["P-1"]
    command = ApproveProposal(
        at=at, by=Actor(name), proposal="P-1", evidence_hash=proposal.evidence_hash
    )
    execute_command(database, "bears", lambda _: command)


@pytest.mark.slow
def test_an_approver_at_the_site_is_asked_once(service, run, database, mailroom):
    for name in ("olga", "lars", "rita", "vic", "nora"):
        choose(service, name, ["proposals"])
    tick(database, NOON, cells=(CREEK,))
    assert run() == [ASK, ("rita", "bears: Approve P-1?")]
    assert run(NOON + HOUR) == []
    asked, blind = mailroom.messages[-2:]
    assert "Widen `v1` to `supervised` at `creek` in `day`?" in asked.body
    counted = r"[\d.]+\s% so far \([\d,]+ of [\d,]+\), bound"
    assert re.search(rf"Evidence: agreement at least 95 %: {counted}", asked.body)
    assert "log E" not in asked.body
    assert "https://rollout.example/console/rollouts/bears/proposals/P-1\n" in asked.body
    assert "because you may be asked for a blind review there" in blind.body
    assert "%" not in blind.body
    assert "agreement" not in blind.body


def test_who_is_sent_figures_has_an_exposure(service, run, database):
    for name in ("olga", "rita"):
        choose(service, name, ["proposals"])
    tick(database, NOON, cells=(CREEK,))
    run()
    with database.begin_read() as transaction:
        exposures = ExposureStore(transaction, Rollouts(transaction).find("bears"))
        seen_until = {name: exposures.load_figures_until(name) for name in ("olga", "rita")}
    assert seen_until == {"olga": NOON, "rita": None}


def test_reminders_come_at_half_time_and_on_the_last_day_and_never_after_the_decision(
    service, run, database
):
    choose(service, "olga", ["reminders"])
    tick(database, NOON, cells=(CREEK,))
    assert run() == []
    assert run(NOON + 7 * DAY - MINUTE) == []
    assert run(NOON + 7 * DAY) == [("olga", "bears: Reminder P-1")]
    assert run(NOON + 13 * DAY) == [("olga", "bears: Last day P-1")]
    assert run(NOON + 14 * DAY) == []


def test_nobody_is_reminded_of_what_they_approved_or_others_decided(service, run, database):
    for name in ("olga", "rita"):
        choose(service, name, ["reminders"])
    tick(database, NOON, cells=(CREEK,))
    approve(database, "olga")
    assert run(NOON + 7 * DAY) == [("rita", "bears: Reminder P-1")]
    approve(database, "eve", NOON + 7 * DAY)
    assert run(NOON + 13 * DAY) == []


def test_a_decision_before_the_message_is_sent_stops_it(service, run, database, mailroom, clock):
    choose(service, "olga", ["proposals"])
    tick(database, NOON, cells=(CREEK,))
    mailroom.faults["olga"] = "no answer"
    assert run() == []
    mailroom.faults.clear()
    approve(database, "dan")
    approve(database, "eve")
    assert run(NOON + HOUR) == []
    (status,) = settings.load_notification_settings(service, build_user("olga")).channels
    assert (status.last.state, status.last.error) == ("dropped", "it no longer applied")


def test_a_role_that_comes_back_and_a_new_address_bring_what_still_waits(
    service, run, database, mailroom
):
    for name in ("olga", "rita"):
        choose(service, name, ["proposals"])
    tick(database, NOON, cells=(CREEK,))
    mailroom.faults["example.org"] = "no such user"
    run()
    update = users.AccountUpdate(roles_to_revoke=(AT_CREEK,))
    users.update_account(database, ADMIN, "olga", update, at=NOON)
    mailroom.faults.clear()
    mailroom.faults["=rita%40"] = "no such user"
    assert run(NOON + HOUR) == []
    update = users.AccountUpdate(roles_to_grant=(AT_CREEK,))
    users.update_account(database, ADMIN, "olga", update, at=NOON)
    settings.save_notification_channel(
        service, build_user("rita"), "mail", "margarita@example.org", ["proposals"]
    )
    settings.confirm_notification_channel(service, build_user("rita"), "mail", "00000000")
    assert run(NOON + HOUR) == [ASK, ("margarita", "bears: Approve P-1?")]
    assert run(NOON + 2 * HOUR) == []


def test_a_lost_role_and_a_disabled_account_stop_messages(service, run, database, mailroom):
    for name in ("olga", "rita"):
        choose(service, name, ["proposals"])
    tick(database, NOON, cells=(CREEK,))
    mailroom.faults["example.org"] = "no answer"
    run()
    mailroom.faults.clear()
    update = users.AccountUpdate(roles_to_revoke=(AT_CREEK,))
    users.update_account(database, ADMIN, "olga", update, at=NOON)
    users.update_account(database, ADMIN, "rita", users.AccountUpdate(is_disabled=True), at=NOON)
    assert run(NOON + HOUR) == []


def test_incidents_come_to_readers_of_the_site_also_in_quiet_hours(service, run, database):
    for name in ("olga", "lars", "vic", "nora"):
        choose(service, name, ["incidents", "proposals"], quiet=("11:00", "13:00"))
    open_incident(database)
    tick(database, NOON, cells=(CREEK,))
    titles = "bears: Incident I-1, unauthorized"
    assert sorted(run()) == [("olga", titles), ("vic", titles)]
    assert run(NOON + HOUR) == [ASK], "the proposal waited"


def test_a_reviewer_of_the_site_gets_no_figures_of_an_incident_and_others_are_noted(
    service, run, database, mailroom
):
    for name in ("rita", "olga"):
        choose(service, name, ["incidents"])
    open_incident(database)
    run()
    incidents = [message for message in mailroom.messages if "Incident" in message.title]
    bodies = {re.search("olga|rita", message.url)[0]: message.body for message in incidents}
    assert "case c-1" in bodies.pop("olga")
    assert "case c-1" not in bodies.pop("rita")
    with database.begin_read() as transaction:
        exposures = ExposureStore(transaction, Rollouts(transaction).find("bears"))
        assert exposures.load_figures_until("olga") == NOON
        assert exposures.load_figures_until("rita") is None


def test_incidents_that_follow_the_first_at_a_site_come_in_one_message(
    service, run, database, mailroom
):
    choose(service, "ada", ["incidents"], quiet=("11:00", "13:00"))
    for case, cell in (("c-1", CREEK), ("c-2", CREEK), ("c-3", LAKE)):
        open_incident(database, cell, case=case)
    assert run() == [
        ("ada", "bears: 2 incidents at creek"),
        ("ada", "bears: Incident I-3, unauthorized"),
    ]
    for minutes in (1, 2, 4):
        open_incident(database, at=NOON + minutes * MINUTE, case=f"late-{minutes}")
        assert run(NOON + minutes * MINUTE) == []
    mailroom.faults["ada"] = "no answer"
    assert run(NOON + 5 * MINUTE) == []
    mailroom.faults.clear()
    open_incident(database, at=NOON + 6 * MINUTE, case="c-7")
    assert run(NOON + 6 * MINUTE) == [("ada", "bears: 4 incidents at creek")], "with the retry"
    assert run(NOON + HOUR) == []


def test_two_replicas_send_one_message_about_incidents_at_a_site(
    service, run, other, door, clock, database
):
    second = build_notified_service(other, door, clock)
    choose(service, "ada", ["incidents"])
    run()
    for case, cell in (("c-1", CREEK), ("c-2", CREEK), ("c-3", LAKE), ("c-4", CREEK)):
        open_incident(database, cell, case=case)
    NotificationPlanner(service).queue_notifications(NOON)
    titles = []

    def send(message):
        titles.append(message.title)
        send_due_notifications(second, lambda other: titles.append(other.title) or "")
        return ""

    send_due_notifications(service, send)
    assert titles == ["bears: 3 incidents at creek", "bears: Incident I-3, unauthorized"]


def test_an_incident_that_ends_meanwhile_is_not_in_the_message(service, run, database, door):
    choose(service, "ada", ["incidents"])
    open_incident(database)
    run()
    for minutes in (1, 2):
        open_incident(database, at=NOON + minutes * MINUTE, case=f"late-{minutes}")
    run(NOON + 2 * MINUTE)
    record_acknowledgement(database, door.callers["operator"], "bears", "I-2", at=NOON + 3 * MINUTE)
    assert run(NOON + 5 * MINUTE) == [("ada", "bears: Incident I-3, unauthorized")]
    assert run(NOON + HOUR) == []


def test_an_incident_of_before_or_acknowledged_is_not_sent(service, run, database, door):
    open_incident(database, LAKE)
    assert run(NOON + HOUR) == []
    choose(service, "ada", ["incidents"])
    assert run(NOON + HOUR) == []
    open_incident(database, at=NOON + HOUR)
    record_acknowledgement(database, door.callers["operator"], "bears", "I-2", at=NOON + HOUR)
    assert run(NOON + HOUR) == []
    open_incident(database, at=NOON + HOUR)
    assert run(NOON + HOUR) == [("ada", "bears: Incident I-3, unauthorized")]


def test_a_digest_says_what_waits_and_has_no_figures(service, run, database, mailroom):
    choose(service, "rita", ["daily-digest"])
    tick(database, NOON, cells=(CREEK, LAKE))
    open_incident(database)
    morning = (NOON + DAY).replace(hour=8)
    assert run(morning - MINUTE) == []
    assert run(morning) == [("rita", "rollout: Daily digest, 2 Jun 2027")]
    assert (
        "- `bears`: 1 proposal to approve, 1 open incident, 0 reviews" in mailroom.messages[-1].body
    )
    assert "agreement" not in mailroom.messages[-1].body
    assert run(morning + HOUR) == []
    assert run(morning + DAY) == [("rita", "rollout: Daily digest, 3 Jun 2027")]


def test_a_message_that_fails_is_retried(service, run, database, mailroom):
    choose(service, "olga", ["proposals"])
    run()
    tick(database, NOON, cells=(CREEK,))
    mailroom.faults["olga"] = "no answer"
    for hours in range(3):
        assert run(NOON + hours * HOUR) == []
    (status,) = settings.load_notification_settings(service, build_user("olga")).channels
    assert (status.last.state, status.last.attempts) == ("waiting", 3)
    mailroom.faults.clear()
    assert run(NOON + DAY) == [ASK]


def test_a_retry_in_quiet_hours_waits_for_their_end_and_counts_no_attempt(
    service, run, database, mailroom
):
    choose(service, "olga", ["proposals", "incidents"], quiet=("12:30", "14:00"))
    run()
    tick(database, NOON, cells=(CREEK,))
    mailroom.faults["olga"] = "no answer"
    assert run() == []
    mailroom.faults.clear()
    assert run(NOON + HOUR) == [], "it was queued before the quiet hours, and failed"
    (status,) = settings.load_notification_settings(service, build_user("olga")).channels
    assert (status.last.attempts, status.last.due_at) == (1, NOON + 2 * HOUR)
    open_incident(database, at=NOON + HOUR)
    assert run(NOON + HOUR) == [("olga", "bears: Incident I-1, unauthorized")]
    assert run(NOON + 2 * HOUR) == [ASK]


@pytest.mark.slow
def test_after_twelve_tries_it_is_given_up(service, run, database, mailroom):
    choose(service, "olga", ["incidents"])
    run()
    open_incident(database)
    mailroom.faults["olga"] = "refused"
    for n in range(MAX_ATTEMPTS + 2):
        run(NOON + n * 2 * MAX_RETRY_DELAY)
    (status,) = settings.load_notification_settings(service, build_user("olga")).channels
    assert (status.last.state, status.last.attempts) == ("failed", MAX_ATTEMPTS)
    assert status.last.error == "refused"


def test_two_replicas_queue_and_send_each_message_once(service, run, other, door, clock, database):
    second = build_notified_service(other, door, clock)
    choose(service, "olga", ["proposals"])
    run()
    tick(database, NOON, cells=(CREEK,))
    planners = [NotificationPlanner(replica) for replica in (service, second)]
    assert [planner.queue_notifications(NOON) for planner in planners] == [1, 0]
    meanwhile = []

    def send(_message):
        meanwhile.append(send_due_notifications(second, lambda _: "").sent_count)
        return ""

    assert send_due_notifications(service, send).sent_count == 1
    assert meanwhile == [0]


class KilledError(BaseException):
    """The process ends here."""


def kill_at(name, job):
    def end(_):
        raise KilledError

    with pytest.raises(KilledError), faults.install_action(end, name):
        job()


def test_a_crash_before_the_queue_is_stored_loses_nothing(service, run, database):
    choose(service, "olga", ["proposals"])
    run()
    tick(database, NOON, cells=(CREEK,))
    kill_at("notification.queued", run)
    assert run() == [ASK]
    assert run() == []


def test_a_crash_after_sending_repeats_the_message_with_its_key(service, run, database, mailroom):
    choose(service, "olga", ["proposals"])
    run()
    tick(database, NOON, cells=(CREEK,))
    kill_at("notification.sent", run)
    assert run(NOON + DELIVERY_LEASE - MINUTE) == []
    assert run(NOON + DELIVERY_LEASE) == [ASK]
    assert run(NOON + DAY) == []
    first, second = mailroom.messages[-2:]
    assert (first.key, first.title) == (second.key, second.title)


def test_a_channel_that_is_no_longer_configured_waits(service, run, database):
    choose(service, "olga", ["incidents"])
    run()
    open_incident(database)
    assert run(by=replace(service, channels=Channels({}))) == []
    (status,) = settings.load_notification_settings(service, build_user("olga")).channels
    assert status.last.error == "the channel mail is not configured here for users"
    assert run(NOON + timedelta(minutes=2)) == [("olga", "bears: Incident I-1, unauthorized")]
