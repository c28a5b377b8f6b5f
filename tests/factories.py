"""Builders that tests share: a policy, people, evidence, and a rollout driven by commands.

A test names only what it is about. The policy has two sites by two windows, a ladder of
`supervised` and `autonomous`, and guards that narrow, suspend and report.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    Actor,
    AddVersion,
    ApplyPolicy,
    ApproveProposal,
    Command,
    NarrowCells,
    ProposeResume,
    RejectProposal,
    RetireVersion,
    StopCells,
    Tick,
)
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import (
    CellState,
    ProposalState,
    Scope,
    compute_stage_level,
    set_cell_state,
)
from rollout.engine.events import AttemptsBegan, LedgerEvent, PolicyApplied, ProposalRaised
from rollout.engine.ledger.ledger import derive_salts
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import (
    EvidenceCounts,
    GuardReading,
    MeasureKey,
    VersionEvidence,
)
from rollout.kernel.policy.policy import EvidenceRules, Gate, Guard, Policy, Stage, Where
from rollout.kernel.units import Lever

SALTS = derive_salts(b"tests")
NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = 15 * MINUTE

CREEK = Cell("creek", "day")
CREEK_NIGHT = Cell("creek", "night")
LAKE = Cell("lake", "day")
LAKE_NIGHT = Cell("lake", "night")

ANA, BO, DAN = (Actor(name) for name in ("ana", "bo", "dan"))
CY = Actor("cy", ("safety",))
BOT = Actor("bot", ("operator", "safety"), is_service_account=True)

AGREEMENT = Condition(MEASURES["agreement"], 0.95)
AGREEMENT_KEY: MeasureKey = AGREEMENT.key

SUPERVISED = Stage("supervised", blind=0.5, lasts=90 * DAY)
AUTONOMOUS = Stage("autonomous", audit=0.1, lasts=90 * DAY)
TO_SUPERVISED = Gate("supervised", (AGREEMENT,), risk=0.05)
TO_AUTONOMOUS = Gate(
    "autonomous",
    (Condition(MEASURES["agreement"], 0.97),),
    risk=0.01,
    approvals=("operator", "safety"),
)

QUALITY = Guard(Condition(MEASURES["agreement"], 0.93), then="one-stage")
UNAUDITED = Guard(Condition(MEASURES["unaudited"], 0.1), then="one-stage", over=7 * DAY)
HEARTBEAT = Guard(Condition(MEASURES["heartbeat"], 7200), then="suspend")
LATENCY = Guard(Condition(MEASURES["latency_p95"], 2), then="suspend", over=timedelta(minutes=30))
HARM = Guard(Condition(MEASURES["harm"], 0), then="shadow", over=7 * DAY, reach="rollout")
CHANGE = Guard(Condition(MEASURES["action_change"], 5, action="siren"), then="report")
GUARDS = (QUALITY, UNAUDITED, HEARTBEAT, LATENCY, HARM, CHANGE)


def policy(**changes: Any) -> Policy:
    """Return the default policy with `changes`, under a hash of its own."""
    made = Policy(
        rollout="bear-alarm",
        timezone="UTC",
        levers=(Lever("alarm", labels=("bear", "none"), actions=("siren", "nothing")),),
        sites=(Site("creek", "UTC"), Site("lake", "UTC", wave=2)),
        windows=(Window("day", "08:00-20:00"), Window("night")),
        stages=(SUPERVISED, AUTONOMOUS),
        evidence=EvidenceRules(),
        gates=(TO_SUPERVISED, TO_AUTONOMOUS),
        guards=GUARDS,
    )
    return hashed(replace(made, **changes))


def hashed(changed: Policy) -> Policy:
    """Return the policy under the hash of what it says."""
    return replace(changed, hash=sha256(repr(replace(changed, hash="")).encode()).hexdigest())


def gates(*, supervised: Mapping[str, Any] | None = None, **autonomous: Any) -> tuple[Gate, ...]:
    """Return the two default gates with changes."""
    return (replace(TO_SUPERVISED, **(supervised or {})), replace(TO_AUTONOMOUS, **autonomous))


def counted(agreed: int, disagreed: int = 0, *, missing: int = 0, days: int = 30) -> EvidenceCounts:
    """Return units of which `agreed` + `disagreed` were judged, by two people."""
    judged = agreed + disagreed
    return EvidenceCounts(
        closed=judged + missing,
        missing=missing,
        days=days,
        reviewers=2 if judged else 0,
        counts={AGREEMENT_KEY: (agreed, disagreed + missing)},
    )


def build_evidence(
    counts: EvidenceCounts, *, span: EvidenceCounts | None = None, **changes: Any
) -> VersionEvidence:
    """Return evidence that says the same for attempt, stage and the span of every grant."""
    spans = {stage.id: counts if span is None else span for stage in (SUPERVISED, AUTONOMOUS)}
    return VersionEvidence(**{"attempt": counts, "entered": counts, "spans": spans, **changes})


MET = build_evidence(counted(2000))  # opens both gates, at every attempt that a test reaches
BETWEEN = build_evidence(counted(120, 2))  # above its line, but not enough to open a gate
TURNED = build_evidence(counted(80, 40))
NOTHING = VersionEvidence()


def alarm(*guards: Guard, of: VersionEvidence = MET) -> VersionEvidence:
    """Return the evidence `of` a cell with these guards in alarm."""
    return replace(
        of, guards={g.id: GuardReading(is_alarm=True, value=9, records=9) for g in guards}
    )


def good(since: datetime, *guards: Guard, of: VersionEvidence = MET) -> VersionEvidence:
    """Return the evidence `of` a cell with these guards good since an instant."""
    return replace(
        of, guards={g.id: GuardReading(is_alarm=False, good_since=since) for g in guards}
    )


def narrow_only(sites: tuple[str, ...] = (), windows: tuple[str, ...] = ()) -> Where:
    """Return a selector."""
    return Where(sites, windows)


def begin_attempt(
    version: str, cell: Cell = CREEK, share: float = 1.0, at: datetime = NOON
) -> AttemptsBegan:
    """Return the event that begins an attempt, the first of its year, with a share of the risk."""
    return AttemptsBegan(
        at=at,
        by="policy",
        cells=(cell,),
        versions=(version,),
        years=(at.year,),
        numbers=(1,),
        releases=(0,),
        shares=(repr(share),),
    )


class RolloutDriver:
    """A rollout driven by commands, as a service or a replay drives it.

    It keeps the ledger, its fold, the policy in force and a clock that each command moves on.
    """

    def __init__(self, first: Policy | None = None, *versions: str, at: datetime = NOON) -> None:
        """Put the first policy in force and see the versions, `v1` by default."""
        self.policy = policy() if first is None else first
        self.policies = {self.policy.hash: self.policy}
        self.scope, self.events, self.at = Scope(), [], at
        self.do(ApplyPolicy(at=at, by=ANA, policy=self.policy))
        for version in versions or ("v1",):
            self.do(AddVersion(at=self.at, version=version))

    events: list[LedgerEvent]

    def do(self, command: Command) -> tuple[LedgerEvent, ...]:
        """Decide one command and keep what follows."""
        events = decide(command, self.scope, self.policy)
        self.scope = apply_events(events, self.scope)
        self.events.extend(events)
        for event in events:
            if isinstance(event, PolicyApplied):
                self.policy = self.policies[event.policy_hash]
        return events

    def after(self, span: timedelta) -> "RolloutDriver":
        """Let time pass."""
        self.at += span
        return self

    def tick(
        self,
        evidence: Mapping[Cell, VersionEvidence] | None = None,
        version: str = "v1",
        **more: VersionEvidence,
    ) -> tuple[LedgerEvent, ...]:
        """Tick a slot later with evidence of `version` by cell, of others in CREEK by name.

        Attempts that begin are left out of what follows: `test_attempts.py` reads them.
        """
        self.after(TICK)
        evidence_by_key = {(cell, version): reading for cell, reading in (evidence or {}).items()}
        evidence_by_key |= {(CREEK, name): reading for name, reading in more.items()}
        command = Tick(
            at=self.at,
            evidence=evidence_by_key,
            pending_policies=self.policies,
            find_answered=self.find_answered,
        )
        return tuple(event for event in self.do(command) if not isinstance(event, AttemptsBegan))

    def begin(self, version: str, cell: Cell = CREEK, share: float = 1.0) -> None:
        """Begin the attempt of a version in a cell, with a share of the risk."""
        began = begin_attempt(version, cell, share, at=self.at)
        self.scope = apply_events([began], self.scope)
        self.events.append(began)

    def edit(self, new: Policy, by: Actor = ANA) -> tuple[LedgerEvent, ...]:
        """Apply a policy, or raise it; answers of `answered` are stored everywhere."""
        self.policies[new.hash] = new
        find_answered = self.find_answered
        command = ApplyPolicy(at=self.at, by=by, policy=new, find_answered=find_answered)
        return tuple(event for event in self.do(command) if not isinstance(event, AttemptsBegan))

    answered: tuple[str, ...] = ()
    """Versions that have answered units within the grace when a policy is edited."""

    def find_answered(self, cells: Collection[Cell]) -> dict[tuple[Cell, str], datetime]:
        """Return the present as the time of the last answered unit."""
        return {(cell, version): self.at for cell in cells for version in self.answered}

    def approve(self, proposal: ProposalState | ProposalRaised | str, *people: Actor) -> None:
        """Let people say yes to what they were shown."""
        name = proposal if isinstance(proposal, str) else _id(proposal)
        for person in people:
            evidence = self.scope.proposals[name].evidence_hash
            self.do(ApproveProposal(at=self.at, by=person, proposal=name, evidence_hash=evidence))

    def open(self, kind: str = "", cell: Cell | None = None) -> ProposalState:
        """Return the one open proposal of a kind, and of a cell if one is named."""
        cells = [
            p
            for p in self.scope.proposals.values()
            if kind in ("", p.kind) and cell in (None, p.cell)
        ]
        (only,) = cells
        return only

    def raised(self, cell: Cell = CREEK, version: str = "v1") -> ProposalState:
        """Tick with met evidence and return the proposal that it raised."""
        self.tick({cell: MET}, version)
        state = self.scope.get_cell_state(cell, version)
        assert state.proposal is not None
        return self.scope.proposals[state.proposal]

    def approved(self, cell: Cell = CREEK, version: str = "v1") -> ProposalState:
        """Raise a proposal and have it approved by everybody it asks."""
        proposal = self.raised(cell, version)
        people = {"operator": [BO, DAN], "safety": [CY]}
        self.approve(proposal, *[people[group].pop() for group in proposal.needs])
        return proposal

    def widen(self, cell: Cell = CREEK, version: str = "v1") -> tuple[LedgerEvent, ...]:
        """Raise, approve and apply the next step of a cell."""
        self.approved(cell, version)
        return self.tick({cell: MET}, version)

    def narrow(self, to: str = "shadow", *cells: Cell, by: Actor = BO) -> tuple[LedgerEvent, ...]:
        """Narrow cells, CREEK by default."""
        return self.do(NarrowCells(at=self.at, by=by, cells=cells or (CREEK,), to=to))

    def stop(self, *cells: Cell, by: Actor = BO, drill: bool = False) -> tuple[LedgerEvent, ...]:
        """Stop cells, CREEK by default."""
        return self.do(StopCells(at=self.at, by=by, cells=cells or (CREEK,), drill=drill))

    def ask_resume(self, stop: str | None = None, by: Actor = BO) -> tuple[LedgerEvent, ...]:
        """Ask for the end of a stop, by default of the only one."""
        name = next(iter(self.scope.stops)) if stop is None else stop
        return self.do(ProposeResume(at=self.at, by=by, stop=name))

    def retire(self, version: str = "v1", by: Actor = BO) -> tuple[LedgerEvent, ...]:
        """Retire a version."""
        return self.do(RetireVersion(at=self.at, by=by, version=version))

    def stage(self, cell: Cell = CREEK, version: str = "v1", at: datetime | None = None) -> str:
        """Return the name of the stage on which a version stands."""
        return self.policy.stage_ids[
            compute_stage_level(self.scope, self.policy, cell, version, at or self.at)
        ]


def supervised(*args: Any, **changes: Any) -> RolloutDriver:
    """Return a rollout whose CREEK stands at supervised."""
    made = RolloutDriver(*args, **changes)
    made.widen()
    return made


def autonomous(*args: Any, **changes: Any) -> RolloutDriver:
    """Return a rollout whose CREEK stands at autonomous."""
    made = supervised(*args, **changes)
    made.widen()
    return made


def eventful() -> RolloutDriver:
    """Return a rollout in which everything that can happen has happened."""
    rollout = autonomous(policy(), "v1", "v2")
    rollout.tick({CREEK: alarm(HEARTBEAT, CHANGE)})
    rollout.tick({CREEK: good(rollout.at - DAY, HEARTBEAT, CHANGE)})
    rollout.tick({CREEK: alarm(QUALITY)})
    rollout.tick(v2=MET)
    rollout.approve(rollout.open("takeover"), BO, DAN)
    rollout.tick(v2=MET)
    lake = rollout.raised(LAKE)
    rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=lake.id, reason="too soon"))
    rollout.raised(LAKE, "v2")
    rollout.after(15 * DAY).tick({LAKE: MET}, "v2")
    rollout.stop(CREEK)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, Actor("eve"))
    rollout.tick()
    rollout.edit(policy(slices=("weather",)))
    rollout.approve(rollout.edit(policy(slices=("weather",), lease=HOUR))[0], BO, CY)
    rollout.tick()
    rollout.after(60 * DAY).tick({CREEK: MET}, "v2")
    rollout.approve(rollout.open("renewal"), BO, DAN)
    rollout.tick()
    rollout.widen(LAKE, "v2")
    rollout.after(90 * DAY).tick()
    rollout.widen(version="v2")
    lake = rollout.approved(LAKE, "v2")
    rollout.tick({CREEK: alarm(QUALITY)}, "v2")
    rollout.approve(lake, BO)
    rollout.widen(version="v2")
    rollout.narrow()
    rollout.do(AcknowledgeIncident(at=rollout.at, by=BO, incident="I-1"))
    rollout.retire("v2")
    return rollout


def replace_cell_state(scope: Scope, cell: Cell, version: str, state: CellState) -> Scope:
    """Return the scope with one cell's state replaced."""
    cells, holders = dict(scope.cells), dict(scope._holders)
    set_cell_state(cells, holders, cell, version, state)
    return replace(scope, cells=cells, _holders=holders)


def kinds(events: tuple[LedgerEvent, ...]) -> list[str]:
    """Return the names of events, in order."""
    return [type(event).__name__ for event in events]


def _id(proposal: ProposalState | ProposalRaised) -> str:
    return proposal.id if isinstance(proposal, ProposalState) else proposal.proposal
