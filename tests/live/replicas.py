"""One database and the processes that tick in it: they end, take turns or lose what they stored."""

from itertools import count
from unittest import mock

import numpy as np
from sqlalchemy import delete

from rollout.data.ledger import ledger
from rollout.data.ledger.ledger import Accounts
from rollout.data.tables.tables import evidence_snapshots, guard_snapshots
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.features.records.ingest import ingest_items
from rollout.kernel.errors import RefusalError
from rollout.live.clock import ManualClock
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence.evidence_feeds import LiveGuardFeeds
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.factories import NOON
from tests.oracles import ledger_rows

POLICY = """
rollout: shop
timezone: Europe/Berlin
levers: [{id: price, labels: [low, high]}]
sites: [kiosk, stall]
windows:
  - {id: vip, when: {guest: [vip]}}
  - {id: day, hours: "06:00-18:00"}
  - {id: night, hours: 24/7}
slices: [guest]
stages: [{id: trial, blind: 50%}, {id: alone, audit: 60%}]
evidence: {unit: UNIT, grace: 1h, outside: blind, missing_at_most: 90%,
  sources: {accounts: [{account: till, reviewers: ["*"]}]}}
gates:
  - {to: trial, require: [{measure: agreement, at_least: LINE}], risk: 20%,
     minimum: {units: 2, days: 0, reviewers: 1}, approvals: [operator]}
  - {to: alone, require: [{measure: agreement, at_least: 50%}], risk: 20%,
     minimum: {units: 3, days: 0, reviewers: 1}, approvals: [operator]}
guards:
  - {measure: agreement, at_least: 50%, false_alarm_every: 10}
  - {measure: failures, at_most: 20%, over: 2h, then: suspend, false_alarm_every: 10}
  - {measure: latency_p95, at_most: 1s, over: 2h, then: suspend, false_alarm_every: 10}
  - {measure: harm, at_most: 0, over: 4h, then: shadow}
  - {measure: heartbeat, at_most: 6h, then: suspend}
tick: 1h
retention: {cases: 200d}
"""
KINDS = ("continuous", "restarted", "alternating", "forgetful", "doctored")
ROLES = {"door": "ingest", "till": "ingest-decisions", "nurse": "ingest-outcomes"}
SENDERS = {
    name: Caller(name, is_service_account=True, role_assignments=(AssignedRole(role),))
    for name, role in ROLES.items()
}
ZOE = Actor("zoe")


class Replicas:
    """One database and the processes that tick in it."""

    def __init__(self, database, kind, seed, policy):
        self.database, self.kind, self.tickers = database, kind, {}
        self.rng = np.random.default_rng([seed, 99])
        numbers = count(1)
        with mock.patch.object(ledger, "secrets") as secrets:
            secrets.token_bytes = lambda length: next(numbers).to_bytes(length, "big")
            with database.begin_write() as transaction:
                for name in (*SENDERS, "zoe", "bo", "dan", "ada", "rae", "sol"):
                    Accounts(transaction).add_id(name)
        apply_policy(database, policy, ZOE, NOON, salt=bytes(32), service_salt=bytes(32))
        self.service = build_service(database, None, ManualClock(NOON))

    def load_state(self):
        with self.database.begin_read() as transaction:
            return load_rollout_state(transaction, "shop")

    def send(self, now, records, sender):
        receipts = ingest_items(self.service, SENDERS[sender], "shop", records, now)
        assert {receipt.status.value for receipt in receipts} == {"accepted"}, receipts

    def execute(self, command):
        try:
            execute_command(self.database, "shop", lambda _: command)
        except RefusalError as error:
            return type(error).__name__
        return None

    def tick(self, now, *, is_quiet=False):
        """Let one process tick, and compare what it holds; if nothing came meanwhile, all of it."""
        ticker = self._choose_ticker()
        is_done = ticker.tick(now) is not None
        assert not ticker.check_evidence(now), self.kind
        if is_quiet and is_done:
            state, read = self.load_state(), LiveGuardFeeds(OutcomeBuffer(), reads_all=True)
            feeds = ticker._evidence.feeds
            with self.database.begin_read() as transaction:
                read.load_arrivals(transaction, state, feeds.read_at)
            assert feeds.observes_same(read, state), self.kind

    def _choose_ticker(self):
        name, is_new = "one", self.rng.random() < 0.5
        if self.kind == "alternating":
            name, is_new = ("one", "two", "three")[self.rng.integers(3)], self.rng.random() < 0.1
        if self.kind == "forgetful":
            with self.database.begin_write() as transaction:
                for table in (evidence_snapshots, guard_snapshots):
                    transaction.execute(delete(table))
        if self.kind == "doctored":
            differences = rebuild_derived_tables(self.database, "shop")
            assert not differences, list(differences.describe())
        if is_new and self.kind != "continuous":
            self.tickers.pop(name, None)
        return self.tickers.setdefault(name, Ticker(self.database, "shop", name))

    def list_rows(self):
        rollout = self.load_state().rollout
        with self.database.begin_read() as transaction:
            rows = ledger_rows(transaction, rollout)
        for *_, body in rows:
            for name in ("digest", "records_digest"):  # of hashes with random numbers
                body.pop(name, None)
        return rows
