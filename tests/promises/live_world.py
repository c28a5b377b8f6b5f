"""A rollout served by two replicas on one database, asked over HTTP by people of many roles.

Everything goes through the API, on a clock that is moved by hand. `log` keeps, in the order in
which they were done, the commands that were let through and the ticks: replay is given the same.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from api.app import create_app
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.tables.record_tables import decode_instant, encode_instant
from rollout.engine.decide.commands import (
    AddVersion,
    ApproveProposal,
    NarrowCells,
    OpenIncident,
    ProposeResume,
    RejectProposal,
    RetireVersion,
)
from rollout.engine.decide.commands import StopCells as Stop
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.kernel.calendar.instants import Cell, find_slot_before, to_instant
from rollout.kernel.facts import Trigger, parse_facts
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live import state_cache
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from rollout.live.tick_passes import TickScheduler
from tests.api.conftest import Asking, Doorkeeper
from tests.data.databases import fresh
from tests.oracles import ledger_rows, rows_of

START = datetime(2027, 6, 1, 6, tzinfo=UTC)
NAME, V1 = "story", "/v1/rollouts/story"
SITES, WINDOW = ("s0", "s1"), "always"
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
SETTLED = timedelta(seconds=state_cache.MAX_STALENESS) + timedelta(seconds=0.1)
LABELS = ("bear", "none")
POLICY = """
rollout: story
timezone: UTC
levers:
  - id: alarm
    labels: [bear, none]
    actions: {bear: ring, none: wait}
    costs: [{did: wait, right: ring, cost: 5}, {cost: 1}]
sites: [s0, s1]
stages: [{id: supervised, blind: BLIND, lasts: 40h}, {id: autonomous, audit: 80%, lasts: 30h}]
evidence: {unit: case, grace: GRACE, missing_at_most: 60%, outside: blind,
  sources: {accounts: [{account: desk, reviewers: ["*"]}]}}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: LINE}], risk: 20%,
     minimum: {units: 3, days: 1, reviewers: 1}, approvals: [operator, operator]}
  - {to: autonomous, require: [{measure: agreement, at_least: 70%}], risk: 20%,
     minimum: {units: 5, days: 1, reviewers: 1}, approvals: [operator, safety]}
guards:
  - {measure: agreement, at_least: 50%, false_alarm_every: 10}
  - {measure: heartbeat, at_most: 10h, then: suspend, sites: [s1]}
  - {measure: unaudited, at_most: 10%, over: 7d}
