"""Commands in, events out: every decision about a rollout's scope.

`decide` is pure: it changes no argument, writes no log and reads no clock. Narrowing comes first
and is never refused because of the rollout's state.

A tick voids and expires open proposals, and applies approved ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC
from functools import singledispatch
from typing import Any

from rollout.engine.decide.approvals import approve, reject
from rollout.engine.decide.commands import (
    AcceptRestore,
    AcknowledgeIncident,
    Actor,
    ActorCommand,
    AddVersion,
    ApplyPolicy,
    ApproveProposal,
    BeginNextAttempt,
    CheckClock,
    Command,
    NarrowCells,
    OpenIncident,
    ProposeRenewal,
    ProposeResume,
    ProposeTakeover,
    RejectProposal,
    RetireVersion,
    StopAfterRollback,
    StopCells,
    StopChangedCells,
    Tick,
)
from rollout.engine.decide.guards import (
    accept_restore,
    apply_alarms,
    apply_clears,
    begin_attempts,
    stop_after_rollback,
)
from rollout.engine.decide.incidents import (
    acknowledge_incident,
    check_clock,
    is_clock_behind,
    open_clock_incident,
    open_incident,
    record_familiar_values,
    record_unfamiliar_values,
    stop_changed_cells,
)
from rollout.engine.decide.policy_changes import (
    apply_approved_policies,
    apply_policy,
    find_continued_version,
    use_first_name,
)
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.proposals import (
    compute_gate_hash,
    get_version,
    list_proposal_facts,
    list_proposal_holds,
    list_takeover_levels,
    propose_renewal,
    propose_takeover,
    raise_due_proposals,
)
from rollout.engine.decide.scope import (
    NOTHING_AGAINST,
    CellState,
    Grant,
    ProposalState,
    Scope,
    compute_held_level,
)
from rollout.engine.decide.stops import apply_stop, propose_resume
from rollout.engine.decide.widening_steps import (
    WideningStep,
    find_acting_index,
    get_wave,
    list_widening_steps,
)
from rollout.engine.events import (
    ENGINE,
    GrantExpired,
    LedgerEvent,
    ProposalExpired,
    ProposalHeld,
    Renewed,
    Resumed,
    TakenOver,
    VersionFirstUsed,
    VersionRenamed,
    VersionRetired,
    Widened,
)
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.errors import (
    NotAllowedError,
    NotEligibleError,
    NotNarrowerError,
    PolicyRefusedError,
    UnknownCellError,
    UnknownProposalError,
    UserRequiredError,
)
from rollout.kernel.facts import (
    EDITED_GATE,
    ENDED_GRANT,
    LOST_GATE,
    LOST_STAGE,
    LOW_CEILING,
    NEXT_ATTEMPT,
    NO_HOLDER,
    OTHER_FLOOR,
    OTHER_HOLDER_STAGE,
    OTHER_STEP,
    OTHER_VERSION,
    OWN_HOLDER,
    RAISED_FLOOR,
    REPLACED,
    RETIRED,
    SPOKEN_AGAINST,
    TURNED,
    USER_NARROWED,
)
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence, find_floor_index
from rollout.kernel.policy.gates import GateReading, read_gate, read_renewal
from rollout.kernel.policy.policy import Policy


def update_open_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Expire overdue proposals and void those whose evidence has turned."""
    for proposal in list(pending.scope.proposals.values()):
        if pending.at >= proposal.expires_at:
            pending.emit(ProposalExpired(at=pending.at, by=ENGINE, proposal=proposal.id))
        elif (cause := _find_void_cause(pending, tick, proposal)) is not None:
            pending.void_proposal(proposal.id, cause)
        elif incidents := _find_voiding_incidents(pending, proposal):
            pending.void_proposal(
                proposal.id, SPOKEN_AGAINST, proposal.version, incidents=incidents
            )


def _find_voiding_incidents(pending: PendingEvents, proposal: ProposalState) -> tuple[str, ...]:
    """Return the incidents that void a proposal whose approvals are not complete."""
    spoken = pending.scope.spoken_against.get(proposal.version)
    if spoken is None or proposal.is_approved or not proposal.unconfirmed:
        return ()
    earlier = pending.initial_scope.spoken_against.get(proposal.version, NOTHING_AGAINST)
    # of this tick's voids the first must not keep the others from theirs
    return replace(spoken, voided_at=earlier.voided_at).list_voiding(proposal.unconfirmed)


