"""A box decides as the service would, and never past its lease, whatever its clocks do."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.schemas.scope import scope_out
from rollout.client.client import Box, SetBackError
from rollout.client.clocks import MachineClocks, Reading
from rollout.client.leases import BACK, RATE, left
from rollout.client.local_scope import NoSnapshotError, read_scope
from rollout.client.seen_heads import Head, HeadFile
from rollout.core.scope.assignment import Question, assign
from rollout.services.assignments.snapshots import Snapshot
from tests.factories import HOUR, MINUTE, NOON, autonomous, eventful, policy

SALT = bytes(32)
TEXT = "rollout: bear-alarm"
HASH = sha256(TEXT.encode()).hexdigest()
SECOND = timedelta(seconds=1)
LEASE, STALE, TAKES = MINUTE, SECOND / 2, 2 * SECOND


def said(rollout, *, issued_at=None, salt=SALT, number=None, sites=("creek", "lake"), lease=LEASE):
    """Return a rollout's scope as the service sends it, as JSON."""
    scope = rollout.scope
    made = Snapshot(
        rollout="bear-alarm",
        revision=scope.revision if number is None else number,
        hash=f"{scope.revision:064x}",
        policy=rollout.policy,
        text=TEXT,
        sites=sites,
        scope=scope,
        salt=salt,
        leases=dict.fromkeys(sites, lease),
        permits=dict.fromkeys(sites, "permit"),
        issued_at=issued_at or rollout.at,
    )
    body = json.loads(scope_out(made).model_dump_json())
    body["policy"]["hash"] = HASH
    return body


OPEN = autonomous()
STOPPED = autonomous()
STOPPED.stop()
BEFORE, AFTER = said(OPEN), said(STOPPED)


def local(rollout, **changed):
    return read_scope(said(rollout, **changed), lambda _: rollout.policy)


@dataclass
class Hands:
    """Clocks that a test moves."""

    boot: float | None = 100.0
    wall: datetime = NOON + HOUR

    def read(self):
        return Reading(self.boot, self.wall)

    def move(self, seconds):
        self.boot += seconds
        self.wall += timedelta(seconds=seconds)


def box_of(*bodies, hands=None, **more):
    given_out = iter(bodies)
    return Box("creek", lambda _: next(given_out), lambda _: OPEN.policy, hands or Hands(), **more)


def ask(box, key="k9", at=NOON + HOUR, site="creek", version="v1"):
    return box.decide(Question(site, at, version, key))


# The same answers as the service's


@settings(max_examples=60)
@given(
    st.sampled_from([OPEN, STOPPED, eventful(), autonomous(policy(lease=12 * HOUR))]),
    st.sampled_from(["creek", "lake", "moon"]),
    st.sampled_from(["v1", "v2"]),
    st.integers(0, 30).map(str),
    st.timedeltas(min_value=timedelta(0), max_value=100 * 24 * HOUR),
)
def test_a_snapshot_answers_as_the_scope_that_it_was_made_of(rollout, site, version, key, later):
    now = NOON + later
    asked = Question(site, now, version, key)
    wanted = assign(rollout.scope, rollout.policy, SALT, asked, now=now, left=LEASE)
    told = local(rollout).assign(asked, now=now, left=LEASE)
    assert told == wanted or (site == "moon" and told.decider == wanted.decider == "human")


def test_without_the_salt_or_a_lease_people_decide():
    asked, now = Question("creek", OPEN.at, "v1", "k9"), OPEN.at
    assert local(OPEN).assign(asked, now=now, left=LEASE).decider == "model"
    assert local(OPEN, salt=None).assign(asked, now=now, left=LEASE).decider == "human"
    assert local(OPEN, sites=("lake",)).assign(asked, now=now, left=LEASE).decider == "human"
    assert local(OPEN).assign(asked, now=now, left=timedelta(0)).because == "the lease has ended"


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        BEFORE | {"policy": None},
        BEFORE | {"issued_at": None},
        BEFORE | {"issued_at": "2027-06-01T12:00:00"},
        BEFORE | {"salt": "zz"},
        BEFORE | {"sites": 5},
        BEFORE | {"policy": BEFORE["policy"] | {"text": "another"}},
    ],
)
def test_what_is_no_snapshot_is_refused(spoilt):
    with pytest.raises(NoSnapshotError):
        read_scope(spoilt, lambda _: OPEN.policy)


# The lease


def readings(seconds, *, wall=None):
    sent = Reading(5.0, NOON)
    gone = timedelta(seconds=seconds)
    return sent, Reading(5.0 + seconds, NOON + (gone if wall is None else wall))


