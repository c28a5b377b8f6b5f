"""A client decides as the service would, and never past its lease, whatever its clocks do."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.core.scope.assignment import CaseQuestion, decide_assignment
from rollout_client.client import EdgeClient, LedgerRolledBackError
from rollout_client.leases import (
    MAX_CLOCK_DRIFT,
    MAX_STEP_BACK,
    ClockReading,
    MachineClocks,
    compute_time_left,
)
from rollout_client.local_scope import InvalidSnapshotError, UnknownFormError, parse_snapshot
from rollout_client.questions import LocalQuestion
from rollout_client.seen_heads import FileHeadStore, LedgerHead
from tests.client.local_answers import SALT, build_body, decide_locally
from tests.factories import HOUR, MINUTE, NOON, autonomous, eventful, policy

SECOND = timedelta(seconds=1)
LEASE, STALE, TAKES = MINUTE, SECOND / 2, 2 * SECOND


def said(rollout, *, issued_at=None, salt=SALT, number=None, sites=("creek", "lake"), lease=LEASE):
    """Return a rollout's scope as the service sends it, as JSON."""
    return build_body(
        rollout.policy,
        rollout.scope,
        issued_at or rollout.at,
        dict.fromkeys(sites, lease),
        salt=salt,
        number=number,
    )


OPEN = autonomous()
STOPPED = autonomous()
STOPPED.stop()
BEFORE, AFTER = said(OPEN), said(STOPPED)


def local(rollout, **changed):
    return parse_snapshot(said(rollout, **changed))


@dataclass
class MovableClocks:
    """Clocks that a test moves."""

    boot: float | None = 100.0
    wall: datetime = NOON + HOUR

    def read(self):
        return ClockReading(self.boot, self.wall)

    def read_seconds(self):
        return self.boot, self.wall.timestamp()

    def move(self, seconds):
        self.boot += seconds
        self.wall += timedelta(seconds=seconds)


def box_of(*bodies, hands=None, **more):
    given_out = iter(bodies)
    return EdgeClient("creek", lambda _: next(given_out), hands or MovableClocks(), **more)


def ask(box, key="k9", at=NOON + HOUR, site="creek", version="v1"):
    return box.decide(site, at, version, key)


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
    now = rollout.at - HOUR + later
    asked = CaseQuestion(site, now, version, key)
    wanted = decide_assignment(rollout.scope, rollout.policy, SALT, asked, now=now, time_left=LEASE)
    told = decide_locally(local(rollout, issued_at=now), asked, now=now, time_left=LEASE)
    assert told == wanted or (site == "moon" and told.decider == wanted.decider == "human")


def test_without_the_salt_or_a_lease_people_decide():
    asked, now = LocalQuestion("creek", OPEN.at, "v1", "k9"), OPEN.at

    def answer(scope, time_left=LEASE):
        return scope.decide(asked, now=now, time_left=time_left).answer

    assert answer(local(OPEN)).decider == "model"
    assert answer(local(OPEN, salt=None)).decider == "human"
    assert answer(local(OPEN, sites=("lake",))).decider == "human"
    assert answer(local(OPEN), timedelta(0)).reason == "the lease has ended"


TABLE = BEFORE["table"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        BEFORE | {"head_code": None, "revision": None},
        BEFORE | {"issued_at": None},
        BEFORE | {"issued_at": "2027-06-01T12:00:00"},
        BEFORE | {"salt": "zz"},
        BEFORE | {"sites": 5},
        BEFORE | {"table": None},
        BEFORE | {"table": TABLE | {"sites": TABLE["sites"][:1]}},
        BEFORE | {"table": TABLE | {"answers": TABLE["answers"][:1]}},
        BEFORE | {"table": TABLE | {"stages": []}},
        BEFORE | {"table": TABLE | {"windows": TABLE["windows"][:1]}},
        BEFORE | {"table": TABLE | {"edges": [*TABLE["edges"], 0.99]}},
        BEFORE | {"table": TABLE | {"since": "2027-06-01T12:00:00"}},
    ],
)
def test_what_is_no_snapshot_is_refused(spoilt):
    with pytest.raises(InvalidSnapshotError):
        parse_snapshot(spoilt)


