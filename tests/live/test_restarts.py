"""A rollout decides alike whatever becomes of its processes and of what they stored to save time.

Several databases get the same records, commands and ticks. In one a process lives all the time; in
the others it ends, takes turns with others, or loses its snapshots. All ledgers have the same rows,
and no process accuses the evidence that it holds.
"""

from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from itertools import count

import numpy as np
import pytest

from rollout import faults
from rollout.data.database.session import Database
from rollout.engine.decide.commands import (
    Actor,
    ApproveProposal,
    ProposeResume,
    RetireVersion,
    StopCells,
)
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision, Heartbeat, Outcome, Prediction
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.features.records import ingest
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import Cell, find_slot_before, to_instant
from rollout.live.evidence import counted_check, evidence_feeds, live_evidence
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.retention import purge_old_records
from tests.data.databases import fresh
from tests.engine.evidence import histories
from tests.factories import HOUR, MINUTE, NOON
from tests.live.replicas import KINDS, POLICY, ZOE, Replicas

pytestmark = pytest.mark.simulation

CASE, EPISODE = "case", "episode, episode_span: 30m"
SITES = ("kiosk", "stall")
DELAY = 9 * MINUTE  # records reach guards at once that are stamped so much earlier than a tick
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
BO, DAN = Actor("bo"), Actor("dan")
POINTS = ("tick.claimed", "tick.evidence", "tick.not-done", "command.decided")
ACTS = (
    *("send_batch",) * 18,
    *("send_in_parts",) * 6,
    *("tick",) * 26,
    *("wait",) * 8,
    *("import_old", "send_heartbeat") * 4,
    *("report_harm", "set_clock_back") * 3,
    *("correct_prediction", "correct_prediction"),
    *("edit_policy", "stop", "retire", "erase", "purge"),
)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    for module, name, value in (
        (evidence_feeds, "MIN_NEW_CASES", 25),
        (live_evidence, "MIN_NEW_ROWS", 1),
        (counted_check, "UNITS_PER_CHECK", 8),
        (ingest, "ITEMS_PER_TRANSACTION", 6),
    ):
        monkeypatch.setattr(module, name, value)


def act_once(action, visit=1):
    """Return a fault action that runs once, when a point is reached for that time."""
    visits = count(1)
    return lambda _: action() if next(visits) == visit else None