def _find_void_cause(pending: PendingEvents, tick: Tick, proposal: ProposalState) -> str | None:
    """Return why a cell's proposal is void, or None."""
    if proposal.cell is None:
        return None
    if cause := _find_broken_rule(pending, proposal, proposal.cell):
        return cause
    stage_level = pending.policy.stage_ids.index(proposal.to)
    if cause := _find_grant_mismatch(pending, proposal, stage_level):
        return cause
    evidence = tick.evidence.get((proposal.cell, proposal.version))
    reading = (
        None if evidence is None else _read_proposal_gate(pending, proposal, stage_level, evidence)
    )
    return None if reading is None or not reading.has_turned else TURNED


def _find_broken_rule(pending: PendingEvents, proposal: ProposalState, cell: Cell) -> str | None:
    """Return which rule no longer fits the proposal, or None."""
    policy = pending.policy
    stage_level = policy.stage_ids.index(proposal.to) if proposal.to in policy.stage_ids else 0
    if (
        cell not in policy.cell_set
        or stage_level == 0
        or policy.find_gate(stage_level, cell) is None
    ):
        return LOST_GATE
    if compute_gate_hash(policy, stage_level, cell) != proposal.gate:
        return EDITED_GATE
    if policy.compute_ceiling(cell, pending.at) < stage_level:
        return LOW_CEILING
    return RETIRED if pending.scope.versions[proposal.version].retired else None


def _find_grant_mismatch(
    pending: PendingEvents, proposal: ProposalState, stage_level: int
) -> str | None:
    """Return why the proposal no longer fits the grants that it builds on, or None."""
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    floor_index = find_floor_index(pending.policy.evidence, next(iter(proposal.floors), ""))
    step = WideningStep(stage_level, floor_index)
    if proposal.rules.replaces_version:
        return _find_holder_mismatch(pending, proposal.cell, proposal.version, step)
    state = pending.scope.get_cell_state(proposal.cell, proposal.version)
    if proposal.rules.extends_grant:
        fits = compute_held_level(pending.policy, state, pending.at) >= stage_level
        return None if fits else LOST_STAGE
    if pending.scope.get_holder(proposal.cell) not in (None, proposal.version):
        return OTHER_VERSION
    steps = list_widening_steps(pending.policy, state, pending.at)
    if any(other.stage_level == stage_level for other in steps):
        return None if step in steps else OTHER_FLOOR
    return OTHER_STEP


def _find_holder_mismatch(
    pending: PendingEvents, cell: Cell, version: str, step: WideningStep
) -> str | None:
    """Return why a takeover no longer fits the acting version, or None."""
    scope, policy = pending.scope, pending.policy
    holder = scope.get_holder(cell)
    if holder is None:
        return NO_HOLDER
    if holder == version:
        return OWN_HOLDER
    holder_state = scope.get_cell_state(cell, holder)
    if step.floor_index < find_acting_index(policy, holder_state):
        return RAISED_FLOOR
    fits = step.stage_level in list_takeover_levels(policy, holder_state, pending.at)
    return None if fits else OTHER_HOLDER_STAGE


def _read_proposal_gate(
    pending: PendingEvents, proposal: ProposalState, stage_level: int, evidence: VersionEvidence
) -> GateReading | None:
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    state = pending.scope.get_cell_state(proposal.cell, proposal.version)
    policy, cell = pending.policy, proposal.cell
    evidence = evidence.get_floor(
        find_floor_index(policy.evidence, next(iter(proposal.floors), ""))
    )
    if proposal.rules.extends_grant:
        counts = evidence.spans.get(proposal.to, EvidenceCounts())
        return read_renewal(policy, cell, stage_level, counts)
    counts_since_entry = evidence.attempt if proposal.rules.replaces_version else evidence.entered
    return read_gate(
        policy, cell, stage_level, state.risk_share, evidence.attempt, counts_since_entry
    )


