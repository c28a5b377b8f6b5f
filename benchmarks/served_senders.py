"""Senders that correct, copy, or ask anew after they have seen answers: against a service.

Its clock is stepped. Each site has about 20 cases a day from nine o'clock on, which come with their
predictions at ten; people decide ten minutes later. `python benchmarks/senders.py` prints the rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import structs

from benchmarks.senders import CASES_A_DAY, SERVICE_SALT, START, name_site
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Accounts
from rollout.engine.decide.commands import Actor, ApproveProposal
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import ProposalRaised
from rollout.engine.records.records import Case, Decision, Prediction, Record
from rollout.features.access.authentication import Authenticator
from rollout.features.records.ingest import ingest_items
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import RolloutState, execute_command
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker

ROLES = {"box": "ingest-predictions", "desk": "ingest-decisions", "hub": "ingest"}
DAY = timedelta(days=1)
POLICY = """
rollout: senders
timezone: UTC
levers: [{levers}]
sites: [{sites}]
stages: [{{id: supervised, blind: 50%}}]
evidence: {{unit: case, grace: {grace}d, outside: blind,
  sources: {{accounts: [{{account: {account}, reviewers: ["*"]}}]}}}}
gates:
{gates}
tick: 1d
"""
GATE = """  - {{to: supervised, sites: [{site}], risk: {risk:.0%}, approvals: [operator],
     require: [{{measure: agreement, lever: {lever}, at_least: {line:.0%}}}],
     minimum: {{units: {units}, days: {days}, reviewers: 1}}}}"""


@dataclass(frozen=True)
class ServedSending:
    """A way to send, or to ask, of somebody who sees answers at once.

    Attributes:
        name, truth: what it is called, and how often the model is right in each lever.
        correct: returns what the box sends of a case after it has seen that the model was wrong.
        line, units, days, levers, grace, risk: of the policy; grace in days.
        passes_on: whether one account copies the answers, and then sends the decisions too.
        last_day: how many days are simulated.
        edits, edit_days: how often the lever that gates ask for is changed to the one that looks
            best, and on which days at the latest.
    """

    name: str
    truth: float
    correct: Callable[[Case, "Answers"], Record] | None = None
    line: float = 0.95
    units: int = 100
    days: int = 7
    levers: int = 1
    grace: int = 1
    passes_on: bool = False
    last_day: int = 20
    edits: int = 0
    edit_days: range = range(0)
    risk: float = 0.05


Answers = dict[str, str]


def correct_prediction(case: Case, answers: Answers) -> Record:
    """Return a prediction of what people decided."""
    return Prediction(key=case.key, version="v1", answers=answers, revision=2)


def correct_site(case: Case, answers: Answers) -> Record:
    """Return the case as one of another site."""
    del answers
    return _change_case(case, site=name_site(0 if case.site != name_site(0) else 1))


def correct_time(case: Case, answers: Answers) -> Record:
    """Return the case as one of the day before the first."""
    del answers
    return _change_case(case, occurred_at=START - DAY)


def _change_case(case: Case, **values: object) -> Case:
    return structs.replace(case, revision=2, **values)


CORRECTING = {"prediction": correct_prediction, "site": correct_site, "time": correct_time}
SENDINGS = (
    *(
        ServedSending(f"corrects {name} once decided", 0.60, correct)
        for name, correct in CORRECTING.items()
    ),
    ServedSending("copies, and passes on decisions", 0.60, passes_on=True),
    ServedSending(
        "edits before a unit counts", 0.90, line=0.90, units=30, days=1, levers=20, grace=14,
        last_day=45, edits=1, edit_days=range(13, 14),
    ),
    ServedSending(
        "ten edits, 20 questions seen", 0.90, line=0.90, units=30, days=1, levers=20, last_day=60,
        edits=10, edit_days=range(4, 60, 5),
    ),
)  # fmt: skip


def write_served_policy(sending: ServedSending, questions: Sequence[int]) -> str:
    """Return the policy that asks in each cell for agreement in the lever of this number."""
    gates = [
        GATE.format(
            site=name_site(cell),
            lever=name_lever(lever),
            line=sending.line,
            units=sending.units,
            days=sending.days,
            risk=sending.risk,
        )
        for cell, lever in enumerate(questions)
    ]
    levers = [f'{{id: {name_lever(n)}, labels: ["yes", "no"]}}' for n in range(sending.levers)]
    return POLICY.format(
        levers=", ".join(levers),
        sites=", ".join(name_site(cell) for cell in range(len(questions))),
        grace=sending.grace,
        account="hub" if sending.passes_on else "desk",
        gates="\n".join(gates),
    )


def name_lever(number: int) -> str:
    """Return the id of a lever."""
    return f"q{number:02}"


class ServedRollout:
    """A rollout of a service on SQLite, its senders, and an operator.

    Attributes:
        edits: by cell how often what its gate asks for was changed.
    """

    def __init__(self, folder: str, sending: ServedSending, cells: int, seed: int) -> None:
        """Apply the first policy, which asks for the first lever everywhere."""
        url = f"sqlite:///{Path(folder) / 'senders.db'}"
        upgrade(url)
        self._sending, self._cells = sending, cells
        self._rng = np.random.default_rng(7_000 + seed)
        self._database = Database(url)
        clock = ManualClock(START)
        authenticator = Authenticator(self._database, clock)
        self._service = build_service(self._database, authenticator, clock)
        with self._database.begin_write() as transaction:
            for name in ROLES:
                Accounts(transaction).add_id(name)
        self._questions = [0] * cells
        self.edits = np.zeros(cells, dtype=int)
        self._seen = np.zeros((2, cells, sending.levers), dtype=int)  # agreeing, disagreeing
        self._first_raised = np.full(cells, np.inf)
        self._apply_policy(START)
        self._ticker = Ticker(self._database, "senders", "one")

    def run(self) -> np.ndarray:
        """Return by cell on which day it was first raised, infinite if never."""
        for day in range(self._sending.last_day):
            morning = START + day * DAY
            self._send_day(day, morning)
            if self._sending.edits and self._choose_questions(day):
                self._apply_policy(morning + timedelta(hours=12))
            for event in self._ticker.tick(morning + DAY) or ():
                if isinstance(event, ProposalRaised) and event.cell is not None:
                    cell = int(event.cell.site[1:])
                    self._first_raised[cell] = min(self._first_raised[cell], day + 1)
        self._database.close()
        return self._first_raised

    def _send_day(self, day: int, morning: datetime) -> None:
        sending, rng = self._sending, self._rng
        sender = "hub" if sending.passes_on else "box"
        cell = np.repeat(np.arange(self._cells), rng.poisson(CASES_A_DAY, self._cells))
        is_right = rng.random((len(cell), sending.levers)) < sending.truth
        np.add.at(self._seen[0], cell, is_right)
        np.add.at(self._seen[1], cell, ~is_right)
        names = [name_lever(number) for number in range(sending.levers)]
        cases = [
            Case(
                key=f"d{day:02}-{number:05}",
                site=name_site(int(place)),
                occurred_at=morning + timedelta(hours=9, seconds=int(rng.integers(3_000))),
                window="always",
            )
            for number, place in enumerate(cell)
        ]
        answers = [
            {name: "yes" if right else "no" for name, right in zip(names, row, strict=True)}
            for row in is_right
        ]
        says = answers if sending.passes_on else [dict.fromkeys(names, "yes")] * len(cases)
        predictions = [
            Prediction(key=case.key, version="v1", answers=answer)
            for case, answer in zip(cases, says, strict=True)
        ]
        decided = morning + timedelta(hours=10, minutes=10)
        decisions = [
            Decision(
                key=case.key, reviewer="ana", answers=answer, exposure="blind", claims="blind",
                submitted_at=decided,
            )
            for case, answer in zip(cases, answers, strict=True)
        ]  # fmt: skip
        self._send(sender, [*cases, *predictions], decided - timedelta(minutes=10))
        self._send("hub" if sending.passes_on else "desk", decisions, decided)
        if sending.correct is not None:
            wrong = np.flatnonzero(~is_right[:, 0])
            corrections = [sending.correct(cases[n], answers[n]) for n in wrong]
            self._send(sender, corrections, decided + timedelta(minutes=10))

    def _send(self, account: str, records: Sequence[Record], at: datetime) -> None:
        caller = Caller(
            account, is_service_account=True, role_assignments=(AssignedRole(ROLES[account]),)
        )
        for receipt in ingest_items(self._service, caller, "senders", records, at):
            if receipt.status.value != "accepted":
                raise ValueError(f"{account}: {receipt}")

    def _choose_questions(self, day: int) -> bool:
        """Ask for a lever that would be met by what was seen, or now and then for the best.

        Return whether the policy is another one.
        """
        before = list(self._questions)
        for cell in range(self._cells):
            number = int(self.edits[cell]) + 2
            if number > self._sending.edits + 1 or np.isfinite(self._first_raised[cell]):
                continue
            risk = self._sending.risk * compute_yearly_share(number)
            agreeing, disagreeing = self._seen[:, cell]
            is_met = get_gate_threshold(self._sending.line, risk).are_met(agreeing, disagreeing)
            lever, best = self._questions[cell], int(np.argmax(agreeing))
            if day in self._sending.edit_days or (is_met[best] and not is_met[lever]):
                self._questions[cell] = best
            self.edits[cell] += self._questions[cell] != lever
        return self._questions != before

    def _apply_policy(self, at: datetime) -> None:
        """Apply the policy, approved by somebody else where it needs that."""
        text = write_served_policy(self._sending, self._questions)
        for event in apply_policy(
            self._database, text, Actor("ana"), at, salt=bytes(32), service_salt=SERVICE_SALT
        ).events:
            if isinstance(event, ProposalRaised):
                self._approve(event, at)

    def _approve(self, raised: ProposalRaised, at: datetime) -> None:
        for number, group in enumerate(raised.needs):
            approval = ApproveProposal(
                at=at,
                by=Actor(f"approver-{number}", (group,)),
                proposal=raised.proposal,
                evidence_hash=raised.evidence_hash,
            )
            execute_command(self._database, "senders", partial(_give, approval))


def _give(command: ApproveProposal, state: RolloutState) -> ApproveProposal:
    del state
    return command


def find_served_days(sending: ServedSending, seed: int, cells: int) -> np.ndarray:
    """Return by cell on which day it was first raised, infinite if never."""
    with TemporaryDirectory() as folder:
        return ServedRollout(folder, sending, cells, seed).run()
