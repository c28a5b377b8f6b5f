"""A report that is due is made from the store, sealed, sent and noted; no tick waits for it."""

import json
import logging
import threading
from dataclasses import replace

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import TickSlots
from rollout.data.records.records import RecordStore
from rollout.data.reports.reports import DeliveryStore, ReportRuns, ReportStore
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.engine.events import ReportSealed
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.kernel.channels import Channels
from rollout.live import autonomy
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.worker.jobs import LONG, DeliveryJob, JobScheduler
from tests.api.bears import POLICY
from tests.api.conftest import client, clock, database, door, service, url
from tests.factories import DAY, HOUR, NOON
from tests.features.reports.in_process import _reports_in_this_process

__all__ = ["_reports_in_this_process", "client", "clock", "database", "door", "service", "url"]
REPORTS = "reports: [{name: morning, every: day, at: '07:00', to: [ops]}]\n"
URL = "json://ops.example.org/hunter2-token"


class Post:
    def __init__(self):
        self.given, self.fails, self.hold = [], [], lambda: None

    def __call__(self, message):
        self.hold()
        self.given.append(message)
        return self.fails.pop(0) if self.fails else ""


@pytest.fixture
def post():
    return Post()


def fill(database):
    """Make the rollout, with one case that a version and a person answered."""
    apply_policy(
        database, POLICY + REPORTS, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32)
    )
    said, at = {"alarm": "none"}, NOON - HOUR
    with database.begin_write() as transaction:
        records = [
            Case(key="c-1", site="creek", occurred_at=at, window="day"),
            Prediction(key="c-1", version="v1", answers=said, at=at),
            Decision(key="c-1", reviewer="pat", answers=said, exposure="blind", submitted_at=at),
        ]
        rollout = Rollouts(transaction).find("bears")
        RecordStore(transaction, rollout).store(records, received_at=at)


@pytest.fixture
def posting(service, post, monkeypatch):
    """Return a replica's posting, begun; PostgreSQL's clock, which no test can set, is silent."""
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: None)
    fill(service.database)
    sending = replace(service, channels=Channels({"ops": URL}, "https://rollout.example"))
    made = JobScheduler(
        sending,
        "here",
        interval=600,
        pass_interval=0.02,
        sending_jobs=[DeliveryJob(sending, post)],
    )
    made.start()
    yield made
    made.stop()


def happens(condition):
    turn = threading.Event()
    return any(condition() or turn.wait(0.02) for _ in range(1_000))


def kept(database):
    """Return the reports, the deliveries and the sealed hashes, the oldest first."""
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        reports = ReportStore(transaction, rollout).list_before()[::-1]
        deliveries = DeliveryStore(transaction, rollout).list_page()[::-1]
        events = Ledger(transaction, rollout).list_events()
        sealed = [e.sha256 for e in events if isinstance(e, ReportSealed)]
    return reports, deliveries, sealed


def begun(database):
    """Say whether the first look is over, from which on reports are due."""
    with database.begin_read() as transaction:
        return ReportRuns(transaction, Rollouts(transaction).find("bears")).load_done_mark(
            "morning"
        )


@pytest.mark.slow
def test_a_report_is_made_sealed_and_sent_when_the_clock_reaches_its_time(
    posting, post, database, clock
):
    assert happens(lambda: begun(database))
    clock.advance(DAY)
    assert happens(lambda: post.given)
    posting.stop()
    (report,), (delivery,), sealed = kept(database)
    assert (report.name, report.since, report.until) == (
        "morning",
        NOON.replace(hour=7),
        NOON.replace(hour=7) + DAY,
    )
    assert sealed == [report.hash]
    assert (delivery.request.report, delivery.state) == (report.id, "sent")
    (message,) = post.given
    assert report.hash in message.body
    assert message.body.startswith("bears, 1 Jun 2027")
    assert message.page.startswith("<!doctype html>")
    assert message.url == URL


@pytest.mark.slow
def test_an_incident_is_told_of_with_a_report(posting, post, database, service, clock):
    assert happens(lambda: begun(database))
    opened = OpenIncident(at=NOON, kind="unauthorized", reason="case c-1: `nobody` allowed it")
    execute_command(database, "bears", lambda _: opened)
    clock.since_boot += 1
    assert happens(lambda: post.given)
    (message,) = post.given
    assert message.title == "bears: incident I-1: unauthorized"
    assert message.body.startswith(
        "- I-1 unauthorized, recorded as unauthorized: `case c-1: 'nobody'"
    )


@pytest.mark.slow
def test_a_channel_that_takes_long_holds_up_no_tick_and_stopping_waits_for_it(
    posting, post, database, clock, caplog
):
    over, sending = threading.Event(), threading.Event()

    def hold():
        sending.set()
        over.wait(20)

    post.hold, post.fails = hold, ["no answer"]
    assert happens(lambda: begun(database))
    clock.advance(DAY)
    assert sending.wait(20)
    apply_policy(database, POLICY, Actor("zoe"), NOON + DAY)  # who writes meanwhile is not held up
    threading.Timer(0.2, over.set).start()
    with caplog.at_level(logging.WARNING, logger="rollout.scheduler"):
        posting.stop()
    assert "of bears to ops failed, attempt 1 of 12" in caplog.text
    assert "hunter2" not in caplog.text
    assert [one.state for one in kept(database)[1]] == ["waiting"]


