"""Reports on schedule and on incident: each made once by any replica, queued when sealed."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from rollout import faults
from rollout.data.reports.reports import DeliveryStore
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.features.incidents.incidents import record_acknowledgement
from rollout.features.reports.builder import CLAIM_TIMEOUT, ReportScheduler
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.service import build_service
from tests.api.conftest import clock, door, service
from tests.factories import DAY, HOUR, MINUTE

__all__ = ["clock", "door", "service"]
BEGAN = datetime(2027, 6, 1, 12, tzinfo=UTC)
DUE = datetime(2027, 6, 2, 5, tzinfo=UTC)  # seven in Vienna
POLICY = """
rollout: bears
timezone: Europe/Vienna
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
reports:
  - {name: morning, every: day, at: 07:00, to: [rangers, ops]}
  - {name: month, every: month, at: 09:00, view: auditor, to: [council, ops]}
"""
QUIET = POLICY.replace(", to: [rangers, ops]", "").replace(", to: [council, ops]", "")


class Made(NamedTuple):
    name: str
    since: datetime
    until: datetime
    view: str


class Press:
    """Seals a report by a number of its own, as `make_report` does; fails when told to."""

    def __init__(self, service):
        self.service, self.made, self.fails, self.slow = service, [], False, lambda: None

    def __call__(self, _name, report, options, _at, beside):
        if self.fails:
            raise ZeroDivisionError("no figures")
        self.slow()
        with self.service.database.begin_write() as transaction:
            beside(transaction, len(self.made) + 1)
        self.made.append(Made(report, options.since, options.until, options.view))


@pytest.fixture
def press(service):
    return Press(service)


@pytest.fixture
def rounds(service, clock, press):
    """Return a replica's rounds over one rollout that has just been looked at once."""
    clock.at = BEGAN
    apply_policy(service.database, POLICY, Actor("zoe"), BEGAN)
    made = ReportScheduler(service, press, "here")
    assert made.run_report_jobs(BEGAN) == {}
    assert press.made == []
    return made


@pytest.fixture
def look(rounds, clock):
    def looked(at, by=rounds):
        clock.at = at
        clock.since_boot += 1  # what was known is asked anew
        return by.run_report_jobs(at)

    return looked


def queued(service):
    with service.database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        found = DeliveryStore(transaction, rollout).list_page()
    return [
        (one.request.report, one.request.channel, one.request.reason) for one in reversed(found)
    ]


def letters(service):
    with service.database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        found = [one.request for one in DeliveryStore(transaction, rollout).list_page()]
    return {(letter.subject, letter.lead) for letter in found}


def open_incidents(service, at, *reasons, kind="unauthorized"):
    for reason in reasons:
        one = OpenIncident(at=at, kind=kind, reason=reason)
        execute_command(service.database, "bears", lambda _, one=one: one)


def test_a_report_is_made_when_it_is_due_once_and_queued_for_its_channels(look, press, service):
    look(DUE - MINUTE)
    assert press.made == []
    for at in (DUE, DUE + MINUTE, DUE + 23 * HOUR):
        assert look(at) == {}
    (one,) = press.made
    assert (one.name, one.view, one.since, one.until) == ("morning", "operator", DUE - DAY, DUE)
    assert queued(service) == [(1, "rangers", "schedule"), (1, "ops", "schedule")]


def test_what_was_missed_while_nobody_looked_is_one_report(look, press):
    look(DUE + 40 * DAY)
    assert [(one.name, one.until) for one in press.made] == [
        ("morning", DUE + 40 * DAY),
        ("month", datetime(2027, 7, 1, 7, tzinfo=UTC)),
    ]
    look(DUE + 40 * DAY + HOUR)
    assert len(press.made) == 2


def test_a_report_that_a_policy_adds_begins_with_the_next_one(look, press, service):
    added = POLICY + "  - {name: noon, every: day, at: 12:00}\n"
    apply_policy(service.database, added, Actor("zoe"), DUE + 2 * HOUR)
    look(DUE + 6 * HOUR)
    assert [one.name for one in press.made] == ["morning"]
    look(DUE + DAY + 6 * HOUR)
    assert [one.name for one in press.made] == ["morning", "morning", "noon"]


def test_of_several_replicas_one_makes_it(look, press, service, other, clock):
    there = Press(build_service(other, service.authenticator, clock))
    second = ReportScheduler(there.service, there, "there")

    def while_it_is_made():
        look(DUE, by=second)

    press.slow = while_it_is_made
    look(DUE)
    look(DUE + MINUTE, by=second)
    assert (len(press.made), len(there.made)) == (1, 0)


