"""Commands in, events out: the one place where a rollout's scope is decided.

`decide` never mutates what it is given, never logs, never asks the time. Narrowing comes before
everything else and is never refused for the state of things.
"""

from dataclasses import replace
from datetime import UTC
from functools import singledispatch

from rollout.core.calendar.sites import Cell
from rollout.core.errors import (
    MachineKey,
    NotAllowed,
    NotNarrower,
    PolicyRefused,
    UnknownCell,
    UnknownProposal,
)
from rollout.core.policy.policy import Policy
from rollout.core.scope.approvals import approve, reject
from rollout.core.scope.clock_correction import corrected, is_behind, raise_correction
from rollout.core.scope.commands import (
    Acknowledge,
    ApplyPolicy,
    Approve,
    AskRenewal,
    AskResume,
    ByPerson,
    Command,
    CorrectClock,
    Narrow,
    OpenIncident,
    Person,
    RaiseTakeover,
    Reject,
    Retire,
    See,
    StopCells,
    Tick,
)
from rollout.core.scope.events import (
    Event,
    GrantExpired,
    Narrowed,
    VersionFirstUsed,
    VersionRetired,
)
from rollout.core.scope.guards import alarms, clears, void_of
from rollout.core.scope.incidents import acknowledge, clock_is_behind, open_incident
from rollout.core.scope.manual_proposals import raise_renewal, raise_takeover
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.policy_changes import apply_approved_policies, apply_policy
from rollout.core.scope.proposals import approved_ones, open_ones, raise_met, version_of
from rollout.core.scope.scope import ENGINE, CellState, Grant, Scope
from rollout.core.scope.stops import raise_resume, stop_cells

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
        ValueError: the command's time has no zone, or it opens an incident of no known kind.
    """
    if command.at.utcoffset() is None:
        raise ValueError(f"{command.at.isoformat()} has no time zone; give an aware datetime")
    if isinstance(command, ByPerson):
        _named(command.by)
    at = command.at.astimezone(UTC)  # spans are counted on no site's clock
    at = at if scope.at is None else max(at, scope.at)
    pending = Draft(scope, policy, at)
    _decide(command, pending)
    if isinstance(command, Tick) and command.slot is not None:
        return tuple(replace(event, slot=command.slot) for event in pending.events)
    return tuple(pending.events)


@singledispatch
def _decide(command: Command, draft: Draft) -> None:
    raise NotImplementedError(f"no rule for {type(command).__name__} at {draft.at}")


@_decide.register
def _(command: Tick, draft: Draft) -> None:
    alarms(draft, command)
    clears(draft, command)
    _lapses(draft)
    open_ones(draft, command)
    if corrected(draft, command.at):
        return  # the next tick goes by the time that was set
    if is_behind(draft, command.at):
        clock_is_behind(draft, command)
        return
    if apply_approved_policies(draft, command):
        return  # the evidence was counted under the policy before
    approved_ones(draft)
    raise_met(draft, command)


def _lapses(draft: Draft) -> None:
    """Note grants that have ended, with what stood on them; `stage_at` knew already."""
    for (cell, version), state in list(draft.scope.cells.items()):
        expired_grant = next((grant for grant in state.grants if draft.at >= grant.until), None)
        if expired_grant is None:
            continue
        if _builds_on(draft, state, expired_grant):
            void_of(draft, state, f"{cell}: the grant of {expired_grant.stage} has ended")
        draft.emit(
            GrantExpired(
                at=draft.at,
                by=ENGINE,
                cell=cell,
                version=version,
                stage=expired_grant.stage,
                until=expired_grant.until,
            )
        )


def _builds_on(draft: Draft, state: CellState, ended: Grant) -> bool:
    """Say whether the open proposal stands on the ended grant; one for a rung below goes on."""
    stages = [grant.stage for grant in state.grants]
    stages_below = stages[: stages.index(ended.stage)]
    return (
        state.proposal is not None and draft.scope.proposals[state.proposal].to not in stages_below
    )


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
    draft.emit(VersionFirstUsed(at=draft.at, by=ENGINE, version=command.version))


@_decide.register
def _(command: Retire, draft: Draft) -> None:
    _only_people(command)
    if version_of(draft.scope, command.version).retired:
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
    stage_level = draft.policy.rungs.index(to)
    return len(draft.scope.state(cell, holder).grants) > stage_level


def _refuse_higher(command: Narrow, draft: Draft) -> None:
    """Refuse a "narrowing" that would have to widen: the stage named lies above every cell's."""
    stage_level = draft.policy.rungs.index(command.to)
    if stage_level and all(_rung_of(draft, cell) < stage_level for cell in command.cells):
        raise NotNarrower(f"no cell named stands above {command.to}; widening needs a proposal")


def _rung_of(draft: Draft, cell: Cell) -> int:
    holder = draft.scope.holder(cell)
    return 0 if holder is None else len(draft.scope.state(cell, holder).grants)


def _narrow_by_person(command: Narrow, draft: Draft, cell: Cell) -> None:
    for version in draft.scope.versions:
        state = draft.scope.cells.get((cell, version))
        if state is not None:
            void_of(draft, state, f"{command.by.name} narrowed {cell}")
            if _above(draft, cell, command.to) and state.grants:
                draft.emit(
                    Narrowed(
                        at=draft.at,
                        by=command.by.name,
                        cell=cell,
                        version=version,
                        from_stage=state.grants[-1].stage,
                        to_stage=command.to,
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
        open_stop_ids = ", ".join(draft.scope.stops) or "none"
        raise UnknownProposal(f"no stop {command.stop} holds; those that do: {open_stop_ids}")
    raise_resume(command, stop, draft)


@_decide.register
def _(command: Approve, draft: Draft) -> None:
    _only_people(command)
    approve(command, draft)


@_decide.register
def _(command: Reject, draft: Draft) -> None:
    _only_people(command)
    reject(command, draft)


@_decide.register
def _(command: RaiseTakeover, draft: Draft) -> None:
    _only_people(command)
    _known_cells((command.cell,), draft.policy)
    raise_takeover(command, draft)


@_decide.register
def _(command: AskRenewal, draft: Draft) -> None:
    _only_people(command)
    _known_cells((command.cell,), draft.policy)
    raise_renewal(command, draft)


@_decide.register
def _(command: CorrectClock, draft: Draft) -> None:
    _only_people(command)
    raise_correction(command, draft)


@_decide.register
def _(command: OpenIncident, draft: Draft) -> None:
    open_incident(command, draft)


@_decide.register
def _(command: Acknowledge, draft: Draft) -> None:
    _only_people(command)
    acknowledge(command, draft)


def _named(person: Person) -> None:
    """Refuse a name that in a ledger would be read as the engine's, as nobody's, or not at all."""
    name = person.name
    if not name.strip() or not name.isprintable():
        raise NotAllowed(f"{name!r} is no name; give one of letters, digits and signs that print")
    if name.strip().casefold() == ENGINE:
        raise NotAllowed(f"{name!r} is the engine's own name; a person needs another one")


def _only_people(command: ByPerson) -> None:
    if command.by.machine and not isinstance(command, StopCells | Narrow | Reject):
        raise MachineKey(f"{command.by.name} is a key; only people may do this: sign in and repeat")


def _known_cells(cells: tuple[Cell, ...], policy: Policy) -> tuple[Cell, ...]:
    unknown = [cell for cell in cells if cell not in policy.known]
    if unknown:
        raise UnknownCell(f"the policy has no {unknown[0]}; sites and windows stand in the policy")
    return cells