takeover: shadow
tick: 1h
lease: 1m
"""


def policy_text(line="60%", grace="1h", blind="50%"):
    return POLICY.replace("LINE", line).replace("GRACE", grace).replace("BLIND", blind)


TEXTS = {
    "first": policy_text(),
    "stricter": policy_text(line="65%"),
    "looser": policy_text(line="55%"),
    "redefined": policy_text(grace="2h"),
    "less blind": policy_text(blind="40%"),
}
POLICIES = {policy.hash: policy for policy in map(parse_policy, TEXTS.values())}

OPERATOR, REVIEWER = AssignedRole("operator", NAME), AssignedRole("reviewer", NAME)
CALLERS = {
    caller.name: caller
    for caller in (
        Caller("zoe", role_assignments=(AssignedRole("admin", NAME), OPERATOR)),
        Caller("bo", role_assignments=(OPERATOR,)),
        Caller("dan", role_assignments=(OPERATOR, AssignedRole("approver", NAME, group="safety"))),
        Caller("cy", role_assignments=(AssignedRole("approver", NAME, group="safety"),)),
        Caller("eve", role_assignments=(AssignedRole("operator", NAME, "s0"),)),
        Caller("ann", role_assignments=(REVIEWER,)),
        Caller("ben", role_assignments=(AssignedRole("reviewer", NAME, "s0"),)),
        Caller("vic", role_assignments=(REVIEWER, AssignedRole("viewer", NAME), OPERATOR)),
        Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest", NAME),)),
        Caller(
            "desk",
            is_service_account=True,
            role_assignments=(AssignedRole("ingest-decisions", NAME),),
        ),
        Caller(
            "bot",
            is_service_account=True,
            role_assignments=(OPERATOR, AssignedRole("approver", NAME, group="safety")),
        ),
        Caller(
            "far",
            role_assignments=(
                AssignedRole("operator", "another"),
                AssignedRole("approver", "another", "", "x"),
            ),
        ),
    )
}
PEOPLE = ("zoe", "bo", "dan", "cy", "eve", "vic", "bot", "far")
REVIEWERS = ("ann", "ben", "vic")


@dataclass(frozen=True)
class Ticked:
    """A tick was done: of which slot, and what the clock showed."""

    slot: int
    now: datetime


@dataclass(frozen=True)
class PredictedCase:
    """What a model says of a case; `marker` is a number that no other prediction has."""

    key: str
    site: str
    version: str
    label: str
    marker: float


class LiveWorld:
    """One database, two replicas, one clock."""

    def __init__(self, engine="sqlite"):
        self._undo, self.engine = ExitStack(), engine
        folder = Path(self._undo.enter_context(TemporaryDirectory()))
        self.clock = ManualClock(START)
        self.off = {}  # by database, how far a replica's clock is off
        far = mock.patch.object(state_cache, "measure_clock_skew", self._askew)
        self._undo.enter_context(far)
        for name, days in (("open_for", 3), ("after_rejection", 1)):
            self._undo.enter_context(mock.patch.object(Policy, name, timedelta(days=days)))
        door, url = Doorkeeper(), self._undo.enter_context(fresh(engine, folder))
        door.callers |= CALLERS
        self.databases = [Database(url), Database(url)]
        self.services = [
            build_service(database, door, self.clock, entropy=bytes) for database in self.databases
        ]
        self.clients = [Asking(create_app(service)) for service in self.services]
        self.tickers = [
            TickScheduler(database, f"replica-{n}") for n, database in enumerate(self.databases)
        ]
        for client in self.clients:
            self._undo.enter_context(client)
        for database in self.databases:
            self._undo.callback(database.close)
        self.log, self.rows, self.said, self.cited = [], [], {}, []
        self.heads = [(-1.0, 0)]  # when each revision was there for all
        self.bodies = []  # (reviewer, text, hidden from them before)
        self.plain, self.grown, self.numbers = True, False, 0
        assert self.put_policy("first").status_code == 201
        with self.databases[0].begin_read() as transaction:
            self.rollout = Rollouts(transaction).find(NAME)
        self.read()

    def close(self):
        self._undo.close()

    def _askew(self, database, _clock):
        return abs(self.off.get(id(database), timedelta(0)))

    # Asking

    @property
    def now(self):
        return self.clock.now()

    def settle(self):
        """Let just so much time pass that nobody answers from what was."""
        self.clock.advance(SETTLED)

    def request(self, who, method, path, body=None, *, replica=0, **more):
        """Ask as somebody. Only the last of them may be the server's fault."""
        before = self.hidden_from(who) if who in REVIEWERS else frozenset()
        client = self.clients[replica].by(who)
        answer = client.request(method, V1 + path, json=body, **more)
        assert answer.status_code < 500 or self.off, (who, method, path, answer.text)
        if who in REVIEWERS:
            self.bodies.append((who, answer.text, before))
        self.read()
        return answer

    def post(self, who, path, body=None, **more):
        return self.request(who, "POST", path, body, **more)

    def get(self, who, path, **more):
        return self.request(who, "GET", path, **more)

    # The ledger, by its rows

    def read(self, *, ticked=False):
        """Read what the ledger holds by now; note what nobody asked for by name."""
        with self.databases[0].begin_read() as transaction:
            rows = ledger_rows(transaction, self.rollout)
        assert rows[: len(self.rows)] == self.rows, "a row of the ledger changed"
        for row in rows[len(self.rows) :]:
            if row[2] == "VersionFirstUsed" and not ticked:
                self.log.append(AddVersion(at=decode_instant(row[1]), version=row[4]["version"]))
            if row[2] == "IncidentOpened" and row[4]["kind"] in {
                "unauthorized",
                "ledger_rolled_back",
            }:
                own = {
                    name: row[4].get(name, "") for name in ("kind", "reason", "version", "about")
                }
                cell = Cell(row[4]["site"], row[4]["window"]) if row[4].get("site") else None
                facts = row[4].get("trigger")
                trigger = None if facts is None else parse_facts(Trigger, facts)
                at = decode_instant(row[1])
                self.log.append(OpenIncident(at=at, cell=cell, trigger=trigger, **own))
        self.grown, self.rows = len(rows) > len(self.rows), rows
        self.heads.append((self.clock.read_boot_clock(), len(rows)))

    def least_revision(self):
        """Return the revision that no answer given now may be older than."""
        since = self.clock.read_boot_clock() - state_cache.MAX_STALENESS
        return max(revision for boot, revision in self.heads if boot <= since)

    # People

    def as_person(self, who, sites=()):
        return CALLERS[who].as_actor(NAME, tuple(sites))

    def put_policy(self, which, who="zoe"):
        answer = self.clients[0].by(who).put(f"{V1}/policy", content=TEXTS[which])
        if self.rows:
            self.read()
            self.plain &= answer.status_code >= 400
        return answer

    def approve(self, who, proposal, evidence, replica=0):
        answer = self.post(
            who, f"/proposals/{proposal}/approvals", {"evidence_hash": evidence}, replica=replica
        )
        self.cited.append((who, proposal, evidence))
        if self.grown:
            yes = {"proposal": proposal, "evidence_hash": evidence}
            self.log.append(ApproveProposal(at=self.now, by=self.as_person(who), **yes))
        return answer

    def reject(self, who, proposal):
        answer = self.post(who, f"/proposals/{proposal}/rejection", {"reason": "later"})
        if self.grown:
            self.log.append(
                RejectProposal(
                    at=self.now, by=self.as_person(who), proposal=proposal, reason="later"
                )
            )
        return answer

    def open_proposals(self):
        items = self.get("bo", "/proposals?limit=100").json()["items"]
        return [(item["id"], item["evidence_hash"], item["kind"]) for item in items]

    def approve_all(self):
        """Let two people say yes to all that is open."""
        for proposal, evidence, _ in self.open_proposals():
            for who in ("bo", "dan", "cy"):
                self.approve(who, proposal, evidence)

    def stop(self, who, sites, *, drill=False, replica=0):
        cells = [{"site": site, "window": WINDOW} for site in sites]
        answer = self.post(who, "/stops", {"cells": cells, "drill": drill}, replica=replica)
        if self.grown:
            by = self.as_person(who, tuple(c["site"] for c in answer.json()["cells"]))
            self.log.append(Stop(at=self.now, by=by, cells=_cells(answer), drill=drill))
        return answer

    def narrow(self, who, sites, to, replica=0):
        answer = self.post(who, "/narrowings", {"sites": sites, "to": to}, replica=replica)
        if self.grown:
            by = self.as_person(who)
            self.log.append(NarrowCells(at=self.now, by=by, cells=_cells(answer), to=to))
        return answer

    def resume(self, who, stop):
        answer = self.post(who, f"/stops/{stop}/resume")
        if self.grown:
            self.log.append(ProposeResume(at=self.now, by=self.as_person(who), stop=stop))
        return answer

    def retire(self, who, version):
        answer = self.post(who, f"/versions/{version}/retirement", {"reason": "old"})
        if self.grown:
            self.log.append(
                RetireVersion(at=self.now, by=self.as_person(who), version=version, reason="old")
            )
        return answer

    # Machines

    def new_case(self, site, version, label="bear"):
        """Return a prediction of a case that nobody knows yet."""
        self.numbers += 1
        return self._say(f"c{self.numbers}", site, version, label)

    def say_beside(self, case, version):
        """Return what another version says of a case: the same answer."""
        self.numbers += 1
        return self._say(case.key, case.site, version, case.label)

    def _say(self, key, site, version, label):
        marker = round(0.5 + (10 * self.numbers + 3) / 1e8, 8)  # always of eight decimals
        self.said[key, version] = PredictedCase(key, site, version, label, marker)
        return self.said[key, version]

    def send(self, items):
        """Send decisions by the account that the policy names, all else by the box."""
        statuses = {}
        for account, is_decision in (("box", False), ("desk", True)):
            places = [n for n, i in enumerate(items) if (i["kind"] == "decision") == is_decision]
            if places:
                answer = self.post(account, "/records", {"items": [items[n] for n in places]})
                assert answer.status_code == 200, answer.text
                row_statuses = [item["status"] for item in answer.json()["items"]]
                statuses |= dict(zip(places, row_statuses, strict=True))
        return [statuses[n] for n in range(len(items))]

    def case(self, case, at=None):
        when = (at or self.now).isoformat()
        return {"kind": "case", "key": case.key, "site": case.site, "occurred_at": when}

    def prediction(self, case, at=None):
        when = (at or self.now).isoformat()
        of = {"kind": "prediction", "key": case.key, "version": case.version, "at": when}
        return of | {"answers": {"alarm": case.label}, "confidence": case.marker}

    def verdict(self, case, label, reviewer="rae", at=None):
        of = {"kind": "decision", "key": case.key, "reviewer": reviewer}
        when = (at or self.now).isoformat()
        return of | {"answers": {"alarm": label}, "submitted_at": when}

    def ask(self, questions, replica=1, **more):
        body = {"questions": questions, **more}
        return self.post("box", "/assignments", body, replica=replica)

    def question(self, case, *, predicted=False, **changed):
        question = {"site": case.site, "at": self.now.isoformat(), "key": case.key}
        question |= {"version": case.version, "confidence": case.marker}
        if predicted:
            question["prediction"] = {"answers": {"alarm": case.label}, "confidence": case.marker}
        return {name: value for name, value in (question | changed).items() if value is not None}

    # Time

    def tick(self, replica=0):
        """Look at what is due, as the scheduler would."""
        now = self.now
        ticks = self.tickers[replica].run_due_ticks(now)
        assert not ticks.errors, ticks.errors
        self.read(ticked=True)
        if NAME in ticks.events_by_rollout:
            self.log.append(Ticked(find_slot_before(now, HOUR), now))
        return ticks.events_by_rollout.get(NAME)

    def to_next_slot(self):
        ahead = to_instant(find_slot_before(self.now, HOUR) + 1, HOUR) - self.now
        self.clock.advance(ahead)

    # Reviewers

    def hidden_from(self, who):
        """Return the cases that somebody may still judge blind, by SQL of our own."""
        sites = [r.site for r in CALLERS[who].role_assignments if r.role == "reviewer"]
        query = (
            "select k.key, r.site, r.reviewer, r.claimed_until from reviews r "
            "join external_keys k on k.id = r.case_id where r.rollout = :rollout "
            "and r.kind in ('blind', 'gold') and r.state not in ('done', 'withdrawn') "
            "and (r.due_at is null or r.due_at > :now) and not exists (select 1 from decisions d "
            "where d.rollout = r.rollout and d.case_id = r.case_id and d.reviewer = :who)"
        )
        with self.databases[0].begin_read() as transaction:
            rows = rows_of(transaction, self.rollout, query, now=encode_instant(self.now), who=who)
        return frozenset(key for key, site, *_ in rows if "" in sites or site in sites)


def _cells(answer):
    return tuple(Cell(cell["site"], cell["window"]) for cell in answer.json()["cells"])
