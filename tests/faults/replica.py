"""One replica as its clients see it: each call goes through the services, with a caller's rights.

What is answered comes back as facts that can be looked for afterwards: `Kept`, `Written`, `Row`,
`Sealed`, `Replied`, `Chose`; what a channel gets is `Received`.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import event

from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.reports.reports import ReportStore
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.engine.ledger.ledger import list_fields
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.engine.records.reviews import CleaningChoiceRequest
from rollout.features.assignments import assignments
from rollout.features.delivery.delivery import RenderedReport as Letter
from rollout.features.delivery.delivery import ReportPublisher, deliver_due_reports
from rollout.features.policies import policies
from rollout.features.proposals import proposals
from rollout.features.records.ingest import ingest_items
from rollout.features.reports import archive
from rollout.features.reports.builder import ReportOptions as AskedReport
from rollout.features.reports.builder import ReportScheduler
from rollout.features.reviews import decisions, reviews
from rollout.features.stops import stops
from rollout.features.training import cleaning
from rollout.kernel.channels import Channels
from rollout.kernel.errors import RefusalError
from rollout.live import retention
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.faults import over_http
from tests.faults.outgoing import Chose, Received, Sealed
from tests.oracles import AnsweredRecord, OracleRow, Written

NAME = "trail"
PATIENCE = 10.0  # seconds; an outage that a cut connection began ends with the next attempt
ADMIN, OPERATOR = AssignedRole("admin"), AssignedRole("operator")
CALLERS = {
    "ana": Caller("ana", role_assignments=(ADMIN, OPERATOR)),
    **{name: Caller(name, role_assignments=(OPERATOR,)) for name in ("bo", "dan", "eve")},
    "cy": Caller("cy", role_assignments=(AssignedRole("approver", group="safety"),)),
    "tim": Caller("tim", role_assignments=(AssignedRole("reviewer"),)),
    "box": Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest"),)),
    "desk": Caller(
        "desk", is_service_account=True, role_assignments=(AssignedRole("ingest-decisions"),)
    ),
}


CHANNELS = Channels({"rangers": "json://hooks.example.org"}, "https://rollout.example.org")


class ReplicaDoor:
    """Lets in each caller of `CALLERS`."""

    def find_cached_caller(self, text, _at):
        """Return the caller of that name."""
        return CALLERS[text]


class UndeliveredError(Exception):
    """A message could not be sent."""


class NothingPendingError(RefusalError):
    """What a client wants to answer is not there: it looks again later."""

    code = "nothing-waits"


@dataclass(frozen=True)
class ReplicaQuestion:
    """A case that a client asks about, with its prediction."""

    case: Case
    prediction: Prediction
    confidence: float | None = None
    episode: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    has_prediction: bool = True
    has_two_confidences: bool = False
    content: str | None = None

    @property
    def key(self) -> str:
        return self.case.key

    @property
    def site(self) -> str:
        return self.case.site

    @property
    def at(self) -> datetime:
        return self.case.occurred_at

    @property
    def version(self) -> str:
        return self.prediction.version

    def build_records(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return both as they would be sent."""
        occurred = self.at.isoformat()
        case = {"kind": "case", "key": self.key, "site": self.site, "occurred_at": occurred}
        record = {"kind": "prediction", "key": self.key, "version": self.version}
        return case, {**record, "answers": dict(self.prediction.answers), "at": occurred}