def test_a_report_that_takes_long_takes_no_autonomy_and_delays_no_tick(
    service, post, clock, monkeypatch
):
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: None)
    fill(service.database)
    began, over = threading.Event(), threading.Event()
    jobs = JobScheduler(
        service,
        "here",
        interval=0.02,
        pass_interval=0.02,
        sending_jobs=[DeliveryJob(service, post)],
    )

    def take_long(_at, **_more):
        began.set()
        over.wait(20)
        return {}

    monkeypatch.setattr(jobs._report_job._report_rounds, "run_report_jobs", take_long)
    service.autonomy.require_writes(reserve=0)
    jobs.start()
    try:
        assert began.wait(20)
        assert happens(lambda: last_done(service.database) is not None)
        assert happens(lambda: not service.autonomy.find_doubt("bears"))
        clock.since_boot += 1  # what was written is a second old
        service.autonomy.latches.changed.set()
        assert happens(lambda: service.autonomy.measure_write_age() < 1)
        assert not over.is_set()
    finally:
        over.set()
        jobs.stop()


def last_done(database):
    with database.begin_read() as transaction:
        return TickSlots(transaction, Rollouts(transaction).find("bears")).load_last_done()


def test_all_jobs_share_one_rule_of_waking_and_wait_for_no_other(service):
    jobs = JobScheduler(service, "here")
    jobs._scheduler.start(paused=True)
    planned = jobs._scheduler.get_jobs()
    jobs._scheduler.shutdown()
    assert {job.id for job in planned} >= {"tick", "reports", "deliveries", "tidy"}
    rules = {(job.coalesce, job.max_instances, job.misfire_grace_time) for job in planned}
    assert rules <= {(True, 1, None)}
    long_jobs = {job.id for job in planned if job.executor == LONG}
    assert long_jobs == {"reports", "deliveries", "evidence"}


@pytest.mark.slow
def test_while_clocks_disagree_nothing_counts_as_made(posting, post, database, clock, monkeypatch):
    assert happens(lambda: begun(database))
    look, looked = posting._report_job._report_rounds.run_report_jobs, []

    def looking(at, **more):
        looked.append(at)
        return look(at, **more)

    monkeypatch.setattr(posting._report_job._report_rounds, "run_report_jobs", looking)
    assert happens(lambda: looked)
    clock.at += 900 * DAY  # the wall clock alone: no such time has passed
    threading.Event().wait(0.3)
    assert max(looked) <= NOON
    clock.at -= 899 * DAY
    clock.since_boot += DAY.total_seconds()
    assert happens(lambda: post.given)
    (report,), _, _ = kept(database)
    assert report.until == NOON.replace(hour=7) + DAY


class HeldPass:
    """Hold a job at the beginning of its next pass, so that no pass sees a clock jump midway."""

    def __init__(self, job):
        self._clock_check = job._clock_check
        self._reached, self._over = threading.Event(), threading.Event()
        job._clock_check = self

    def now(self):
        self._reached.set()
        self._over.wait(20)
        return self._clock_check.now()

    def is_reached(self):
        return self._reached.is_set()

    def go_on(self):
        self._over.set()


@pytest.mark.slow
def test_while_clocks_disagree_incidents_still_reach_the_channels(posting, post, database, clock):
    assert happens(lambda: begun(database))
    post.fails = ["no answer"]
    clock.advance(DAY)
    assert happens(
        lambda: any(item.error for item in kept(database)[1])
    )  # its retry has a time before the jump
    jump = HeldPass(posting._sending_jobs["deliveries"])
    assert happens(jump.is_reached)
    clock.at += 900 * DAY  # the wall clock alone: no such time has passed
    clock.since_boot += DAY.total_seconds()
    jump.go_on()
    opened = OpenIncident(at=NOON + DAY, kind="unauthorized", reason="case c-1")
    execute_command(database, "bears", lambda _: opened)
    assert happens(lambda: any(item.sent_at for item in kept(database)[1]))
    threading.Event().wait(0.3)
    assert [message.title for message in post.given[1:]] == ["bears: incident I-1: unauthorized"]
    report, delivery = (items[-1] for items in kept(database)[:2])
    assert (report.name, report.until) == ("incident", NOON + 2 * DAY)
    assert delivery.sent_at == NOON + 2 * DAY
    clock.at = NOON + 2 * DAY
    assert happens(lambda: len(post.given) == 4)
    assert {message.title for message in post.given[2:]} == {"bears: morning report"}
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("bears"))
        assert max(event.at for event in ledger.list_events()) == NOON + 2 * DAY


@pytest.mark.slow
def test_a_pass_that_fails_whole_is_told_and_the_next_one_comes(
    posting, post, database, clock, monkeypatch, caplog
):
    assert happens(lambda: begun(database))
    look, failed = posting._report_job._report_rounds.run_report_jobs, []

    def failing(at, **more):
        if not failed:
            failed.append(at)
            raise OSError("the database is away")
        return look(at, **more)

    with caplog.at_level(logging.ERROR, logger="rollout.scheduler"):
        monkeypatch.setattr(posting._report_job._report_rounds, "run_report_jobs", failing)
        clock.advance(DAY)
        assert happens(lambda: post.given)
    assert "job reports failed; it is tried again" in caplog.text


@pytest.mark.slow
def test_a_viewer_reads_no_address_anywhere(posting, post, service, database, clock, client):
    post.fails = ["no answer"]
    assert happens(lambda: begun(database))
    clock.advance(DAY)
    assert happens(lambda: post.given)
    posting.stop()
    found = client.by("viewer").get("/v1/rollouts/bears/deliveries").json()
    assert "hunter2" not in json.dumps(found)
