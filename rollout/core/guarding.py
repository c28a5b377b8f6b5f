"""The tick's first steps: alarms narrow or suspend, clears give back. Nothing else comes before."""

from datetime import timedelta

from rollout.core.commands import Tick
from rollout.core.draft import Draft
from rollout.core.events import Cleared, IncidentOpened, Narrowed, ProposalVoided, Suspended
from rollout.core.known import GuardReading, Known
from rollout.core.measures import OPERATIONAL
from rollout.core.places import SHADOW, Cell
from rollout.core.policy import Guard
from rollout.core.scope import ENGINE, CellState

THIRD_WITHIN = timedelta(hours=24)


def alarms(draft: Draft, tick: Tick) -> None:
    """Emit what follows from each guard in alarm, in each cell whose version holds grants.

    Stopped and suspended cells are looked at too: what alarmed meanwhile does not come back.
    """
    for cell, version in tick.evidence:
        if cell in draft.policy.known and draft.scope.holder(cell) == version:
            known = tick.evidence[cell, version]
            for guard in draft.policy.guards_of(cell):
                _alarm(draft, cell, version, guard, known.guards.get(guard.id))


def _alarm(
    draft: Draft, cell: Cell, version: str, guard: Guard, reading: GuardReading | None
) -> None:
    state = draft.scope.state(cell, version)
    if reading is None or not reading.alarm or not state.grants:
        return
    reason = f"{guard.condition}: {reading.value} of {reading.records} records against it"
    match guard.then:
        case "report":
            if guard.id not in state.reported:
                _incident(draft, cell, version, guard, "reported", reason)
        case "suspend":
            if guard.id not in state.suspended_by:
                _suspend(draft, cell, version, guard, reason)
        case _:
            _narrow(draft, cell, version, guard, reason)


def _suspend(draft: Draft, cell: Cell, version: str, guard: Guard, reason: str) -> None:
    draft.emit(
        Suspended(at=draft.at, by=ENGINE, cell=cell, version=version, guard=guard.id, reason=reason)
    )
    _incident(draft, cell, version, guard, "suspended", reason)


def _narrow(draft: Draft, cell: Cell, version: str, guard: Guard, reason: str) -> None:
    """Narrow the cell in alarm and those that the guard reaches; the attempt rises in the first."""
    for other in _reached(draft, cell, guard):
        holder = draft.scope.holder(other)
        if holder is not None:
            restart = other == cell and restarts(guard)
            narrow(draft, other, holder, guard, reason, restart=restart)
    _incident(draft, cell, version, guard, "narrowed", reason)


def restarts(guard: Guard) -> bool:
    """Say whether an alarm of `guard` is about quality: then evidence starts from zero."""
    return guard.condition.measure not in OPERATIONAL | {"unaudited"}


def _reached(draft: Draft, cell: Cell, guard: Guard) -> list[Cell]:
    if guard.reach == "cell":
        return [cell]
    others = [c for c in draft.policy.cells if guard.reach == "rollout" or c.site == cell.site]
    return [cell, *(c for c in others if c != cell)]


def narrow(
    draft: Draft, cell: Cell, version: str, guard: Guard, reason: str, *, restart: bool
) -> None:
    """Pop one grant, or all, with the proposal that stood on them."""
    state = draft.scope.state(cell, version)
    void_of(draft, state, f"{cell} is narrowed: {reason}")
    stages = [SHADOW, *(grant.stage for grant in state.grants)]
    to = SHADOW if guard.then == "shadow" else stages[-2]
    draft.emit(
        Narrowed(
            at=draft.at,
            by=ENGINE,
            cell=cell,
            version=version,
            came_from=stages[-1],
            to=to,
            guard=guard.id,
            restart=restart,
            reason=reason,
        )
    )


def void_of(draft: Draft, state: CellState, because: str) -> None:
    """Void the state's open proposal, if it has one."""
    if state.proposal is not None:
        event = ProposalVoided(at=draft.at, by=ENGINE, proposal=state.proposal, because=because)
        draft.emit(event)


def _incident(draft: Draft, cell: Cell, version: str, guard: Guard, did: str, reason: str) -> None:
    draft.emit(
        IncidentOpened(
            at=draft.at,
            by=ENGINE,
            incident=f"I-{draft.scope.incidents + 1}",
            kind="alarm",
            did=did,
            reason=reason,
            guard=guard.id,
            cell=cell,
            version=version,
        )
    )


def clears(draft: Draft, tick: Tick) -> None:
    """Emit Cleared where a suspending or reporting guard's measure was good for its whole span."""
    for cell, version in tick.evidence:
        state = draft.scope.cells.get((cell, version))
        if state is not None and (state.suspended_by or state.reported):
            known = tick.evidence[cell, version]
            for guard in draft.policy.guards_of(cell):
                _clear(draft, cell, version, guard, known)


def _clear(draft: Draft, cell: Cell, version: str, guard: Guard, known: Known) -> None:
    state = draft.scope.state(cell, version)
    reading = known.guards.get(guard.id, GuardReading(alarm=False))
    if guard.id in state.suspended_by and _good_long_enough(draft, guard, reading):
        if _third(draft, state, guard):
            narrow(draft, cell, version, guard, "third suspension in 24 h", restart=False)
        draft.emit(Cleared(at=draft.at, by=ENGINE, cell=cell, version=version, guard=guard.id))
    elif guard.id in state.reported and not reading.alarm:
        draft.emit(Cleared(at=draft.at, by=ENGINE, cell=cell, version=version, guard=guard.id))


def _good_long_enough(draft: Draft, guard: Guard, reading: GuardReading) -> bool:
    span = guard.over if guard.over is not None else draft.policy.tick
    return reading.good_since is not None and draft.at - reading.good_since >= span


def _third(draft: Draft, state: CellState, guard: Guard) -> bool:
    recent = [1 for g, at in state.suspensions if g == guard.id and draft.at - at <= THIRD_WITHIN]
    return len(recent) >= 3 and bool(state.grants)
