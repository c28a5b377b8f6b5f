"""Commands in, events out: the one place where a rollout's scope is decided.

`decide` never mutates what it is given, never logs, never asks the time. Narrowing comes before
everything else and is never refused for the state of things.
"""

from datetime import UTC, timedelta
from functools import singledispatch

from rollout.core.commands import (
    Acknowledge,
    ApplyPolicy,
    Approve,
    AskResume,
    ByPerson,
    Command,
    Narrow,
    RaiseTakeover,
    Reject,
    Retire,
    See,
    StopCells,
    Tick,
)
from rollout.core.draft import Draft
from rollout.core.editing import apply_approved_policies, apply_policy
from rollout.core.errors import (
    AlreadyApproved,
    EvidenceMoved,
    MachineKey,
    NotEligible,
    NotNarrower,
    OwnProposal,
    PolicyRefused,
    ProposalClosed,
    UnknownCell,
    UnknownProposal,
    UnknownVersion,
)
from rollout.core.events import (
    Approved,
    Event,
    IncidentAcknowledged,
    IncidentOpened,
    Lapsed,
    Narrowed,
    ProposalRejected,
    VersionRetired,
    VersionSeen,
)
from rollout.core.gates import read_gate
from rollout.core.guarding import alarms, clears, void_of
from rollout.core.known import Known
from rollout.core.places import Cell
from rollout.core.policy import Policy
from rollout.core.proposing import (
    approved_ones,
    open_ones,
    raise_met,
    raise_proposal,
    reads_every_gate,
    takeover_rungs,
)
from rollout.core.scope import (
    ENGINE,
    Approval,
    CellState,
    Grant,
    Proposal,
    Scope,
    filled,
)
from rollout.core.stopping import raise_resume, stop_cells

CLOCK_TOLERANCE = timedelta(minutes=1)
MOST_OPEN_VERSIONS = 20


def decide(command: Command, scope: Scope, policy: Policy) -> tuple[Event, ...]:
    """Say what follows from `command`; an empty tuple means that nothing does.

    Args:
        command: what is asked, with its instant.
        scope: the fold of the rollout's ledger.
        policy: the policy in force; for `ApplyPolicy` as the first command, the new one.

    Returns:
        The events, in order. Folding them into `scope` gives the scope afterwards.

    Raises:
        Refusal: a person asked for something that can't be; its text says what to do next.
        ValueError: the command's time has no zone.
    """
    if command.at.utcoffset() is None:
        raise ValueError(f"{command.at.isoformat()} has no time zone; give an aware datetime")
    at = command.at.astimezone(UTC)  # spans are counted on no site's clock
    at = at if scope.at is None else max(at, scope.at)
    draft = Draft(scope, policy, at)
    _decide(command, draft)
    return tuple(draft.events)


@singledispatch
def _decide(command: Command, draft: Draft) -> None:
    raise NotImplementedError(f"no rule for {type(command).__name__} at {draft.at}")


@_decide.register
def _(command: Tick, draft: Draft) -> None:
    alarms(draft, command)
    clears(draft, command)
    _lapses(draft)
    open_ones(draft, command)
    if draft.at > command.at + CLOCK_TOLERANCE:
        _clock_behind(draft, command)
        return
    if apply_approved_policies(draft, command):
        return  # the evidence was counted under the policy before
    approved_ones(draft)
    raise_met(draft, command)


def _clock_behind(draft: Draft, command: Tick) -> None:
    behind = draft.at - command.at
    draft.emit(
        IncidentOpened(
            at=draft.at,
            by=ENGINE,
            incident=f"I-{draft.scope.incidents + 1}",
            kind="clock-behind",
            did="nothing raised or applied",
            reason=f"the clock is {behind} behind the ledger's last entry",
        )
    )


def _lapses(draft: Draft) -> None:
    """Note grants that have ended, with what stood on them; `stage_at` knew already."""
    for (cell, version), state in list(draft.scope.cells.items()):
        ended = next((g for g in state.grants if draft.at >= g.until), None)
        if ended is None:
            continue
        if _builds_on(draft, state, ended):
            void_of(draft, state, f"{cell}: the grant of {ended.stage} has ended")
        draft.emit(
            Lapsed(
                at=draft.at,
                by=ENGINE,
                cell=cell,
                version=version,
                stage=ended.stage,
                until=ended.until,
            )
        )


def _builds_on(draft: Draft, state: CellState, ended: Grant) -> bool:
    """Say whether the open proposal stands on the ended grant; one for a rung below goes on."""
    stages = [grant.stage for grant in state.grants]
    below = stages[: stages.index(ended.stage)]
    return state.proposal is not None and draft.scope.proposals[state.proposal].to not in below