def test_a_report_that_fails_is_told_and_tried_again_after_a_while(look, press):
    press.fails = True
    assert list(look(DUE)) == ["bears"]
    press.fails = False
    assert look(DUE + CLAIM_TIMEOUT - MINUTE) == {}
    assert press.made == []
    look(DUE + CLAIM_TIMEOUT)
    assert [one.until for one in press.made] == [DUE]


def test_a_replica_that_was_paused_over_it_undoes_what_it_made(look, press, service, other, clock):
    there = Press(build_service(other, service.authenticator, clock))
    second = ReportScheduler(there.service, there, "there")
    press.slow = lambda: look(DUE + CLAIM_TIMEOUT, by=second)
    assert look(DUE) == {}
    assert (len(press.made), len(there.made)) == (0, 1)
    assert queued(service) == [(1, "rangers", "schedule"), (1, "ops", "schedule")]


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(name):
    def end(_):
        raise Killed

    with pytest.raises(Killed), faults.install_action(end, name):
        yield


@pytest.mark.parametrize("point", ["report.claimed", "report.sealed", "commit.before"])
def test_a_process_that_dies_over_a_report_leaves_it_to_the_next_one(look, press, service, point):
    with killed_at(point):
        look(DUE)
    assert queued(service) == []
    press.made.clear()
    other_one = ReportScheduler(service, press, "there")
    look(DUE + CLAIM_TIMEOUT, by=other_one)
    assert [one.until for one in press.made] == [DUE]
    assert len(queued(service)) == 2


def test_ten_incidents_are_one_notice_to_every_channel_once(look, press, service):
    open_incidents(service, BEGAN + HOUR, *(f"reason {n}" for n in range(12)))
    look(BEGAN + HOUR)
    (one,) = press.made
    at = BEGAN + HOUR
    assert (one.name, one.view, one.since, one.until) == ("incident", "operator", at - DAY, at)
    assert queued(service) == [(1, c, "incident") for c in ("rangers", "ops", "council")]
    ((subject, lead),) = letters(service)
    assert subject == "12 incidents: unauthorized"
    assert "I-1 unauthorized" in lead
    assert "`reason 9`" in lead
    assert lead.endswith("- and 2 more")
    look(BEGAN + 2 * HOUR)
    assert len(press.made) == 1
    open_incidents(service, BEGAN + 3 * HOUR, "another")
    look(BEGAN + 3 * HOUR)
    assert len(press.made) == 2
    assert "incident I-13: unauthorized" in {subject for subject, _ in letters(service)}


def test_an_incident_that_was_seen_at_once_is_told_all_the_same_but_the_first_time(
    look, press, service
):
    def seen(number, at):
        everybody = replace(service.authenticator.callers["ana"])
        record_acknowledgement(service.database, everybody, "bears", f"I-{number}", at=at)

    open_incidents(service, BEGAN + MINUTE, "long ago")
    seen(1, BEGAN + MINUTE)
    look(BEGAN + 2 * MINUTE)
    assert press.made == [], "before anybody was told, what is over is not told"
    for number in (2, 3):
        open_incidents(service, BEGAN + number * HOUR, f"reason {number}")
    look(BEGAN + 4 * HOUR)
    open_incidents(service, BEGAN + 5 * HOUR, "new")
    seen(4, BEGAN + 5 * HOUR)
    look(BEGAN + 6 * HOUR)
    assert len(press.made) == 2


def test_where_no_channel_is_named_incidents_are_told_to_nobody(service, clock, press):
    apply_policy(service.database, QUIET, Actor("zoe"), BEGAN)
    open_incidents(service, BEGAN, "reason")
    rounds = ReportScheduler(service, press, "here")
    rounds.run_report_jobs(BEGAN)
    clock.at = DUE
    rounds.run_report_jobs(DUE)
    assert [one.name for one in press.made] == ["morning"]
    assert queued(service) == []


def test_a_rollout_that_fails_holds_up_no_other(look, press, service, monkeypatch):
    apply_policy(service.database, POLICY.replace("bears", "wolves"), Actor("zoe"), BEGAN)
    look(BEGAN)
    seal = Press.__call__

    def failing(self, name, *more):
        if name == "bears":
            raise ZeroDivisionError
        seal(self, name, *more)

    monkeypatch.setattr(Press, "__call__", failing)
    assert list(look(DUE)) == ["bears"]
    assert len(press.made) == 1


def test_a_policy_whose_time_of_day_was_moved_back_makes_no_second_report(look, press, service):
    look(DUE)
    moved = POLICY.replace("07:00", "06:30")
    apply_policy(service.database, moved, Actor("zoe"), DUE + MINUTE)
    look(DUE + 2 * MINUTE)
    assert len(press.made) == 1
    look(DUE + DAY - timedelta(minutes=30))
    assert len(press.made) == 2