def test_a_lease_is_a_little_shorter_than_said_by_the_clocks_error_and_the_act():
    at_once = left(LEASE, *readings(0))
    assert at_once == LEASE * (1 - RATE)
    assert left(LEASE, *readings(20), takes=TAKES) == at_once - 22 * SECOND
    assert left(LEASE, *readings(60)) < timedelta(0)


@pytest.mark.parametrize(
    ("wall", "usable"),
    [(-BACK, True), (-BACK - SECOND / 1000, False), (LEASE, True), (LEASE + SECOND / 1000, False)],
)
def test_a_wall_clock_that_was_set_ends_the_lease(wall, usable):
    assert (left(LEASE, *readings(10, wall=wall)) > timedelta(0)) == usable


def test_without_a_clock_that_counts_sleep_there_is_no_lease():
    sent, now = readings(1)
    assert (
        left(LEASE, Reading(None, NOON), now) == left(LEASE, sent, Reading(None, NOON)) == BACK * 0
    )
    assert left(LEASE, now, sent) == BACK * 0  # it went back: the machine started anew


def test_this_machine_counts_seconds_since_it_started():
    clocks = MachineClocks()
    first, second = clocks.read(), clocks.read()
    assert first.boot is None or 0 < first.boot <= second.boot
    assert abs(first.wall - datetime.now(UTC)) < MINUTE


# The box


def test_before_it_has_read_anything_people_decide_and_it_is_time_to_ask():
    box = box_of()
    assert ask(box).because == "no scope was read yet"
    assert box.due
    assert box.permit == ""


def test_it_renews_after_a_third_of_the_lease_and_stops_at_its_end():
    hands = Hands()
    box = box_of(BEFORE, hands=hands)
    box.renew()
    assert (box.due, box.permit, ask(box).decider) == (False, "permit", "model")
    hands.move(21)
    assert box.due
    assert ask(box).decider == "model"
    hands.move(38.9)
    assert ask(box).decider == "model"
    hands.move(0.1)
    assert ask(box).decider == "human"


def test_a_case_of_another_site_has_that_sites_lease():
    body = BEFORE | {"sites": [BEFORE["sites"][0], BEFORE["sites"][1] | {"lease": 1.0}]}
    hands = Hands()
    box = box_of(body, hands=hands)
    box.renew()
    hands.move(5)
    assert ask(box, site="creek").because == "the model decides"
    assert ask(box, site="lake").because == "the lease has ended"


def test_a_failed_renewal_leaves_the_lease_that_there_is():
    hands = Hands()
    box = box_of(BEFORE, {"not": "a scope"}, hands=hands)
    box.renew()
    hands.move(30)
    with pytest.raises(NoSnapshotError):
        box.renew()
    assert ask(box).decider == "model"
    hands.move(30)
    assert ask(box).decider == "human"


def test_a_renewal_that_narrows_holds_at_once():
    box = box_of(BEFORE, AFTER)
    box.renew()
    box.renew()
    assert ask(box).decider == "human"


@pytest.mark.parametrize(
    "body", [BEFORE, AFTER | {"hash": "f" * 64}], ids=["an earlier row", "another hash"]
)
def test_a_ledger_that_was_set_back_renews_nothing(body):
    box = box_of(AFTER, body)
    box.renew()
    with pytest.raises(SetBackError):
        box.renew()
    assert ask(box).decider == "human"


def test_it_says_the_highest_head_with_each_question():
    asked = []
    box = Box("creek", lambda head: asked.append(head) or AFTER, lambda _: OPEN.policy, Hands())
    box.renew()
    box.renew()
    assert asked == [Head(), Head(AFTER["revision"], AFTER["hash"])]


def test_a_restart_forgets_the_lease_and_keeps_the_head(tmp_path):
    heads = HeadFile(tmp_path / "head.json")
    assert heads.highest() == Head()
    box_of(AFTER, heads=heads).renew()
    again = box_of(BEFORE, heads=heads)
    assert ask(again).decider == "human"
    with pytest.raises(SetBackError):
        again.renew()
    assert [path.name for path in tmp_path.iterdir()] == ["head.json"]


