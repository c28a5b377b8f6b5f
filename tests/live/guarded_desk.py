"""A shop whose cases are judged at once, with a gate and two guards."""

from datetime import timedelta

from msgspec.structs import replace

from rollout.data.ledger.ledger import Accounts
from rollout.engine.decide.commands import Actor, ApproveProposal
from rollout.engine.records.records import Case, Decision, Outcome
from rollout.features.records.ingest import _Batch
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.snapshots import filled_once
from tests.factories import HOUR, MINUTE
from tests.live.guarded_shop import Shop

POLICY = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk]
stages: [{id: trial, blind: 50%}]
evidence: {unit: case, grace: 6h, sources: {accounts: [{account: desk, reviewers: ["*"]}]}}
gates:
  - {to: trial, require: [{measure: agreement, at_least: 80%}], risk: 20%,
     minimum: {units: 10, days: 1, reviewers: 1}, approvals: [operator]}
guards:
  - {measure: agreement, at_least: 70%, false_alarm_every: 20}
  - {measure: harm, at_most: 0, over: 7d, then: shadow}
tick: 1h
"""


class Desk(Shop):
    """A shop whose cases are judged at once, and whose proposals are approved at once."""

    def send(self, *records, account="door"):
        self.now += timedelta(seconds=1)
        with self.database.begin_write() as transaction:
            state = load_rollout_state(transaction, "shop")
            batch = _Batch(transaction, state, records, self.now)
            batch.record_versions(self.database)
            batch.set_sources(account)
            batch.store(Accounts(transaction).add_id(account), permit_signer=None)

    def judge(
        self,
        ago=0 * HOUR,
        verdict="low",
        answer="low",
        harm=None,
        decided_ago=None,
        unsure_first=False,
    ):
        """Send a case of some time ago, an answer and what a person says of it."""
        key = f"c{len(self.cases)}"
        occurred_at = self.now - ago
        self.cases[key] = Case(key=key, site="kiosk", window="", occurred_at=occurred_at)
        self.send(self.cases[key])
        if answer:
            self.predict(key, answer=answer)
        self.now += 5 * MINUTE
        at = self.now if decided_ago is None else self.now - decided_ago
        if unsure_first:
            unsure = Decision(key=key, reviewer="kim", answers={}, exposure="blind", unsure=True)
            self.send(replace(unsure, submitted_at=at - MINUTE), account="desk")
        verdicts = {"price": verdict}
        decision = Decision(key=key, reviewer="rae", answers=verdicts, exposure="blind")
        self.send(replace(decision, submitted_at=at), account="desk")
        if harm:
            self.send(Outcome(key=key, at=self.now, harm=harm), account="till")

    def pass_hours(self, hours, *cases):
        """Judge the same two cases in each hour, and tick; return what was raised, or changed."""
        ticker, names = Ticker(self.database, "shop", "one"), []
        for _ in range(hours):
            for case in cases:
                self.judge(**case)
            for event in self.tick(ticker) or ():
                names.append(type(event).__name__)
                if names[-1] == "ProposalRaised":
                    self._approve(self.load_state().scope.proposals[event.proposal])
        return [name for name in names if name in {"ProposalRaised", "Widened", "Narrowed"}]

    def _approve(self, proposal):
        yes = ApproveProposal(
            at=self.now,
            by=Actor("bo", ("operator",)),
            proposal=proposal.id,
            evidence_hash=proposal.evidence_hash,
        )
        execute_command(self.database, "shop", lambda _: yes)


WIDENED = ["ProposalRaised", "Widened"]
RIGHT = {}
"""A case that is sent as it occurs, and on which the version is right."""


def widened(database):
    """Return a desk after fifteen hours, the last of which widened it."""
    now, cases = _widen(database)
    desk = Desk(database, POLICY)
    desk.now, desk.cases = now, dict(cases)
    return desk


@filled_once
def _widen(database):
    desk = Desk(database, POLICY)
    assert desk.pass_hours(3, RIGHT, RIGHT) == []
    assert desk.pass_hours(12, RIGHT, RIGHT) == WIDENED
    return desk.now, desk.cases