def apply_approved_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Apply approved proposals that nothing holds back, earlier waves first.

    In an observing policy only the resume of a stop without grants is applied, so that a rehearsed
    stop can be ended.
    """
    approved_proposals = [
        candidate
        for candidate in pending.scope.proposals.values()
        if candidate.is_approved and not candidate.rules.changes_policy
    ]
    ordered_proposals = sorted(
        approved_proposals,
        key=lambda candidate: (
            0 if candidate.cell is None else get_wave(pending.policy, candidate.cell)
        ),
    )
    for proposal in ordered_proposals:
        if proposal.id in pending.scope.proposals and not _is_held_back(pending, tick, proposal):
            pending.emit(_build_applied_event(pending, proposal))
            _void_rival_proposals(pending, proposal)


def _is_held_back(pending: PendingEvents, tick: Tick, proposal: ProposalState) -> bool:
    """Return whether this tick's narrowing or anything else holds it back."""
    narrowed_cells = [e.list_cells() for e in pending.events if e.narrows]
    if any(proposal.cell in cells for cells in narrowed_cells):
        return True
    if list_proposal_holds(pending.scope, pending.policy, proposal, pending.at):
        return True
    if proposal.cell is None or not proposal.rules.gives_more:
        return False
    fresh = tick.fresh.get((proposal.cell, proposal.version))
    facts = () if fresh is None else list_proposal_facts(pending.policy, proposal, fresh)
    if facts and not proposal.is_held:
        pending.emit(
            ProposalHeld(
                at=pending.at,
                by=ENGINE,
                proposal=proposal.id,
                fresh_facts=facts,
            )
        )
    return bool(facts)


def _build_applied_event(pending: PendingEvents, proposal: ProposalState) -> LedgerEvent:
    at, cell, version = pending.at, proposal.cell, proposal.version
    if cell is None:
        return Resumed(at=at, by=ENGINE, proposal=proposal.id, stop=proposal.about)
    stage_level = pending.policy.stage_ids.index(proposal.to)
    until = at + pending.policy.get_stage(stage_level).lasts
    shared: dict[str, Any] = {
        "at": at, "by": ENGINE, "proposal": proposal.id, "cell": cell, "version": version,
    }  # fmt: skip
    if proposal.rules.extends_grant:
        return Renewed(**shared, stage=proposal.to, until=until)
    if not proposal.rules.replaces_version:
        floors = proposal.floors
        return Widened(**shared, to_stage=proposal.to, until=until, confidence_floors=floors)
    stages = pending.policy.stages[:stage_level]
    replaced = pending.scope.get_holder(cell)
    assert replaced is not None  # noqa: S101 - a takeover without a holder was voided before
    return TakenOver(
        **shared,
        replaced_version=replaced,
        to_stage=proposal.to,
        stages=tuple(stage.id for stage in stages),
        grant_ends=tuple(pending.at + stage.lasts for stage in stages),
        confidence_floors=proposal.floors,
    )


def _void_rival_proposals(pending: PendingEvents, applied_proposal: ProposalState) -> None:
    """Void other versions' proposals for the cell."""
    if not applied_proposal.rules.gives_more:
        return
    for rival in list(pending.scope.proposals.values()):
        if rival.cell == applied_proposal.cell and rival.version != applied_proposal.version:
            pending.void_proposal(rival.id, REPLACED, applied_proposal.id)


def begin_next_attempt(command: BeginNextAttempt, pending: PendingEvents) -> None:
    """End a version's attempts that have begun in some cells; grants stay.

    The next one takes the next share of the risk, and counts only units that occur from now on.
    """
    version = get_version(pending.scope, command.version).id
    cells = [cell for cell in command.cells if pending.scope.has_begun(cell, version)]
    if not command.reason.strip():
        raise NotEligibleError("the next attempt costs a share of the year's risk: give a reason")
    if not cells:
        raise NotEligibleError(f"no unit of {version} counts there yet: its attempt begins by then")
    for cell in cells:
        state = pending.scope.get_cell_state(cell, version)
        pending.void_proposal(state.proposal, NEXT_ATTEMPT, by=command.by.name)
        stage = state.grants[-1].stage if state.grants else SHADOW
        pending.narrow(command, cell, version, stage, stage, restart=True)


MAX_OPEN_VERSIONS = 20


