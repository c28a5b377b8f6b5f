"""One replica as its clients see it: each call goes through the services, with a caller's rights.

What is answered comes back as facts that can be looked for afterwards: `Kept`, `Written`, `Row`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import event

from rollout.core.errors import Refusal
from rollout.core.ledger import body_of
from rollout.core.records import Case, Decision, Prediction
from rollout.core.rights import Caller, Right
from rollout.services import asking, policies, proposals, retention, reviewing, stopping, verdicts
from rollout.services.clock import SetClock
from rollout.services.receiving import receive
from rollout.services.service import service_on
from rollout.services.standing import standing
from rollout.services.stopping import Named
from rollout.services.ticking import Ticker
from rollout.store.session import Database
from tests.oracles import Kept, Row, Written

NAME = "trail"
ADMIN, OPERATOR = Right("admin"), Right("operator")
CALLERS = {
    "ana": Caller("ana", rights=(ADMIN, OPERATOR)),
    **{name: Caller(name, rights=(OPERATOR,)) for name in ("bo", "dan", "eve")},
    "cy": Caller("cy", rights=(Right("approver", group="safety"),)),
    "tim": Caller("tim", rights=(Right("reviewer"),)),
    "box": Caller("box", machine=True, rights=(Right("ingest"),)),
}


class NothingWaits(Refusal):
    """What a client wants to answer is not there: it looks again later."""

    code = "nothing-waits"


@dataclass(frozen=True)
class Question:
    """A case that a box asks about, with its prediction."""

    case: Case
    prediction: Prediction
    confidence: float | None = None
    episode: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    predicted: bool = True

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

    def items(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return both as they would be sent."""
        occurred = self.at.isoformat()
        case = {"kind": "case", "key": self.key, "site": self.site, "occurred_at": occurred}
        said = {"kind": "prediction", "key": self.key, "version": self.version}
        return case, {**said, "answers": dict(self.prediction.answers), "at": occurred}


@dataclass
class Replica:
    """One process of the service, on the database of `url`.

    Attributes:
        impatient: whether it waits for nobody's lock.
        cited: who approved what, citing which evidence.
        shown: what each client was shown before it answered, by the client's step.
        held: the connections that are in use, so that a test can cut them.
    """

    url: str
    owner: str
    impatient: bool = False
    cited: list[tuple[str, str, str]] = field(default_factory=list)
    shown: dict[Any, Any] = field(default_factory=dict)
    held: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self.database = Database(self.url)
        self.ticker = Ticker(self.database, NAME, self.owner)
        self.clock = SetClock(datetime.fromisoformat("2027-06-01T00:00Z"))
        self.service = service_on(self.database, None, self.clock, entropy=bytes)
        engine = self.database.engine
        event.listen(engine, "checkout", lambda raw, *_: self.held.append(raw))
        event.listen(engine, "checkin", lambda raw, *_: self._let_go(raw))
        if self.impatient:
            event.listen(engine, "connect", NO_PATIENCE[engine.dialect.name])

    def _let_go(self, raw):
        self.held = [held for held in self.held if held is not raw and raw is not None]

    def close(self):
        """Let go of the database."""
        self.database.close()

    def set_clock(self, at):
        """Let it be some time, and some time since the machine started."""
        self.clock.at = at
        self.clock.since_boot += timedelta(minutes=1).total_seconds()

    def apply(self, text, who, at):
        """Put a policy."""
        salt = bytes(32)
        return _written(policies.put(self.database, CALLERS[who], NAME, text, at=at, salt=salt))

    def send(self, items, at):
        """Send records."""
        answers = receive(self.service, CALLERS["box"], NAME, items, at)
        pairs = zip(items, answers, strict=True)
        return [Kept(record, str(answer.verdict)) for record, answer in pairs]

    def ask(self, case, prediction, _at):
        """Ask who decides a case, and hand in its prediction."""
        question = Question(case, prediction)
        (told,) = asking.answer(self.service, CALLERS["box"], NAME, [question], None).recorded
        return [Kept(case, told.verdict), Kept(prediction, told.verdict)]

    def tick(self, at):
        """Do the slot that `at` lies in; None where it is somebody else's."""
        events = self.ticker.tick(at)
        if events is None:
            return None
        return [Written(type(e).__name__, e.by, body_of(e)) for e in events]

    def approve(self, kind, who, step, at, evidence=None):
        """Approve the one open proposal of a kind, with the evidence that is shown, or another."""
        proposal, hash_shown = self.look(step, lambda: self._waiting(kind))
        cited = hash_shown if evidence is None else evidence
        self.cited.append((who, proposal, cited))
        said = proposals.approve(self.database, CALLERS[who], NAME, proposal, cited, at=at)
        return [Row(said.revision, said.hash)]

    def look(self, step, find):
        """Return what a client was shown when it first looked: it answers that."""
        if step not in self.shown:
            self.shown[step] = find()
        return self.shown[step]

    def _waiting(self, kind):
        found = [p for p in self.stood().scope.proposals.values() if p.kind == kind]
        if not found:
            raise NothingWaits(f"no {kind} waits")
        return found[0].id, found[0].evidence

    def stood(self):
        """Return how the rollout stands."""
        with self.database.reading() as transaction:
            return standing(transaction, NAME)

    def narrow(self, who, cells, to, at):
        """Narrow cells."""
        named = Named(cells=cells)
        return _written(stopping.narrow(self.database, CALLERS[who], NAME, named, to, at=at))

    def stop(self, who, at):
        """Stop everything."""
        named = Named(everything=True)
        return _written(stopping.stop(self.database, CALLERS[who], NAME, named, at=at))

    def ask_resume(self, who, at):
        """Ask for the end of the one stop."""
        stop = self.look("resume", lambda: next(iter(self.stood().scope.stops)))
        return _written(stopping.ask_resume(self.database, CALLERS[who], NAME, stop, at=at))

    def claim(self, who, at):
        """Take a case to judge."""
        desk = reviewing.claim(self.database, CALLERS[who], self.stood(), at)
        self.shown["review", who] = desk.tasks[0].review
        return []

    def judge(self, who, label, at):
        """Judge the case that one holds."""
        caller, stood = CALLERS[who], self.stood()
        number = self.look(("review", who), lambda: self._held(caller, stood, at))
        said = verdicts.Said(answers={"alarm": label})
        given = verdicts.decide(self.database, caller, stood, number, said, at)
        answers = dict(given.answers)
        kept = Decision(key=given.case, reviewer=who, answers=answers, exposure="blind")
        return [Kept(kept, "accepted")]

    def _held(self, caller, stood, at):
        held = reviewing.mine(self.database, caller, stood, at).tasks
        if not held:
            raise NothingWaits(f"{caller.name} holds no case")
        return held[0].review

    def purge(self, at):
        """Delete records of the age that the policy says."""
        retention.purge_old(self.database, NAME, at)
        return []


def _written(answer):
    return [Written(e.event, e.by, dict(e.body)) for e in answer.events]


# An impatient replica waits for nobody's lock: whoever holds it is paused until it gives up.


def _no_patience_on_sqlite(raw, _record):
    raw.execute("pragma busy_timeout=0")


def _no_patience_on_postgresql(raw, _record):
    raw.autocommit = True
    raw.execute("set lock_timeout = '30ms'")
    raw.autocommit = False


NO_PATIENCE = {"sqlite": _no_patience_on_sqlite, "postgresql": _no_patience_on_postgresql}