@pytest.mark.parametrize("form", [0, 2, "1", None])
def test_a_table_of_an_unknown_form_is_refused_and_a_human_decides(form):
    newer = AFTER | {"table": AFTER["table"] | {"form": form}}
    box = box_of(BEFORE, newer)
    box.renew()
    assert ask(box).decider == "model"
    with pytest.raises(UnknownFormError):
        box.renew()
    assert (ask(box).decider, box.permit, box.is_renewal_due) == ("human", "", True)


def test_a_newer_answer_that_cant_be_read_ends_the_former_table():
    box = box_of(BEFORE, AFTER | {"table": {"form": 1}})
    box.renew()
    with pytest.raises(InvalidSnapshotError):
        box.renew()
    assert ask(box).decider == "human"


# The lease


def readings(seconds, *, wall=None):
    sent = ClockReading(5.0, NOON)
    gone = timedelta(seconds=seconds)
    return sent, ClockReading(5.0 + seconds, NOON + (gone if wall is None else wall))


def test_a_lease_is_a_little_shorter_than_said_by_the_clocks_error_and_the_act():
    at_once = compute_time_left(LEASE, *readings(0))
    assert at_once == LEASE * (1 - MAX_CLOCK_DRIFT)
    assert compute_time_left(LEASE, *readings(20), action_delay=TAKES) == at_once - 22 * SECOND
    assert compute_time_left(LEASE, *readings(60)) < timedelta(0)


@pytest.mark.parametrize(
    ("wall", "usable"),
    [
        (-MAX_STEP_BACK, True),
        (-MAX_STEP_BACK - SECOND / 1000, False),
        (LEASE, True),
        (LEASE + SECOND / 1000, False),
    ],
)
def test_a_wall_clock_that_was_set_ends_the_lease(wall, usable):
    assert (compute_time_left(LEASE, *readings(10, wall=wall)) > timedelta(0)) == usable


def test_without_a_clock_that_counts_sleep_there_is_no_lease():
    sent, now = readings(1)
    assert (
        compute_time_left(LEASE, ClockReading(None, NOON), now)
        == compute_time_left(LEASE, sent, ClockReading(None, NOON))
        == MAX_STEP_BACK * 0
    )
    assert (
        compute_time_left(LEASE, now, sent) == MAX_STEP_BACK * 0
    )  # it went back: the machine started anew


def test_this_machine_counts_seconds_since_it_started():
    clocks = MachineClocks()
    first, second = clocks.read(), clocks.read()
    assert first.boot is None or 0 < first.boot <= second.boot
    assert abs(first.wall - datetime.now(UTC)) < MINUTE


# The box


def test_before_it_has_read_anything_people_decide_and_it_is_time_to_ask():
    box = box_of()
    assert ask(box).reason == "no usable scope was read yet"
    assert box.is_renewal_due
    assert box.permit == ""


def test_it_renews_after_a_third_of_the_lease_and_stops_at_its_end():
    hands = MovableClocks()
    box = box_of(BEFORE, hands=hands)
    box.renew()
    assert (box.is_renewal_due, box.permit, ask(box).decider) == (False, "permit", "model")
    hands.move(21)
    assert box.is_renewal_due
    assert ask(box).decider == "model"
    hands.move(38.9)
    assert ask(box).decider == "model"
    hands.move(0.1)
    assert ask(box).decider == "human"


def test_a_case_of_another_site_has_that_sites_lease():
    body = BEFORE | {"sites": [BEFORE["sites"][0], BEFORE["sites"][1] | {"lease": 1.0}]}
    hands = MovableClocks()
    box = box_of(body, hands=hands)
    box.renew()
    hands.move(5)
    assert ask(box, site="creek").reason == "the model decides"
    assert ask(box, site="lake").reason == "the lease has ended"


def test_a_failed_renewal_leaves_the_lease_that_there_is():
    hands = MovableClocks()
    box = box_of(BEFORE, {"not": "a scope"}, hands=hands)
    box.renew()
    hands.move(30)
    with pytest.raises(InvalidSnapshotError):
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
    with pytest.raises(LedgerRolledBackError):
        box.renew()
    assert ask(box).decider == "human"