@_decide.register
def _(command: ApplyPolicy, draft: Draft) -> None:
    _only_people(command)
    apply_policy(command, draft)


@_decide.register
def _(command: See, draft: Draft) -> None:
    versions = draft.scope.versions
    if command.version in versions:
        return
    if sum(not v.retired for v in versions.values()) >= MOST_OPEN_VERSIONS:
        raise PolicyRefused(
            f"{MOST_OPEN_VERSIONS} versions are open; retire one before {command.version} is used "
            "(in a replay: leave one out of the file)"
        )
    draft.emit(VersionSeen(at=draft.at, by=ENGINE, version=command.version))


@_decide.register
def _(command: Retire, draft: Draft) -> None:
    _only_people(command)
    version = draft.scope.versions.get(command.version)
    if version is None:
        raise UnknownVersion(_no_version(draft.scope, command.version))
    if version.retired:
        return
    for (_cell, name), state in list(draft.scope.cells.items()):
        if name == command.version:
            void_of(draft, state, f"{name} is retired")
    name = command.by.name
    draft.emit(VersionRetired(at=draft.at, by=name, version=command.version, reason=command.reason))


@_decide.register
def _(command: Narrow, draft: Draft) -> None:
    """Pop every grant above `to`. Repeating it answers nothing more: it holds already."""
    _only_people(command)
    if command.to not in draft.policy.rungs:
        raise NotNarrower(f"{command.to} is no stage; name one of {', '.join(draft.policy.rungs)}")
    cells = _known_cells(command.cells, draft.policy)
    if not any(_above(draft, cell, command.to) for cell in cells):
        _refuse_higher(command, draft)
    for cell in cells:
        _narrow_by_person(command, draft, cell)


def _above(draft: Draft, cell: Cell, to: str) -> bool:
    holder = draft.scope.holder(cell)
    if holder is None:
        return False
    rung = draft.policy.rungs.index(to)
    return len(draft.scope.state(cell, holder).grants) > rung


def _refuse_higher(command: Narrow, draft: Draft) -> None:
    """Refuse a "narrowing" that would have to widen: the stage named lies above every cell's."""
    rung = draft.policy.rungs.index(command.to)
    if rung and all(_rung_of(draft, cell) < rung for cell in command.cells):
        raise NotNarrower(f"no cell named stands above {command.to}; widening needs a proposal")


def _rung_of(draft: Draft, cell: Cell) -> int:
    holder = draft.scope.holder(cell)
    return 0 if holder is None else len(draft.scope.state(cell, holder).grants)


def _narrow_by_person(command: Narrow, draft: Draft, cell: Cell) -> None:
    for (other, version), state in list(draft.scope.cells.items()):
        if other == cell:
            void_of(draft, state, f"{command.by.name} narrowed {cell}")
            if _above(draft, cell, command.to) and state.grants:
                draft.emit(
                    Narrowed(
                        at=draft.at,
                        by=command.by.name,
                        cell=cell,
                        version=version,
                        came_from=state.grants[-1].stage,
                        to=command.to,
                        reason=command.reason,
                    )
                )


@_decide.register
def _(command: StopCells, draft: Draft) -> None:
    _only_people(command)
    _known_cells(command.cells, draft.policy)
    stop_cells(command, draft)


@_decide.register
def _(command: AskResume, draft: Draft) -> None:
    _only_people(command)
    stop = draft.scope.stops.get(command.stop)
    if stop is None:
        held = ", ".join(draft.scope.stops) or "none"
        raise UnknownProposal(f"no stop {command.stop} holds; those that do: {held}")
    raise_resume(command, stop, draft)


@_decide.register
def _(command: Approve, draft: Draft) -> None:
    """Count one person's yes, bound to the evidence that the person was shown."""
    _only_people(command)
    proposal = _open(draft.scope, command.proposal)
    _may_approve(command, proposal, draft)
    draft.emit(
        Approved(
            at=draft.at,
            by=command.by.name,
            proposal=proposal.id,
            groups=command.by.groups,
            evidence=proposal.evidence,
        )
    )