def decide(command: Command, scope: Scope, policy: Policy) -> tuple[LedgerEvent, ...]:
    """Return the events that follow from `command`; () if nothing does.

    Args:
        scope: the state after the rollout's ledger.
        policy: the policy in force; for `ApplyPolicy` as the first command, the new one.

    Raises:
        RefusalError: the command is refused; the text gives the next step.
        ValueError: the command's time has no timezone, or its incident kind is unknown.
    """
    if command.at.utcoffset() is None:
        raise ValueError(f"{command.at.isoformat()} has no time zone; give an aware datetime")
    if isinstance(command, ActorCommand):
        _check_actor_name(command.by)
        _require_user(command)
    at = command.at.astimezone(UTC)  # spans must not depend on a site's clock
    at = at if scope.at is None else max(at, scope.at)
    pending = PendingEvents(scope, policy, at, command.slot if isinstance(command, Tick) else None)
    _apply_command(use_first_name(command, scope), pending)
    return tuple(pending.events)


@singledispatch
def _apply_command(command: Command, pending: PendingEvents) -> None:
    raise NotImplementedError(f"no rule for {type(command).__name__} at {pending.at}")


RULES: Mapping[type[Command], Callable[..., None]] = {
    ApplyPolicy: apply_policy,
    ApproveProposal: approve,
    RejectProposal: reject,
    BeginNextAttempt: begin_next_attempt,
    CheckClock: check_clock,
    OpenIncident: open_incident,
    AcknowledgeIncident: acknowledge_incident,
    StopAfterRollback: stop_after_rollback,
    AcceptRestore: accept_restore,
    StopChangedCells: stop_changed_cells,
}
for kind, apply_kind in RULES.items():
    _apply_command.register(kind, apply_kind)


@_apply_command.register
def _(command: Tick, pending: PendingEvents) -> None:
    begin_attempts(pending, command)
    apply_alarms(pending, command)
    apply_clears(pending, command)
    record_unfamiliar_values(pending, command)
    _expire_grants(pending)
    update_open_proposals(pending, command)
    if is_clock_behind(pending.at, command.at):
        if not command.narrow_only:  # else clocks disagree, and an incident says so
            open_clock_incident(pending, command.at, pending.at)
        return
    if not command.narrow_only and apply_approved_policies(pending, command):
        return  # the evidence was counted under the policy before
    record_familiar_values(pending, command)
    if command.narrow_only:
        return
    apply_approved_proposals(pending, command)
    raise_due_proposals(pending, command)


def _expire_grants(pending: PendingEvents) -> None:
    """Record ended grants and those above; `compute_stage_level` ignores them already."""
    at = pending.at
    expired_grants: dict[tuple[Cell, str], tuple[CellState, Grant]] = {}
    for key, state in pending.scope.cells.items():  # all cells at each tick: nothing is called
        for grant in state.grants:
            if at >= grant.until:
                expired_grants.setdefault(key, (state, grant))
    for (cell, version), (state, expired_grant) in expired_grants.items():
        if _depends_on_grant(pending, state, expired_grant):
            pending.void_proposal(state.proposal, ENDED_GRANT, expired_grant.stage)
        pending.emit(
            GrantExpired(
                at=pending.at,
                by=ENGINE,
                cell=cell,
                version=version,
                stage=expired_grant.stage,
                until=expired_grant.until,
            )
        )


def _depends_on_grant(pending: PendingEvents, state: CellState, expired_grant: Grant) -> bool:
    """Return whether the open proposal depends on the ended grant."""
    stages = [grant.stage for grant in state.grants]
    stages_below = stages[: stages.index(expired_grant.stage)]
    return (
        state.proposal is not None
        and pending.scope.proposals[state.proposal].to not in stages_below
    )


@_apply_command.register
def _(command: AddVersion, pending: PendingEvents) -> None:
    versions = pending.scope.versions
    if command.version in versions or command.version in pending.scope.aliases:
        return
    if continued := find_continued_version(command, pending.scope, pending.policy):
        pending.emit(
            VersionRenamed(
                at=pending.at,
                by=ENGINE,
                version=command.version,
                continues=continued,
                content=command.content,
            )
        )
        return
    if sum(not v.retired for v in versions.values()) >= MAX_OPEN_VERSIONS:
        raise PolicyRefusedError(
            f"{MAX_OPEN_VERSIONS} versions are open; retire one before {command.version} is used "
            "(in a replay: leave one out of the file)"
        )
    pending.emit(
        VersionFirstUsed(at=pending.at, by=ENGINE, version=command.version, content=command.content)
    )


