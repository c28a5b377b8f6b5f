"""Promises 1 to 5 and 7 to 10 of the design, over random histories of commands.

The machine drives a rollout with everything that anybody may ask, and judges what follows by
rules of its own: it reads the ledger, not the code that wrote it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import permutations
from math import log

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    Actor,
    ActorCommand,
    AddVersion,
    ApplyPolicy,
    ApproveProposal,
    CheckClock,
    Command,
    NarrowCells,
    ProposeRenewal,
    ProposeResume,
    ProposeTakeover,
    RejectProposal,
    RetireVersion,
    StopCells,
    Tick,
)
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_event, apply_events
from rollout.engine.decide.scope import CellState, Scope, compute_stage_level
from rollout.engine.events import (
    Approved,
    ClockCorrected,
    FactsConfirmed,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    Renewed,
    Resumed,
    TakenOver,
    Widened,
)
from rollout.engine.ledger.ledger import BrokenLedgerError, build_ledger, parse_event, verify_lines
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.cell_evidence import EvidenceCounts, GuardReading, VersionEvidence
from rollout.kernel.policy.policy import (
    EvidenceRules,
    Freeze,
    Gate,
    Limit,
    Minimum,
    Policy,
    Stage,
    Waves,
)
from rollout.kernel.statistics.evidence import compute_log_e
from tests.factories import (
    AGREEMENT,
    AGREEMENT_KEY,
    ANA,
    AUTONOMOUS,
    BETWEEN,
    BO,
    BOT,
    CHANGE,
    CREEK,
    CY,
    DAN,
    DAY,
    GUARDS,
    HARM,
    HEARTBEAT,
    HOUR,
    LAKE,
    MET,
    MINUTE,
    NOON,
    NOTHING,
    QUALITY,
    SALTS,
    SUPERVISED,
    TURNED,
    UNAUDITED,
    alarm,
    build_evidence,
    counted,
    good,
    policy,
)

pytestmark = pytest.mark.simulation

CELLS = (CREEK, LAKE)
VERSIONS = ("v1", "v2", "v3")
EVE = Actor("eve", ("operator", "safety"))
PEOPLE = (ANA, BO, CY, DAN, EVE, BOT)
SALT = bytes(32)
WIDENS = (Widened, Renewed, TakenOver, Resumed)
CLOSES = (*WIDENS, ProposalExpired, ProposalRejected, ProposalVoided)
QUALITY_GUARDS = frozenset({QUALITY.id, HARM.id})

EVIDENCE = {
    "met": MET,
    "fair": build_evidence(counted(150)),
    "just": build_evidence(counted(111)),  # enough at attempt 1 for supervised alone
    "between": BETWEEN,
    "turned": TURNED,
    "nothing": NOTHING,
    "missing": build_evidence(counted(2000, missing=200)),
    "few": build_evidence(counted(2000), entered=counted(20), span=counted(20)),
    "quality": alarm(QUALITY),
    "harm": alarm(HARM),
    "unaudited": alarm(UNAUDITED),
    "silent": alarm(HEARTBEAT),
    "changed": alarm(CHANGE),
    "several": alarm(UNAUDITED, QUALITY, HEARTBEAT),
}


SHORT = replace(SUPERVISED, lasts=10 * DAY)  # so that renewals and lapses come often
ALARMS = tuple(name for name, seen in EVIDENCE.items() if seen.guards)


@dataclass(frozen=True)
class Rules:
    """What edits of the machine's policy may change, each with a known loose side."""

    units: int = 100
    operators: int = 2
    risk: float = 0.05
    frozen: bool = False
    capped: bool = False
    guarded: bool = True
    middle: bool = False
    grace: int = 1

    def looser_than(self, old: "Rules") -> bool:
        """Say whether going from `old` to these rules lets a model do more."""
        return (
            self.units < old.units
            or self.operators < old.operators
            or self.risk > old.risk
            or (old.frozen and not self.frozen)
            or (old.capped and not self.capped)
            or (old.guarded and not self.guarded)
            or self.middle != old.middle
        )

    @cache  # noqa: B019 - there are a few hundred of them
    def policy(self) -> Policy:
        """Return the policy that says this."""
        least = Minimum(units=self.units)
        middle = (Stage("assisted", blind=0.3, lasts=11 * DAY),) if self.middle else ()
        stages = (SHORT, *middle, replace(AUTONOMOUS, lasts=12 * DAY))
        lower = [
            Gate(
                *(s.id, (AGREEMENT,), self.risk),
                minimum=least,
                approvals=("operator",) * self.operators,
            )
            for s in stages[:-1]
        ]
        people = ("safety", "operator")[: self.operators]
        stricter = (replace(AGREEMENT, threshold=0.97),)
        upper = Gate("autonomous", stricter, 0.01, minimum=least, approvals=people)
        return policy(
            sites=(Site("creek", "UTC"), Site("lake", "UTC", wave=2)),
            windows=(Window("day"),),
            stages=stages,
            evidence=EvidenceRules(grace=self.grace * DAY),
            gates=(*lower, upper),
            guards=GUARDS if self.guarded else GUARDS[1:],
            limits=(Limit(never_above="supervised"),) if self.capped else (),
            freezes=(Freeze("Jun 02-Jun 20", "fair"),) if self.frozen else (),
            waves=Waves("supervised", hold=HOUR, at_once=1, settle=30 * MINUTE),
            takeover="supervised",
        )