@dataclass
class Replica:
    """One process of the service, on the database of `url`.

    Attributes:
        impatient: whether it waits for nobody's lock.
        cited: who approved what, citing which evidence.
        shown: what each client was shown before it answered, by the client's step.
        received: what channels got of it.
        tell: is told what leaves it, at once, while it may still die.
        held: the connections that are in use, so that a test can cut them.
    """

    url: str
    owner: str
    impatient: bool = False
    cited: list[tuple[str, str, str]] = field(default_factory=list)
    shown: dict[Any, Any] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    tell: Callable[[Any], object] | None = None
    held: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self.database = Database(self.url)
        self.ticker = Ticker(self.database, NAME, self.owner)
        self.clock = ManualClock(datetime.fromisoformat("2027-06-01T00:00Z"))
        self.service = build_service(self.database, ReplicaDoor(), self.clock, bytes, CHANNELS)
        self.rounds = ReportScheduler(
            self.service, ReportPublisher(self.service).make_report, self.owner
        )
        for engine in self.database.engines:
            event.listen(engine, "checkout", lambda raw, *_: self.held.append(raw))
            event.listen(engine, "checkin", lambda raw, *_: self._let_go(raw))
            if self.impatient:
                event.listen(engine, "connect", NO_PATIENCE[engine.dialect.name])

    def _let_go(self, raw):
        self.held = [raw_task for raw_task in self.held if raw_task is not raw and raw is not None]

    def close(self):
        """Let go of the database."""
        self.database.close()

    def await_database(self):
        """Wait until an outage is over: it refuses everything until the next attempt to connect."""
        deadline = time.monotonic() + PATIENCE
        while self.database.outages.is_open:
            assert time.monotonic() < deadline, "the outage never ends"
            with suppress(DatabaseUnavailableError), self.database.begin_read():
                return
            time.sleep(0.05)

    def set_clock(self, at):
        """Let it be some time, and some time since the machine started."""
        self.clock.at = at
        self.clock.since_boot += timedelta(minutes=1).total_seconds()

    def apply(self, text, who, at):
        """Put a policy."""
        salt = bytes(32)
        return _written(
            policies.put_policy(self.database, CALLERS[who], NAME, text, at=at, salts=(salt, salt))
        )

    def send(self, items, at):
        """Send decisions by the account that the policy names, all else by the box."""
        answered = []
        for account, is_decision in (("box", False), ("desk", True)):
            part = [item for item in items if isinstance(item, Decision) == is_decision]
            answers = ingest_items(self.service, CALLERS[account], NAME, part, at) if part else ()
            pairs = zip(part, answers, strict=True)
            answered += [AnsweredRecord(record, str(answer.status)) for record, answer in pairs]
        return answered

    def ask(self, case, prediction, _at):
        """Ask who decides a case, and hand in its prediction."""
        question = ReplicaQuestion(case, prediction)
        (answer,) = assignments.answer_questions(
            self.service, CALLERS["box"], NAME, [question], None
        ).recorded
        return [AnsweredRecord(case, answer.status), AnsweredRecord(prediction, answer.status)]

    def tick(self, at):
        """Do the slot that `at` lies in; None where it is somebody else's."""
        events = self.ticker.tick(at)
        if events is None:
            return None
        return [Written(type(e).__name__, e.by, list_fields(e)) for e in events]

    def approve(self, kind, who, step, at, evidence=None):
        """Approve the one open proposal of a kind, with the evidence that is shown, or another."""
        proposal, hash_shown = self.look(step, lambda: self._waiting(kind))
        cited = hash_shown if evidence is None else evidence
        self.cited.append((who, proposal, cited))
        result = proposals.approve_proposal(
            self.database, CALLERS[who], NAME, proposal, cited, at=at
        )
        return [OracleRow(result.revision, result.hash)]

    def look(self, step, find):
        """Return what a client was shown when it first looked: it answers that."""
        if step not in self.shown:
            self.shown[step] = find()
        return self.shown[step]

    def _waiting(self, kind):
        proposals = [p for p in self.load_state().scope.proposals.values() if p.kind == kind]
        if not proposals:
            raise NothingPendingError(f"no {kind} waits")
        return proposals[0].id, proposals[0].evidence_hash

    def load_state(self):
        """Return the rollout's state."""
        with self.database.begin_read() as transaction:
            return load_rollout_state(transaction, NAME)

    def narrow(self, who, cells, to, at):
        """Narrow cells."""
        target = StopTarget(cells=cells)
        return _written(stops.narrow_cells(self.database, CALLERS[who], NAME, target, to, at=at))

    def stop(self, who, at):
        """Stop everything."""
        target = StopTarget(is_everything=True)
        return _written(stops.stop_cells(self.database, CALLERS[who], NAME, target, at=at))

    def ask_resume(self, who, _at):
        """Ask for the end of the one stop, over HTTP, under a key of one's own."""
        stop = self.look("resume", lambda: next(iter(self.load_state().scope.stops)))
        path = f"/v1/rollouts/{NAME}/stops/{stop}/resume"
        app = over_http.application(self.service)
        return _replied(over_http.post(app, path, who, f"resume {stop}", self._report_fact))

    def _report_fact(self, fact):
        if self.tell is not None:
            self.tell(_replied(fact))

    def claim(self, who, at):
        """Take a case to judge."""
        desk = reviews.claim_reviews(self.database, CALLERS[who], self.load_state(), at)
        self.shown["review", who] = desk.tasks[0].review
        return []

    def judge(self, who, label, at):
        """Judge the case that one holds."""
        caller, state = CALLERS[who], self.load_state()
        number = self.look(("review", who), lambda: self._find_claimed_task(caller, state, at))
        draft = decisions.DecisionDraft(answers={"alarm": label})
        result = decisions.submit_decision(self.database, caller, state, number, draft, at)
        answers = dict(result.answers)
        decision = Decision(key=result.case, reviewer=who, answers=answers, exposure="blind")
        return [AnsweredRecord(decision, "accepted")]

    def _find_claimed_task(self, caller, state, at):
        tasks = reviews.load_own_reviews(self.database, caller, state, at).tasks
        if not tasks:
            raise NothingPendingError(f"{caller.name} holds no case")
        return tasks[0].review

    def look_for_reports(self, at):
        """Make what reports are due."""
        for error in self.rounds.run_report_jobs(at).values():
            raise error
        return []

    def ask_report(self, who, since, until, at):
        """Have a report made of a span."""
        order = AskedReport(since, until, "auditor")
        made = archive.request_report(self.database, CALLERS[who], NAME, "audit", order, at)
        return [Sealed(made.number, made.report.hash)]

    def deliver(self):
        """Send what is due."""
        for line in deliver_due_reports(
            self.service, self._write, send_message=self._post
        ).failures:
            raise UndeliveredError(line)
        return []

    def _write(self, _name, report):
        """Write a report out by its hash alone: forms are slow, and fail at no point."""
        with self.database.begin_read() as transaction:
            report_text = ReportStore(transaction, Rollouts(transaction).find(NAME)).get(report)
        return Letter(hash=report_text.hash, summary="", html="")

    def _post(self, message):
        (link,) = re.findall(r"https://\S+/reports/\d+", message.body)
        self.received.append(Received(message.key, message.url, link))
        if self.tell is not None:
            self.tell(self.received[-1])
        return ""

    def choose(self, who, key, choice, at):
        """Choose what becomes of a case in training."""
        wish = CleaningChoiceRequest(key=key, choice=choice, reason="fog")
        (chosen,) = cleaning.store_choices(self.database, CALLERS[who], NAME, [wish], at)
        if chosen.status == cleaning.REJECTED:
            raise RefusalError(chosen.reason)
        return [Chose(who, key, choice)]

    def purge(self, at):
        """Delete records of the age that the policy says."""
        retention.purge_old_records(self.database, NAME, at)
        return []


def _replied(text):
    events = json.loads(text.body)["events"]
    return [text, *(Written(e["kind"], e["by"], e["body"]) for e in events)]


def _written(answer):
    return [Written(e.kind, e.by, dict(e.body)) for e in answer.events]


# An impatient replica waits for nobody's lock: whoever holds it is paused until it gives up.


def _no_patience_on_sqlite(raw, _record):
    raw.execute("pragma busy_timeout=0")


def _no_patience_on_postgresql(raw, _record):
    raw.autocommit = True
    raw.execute("set lock_timeout = '30ms'")
    raw.autocommit = False


NO_PATIENCE = {"sqlite": _no_patience_on_sqlite, "postgresql": _no_patience_on_postgresql}