def test_it_says_the_highest_head_with_each_question():
    asked = []
    box = EdgeClient("creek", lambda head: asked.append(head) or AFTER, MovableClocks())
    box.renew()
    box.renew()
    assert asked == [LedgerHead(), LedgerHead(AFTER["revision"], AFTER["hash"], 1, "1.1.5be1")]


def test_a_restored_ledger_of_a_later_era_renews_though_its_revision_is_lower(tmp_path):
    heads = FileHeadStore(tmp_path / "head.json")
    restored = BEFORE | {"era": 2, "head_code": "1.2.77"}
    box = box_of(AFTER, restored, AFTER, head_store=heads)
    box.renew()
    box.renew()
    assert ask(box).decider == "model"
    assert heads.load() == LedgerHead(BEFORE["revision"], BEFORE["hash"], 2, "1.2.77")
    with pytest.raises(LedgerRolledBackError):
        box.renew()  # the first era is over


def test_a_new_key_changes_the_code_and_not_the_head():
    box = box_of(AFTER, AFTER | {"head_code": "2.1.88"})
    box.renew()
    box.renew()
    assert box.head_store.load().code == "2.1.88"


def test_the_file_of_an_older_client_is_a_head_without_a_code(tmp_path):
    (tmp_path / "head.json").write_text('{"revision": 41, "hash": "9f2c"}', encoding="utf-8")
    assert FileHeadStore(tmp_path / "head.json").load() == LedgerHead(41, "9f2c", 1, "")


def test_a_restart_forgets_the_lease_and_keeps_the_head(tmp_path):
    heads = FileHeadStore(tmp_path / "head.json")
    assert heads.load() == LedgerHead()
    box_of(AFTER, head_store=heads).renew()
    again = box_of(BEFORE, head_store=heads)
    assert ask(again).decider == "human"
    with pytest.raises(LedgerRolledBackError):
        again.renew()
    assert [path.name for path in tmp_path.iterdir()] == ["head.json"]


def test_a_handed_over_client_waits_for_a_newer_head_even_over_a_restart(tmp_path):
    stores = {name: FileHeadStore(tmp_path / name) for name in ("head", "latch")}
    files = {"head_store": stores["head"], "latch_store": stores["latch"]}
    newer = said(OPEN, number=OPEN.scope.revision + 1)
    box = box_of(BEFORE, BEFORE, **files)
    box.renew()
    assert ask(box).decider == "model"
    box.hand_over()
    assert ask(box).reason == "handed over to a human until a newer scope is read"
    box.renew()  # the same head
    assert ask(box).decider == "human"
    again = box_of(BEFORE, newer, **files)
    again.renew()
    assert ask(again).decider == "human"
    again.renew()
    assert ask(again).decider == "model"


def test_a_snapshot_that_was_being_fetched_does_not_lift_a_hand_over():
    newest = OPEN.scope.revision + 1
    box = box_of(BEFORE)
    box.renew()

    def fetch_meanwhile(_):
        box.hand_over()
        return said(OPEN, number=newest)  # of before the harm

    box.fetch_scope = fetch_meanwhile
    box.renew()
    assert ask(box).decider == "human"
    box.fetch_scope = lambda _: said(OPEN, number=newest + 1)
    box.renew()
    assert ask(box).decider == "model"


def test_a_second_hand_over_does_not_lower_the_first_one(tmp_path):
    latch = FileHeadStore(tmp_path / "latch")
    box = box_of(BEFORE, latch_store=latch)
    box.renew()
    box.hand_over()
    again = box_of(BEFORE, latch_store=latch)  # the restart forgot its head
    again.hand_over()
    again.renew()
    assert ask(again).decider == "human"


def test_a_hand_over_holds_where_the_stored_head_is_unreadable(tmp_path):
    box = box_of(BEFORE, head_store=FileHeadStore(tmp_path / "head"))
    box.renew()
    (tmp_path / "head").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        box.hand_over()
    assert ask(box).decider == "human"


def test_a_file_that_holds_no_head_is_not_taken_for_a_beginning(tmp_path):
    (tmp_path / "head.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no head"):
        FileHeadStore(tmp_path / "head.json").load()