@_apply_command.register
def _(command: RetireVersion, pending: PendingEvents) -> None:
    if get_version(pending.scope, command.version).retired:
        return
    for (_cell, name), state in list(pending.scope.cells.items()):
        if name == command.version:
            pending.void_proposal(state.proposal, RETIRED)
    name = command.by.name
    pending.emit(
        VersionRetired(at=pending.at, by=name, version=command.version, reason=command.reason)
    )


@_apply_command.register
def _(command: NarrowCells, pending: PendingEvents) -> None:
    """Remove every grant above `to`; a repeat has no effect."""
    if command.to not in pending.policy.stage_ids:
        raise NotNarrowerError(
            f"{command.to} is no stage; name one of {', '.join(pending.policy.stage_ids)}"
        )
    cells = _check_cells(command.cells, pending.policy)
    _check_narrows(command, pending)
    for cell in cells:
        _narrow_cell(command, pending, cell)


def _check_narrows(command: NarrowCells, pending: PendingEvents) -> None:
    """Raise an error if the named stage lies above every cell's."""
    stage_level = pending.policy.stage_ids.index(command.to)
    if stage_level and all(_count_grants(pending, cell) < stage_level for cell in command.cells):
        raise NotNarrowerError(f"every named cell is below {command.to}; widening needs a proposal")


def _count_grants(pending: PendingEvents, cell: Cell) -> int:
    """Return the number of grants that the cell's holder has."""
    holder = pending.scope.get_holder(cell)
    return 0 if holder is None else len(pending.scope.get_cell_state(cell, holder).grants)


def _narrow_cell(command: NarrowCells, pending: PendingEvents, cell: Cell) -> None:
    stage_level = pending.policy.stage_ids.index(command.to)
    for version in pending.scope.versions:
        state = pending.scope.cells.get((cell, version))
        if state is not None:
            pending.void_proposal(state.proposal, USER_NARROWED, by=command.by.name)
            if state.grants and _count_grants(pending, cell) > stage_level:
                pending.narrow(command, cell, version, state.grants[-1].stage, command.to)


@_apply_command.register
def _(command: StopCells, pending: PendingEvents) -> None:
    _check_cells(command.cells, pending.policy)
    apply_stop(command, pending)


@_apply_command.register
def _(command: ProposeResume, pending: PendingEvents) -> None:
    stop = pending.scope.stops.get(command.stop)
    if stop is None:
        open_stop_ids = ", ".join(pending.scope.stops) or "none"
        raise UnknownProposalError(f"no stop {command.stop} holds; those that do: {open_stop_ids}")
    propose_resume(command, stop, pending)


@_apply_command.register
def _(command: ProposeTakeover, pending: PendingEvents) -> None:
    _check_cells((command.cell,), pending.policy)
    propose_takeover(command, pending)


@_apply_command.register
def _(command: ProposeRenewal, pending: PendingEvents) -> None:
    _check_cells((command.cell,), pending.policy)
    propose_renewal(command, pending)


def _check_actor_name(actor: Actor) -> None:
    """Raise an error for an empty or unprintable name, or the engine's."""
    name = actor.name
    if not name.strip() or not name.isprintable():
        raise NotAllowedError(
            f"{name!r} is not a valid name; use letters, digits and printable signs"
        )
    if name.strip().casefold() == ENGINE:
        raise NotAllowedError(f"{name!r} is the engine's name; use another one")


def _require_user(command: ActorCommand) -> None:
    if command.by.is_service_account and not isinstance(
        command, StopCells | NarrowCells | RejectProposal
    ):
        raise UserRequiredError(
            f"{command.by.name} is a service account; only users may do this: sign in and repeat"
        )


def _check_cells(cells: tuple[Cell, ...], policy: Policy) -> tuple[Cell, ...]:
    unknown = [cell for cell in cells if cell not in policy.cell_set]
    if unknown:
        raise UnknownCellError(f"the policy has no cell {unknown[0]}; use its sites and windows")
    return cells
