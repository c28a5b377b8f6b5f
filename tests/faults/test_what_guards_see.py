"""What guards see: people decide soon after ticks leave undone what is due."""

from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import timedelta

import pytest

from rollout import faults
from rollout.data.counting.count_queue import CountQueue
from rollout.data.database.migrations import record_heartbeat
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import DEAD_AFTER, TickSlots
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.process.replica_safety import TickWatch
from rollout.kernel.calendar.instants import find_slot_before
from rollout.live.autonomy import TICKS_OVERDUE
from rollout.live.clock import ManualClock
from rollout.live.tick_passes import Ticker, TickScheduler
from tests.api.assignments.test_autonomy import V1, Replica
from tests.api.conftest import clock, database, door, url
from tests.data.databases import fresh
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.features import bear_field as field
from tests.features.bear_field import keys, question

pytestmark = pytest.mark.faults
__all__ = ["clock", "database", "door", "url"]
SECOND = timedelta(seconds=1)
STEP = 5 * SECOND
ALONE = keys(0.1, below=False)
POLICY = field.POLICY.replace(
    "evidence: {unit: case}", "evidence: {unit: case, grace: 2m}\ntick: 1m"
)
GUARDED = (
    POLICY.replace(
        "grace: 2m",
        "grace: 2m, outside: blind, sources: {accounts: [{account: desk, reviewers: [ana]}]}",
    )
    + "guards: [{measure: agreement, at_least: 90%, false_alarm_every: 100}]\n"
)
LIMIT, LEASE = 3 * MINUTE, MINUTE
"""Three slots; and for how long a permit lasts."""


@pytest.fixture(autouse=True)
def _clocks_agree(monkeypatch):
    """The clock of tests is set; a database's own is not."""
    for module in ("state_cache", "autonomy"):
        monkeypatch.setattr(f"rollout.live.{module}.measure_clock_skew", lambda *_: timedelta(0))


