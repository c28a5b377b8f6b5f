"""Commands in, events out: every decision about a rollout's scope.

`decide` is pure: it changes no argument, writes no log and reads no clock. Narrowing comes first
and is never refused because of the rollout's state.
"""

from datetime import UTC
from functools import singledispatch

from rollout.core.calendar.sites import Cell
from rollout.core.errors import (
    NotAllowedError,
    NotNarrowerError,
    PolicyRefusedError,
    UnknownCellError,
    UnknownProposalError,
    UserRequiredError,
)
from rollout.core.policy.policy import Policy
from rollout.core.scope.approvals import approve, reject
from rollout.core.scope.attempts import accept_restore, begin_attempts, stop_after_rollback
from rollout.core.scope.clock_correction import check_clock, is_clock_behind, open_clock_incident
from rollout.core.scope.commands import (
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
from rollout.core.scope.events import (
    ENGINE,
    GrantExpired,
    LedgerEvent,
    VersionFirstUsed,
    VersionRenamed,
    VersionRetired,
)
from rollout.core.scope.guards import apply_alarms, apply_clears
from rollout.core.scope.incidents import (
    acknowledge_incident,
    open_incident,
    stop_changed_cells,
)
from rollout.core.scope.new_values import (
    record_familiar_values,
    record_unfamiliar_values,
)
from rollout.core.scope.open_proposals import apply_approved_proposals, update_open_proposals
from rollout.core.scope.operator_requests import (
    begin_next_attempt,
    propose_renewal,
    propose_takeover,
)
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.policy_changes import apply_approved_policies, apply_policy
from rollout.core.scope.proposals import (
    get_version,
    raise_due_proposals,
)
from rollout.core.scope.renames import find_continued_version, use_first_name
from rollout.core.scope.scope import CellState, Grant, Scope
from rollout.core.scope.stop_targets import apply_stop, propose_resume
from rollout.kernel.readings import ENDED_GRANT, RETIRED, USER_NARROWED

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
    slot = command.slot if isinstance(command, Tick) else None
    pending = PendingEvents(scope, policy, at, slot)
    _apply_command(use_first_name(command, scope), pending)
    return tuple(pending.events)


@singledispatch
def _apply_command(command: Command, pending: PendingEvents) -> None:
    raise NotImplementedError(f"no rule for {type(command).__name__} at {pending.at}")


_apply_command.register(ApplyPolicy, apply_policy)
_apply_command.register(ApproveProposal, approve)
_apply_command.register(RejectProposal, reject)
_apply_command.register(BeginNextAttempt, begin_next_attempt)
_apply_command.register(CheckClock, check_clock)
_apply_command.register(OpenIncident, open_incident)
_apply_command.register(AcknowledgeIncident, acknowledge_incident)
_apply_command.register(StopAfterRollback, stop_after_rollback)
_apply_command.register(AcceptRestore, accept_restore)
_apply_command.register(StopChangedCells, stop_changed_cells)


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