class Course:
    """What happens in all databases, from a seed."""

    def __init__(self, databases, seed, unit):
        policy = self.unit_policy = POLICY.replace("UNIT", unit)
        policy = policy.replace("LINE", "40%")
        self.replicas = [
            Replicas(database, kind, seed, policy) for kind, database in databases.items()
        ]
        self.rng = np.random.default_rng(seed)
        self.now = self.ticked_at = NOON
        self.keys, self.versions, self.revisions, self.numbers = [], {}, {}, count()
        self.lines = count(41)

    def run(self, steps):
        for name in self.rng.choice(ACTS, steps):
            getattr(self, name)()
        self.now += 3 * HOUR
        self.tick()
        for replicas in self.replicas:
            assert EvidenceCheck(replicas.database, "shop").check_all().faults == []
        return {row[2] for row in self.replicas[0].list_rows()}

    def pick(self, *values):
        return values[self.rng.integers(len(values))]

    def happens(self, share):
        return bool(self.rng.random() < share)

    def send(self, *records, sender="door"):
        for replicas in self.replicas:
            replicas.send(self.now, records, sender)

    def execute(self, command):
        assert len({replicas.execute(command) for replicas in self.replicas}) == 1, command

    def revise(self, *name):
        self.revisions[name] = self.revisions.get(name, 0) + 1
        return self.revisions[name]

    def build_case(self):
        number = next(self.numbers)
        self.keys.append(f"c{number}")
        return Case(
            key=self.keys[-1],
            site=self.pick(*SITES),
            window="day",
            occurred_at=self.now - int(self.rng.integers(30)) * MINUTE,
            attributes={"guest": self.pick("vip", *["usual"] * 4, "new")},
            episode=f"e{number // 3}" if number % 2 else None,
        )

    def predict(self, key, bad=0.05):
        version = self.versions.setdefault(key, "v2" if self.happens(0.1) else "v1")
        answers = {} if self.happens(bad) else {"price": self.pick("low", "high")}
        latency, revision = (
            self.pick(None, 10.0, 9e3 if self.happens(bad) else 20.0),
            self.revise(key),
        )
        return Prediction(
            key=key, version=version, answers=answers, latency_ms=latency, revision=revision
        )

    def build_batch(self, size):
        """Return cases with predictions, and decisions that mostly agree with them."""
        good, bad = self.pick(1, 1, 0.95, 0.3), self.pick(0, 0, 0.02, 0.5)
        cases = [self.build_case() for _ in range(size)]
        predictions = [self.predict(case.key, bad) for case in cases]
        decisions = []
        for prediction in predictions:
            answer = prediction.answers.get("price", "low")
            other = {"low": "high", "high": "low"}[answer]
            decision = Decision(
                key=prediction.key,
                reviewer=self.pick("rae", "sol"),
                answers={"price": answer if self.happens(good) else other},
                exposure="blind",
                submitted_at=self.now,
            )
            decisions += [decision] if self.happens(0.9) else []
        return [*cases, *predictions], decisions

    # Acts

    def send_batch(self):
        records, decisions = self.build_batch(int(self.rng.integers(4, 12)))
        self.send(*records)
        if decisions:
            self.send(*decisions, sender="till")

    def send_in_parts(self):
        """Send a batch of many transactions, which have one instant, with a tick between them."""
        slot = find_slot_before(max(self.now, self.ticked_at), HOUR) + 1
        ticks_at, parts = to_instant(slot, HOUR), int(self.rng.integers(1, 3))
        self.now = max(self.now, ticks_at - DELAY)
        records, decisions = self.build_batch(8)
        records = [*records, *(self.predict(self.pick(*self.keys), 0.5) for _ in range(4))]
        records = [records[number] for number in self.rng.permutation(len(records))]
        for replicas in self.replicas:
            tick = partial(replicas.tick, ticks_at)
            with faults.install_action(act_once(tick, visit=parts), "commit.after"):
                replicas.send(self.now, records, "door")
        self.now = self.ticked_at = ticks_at
        if decisions:
            self.send(*decisions, sender="till")
        self.compare()

    def correct_prediction(self):
        if self.keys:
            self.send(self.predict(self.pick(*self.keys), 0.5))

    def import_old(self):
        key, hours = f"i{next(self.numbers)}", (self.now - histories.START) / HOUR
        hours -= float(self.pick(0.5, 3, 30, 700))
        names, version = {"levers": ("price",)}, self.pick("v1", "v2")
        frames = histories.records(
            histories.cases((key, hours, {"site": self.pick(*SITES)}), attributes=("guest",)),
            histories.predictions((key, self.pick("low", None), {"version": version}), **names),
            histories.decisions((key, "low"), **names),
            histories.outcomes(**names),
        )
        for replicas in self.replicas:
            import_records(replicas.database, "shop", frames, self.now)

    def report_harm(self):
        if self.keys:
            key = self.pick(*self.keys)
            harm, revision = self.pick("burn", None, None), self.revise("harm", key)
            outcome = Outcome(key=key, at=self.now - MINUTE, harm=harm, revision=revision)
            self.send(outcome, sender="nurse")

    def send_heartbeat(self):
        self.now += timedelta(seconds=1)
        heartbeat = Heartbeat(site=self.pick(*SITES), at=self.now - self.pick(0, 20) * MINUTE)
        self.send(heartbeat)

    def wait(self):
        self.now += self.pick(MINUTE, 40 * MINUTE, 2 * HOUR, 5 * HOUR)

    def set_clock_back(self):
        earlier = self.now - timedelta(seconds=int(self.rng.integers(1, 500)))
        self.now = max(earlier, self.ticked_at - DELAY)

    def edit_policy(self):
        policy = self.unit_policy.replace("LINE", f"{next(self.lines)}%")
        for replicas in self.replicas:
            apply_policy(replicas.database, policy, ZOE, self.now)

    def stop(self):
        cells = (Cell(self.pick(*SITES), "day"),)
        self.execute(StopCells(at=self.now, by=BO, cells=cells, drill=False))
        for stop in self.replicas[0].load_state().scope.stops:
            self.execute(ProposeResume(at=self.now, by=BO, stop=stop))

    def retire(self):
        if self.happens(0.2):
            self.execute(RetireVersion(at=self.now, by=BO, version="v2", reason="old"))

    def erase(self):
        if self.keys:
            key = self.keys.pop(self.rng.integers(len(self.keys)))
            for replicas in self.replicas:
                erase_case(replicas.database, ErasureRequest(ADMIN, "shop", "asked", self.now), key)

    def purge(self):
        self.now += timedelta(days=int(self.rng.integers(1, 90)))
        for replicas in self.replicas:
            purge_old_records(replicas.database, "shop", self.now)
        self.keys.clear()

    def tick(self):
        """Tick, mostly soon after a slot begins, and often while a case comes."""
        if self.happens(0.7):
            slot = find_slot_before(self.now, HOUR) + 1
            self.now = to_instant(slot, HOUR) + timedelta(seconds=self.pick(0, 0, 1, 61))
        self.approve_all()
        self.ticked_at = max(self.now, self.ticked_at)
        if self.happens(0.5):
            for replicas in self.replicas:
                replicas.tick(self.now, is_quiet=True)
            self.compare()
            return
        case = self.build_case()
        records, point = (case, self.predict(case.key, 0.5)), self.pick(*POINTS)
        for replicas in self.replicas:
            send = act_once(partial(replicas.send, self.now, records, "door"))
            with faults.install_action(send, point):
                replicas.tick(self.now)
            send(point)  # it may not have been reached
        self.compare()

    def approve_all(self):
        for number, proposal in self.replicas[0].load_state().scope.proposals.items():
            by, digest = (DAN if proposal.raised_by == "bo" else BO), proposal.evidence_hash
            self.execute(ApproveProposal(at=self.now, by=by, proposal=number, evidence_hash=digest))

    def compare(self):
        first, *others = [replicas.list_rows() for replicas in self.replicas]
        for replicas, rows in zip(self.replicas[1:], others, strict=True):
            assert rows == first, replicas.kind


@pytest.mark.parametrize(
    ("engine", "unit", "kinds", "seed", "steps", "expected_events"),
    [
        ("sqlite", CASE, KINDS, 3, 30, {"Widened", "Suspended"}),
        ("sqlite", EPISODE, ("continuous", "alternating", "forgetful"), 2, 28, set()),
        ("postgresql", CASE, ("continuous", "alternating"), 3, 22, {"Widened", "Suspended"}),
    ],
)
def test_all_ledgers_are_the_same(tmp_path, engine, unit, kinds, seed, steps, expected_events):
    with ExitStack() as stack:
        databases = {}
        for kind in kinds:
            (tmp_path / kind).mkdir()
            databases[kind] = Database(stack.enter_context(fresh(engine, tmp_path / kind)))
            stack.callback(databases[kind].close)
        assert Course(databases, seed, unit).run(steps) >= expected_events