def test_a_file_that_holds_no_head_is_not_taken_for_a_beginning(tmp_path):
    (tmp_path / "head.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        HeadFile(tmp_path / "head.json").highest()


# Whatever the clocks do


def chance(seed):
    return Random(seed)  # noqa: S311 - a simulation's, the same each time


@dataclass
class World:
    """A service that is stopped at an instant, and a box whose clocks are as bad as they get.

    `now` is true time in seconds. The boot clock runs up to `RATE` off; the wall clock is off by
    minutes and set again now and then; the box sleeps, also while it waits for an answer.
    """

    chance: Random
    stopped_at: float
    now: float = 0.0
    slept: float = 0.0
    awake_clock: bool = False  # the mutant's clock, which stands still in sleep
    rate: float = field(init=False)
    off: float = field(init=False)
    server_off: float = field(init=False)

    def __post_init__(self):
        self.rate = 1 + self.chance.uniform(-RATE, RATE)
        self.off = self.chance.uniform(-300, 300)
        self.server_off = self.chance.uniform(-5, 5)

    def pass_by(self, seconds, *, asleep=False):
        self.now += seconds
        self.slept += seconds if asleep else 0.0

    def read(self):
        counted = self.now - (self.slept if self.awake_clock else 0.0)
        return Reading(
            1_000 + counted * self.rate, NOON + HOUR + timedelta(seconds=self.now + self.off)
        )

    def fetch(self, head):
        self.pass_by(self.chance.expovariate(4))
        confirmed = self.now - self.chance.uniform(0, STALE.total_seconds())
        told = head.revision >= AFTER["revision"]  # a service that lacks it asks its database
        body = AFTER if told or confirmed >= self.stopped_at else BEFORE
        at = NOON + HOUR + timedelta(seconds=self.now + self.server_off)
        self.pass_by(self.chance.expovariate(4), asleep=self.chance.random() < 0.3)
        if self.chance.random() < 0.2:
            self.pass_by(self.chance.uniform(0, 90), asleep=True)
        return body | {"issued_at": at.isoformat()}

    def something_happens(self, box):
        kind = self.chance.random()
        near = 0 <= self.stopped_at + STALE.total_seconds() - self.now < 2
        if (box.due and kind < 0.3 and self.now < self.stopped_at) or (near and kind < 0.5):
            box.renew()  # later nothing gets through: who gets through is told
        elif kind < 0.32:
            self.off = self.chance.uniform(-300, 300)  # somebody or NTP sets the clock
        elif kind < 0.34:
            self.pass_by(self.chance.uniform(0, 120), asleep=True)
        else:
            self.pass_by(self.chance.uniform(0, 1))

    def overrun(self, box_kind):
        """Return by how many seconds an effect under the old scope came after T + s + L."""
        box = box_kind("creek", self.fetch, lambda _: OPEN.policy, self, TAKES)
        worst, end = -1e9, self.stopped_at + (STALE + LEASE).total_seconds()
        while self.now < self.stopped_at + 150:
            self.something_happens(box)
            at = NOON + HOUR + timedelta(seconds=self.now)
            if box.decide(Question("creek", at, "v1", "k9")).decider == "model":
                effect = self.now + self.chance.uniform(0, TAKES.total_seconds())
                worst = max(worst, effect - end)
        return worst


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 200))
def test_every_act_under_the_old_scope_ends_by_the_stop_plus_staleness_plus_lease(seed, stop):
    assert World(chance(seed), stop).overrun(Box) <= 0


class ByInstant(Box):
    """The mutant that takes `fresh_until` for an instant of its own clock."""

    def _left(self, held, now, site):
        return held.local.issued_at + held.local.leases[site] - now.wall - self.takes


class FromReceipt(Box):
    """The mutant that counts from when the answer came."""

    def renew(self):
        super().renew()
        object.__setattr__(self.held, "sent", self.clocks.read())

    def _left(self, held, now, site):
        return left(
            held.local.leases[site], held.sent, Reading(now.boot, held.sent.wall), self.takes
        )


class NoTimeToAct(Box):
    """The mutant that forgets how long an act takes."""

    def _left(self, held, now, site):
        return left(held.local.leases[site], held.sent, Reading(now.boot, held.sent.wall))


@pytest.mark.parametrize(
    ("mutant", "awake_clock"),
    [(ByInstant, False), (FromReceipt, True), (FromReceipt, False), (NoTimeToAct, False)],
    ids=["an instant", "awake from receipt", "boot from receipt", "no time to act"],
)
def test_a_mutant_of_the_lease_rule_is_caught(mutant, awake_clock):
    worlds = (World(chance(n), 50 + n % 100, awake_clock=awake_clock) for n in range(120))
    assert max(world.overrun(mutant) for world in worlds) > 0


def test_the_rule_itself_passes_where_the_mutants_fail():
    worlds = (World(chance(n), 50 + n % 100) for n in range(120))
    assert max(world.overrun(Box) for world in worlds) <= 0