class WatchedField:
    """A replica that asks in each step, which stores a case, and ticks as long as it can."""

    answer = "none"

    def __init__(self, database, door, clock, policy=POLICY):
        field.set_up_field(database, clock.at - DAY, policy)
        field.widen(database, ("creek", "day"), at=clock.at - DAY)
        self.database, self.clock = database, clock
        self.replica = Replica(database, door, clock)
        self.ticks, self.number, self.is_ticking = TickScheduler(database, "a"), 0, True
        self.pass_time = lambda: clock.advance(STEP)

    def step(self):
        """Return who decides a case."""
        self.pass_time()
        if self.is_ticking:
            self.ticks.run_due_ticks(self.clock.at)
        self.replica.beat()
        self.number += 1
        key, at = ALONE[self.number], self.clock.at.isoformat()
        self.send_case(key, at)
        camera = self.replica.client.by("ingest")
        answer = camera.post(f"{V1}/assignments", json=question(key, at=at))
        assert answer.status_code == 200, answer.text
        return answer.json()["decider"]

    def send_case(self, key, at):
        """Send a case with the model's answer."""
        case = {"kind": "case", "key": key, "site": "creek", "occurred_at": at}
        prediction = {"kind": "prediction", "key": key, "version": "v1", "at": at}
        self.send("ingest", case, prediction | {"answers": {"alarm": self.answer}})

    def send(self, sender, *records):
        client = self.replica.client.by(sender)
        sent = client.post(f"{V1}/records", json={"items": records}).json()
        assert {item["status"] for item in sent["items"]} == {"accepted"}, sent

    def run(self, span):
        """Return how long the model decided within a span."""
        steps = [self.step() for _ in range(span // STEP)]
        return STEP * steps.count("model")


class JudgedField(WatchedField):
    """People also decide a case like it in each step, which never has a bear."""

    def __init__(self, database, door, clock):
        door.let_in("desk", AssignedRole("ingest"), machine=True)
        super().__init__(database, door, clock, GUARDED)

    def step(self):
        """Return who decides a case, after people have decided another."""
        decider = super().step()
        key, at = f"judged-{self.number}", self.clock.at.isoformat()
        self.send_case(key, at)
        decision = {"kind": "decision", "key": key, "reviewer": "ana", "submitted_at": at}
        self.send("desk", decision | {"answers": {"alarm": "none"}})
        return decider

    @property
    def guard(self):
        """Return the guard that narrowed the model."""
        with self.database.begin_read() as transaction:
            ledger = Ledger(transaction, Rollouts(transaction).find("bears"))
            return ledger.find_last_event("Narrowed").guard

    def count_wrong(self, span):
        """Return how often the model answers wrongly from now on, until people decide."""
        self.answer = "bear"
        return self.run(span) // STEP


@pytest.fixture
def watched(database, door, clock):
    made = WatchedField(database, door, clock)
    assert made.run(10 * MINUTE) == 10 * MINUTE
    return made


def stop_ticking(watched, _monkeypatch):
    watched.is_ticking = False
    return nullcontext()


def step_back(watched, _monkeypatch):
    watched.clock.at -= HOUR
    return nullcontext()


def stand_still(watched, _monkeypatch):
    """Let the wall clock stand still while time passes."""

    def pass_time():
        watched.clock.since_boot += STEP.total_seconds()

    watched.pass_time = pass_time
    watched.clock.advance(MINUTE)  # a slot has come whose tick never does
    watched.is_ticking = False
    return nullcontext()


def hold_queue(_watched, monkeypatch):
    monkeypatch.setattr(CountQueue, "lock", lambda *_: set())
    return nullcontext()


def fail_elsewhere(watched, _monkeypatch):
    """Let the ticks of another process fail; this one knows nothing of that."""
    watched.is_ticking = False

    def fail(*_args, **_more):
        raise ValueError("evidence can't be read")

    return faults.install_action(fail, "tick.claimed")


FAULTS = {
    "ticks stop": stop_ticking,
    "the clock steps back": step_back,
    "the clock stands still": stand_still,
    "the queue is stuck": hold_queue,
    "evidence can't be read": fail_elsewhere,
}


@pytest.mark.parametrize("name", FAULTS)
def test_people_decide_within_the_limit(watched, monkeypatch, name):
    with FAULTS[name](watched, monkeypatch):
        until_due = 3 * MINUTE  # a case is due when its grace has passed, at the next slot
        decided = watched.run(20 * MINUTE)
        assert decided <= until_due + LIMIT + LEASE
        assert watched.step() == "human"
        ready = watched.replica.readiness()
        assert (ready.status_code, ready.json()["overdue"]) == (200, ["bears"])
        assert watched.replica.stop().status_code == 201


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_answers_beyond_the_same_run_without_the_fault(
    database, door, tmp_path, monkeypatch, name
):
    """The model is wrong from the fault on; a guard would see it, were it not blind."""
    blind, folder = JudgedField(database, door, ManualClock(NOON)), tmp_path / "other"
    folder.mkdir()
    with fresh(database.engine.dialect.name, folder) as url, closing(Database(url)) as other:
        without = JudgedField(other, door, ManualClock(NOON))
        assert without.run(LIMIT) == LIMIT
        fewest = without.count_wrong(2 * LIMIT)
        assert without.guard == "agreement>=0.9"
    assert blind.run(LIMIT) == LIMIT
    assert MINUTE <= fewest * STEP < LIMIT
    with FAULTS[name](blind, monkeypatch):
        most = blind.count_wrong(3 * LIMIT)
        assert blind.step() == "human"
    assert fewest < most <= fewest + (LIMIT + LEASE) // STEP


def test_nothing_due_is_no_doubt(watched):
    watched.run(5 * MINUTE)
    watched.is_ticking = False
    with watched.database.begin_write() as transaction:
        transaction.connection.exec_driver_sql("delete from count_queue")
    for _ in range(240):
        watched.clock.advance(STEP)
        watched.replica.beat()
    assert watched.replica.decider() == "model"


def test_the_slot_of_a_dead_worker_is_taken_before_it_has_passed(watched):
    at = watched.clock.at + MINUTE
    with watched.database.begin_write() as transaction:
        record_heartbeat(transaction, "dead", "p", at - DEAD_AFTER)
        slots = TickSlots(transaction, Rollouts(transaction).find("bears"))
        slot = find_slot_before(at, MINUTE)
        assert slots.claim(slot, owner="dead", at=at, stale_after=MINUTE)
    assert Ticker(watched.database, "bears", "other").tick(at) is not None
    with watched.database.begin_read() as transaction:
        assert TickSlots(transaction, Rollouts(transaction).find("bears")).load_last_done() == slot


def test_a_living_workers_slot_stays_its_own(watched):
    at = watched.clock.at + MINUTE
    with watched.database.begin_write() as transaction:
        record_heartbeat(transaction, "alive", "p", at - DEAD_AFTER + SECOND)
        slots = TickSlots(transaction, Rollouts(transaction).find("bears"))
        assert slots.claim(find_slot_before(at, MINUTE), owner="alive", at=at, stale_after=MINUTE)
    assert Ticker(watched.database, "bears", "other").tick(at) is None


def test_when_ticks_come_again_guards_decide_again(watched):
    watched.is_ticking = False
    watched.run(20 * MINUTE)
    assert watched.step() == "human"
    assert watched.replica.reason() == TICKS_OVERDUE
    watched.is_ticking = True
    watched.run(2 * MINUTE)
    assert watched.replica.service.autonomy.overdue == {}
    assert watched.replica.reason() == "a human confirms"  # of the audits nobody gave an answer


def test_a_tick_of_a_time_to_come_is_a_doubt(watched):
    Ticker(watched.database, "bears", "ahead").tick(watched.clock.at + DAY)
    assert watched.step() == "human"


def test_in_a_live_demo_it_has_to_last_ten_seconds_of_the_watching_person(watched):
    """There a slot takes seconds, and so does a tick."""
    real = ManualClock(watched.clock.at)
    watch = TickWatch(replace(watched.replica.service, wall_clock=real))
    watched.is_ticking = False
    watched.run(20 * MINUTE)
    found = []
    for _ in range(11):
        found.append(list(watch.find_overdue()))
        real.advance(SECOND)
    assert found == [[]] * 10 + [["bears"]]