RULES = st.builds(
    Rules,
    units=st.sampled_from([100, 110]),
    operators=st.sampled_from([1, 2]),
    risk=st.sampled_from([0.05, 0.1]),
    frozen=st.booleans(),
    capped=st.booleans(),
    guarded=st.booleans(),
    middle=st.booleans(),
    grace=st.sampled_from([1, 2]),
)
FIELDS = tuple(Rules.__dataclass_fields__)


class Promises(RuleBasedStateMachine):
    """One rollout, anybody's commands, and what must never follow from them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = NOON
        self.scope = Scope()
        self.events: list[LedgerEvent] = []
        self.raised: dict[str, ProposalRaised] = {}
        self.said: dict[str, list[Approved]] = {}
        self.closed: set[str] = set()
        self.pressed: dict[Cell, int] = {}  # when a person last stopped the cell

    @initialize(climbs=st.lists(st.sampled_from(CELLS), max_size=5), middle=st.booleans())
    def begin(self, climbs: list[Cell], middle: bool) -> None:
        self.rules = Rules(middle=middle)
        self.policy = self.rules.policy()
        self.policies = {self.policy.hash: self.rules}
        self.ask(ApplyPolicy(at=self.clock, by=ANA, policy=self.policy))
        for version in VERSIONS[:2]:
            self.ask(AddVersion(at=self.clock, version=version))
        for cell in climbs:
            self.goes_well(cell, "v1", "met")
            self.clock += HOUR

    # What is asked

    @rule(span=st.sampled_from([MINUTE, HOUR, HOUR, 12 * HOUR, DAY, 8 * DAY, -HOUR, -DAY]))
    def time_passes(self, span: timedelta) -> None:
        self.clock += span

    @precondition(lambda self: len(self.scope.versions) < len(VERSIONS))
    @rule()
    def see(self) -> None:
        self.ask(AddVersion(at=self.clock, version=VERSIONS[-1]))

    @precondition(lambda self: len(self.events) > 30)
    @rule(version=st.sampled_from(VERSIONS), by=st.sampled_from(PEOPLE))
    def retire(self, version: str, by: Actor) -> None:
        self.ask(RetireVersion(at=self.clock, by=by, version=version))

    @rule(
        seen=st.dictionaries(
            st.tuples(st.sampled_from(CELLS), st.sampled_from(VERSIONS)),
            st.sampled_from([*EVIDENCE, "good"]),
            max_size=4,
        )
    )
    def tick(self, seen: dict[tuple[Cell, str], str]) -> None:
        self.clock += 15 * MINUTE
        self.tick_with({key: self.evidence(name) for key, name in seen.items()})

    @rule(
        cell=st.sampled_from(CELLS),
        version=st.sampled_from(VERSIONS[:2]),
        first=st.sampled_from(["met", "met", "fair", "just"]),
        then=st.sampled_from(["met", "met", "between", "turned", "quality", "several", ""]),
    )
    def goes_well(self, cell: Cell, version: str, then: str, first: str = "met") -> None:
        """Raise what is met and approve all that is open, so that histories get somewhere."""
        self.tick({(cell, version): first})
        for proposal in list(self.scope.proposals):
            for person in (BO, DAN, CY, EVE):
                self.approve_one(proposal, person)
        if then:
            self.tick({(cell, version): then})

    @precondition(lambda self: any(map(self.scope.get_holder, CELLS)))
    @rule(
        cell=st.sampled_from(CELLS),
        names=st.lists(st.sampled_from([*ALARMS, "good"]), min_size=1, max_size=4),
    )
    def goes_wrong(self, cell: Cell, names: list[str]) -> None:
        """Let guards look at whichever version holds the cell."""
        for name in names:
            holder = self.scope.get_holder(cell)
            if holder is not None:
                self.tick({(cell, holder): name})

    @precondition(lambda self: any(map(self.scope.get_holder, CELLS)))
    @rule(cell=st.sampled_from(CELLS), then=st.sampled_from(["met", "between", "turned", "few"]))
    def grants_age(self, cell: Cell, then: str) -> None:
        """Go on to the last fifth of a grant and propose to renew it."""
        holder = self.scope.get_holder(cell)
        if holder is not None:
            ends = min(grant.until for grant in self.scope.get_cell_state(cell, holder).grants)
            self.clock = max(self.clock, ends - DAY)
            self.goes_well(cell, holder, then)

    @precondition(lambda self: self.scope.proposals)
    @rule(by=st.sampled_from(PEOPLE), which=st.integers(0, 5))
    def approve(self, by: Actor, which: int) -> None:
        names = list(self.scope.proposals)
        self.approve_one(names[which % len(names)], by)

    @precondition(lambda self: self.scope.open_incidents)
    @rule(by=st.sampled_from(PEOPLE))
    def acknowledge(self, by: Actor) -> None:
        for incident in list(self.scope.open_incidents):
            self.ask(AcknowledgeIncident(at=self.clock, by=by, incident=incident))

    @precondition(lambda self: self.scope.get_holder(CREEK) and not self.scope.get_holder(LAKE))
    @rule(guard=st.sampled_from(["quality", "harm"]), approvers=st.integers(0, 3))
    def goes_wrong_next_door(self, guard: str, approvers: int) -> None:
        """Let a version fail in one cell while its proposal for another is open."""
        version = self.scope.get_holder(CREEK)
        self.tick({(LAKE, version): "met"})
        for proposal in list(self.scope.proposals):
            for person in (BO, DAN, CY)[:approvers]:
                self.approve_one(proposal, person)
        self.tick({(CREEK, version): guard, (LAKE, version): "met"})
        self.tick({(LAKE, version): "met"})

    @precondition(lambda self: self.scope.proposals)
    @rule(by=st.sampled_from(PEOPLE), which=st.integers(0, 5))
    def approve_by_guess(self, by: Actor, which: int) -> None:
        names = list(self.scope.proposals)
        proposal = names[which % len(names)]
        assert (
            self.ask(ApproveProposal(at=self.clock, by=by, proposal=proposal, evidence_hash=""))
            is None
        )

    @rule(by=st.sampled_from(PEOPLE), number=st.integers(1, 9))
    def reject(self, by: Actor, number: int) -> None:
        no = RejectProposal(at=self.clock, by=by, proposal=f"P-{number}")
        assert self.ask(no) is not None or number > self.scope.proposal_count

    @rule(
        by=st.sampled_from(PEOPLE),
        cells=st.lists(st.sampled_from(CELLS), min_size=1, max_size=2),
        rung=st.integers(0, 2),
    )
    def narrow(self, by: Actor, cells: list[Cell], rung: int) -> None:
        to = self.policy.stage_ids[rung]
        done = self.ask(NarrowCells(at=self.clock, by=by, cells=tuple(cells), to=to))
        assert done is not None or rung > 0
        if done is not None:
            assert not any(p.cell in cells for p in self.scope.proposals.values())
        for at in self.instants():
            for cell in cells:
                assert self.rung(cell, at) <= rung

    @rule(
        by=st.sampled_from(PEOPLE),
        cells=st.lists(st.sampled_from(CELLS), min_size=1, max_size=2),
        drill=st.booleans(),
    )
    def stop(self, by: Actor, cells: list[Cell], drill: bool) -> None:
        press = StopCells(at=self.clock, by=by, cells=tuple(cells), drill=drill)
        assert self.ask(press) is not None
        self.pressed |= dict.fromkeys(cells, len(self.events))

    @precondition(lambda self: self.scope.stops)
    @rule(by=st.sampled_from(PEOPLE), which=st.integers(0, 3))
    def ask_resume(self, by: Actor, which: int) -> None:
        names = list(self.scope.stops)
        self.ask(ProposeResume(at=self.clock, by=by, stop=names[which % len(names)]))

    @rule(
        by=st.sampled_from(PEOPLE),
        cell=st.sampled_from(CELLS),
        version=st.sampled_from(VERSIONS),
        rung=st.integers(0, 2),
        name=st.sampled_from(["met", "met", "between", "turned"]),
    )
    def raise_takeover(self, by: Actor, cell: Cell, version: str, rung: int, name: str) -> None:
        evidence = {(cell, version): self.evidence(name)}
        to = self.policy.stage_ids[rung]
        asked = ProposeTakeover(
            at=self.clock, by=by, cell=cell, version=version, to=to, evidence=evidence
        )
        self.ask(asked)

    @precondition(lambda self: any(map(self.scope.get_holder, CELLS)))
    @rule(
        by=st.sampled_from(PEOPLE),
        cell=st.sampled_from(CELLS),
        name=st.sampled_from(["met", "few"]),
    )
    def ask_renewal(self, by: Actor, cell: Cell, name: str) -> None:
        holder = self.scope.get_holder(cell)
        if holder is not None:
            evidence, to = {(cell, holder): self.evidence(name)}, self.policy.stage_ids[1]
            asked = ProposeRenewal(
                at=self.clock, by=by, cell=cell, version=holder, to=to, evidence=evidence
            )
            self.ask(asked)

    @precondition(lambda self: self.scope.at is not None and self.clock < self.scope.at - MINUTE)
    @rule(by=st.sampled_from(PEOPLE))
    def correct_clock(self, by: Actor) -> None:
        """Check the clock, acknowledge all that is open, check it again, and tick."""
        self.ask(CheckClock(at=self.clock))
        self.acknowledge(by)
        self.ask(CheckClock(at=self.clock))
        self.tick({})

    @rule(by=st.sampled_from(PEOPLE), other=RULES, what=st.sampled_from(FIELDS))
    def edit(self, by: Actor, other: Rules, what: str) -> None:
        rules = replace(self.rules, **{what: getattr(other, what)})
        self.policies[rules.policy().hash] = rules
        self.ask(ApplyPolicy(at=self.clock, by=by, policy=rules.policy()))

    # How it is asked

    def evidence(self, name: str) -> VersionEvidence:
        since = self.clock - DAY
        return good(since, HEARTBEAT, CHANGE) if name == "good" else EVIDENCE[name]

    def approve_one(self, proposal: str, by: Actor) -> None:
        if proposal in self.scope.proposals:
            evidence = self.scope.proposals[proposal].evidence_hash
            self.ask(
                ApproveProposal(at=self.clock, by=by, proposal=proposal, evidence_hash=evidence)
            )

    def tick_with(self, evidence: dict[tuple[Cell, str], VersionEvidence]) -> None:
        pending = {key: rules.policy() for key, rules in self.policies.items()}
        tick = Tick(at=self.clock, evidence=evidence, pending_policies=pending)
        before, rules = self.scope, self.policy
        now = max(self.clock, before.at or self.clock)
        events = self.ask(tick)
        assert events is not None
        self.check_unwatched(before, rules, evidence, now)
        self.check_risk(before, rules, evidence, events)

    def ask(self, command: Command) -> tuple[LedgerEvent, ...] | None:
        """Decide twice, judge and keep what follows; None where it is refused."""
        try:
            events = decide(command, self.scope, self.policy)
        except RefusalError as refused:
            with pytest.raises(type(refused)):
                decide(command, self.scope, self.policy)
            return None
        assert decide(command, self.scope, self.policy) == events  # promise 10
        for event in events:
            self.judge(event, command)
            self.keep(event)
        return events

    def keep(self, event: LedgerEvent) -> None:
        before = dict(self.scope.cells)
        was = self.scope
        self.scope = apply_event(self.scope, event)
        if isinstance(event, ClockCorrected):
            self.check_correction(event, was)
        self.events.append(event)
        for key, state in before.items():
            assert self.scope.cells[key].attempt >= state.attempt  # promise 9: attempts only rise
        if isinstance(event, PolicyApplied):
            self.check_restarts(self.policies[event.policy_hash], before)
        match event:
            case ProposalRaised():
                self.raised[event.proposal], self.said[event.proposal] = event, []
            case Approved():
                raised = self.raised[event.proposal]
                assert raised.kind == "clock" or event.at < raised.expires_at
                self.said[event.proposal].append(event)
            case PolicyApplied():
                self.rules = self.policies[event.policy_hash]
                self.policy = self.rules.policy()
        if isinstance(event, CLOSES) or (isinstance(event, PolicyApplied) and event.proposal):
            self.closed.add(event.proposal)

    # Promise 1

    def judge(self, event: LedgerEvent, command: Command) -> None:
        if isinstance(event, WIDENS):
            self.check_approvals(event)
            assert isinstance(command, Tick)
            assert event.at <= command.at + MINUTE  # the clock was not behind
        if isinstance(event, Widened | Renewed | TakenOver):
            self.check_place(event)
            self.check_evidence(event, command)
        if isinstance(event, PolicyApplied) and self.events:
            self.check_edit(event)
        if isinstance(event, ProposalRaised):
            assert event.by == (command.by.name if isinstance(command, ActorCommand) else "policy")

    def check_approvals(self, event: Widened | Renewed | TakenOver | Resumed | PolicyApplied):
        raised, said = self.raised[event.proposal], self.said[event.proposal]
        since = self.events[self.events.index(raised) :]
        assert not any(isinstance(e, PolicyApplied) and e.loosens for e in since)
        assert event.proposal not in self.closed
        assert event.at < raised.expires_at
        names = [yes.by for yes in said]
        assert len(set(names)) == len(names)
        assert raised.by not in names
        assert BOT.name not in names
        assert all(yes.evidence_hash in self.list_hashes(raised) for yes in said)
        self.check_facts(event, raised)
        assert any(
            all(need in yes.groups for need, yes in zip(raised.needs, order, strict=True))
            for order in permutations(said, len(raised.needs))
        )

    def list_hashes(self, raised: ProposalRaised) -> list[str]:
        """Return what an approval might cite: each incident that spoke against it adds one."""
        hashes = [raised.evidence_hash]
        for incident in self.list_facts(raised):
            hashes.append(sha256(f"{hashes[-1]}\n{incident.incident}".encode()).hexdigest())
        return hashes

    def list_facts(self, raised: ProposalRaised) -> list[IncidentOpened]:
        since = self.events[self.events.index(raised) :] if raised.cell else []
        opened = [e for e in since if isinstance(e, IncidentOpened) and e.version == raised.version]
        return [e for e in opened if e.guard in QUALITY_GUARDS]

    def check_facts(self, event: LedgerEvent, raised: ProposalRaised) -> None:
        """Nothing widens after a fact that speaks against it without a confirmation."""
        since = self.events[self.events.index(raised) :]
        confirmed = [e for e in since if isinstance(e, FactsConfirmed)]
        named = {n for e in confirmed if e.proposal == event.proposal for n in e.incidents}
        assert {incident.incident for incident in self.list_facts(raised)} <= named
        if not isinstance(event, PolicyApplied):
            harms = {e.incident for e in self.events if getattr(e, "guard", "") == HARM.id
                     and isinstance(e, IncidentOpened)}  # fmt: skip
            seen = {e.incident for e in self.events if isinstance(e, IncidentAcknowledged)}
            restores_nothing = isinstance(event, Resumed) and not any(
                map(self.scope.get_holder, CELLS)
            )
            assert harms <= seen or restores_nothing

    def check_place(self, event: Widened | Renewed | TakenOver) -> None:
        raised, at = self.raised[event.proposal], event.at
        assert (event.cell, event.version) == (raised.cell, raised.version)
        rung = self.policy.stage_ids.index(raised.to_stage)
        assert raised.needs == self.policy.find_gate(rung, event.cell).approvals
        assert rung <= self.policy.compute_ceiling(event.cell, at)
        assert self.policy.find_freeze(event.cell, at) is None
        assert not any(event.cell in stop.cells for stop in self.scope.stops.values())
        assert not self.scope.versions[event.version].retired
        held = {(c, v): [g.stage for g in s.grants] for (c, v), s in self.scope.cells.items()}
        if isinstance(event, TakenOver):
            assert event.stages == self.policy.stage_ids[1 : rung + 1]
            assert len(held[event.cell, event.replaced_version]) >= rung
            return
        stages = self.policy.stage_ids[1:]
        assert held.get((event.cell, event.version), [])[:rung] == list(
            stages[: rung if isinstance(event, Renewed) else rung - 1]
        )
        if isinstance(event, Widened) and event.cell == LAKE and rung == 1:
            assert self.rung(CREEK, at) >= 1  # the wave before

    def check_evidence(self, event: Widened | Renewed | TakenOver, tick: Tick) -> None:
        seen = tick.evidence.get((event.cell, event.version))
        if seen is None:
            return  # unchanged since the tick before
        raised = self.raised[event.proposal]
        span = seen.spans.get(raised.to_stage, EvidenceCounts())
        weighed = span if isinstance(event, Renewed) else seen.attempt
        since = {"widening": seen.entered, "renewal": span, "takeover": seen.attempt}[raised.kind]
        assert since.decided >= self.rules.units
        assert min(self.log_es(event.cell, raised.to_stage, weighed)) >= 0
        holder = self.scope.get_holder(event.cell)
        for version in {event.version, holder} - {None}:
            state = self.scope.get_cell_state(event.cell, version)
            assert not state.suspended_by
        moved = [e for e in self.events if isinstance(e, Narrowed) and e.cell == event.cell]
        assert not any(e.at == event.at and e.guard for e in moved)

    def check_edit(self, event: PolicyApplied) -> None:
        """No edit that loosens comes into force without the approvals of the policy before."""
        new = self.policies[event.policy_hash]
        if not event.proposal:
            assert not new.looser_than(self.rules)
            return
        raised = self.raised[event.proposal]
        assert (raised.kind, raised.about) == ("policy", event.policy_hash)
        assert raised.needs == self.policy.gates[-1].approvals
        self.check_approvals(event)
        since = self.events[self.events.index(raised) :]
        assert not any(isinstance(e, PolicyApplied) for e in since)  # weighed against this policy

    def check_correction(self, event: ClockCorrected, was: Scope) -> None:
        """Somebody confirms that the time is ahead; for that nothing stands higher at any time."""
        told = {e.incident for e in self.events if getattr(e, "about", "") == was.at.isoformat()}
        read = {e.incident: e.by for e in self.events if isinstance(e, IncidentAcknowledged)}
        assert told & read.keys()
        assert event.previous_time == was.at
        assert event.at < was.at
        assert self.scope.at == event.at
        for cell in CELLS:
            for version in VERSIONS:
                held = compute_stage_level(was, self.policy, cell, version, was.at)
                for ahead in (timedelta(0), HOUR, DAY, 9 * DAY):
                    at = event.at + ahead
                    assert compute_stage_level(self.scope, self.policy, cell, version, at) <= held
                    later = compute_stage_level(was, self.policy, cell, version, was.at + ahead)
                    assert (
                        compute_stage_level(self.scope, self.policy, cell, version, was.at + ahead)
                        <= later
                    )
            if cell in was.widened_at:
                assert self.scope.widened_at[cell] <= event.at
        assert all(s.changed_at <= event.at for s in self.scope.cells.values())

    def check_restarts(self, new: Rules, before: dict[tuple[Cell, str], CellState]) -> None:
        """What records mean has changed: nothing is held. A higher risk: the next attempt."""
        for key, state in before.items():
            if new.grace != self.rules.grace:
                assert not self.scope.cells[key].grants
            is_riskier = new.risk > self.rules.risk and state.has_begun
            if new.grace != self.rules.grace or is_riskier:
                assert self.scope.cells[key].attempt > state.attempt

    # Promises 8 and 9

    def check_unwatched(
        self,
        before: Scope,
        rules: Policy,
        evidence: dict[tuple[Cell, str], VersionEvidence],
        now: datetime,
    ) -> None:
        for (cell, version), seen in evidence.items():
            state = before.cells.get((cell, version))
            if state is None or not state.grants:
                continue
            after = self.scope.get_cell_state(cell, version)
            if alarmed(seen, UNAUDITED.id):
                assert len(after.grants) < len(state.grants)
            if alarmed(seen, HEARTBEAT.id):
                assert compute_stage_level(self.scope, self.policy, cell, version, now) == 0
            if any(alarmed(seen, g.id) for g in rules.guards if g.id in QUALITY_GUARDS):
                assert after.attempt > state.attempt
                assert len(after.grants) < len(state.grants)

    def check_risk(
        self,
        before: Scope,
        rules: Policy,
        evidence: dict[tuple[Cell, str], VersionEvidence],
        events: Iterable[LedgerEvent],
    ) -> None:
        """A widening is raised only where this tick's e-values reach 1/risk of the attempt."""
        for event in events:
            if isinstance(event, ProposalRaised) and event.kind in {"widening", "takeover"}:
                attempt = self.scope.get_cell_state(event.cell, event.version).attempt
                assert attempt == before.get_cell_state(event.cell, event.version).attempt
                gate = rules.find_gate(rules.stage_ids.index(event.to_stage), event.cell)
                part = 1 if attempt == 1 else 1 / (attempt * (attempt + 1))
                seen = evidence[event.cell, event.version]
                least = min(self.log_es(event.cell, event.to_stage, seen.attempt))
                assert least >= log(1 / (gate.risk * part)) - 1e-9

    def log_es(self, cell: Cell, to: str, seen: EvidenceCounts) -> Iterator[float]:
        rung = self.policy.stage_ids.index(to)
        for below in range(1, rung + 1):
            for condition in self.policy.find_gate(below, cell).require:
                agreed, disagreed = seen.counts.get(AGREEMENT_KEY, (0, 0))
                yield compute_log_e(agreed, disagreed, at_least=condition.threshold)

    # Promises 2, 3, 4

    def rung(self, cell: Cell, at: datetime) -> int:
        return max(compute_stage_level(self.scope, self.policy, cell, v, at) for v in VERSIONS)

    def instants(self) -> list[datetime]:
        return [self.clock - 100 * DAY, self.clock, self.clock + DAY]

    @invariant()
    def a_stop_holds_until_a_resume_that_was_asked_for_after_it(self) -> None:
        for cell, pressed in self.pressed.items():
            if self.rung(cell, self.clock):
                since = self.events[pressed:]
                asked = {e.proposal for e in since if isinstance(e, ProposalRaised)}
                assert any(isinstance(e, Resumed) and e.proposal in asked for e in since)

    @invariant()
    def nothing_stands_above_its_ceiling(self) -> None:
        for cell in CELLS if self.events else ():
            assert self.rung(cell, self.clock) <= (1 if self.rules.capped else 9)

    @invariant()
    def an_expired_grant_gives_nothing_without_any_tick(self) -> None:
        for (cell, version), state in self.scope.cells.items():
            for grant in state.grants:
                rung = [g.stage for g in state.grants].index(grant.stage) + 1
                assert (
                    compute_stage_level(self.scope, self.policy, cell, version, grant.until) < rung
                )

    @invariant()
    def in_doubt_a_person_decides(self) -> None:
        if not self.events:
            return
        now = self.clock
        for site, version, at in (
            ("moon", "v1", now),
            ("creek", "v9", now),
            ("creek", "v1", now + 6 * MINUTE),
        ):
            asked = CaseQuestion(site=site, at=at, version=version, key="k")
            assert (
                decide_assignment(self.scope, self.policy, SALT, asked, now=now).decider == "human"
            )
        asked = CaseQuestion(site="creek", at=now, version="v1", key="k")
        answer = decide_assignment(self.scope, self.policy, SALT, asked, now=now)
        rung = compute_stage_level(self.scope, self.policy, CREEK, "v1", now)
        assert (answer.decider == "model") <= (self.policy.stage_ids[rung] == "autonomous")
        assert answer.lease > timedelta(0)

    @invariant()
    def a_clock_set_back_brings_nothing_back(self) -> None:
        if self.scope.at is not None:
            for cell in CELLS:
                long_ago = self.scope.at - 100 * DAY
                assert self.rung(cell, long_ago) == self.rung(cell, self.scope.at)

    # What the rest stands on

    @invariant()
    def one_version_holds_a_cell_and_its_grants_are_the_ladders_lowest_rungs(self) -> None:
        held = {}
        for (cell, version), state in self.scope.cells.items():
            stages = tuple(grant.stage for grant in state.grants)
            assert stages == self.policy.stage_ids[1 : len(stages) + 1]
            if stages:
                assert held.setdefault(cell, version) == version
                assert self.scope.get_holder(cell) == version

    @invariant()
    def a_proposal_is_open_in_one_place(self) -> None:
        open_ones = {s.proposal for s in self.scope.cells.values() if s.proposal}
        assert open_ones == {p.id for p in self.scope.proposals.values() if p.cell}
        assert open_ones.isdisjoint(self.closed)

    # Promise 5

    def teardown(self) -> None:
        """Write the ledger, read it again and fold it; then take a line out."""
        lines = [row.format() for row in build_ledger("r", self.events, SALTS)]
        again = [parse_event(row) for row in verify_lines(lines)]
        assert again == self.events
        assert apply_events(again) == self.scope
        assert repr(apply_events(self.events)) == repr(self.scope)
        for number in {1, len(lines) // 2} - {0, len(lines)}:
            with pytest.raises(BrokenLedgerError) as caught:
                list(verify_lines([*lines[: number - 1], *lines[number:]]))
            assert caught.value.line == number


def alarmed(seen: VersionEvidence, guard: str) -> bool:
    return seen.guards.get(guard, GuardReading(is_alarm=False)).is_alarm


def test_the_promises_hold_over_random_histories():
    chosen = settings(max_examples=200, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(Promises, settings=chosen)
