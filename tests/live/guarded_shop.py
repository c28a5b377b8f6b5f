"""A shop whose guards read records: its policy, what is sent to it, and what its guards observe."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Accounts
from rollout.data.tables.tables import guard_snapshots
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.engine.records.records import Case, Heartbeat, Outcome, Prediction
from rollout.features.records.ingest import _Batch
from rollout.kernel.calendar.instants import Cell, find_slot_before
from rollout.live.evidence import evidence_feeds
from rollout.live.evidence.evidence_feeds import LiveGuardFeeds
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.snapshots import filled_once
from tests.factories import MINUTE, NOON
from tests.promises.live_world import HOUR as TICK

POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk, stall, barrow]
windows:
  - {id: vip, when: {guest: [vip]}}
  - {id: day, hours: "06:00-18:00"}
  - {id: night, hours: 24/7}
stages: [{id: trial, blind: 50%}]
evidence: {unit: UNIT, grace: 1h, outside: blind}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%}]}]
guards:
  - {measure: agreement, at_least: LINE}
  - {measure: failures, at_most: 20%, over: 2h, then: suspend}
  - {measure: latency_p95, at_most: 1s, over: 2h, then: suspend}
  - {measure: harm, at_most: 0, over: 4h, then: shadow}
  - {measure: heartbeat, at_most: 6h, then: suspend}
tick: 1h
"""
SITES, WINDOWS, VERSIONS = ("kiosk", "stall", "barrow"), ("vip", "day", "night"), ("v1", "v2")
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
ACCOUNTS = ("door", "till")


def write_policy(unit="case", line="60%"):
    return POLICY.replace("UNIT", unit).replace("LINE", line)


BY_CASE, BY_EPISODE = write_policy(), write_policy("episode, episode_span: 30m")


@pytest.fixture(autouse=True)
def _snapshots_of_few_cases(monkeypatch):
    monkeypatch.setattr(evidence_feeds, "MIN_NEW_CASES", 1)


class Shop:
    """A rollout whose records come in one by one; cases are known by number."""

    def __init__(self, database, policy=BY_CASE):
        self.database, self.now, self.cases = database, NOON, {}
        self.policy, self.revisions, self.compared = policy, {}, 0
        if not self.is_open():
            open_shop(database, policy)

    def is_open(self):
        with self.database.begin_read() as transaction:
            return Rollouts(transaction).find("shop") is not None

    def load_state(self):
        with self.database.begin_read() as transaction:
            return load_rollout_state(transaction, "shop")

    def send(self, *records, account="door"):
        self.now += timedelta(seconds=1)
        with self.database.begin_write() as transaction:
            state = load_rollout_state(transaction, "shop")
            batch = _Batch(transaction, state, records, self.now)
            batch.set_sources(account)
            batch.store(Accounts(transaction).add_id(account), permit_signer=None)

    def send_case(self, key=None, site="kiosk", ago=0 * MINUTE, guest="usual"):
        key = key or f"c{len(self.cases)}"
        revision = self.revisions[key] = self.revisions.get(key, 0) + 1
        at, episode = self.now - ago, f"e{int(key[1:]) // 3}" if int(key[1:]) % 2 else None
        self.cases[key] = Case(
            key=key,
            site=site,
            window="day",
            occurred_at=at,
            attributes={"guest": guest},
            episode=episode,
            revision=revision,
        )
        self.send(self.cases[key])
        return key

    def predict(self, key, version="v1", answer="low", latency=None, at=None):
        answers = {} if answer is None else {"price": answer}
        record = Prediction(key=key, version=version, answers=answers, latency_ms=latency, at=at)
        self.send(record)

    def harm(self, key, harm="burn", account="till"):
        revision = self.revisions["harm", key] = self.revisions.get(("harm", key), 0) + 1
        at = self.now - MINUTE
        self.send(Outcome(key=key, at=at, harm=harm, revision=revision), account=account)

    def tick(self, ticker=None):
        self.now = (
            NOON + (find_slot_before(self.now, TICK) + 1 - find_slot_before(NOON, TICK)) * TICK
        )
        return (ticker or Ticker(self.database, "shop", "one")).tick(self.now)

    def load_row(self):
        with self.database.begin_read() as transaction:
            return transaction.execute(select(guard_snapshots)).one_or_none()

    def begin(self, *, reads_all=False):
        """Return feeds as a process that starts now has them."""
        feeds = LiveGuardFeeds(OutcomeBuffer(), reads_all=reads_all)
        with self.database.begin_read() as transaction:
            state = load_rollout_state(transaction, "shop")
            feeds.load_arrivals(transaction, state, self.now)
            feeds.load_heartbeats(transaction, state, SITES, self.now)
        return feeds

    def assert_same(self, *, restores=True):
        """See that a process that starts now observes what the records say."""
        feeds, read = self.begin(), self.begin(reads_all=True)
        assert (feeds.snapshot_at is not None) == restores
        state = self.load_state()
        assert feeds.observes_same(read, state)
        # a case that moved after the snapshot is in its first cell, too, as in a process that ticks
        if not len(feeds._memory.find_moved_cases()):
            self.compared += 1
            assert list_all(feeds, state) == list_all(read, state)
        return feeds


def list_all(feeds, state):
    """Return all that guards can read, as lists; in one slot in any order."""
    values = []
    for guard in state.policy.guards[1:4]:
        for site in SITES:
            for version in VERSIONS:
                votes = feeds.read_votes(site, version, guard)
                values.append(list(zip(votes.slots.tolist(), votes.is_bad.tolist(), strict=True)))
                for window in WINDOWS:
                    columns = feeds.read_answers(Cell(site, window), version, guard)
                    values.append(sorted(zip(*(c.tolist() for c in columns), strict=True)))
    for site in SITES:
        signs = feeds.read_signs(site)
        values += [signs.cases.tolist(), signs.units.tolist(), signs.pings.tolist()]
        values.append(signs.known_since)
    return values


@filled_once
def open_shop(database, policy):
    apply_policy(database, policy, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))


@filled_once
def send_first_cases(database, count):
    """Send cases to an empty shop; return its clock, cases and revisions."""
    shop = send_cases(Shop(database), count)
    return shop.now, shop.cases, shop.revisions


def fill(shop, cases=12):
    if shop.now != NOON:
        return send_cases(shop, cases)
    shop.now, sent, revisions = send_first_cases(shop.database, cases)
    shop.cases, shop.revisions = dict(sent), dict(revisions)
    return shop


def send_cases(shop, cases):
    for number in range(cases):
        key = shop.send_case(site=SITES[number % 3], ago=number % 4 * 7 * MINUTE)
        shop.predict(key, answer=None if number % 5 == 0 else "low", latency=2000 * (number % 2))
    shop.send(Heartbeat(site="kiosk", at=shop.now))
    return shop


def note_loaded(monkeypatch):
    """Return a list that gets the number of cases of each batch that feeds read."""
    batches, load_feeds = [], LiveGuardFeeds._load_feeds

    def note(feeds, transaction, state, case_ids):
        batches.append(len(case_ids))
        return load_feeds(feeds, transaction, state, case_ids)

    monkeypatch.setattr(LiveGuardFeeds, "_load_feeds", note)
    return batches