def _may_approve(command: Approve, proposal: Proposal, draft: Draft) -> None:
    name = command.by.name
    if command.evidence != proposal.evidence:
        raise EvidenceMoved(f"{proposal.id} rests on other evidence than was shown; read it again")
    if draft.at >= proposal.expires_at:
        raise ProposalClosed(f"{proposal.id} has expired; it is raised again if its gate holds")
    if name == proposal.raised_by:
        raise OwnProposal(f"{name} raised {proposal.id}; ask another person to approve it")
    if any(approval.by == name for approval in proposal.approvals):
        raise AlreadyApproved(f"{name} has approved {proposal.id}; another person has to")
    yes = Approval(by=name, groups=command.by.groups, at=draft.at)
    if filled(proposal.needs, (*proposal.approvals, yes)) == filled(
        proposal.needs, proposal.approvals
    ):
        asked = ", ".join(proposal.needs)
        raise NotEligible(
            f"{proposal.id} asks for {asked}; {name} stands in no group it still needs"
        )


@_decide.register
def _(command: Reject, draft: Draft) -> None:
    _only_people(command)
    if command.proposal not in draft.scope.proposals:
        if _was_raised(draft.scope, command.proposal):
            return  # closed already: what a no asks for holds
        _open(draft.scope, command.proposal)
    draft.emit(
        ProposalRejected(
            at=draft.at,
            by=command.by.name,
            proposal=command.proposal,
            quiet_until=draft.at + draft.policy.after_rejection,
            reason=command.reason,
        )
    )


@_decide.register
def _(command: RaiseTakeover, draft: Draft) -> None:
    """Raise a takeover to a lower stage than the acting version holds, if the policy allows it."""
    _only_people(command)
    (cell,) = _known_cells((command.cell,), draft.policy)
    rung = _takeover_rung(command, draft)
    known = command.evidence.get((cell, command.version), Known())
    state = draft.scope.state(cell, command.version)
    reading = read_gate(draft.policy, cell, rung, state.attempt, known.attempt, known.attempt)
    if not reading.met or not reads_every_gate(draft.policy, cell, rung, state.attempt, known):
        lacks = "; ".join(reading.lacks) or "its evidence does not reach the gate's lines"
        raise NotEligible(f"{command.version} may not take over {cell} yet: {lacks}")
    raise_proposal(draft, "takeover", cell, command.version, rung, reading, by=command.by.name)


def _takeover_rung(command: RaiseTakeover, draft: Draft) -> int:
    scope, policy = draft.scope, draft.policy
    holder = scope.holder(command.cell)
    version = scope.versions.get(command.version)
    if version is None:
        raise UnknownVersion(_no_version(scope, command.version))
    if version.retired:
        raise NotEligible(f"{command.version} is retired; a version that is served may take over")
    if holder is None or holder == command.version:
        raise NotEligible(f"no other version acts in {command.cell}; the gate widens it by itself")
    if scope.state(command.cell, command.version).proposal is not None:
        raise AlreadyApproved(
            f"a proposal of {command.version} is open there; approve or reject it"
        )
    allows = takeover_rungs(policy, scope.state(command.cell, holder), draft.at)
    rung = policy.rungs.index(command.to) if command.to in policy.rungs else 0
    if rung not in allows or rung > policy.ceiling(command.cell, draft.at):
        allowed = ", ".join(policy.rungs[r] for r in allows) or "none"
        raise NotEligible(f"a takeover of {command.cell} may go to {allowed}, not to {command.to}")
    return rung


@_decide.register
def _(command: Acknowledge, draft: Draft) -> None:
    _only_people(command)
    name = command.by.name
    draft.emit(
        IncidentAcknowledged(at=draft.at, by=name, incident=command.incident, note=command.note)
    )


def _only_people(command: ByPerson) -> None:
    if command.by.machine and not isinstance(command, StopCells | Narrow | Reject):
        raise MachineKey(f"{command.by.name} is a key; only people may do this: sign in and repeat")


def _known_cells(cells: tuple[Cell, ...], policy: Policy) -> tuple[Cell, ...]:
    unknown = [cell for cell in cells if cell not in policy.known]
    if unknown:
        raise UnknownCell(f"the policy has no {unknown[0]}; sites and windows stand in the policy")
    return cells


def _open(scope: Scope, proposal: str) -> Proposal:
    found = scope.proposals.get(proposal)
    if found is not None:
        return found
    if _was_raised(scope, proposal):
        raise ProposalClosed(f"{proposal} is closed: applied, rejected, voided or expired")
    listed = ", ".join(scope.proposals) or "none"
    raise UnknownProposal(f"there is no proposal {proposal}; open ones: {listed}")


def _was_raised(scope: Scope, proposal: str) -> bool:
    number = proposal.removeprefix("P-")
    return proposal.startswith("P-") and number.isdigit() and 1 <= int(number) <= scope.raised


def _no_version(scope: Scope, version: str) -> str:
    return (
        f"no prediction of {version} was ever seen; versions: {', '.join(scope.versions) or 'none'}"
    )