# Whatever the clocks do


def chance(seed):
    return Random(seed)  # noqa: S311 - a simulation's, the same each time


@dataclass
class ClientWorld:
    """A service that is stopped at an instant, and a client whose clocks are as bad as they get.

    `now` is true time in seconds. The boot clock runs up to `MAX_CLOCK_DRIFT` off; the wall clock
    is off by minutes and set again now and then; the client also sleeps while it waits.
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
        self.rate = 1 + self.chance.uniform(-MAX_CLOCK_DRIFT, MAX_CLOCK_DRIFT)
        self.off = self.chance.uniform(-300, 300)
        self.server_off = self.chance.uniform(-5, 5)

    def pass_by(self, seconds, *, asleep=False):
        self.now += seconds
        self.slept += seconds if asleep else 0.0

    def read(self):
        counted = self.now - (self.slept if self.awake_clock else 0.0)
        return ClockReading(
            1_000 + counted * self.rate, NOON + HOUR + timedelta(seconds=self.now + self.off)
        )

    def read_seconds(self):
        reading = self.read()
        return reading.boot, reading.wall.timestamp()

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
        if (box.is_renewal_due and kind < 0.3 and self.now < self.stopped_at) or (
            near and kind < 0.5
        ):
            box.renew()  # later nothing gets through: who gets through is told
        elif kind < 0.32:
            self.off = self.chance.uniform(-300, 300)  # somebody or NTP sets the clock
        elif kind < 0.34:
            self.pass_by(self.chance.uniform(0, 120), asleep=True)
        else:
            self.pass_by(self.chance.uniform(0, 1))

    def overrun(self, box_kind):
        """Return by how many seconds an effect under the old scope came after T + s + L."""
        box = box_kind("creek", self.fetch, self, TAKES)
        worst, end = -1e9, self.stopped_at + (STALE + LEASE).total_seconds()
        while self.now < self.stopped_at + 150:
            self.something_happens(box)
            at = NOON + HOUR + timedelta(seconds=self.now)
            if box.decide("creek", at, "v1", "k9").decider == "model":
                effect = self.now + self.chance.uniform(0, TAKES.total_seconds())
                worst = max(worst, effect - end)
        return worst


@pytest.mark.slow
@settings(max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 200))
def test_every_act_under_the_old_scope_ends_by_the_stop_plus_staleness_plus_lease(seed, stop):
    assert ClientWorld(chance(seed), stop).overrun(EdgeClient) <= 0


class ByInstant(EdgeClient):
    """The mutant that takes `fresh_until` for an instant of its own clock."""

    def _compute_time_left(self, held, now, site):
        return held.snapshot.issued_at + held.snapshot.leases[site] - now.wall - self.action_delay


class FromReceipt(EdgeClient):
    """The mutant that counts from when the answer came."""

    def renew(self):
        super().renew()
        object.__setattr__(self.snapshot, "requested_at", self.clocks.read())

    def _compute_time_left(self, held, now, site):
        return compute_time_left(
            held.snapshot.leases[site],
            held.requested_at,
            ClockReading(now.boot, held.requested_at.wall),
            self.action_delay,
        )


class NoTimeToAct(EdgeClient):
    """The mutant that forgets how long an act takes."""

    def _compute_time_left(self, held, now, site):
        return compute_time_left(
            held.snapshot.leases[site],
            held.requested_at,
            ClockReading(now.boot, held.requested_at.wall),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "awake_clock"),
    [(ByInstant, False), (FromReceipt, True), (FromReceipt, False), (NoTimeToAct, False)],
    ids=["an instant", "awake from receipt", "boot from receipt", "no time to act"],
)
def test_a_mutant_of_the_lease_rule_is_caught(mutant, awake_clock):
    worlds = (ClientWorld(chance(n), 50 + n % 100, awake_clock=awake_clock) for n in range(120))
    assert max(world.overrun(mutant) for world in worlds) > 0


@pytest.mark.slow
def test_the_rule_itself_passes_where_the_mutants_fail():
    worlds = (ClientWorld(chance(n), 50 + n % 100) for n in range(120))
    assert max(world.overrun(EdgeClient) for world in worlds) <= 0
