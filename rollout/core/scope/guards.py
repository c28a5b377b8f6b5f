"""The tick's first steps: alarms narrow or suspend, clears give back. Nothing else comes before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.cell_evidence import GuardReading, Known
from rollout.core.policy.measures import OPERATIONAL
from rollout.core.policy.policy import Guard
from rollout.core.scope.commands import Tick
from rollout.core.scope.events import (
    IncidentOpened,
    Narrowed,
    ProposalVoided,
    Suspended,
    SuspensionCleared,
)
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.scope import ENGINE, CellState

THIRD_WITHIN = timedelta(hours=24)
NARROWS = frozenset({"one-stage", "shadow"})


@dataclass(frozen=True, slots=True)
class _Alarm:
    cell: Cell
    version: str
    guard: Guard
    reason: str


def alarms(draft: Draft, tick: Tick) -> None:
    """Emit what follows from each guard in alarm, in each cell whose version holds grants.

    Stopped and suspended cells are looked at too: what alarmed meanwhile does not come back.
    All alarms are read before the first one narrows. Otherwise one that empties the stack, here
    or from another cell, would hide an alarm about quality, and the attempt would not rise.
    """
    alarms_found = sorted(_in_alarm(draft, tick), key=lambda alarm: not restarts(alarm.guard))
    failed_cells = frozenset(
        a.cell for a in alarms_found if restarts(a.guard) and a.guard.then in NARROWS
    )
    for alarm in alarms_found:
        _follow(draft, alarm, failed_cells)


def _in_alarm(draft: Draft, tick: Tick) -> Iterator[_Alarm]:
    for cell, version in tick.evidence:
        if cell in draft.policy.known and draft.scope.holder(cell) == version:
            evidence = tick.evidence[cell, version]
            for guard in draft.policy.guards_of(cell):
                reading = evidence.guards.get(guard.id)
                if reading is not None and reading.alarm:
                    value_text = f"{reading.value} of {reading.records} records against it"
                    yield _Alarm(cell, version, guard, f"{guard.condition}: {value_text}")


def _follow(draft: Draft, alarm: _Alarm, failed: frozenset[Cell]) -> None:
    state, guard = draft.scope.state(alarm.cell, alarm.version), alarm.guard
    if guard.then in NARROWS:
        _narrow(draft, alarm, failed)
    elif guard.then == "report" and state.grants and guard.id not in state.reported:
        _incident(draft, alarm, "reported")
    elif guard.then == "suspend" and state.grants and guard.id not in state.suspended_by:
        _suspend(draft, alarm)


def _suspend(draft: Draft, alarm: _Alarm) -> None:
    draft.emit(
        Suspended(
            at=draft.at,
            by=ENGINE,
            cell=alarm.cell,
            version=alarm.version,
            guard=alarm.guard.id,
            reason=alarm.reason,
        )
    )
    _incident(draft, alarm, "suspended")


def _narrow(draft: Draft, alarm: _Alarm, failed: frozenset[Cell]) -> None:
    """Narrow the cell in alarm and those that the guard reaches.

    The attempt rises, once a tick, in cells in which a guard of quality is in alarm itself.
    """
    for cell in _reached(draft, alarm.cell, alarm.guard):
        holder = draft.scope.holder(cell)
        if holder is not None:
            state, initial_state = draft.scope.state(cell, holder), draft.before.state(cell, holder)
            restarts = cell in failed and state.attempt == initial_state.attempt
            narrow(draft, cell, holder, alarm.guard, alarm.reason, restart=restarts)
    _incident(draft, alarm, "narrowed")


def restarts(guard: Guard) -> bool:
    """Say whether an alarm of `guard` is about quality: then evidence starts from zero."""
    return guard.condition.measure not in OPERATIONAL | {"unaudited"}


def _reached(draft: Draft, cell: Cell, guard: Guard) -> list[Cell]:
    if guard.reach == "cell":
        return [cell]
    other_cells = [
        other for other in draft.policy.cells if guard.reach == "rollout" or other.site == cell.site
    ]
    return [cell, *(other for other in other_cells if other != cell)]


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
            from_stage=stages[-1],
            to_stage=to,
            guard=guard.id,
            restart=restart,
            reason=reason,
        )
    )


def void_of(draft: Draft, state: CellState, because: str) -> None:
    """Void the state's open proposal, if it has one."""
    if state.proposal is not None:
        event = ProposalVoided(at=draft.at, by=ENGINE, proposal=state.proposal, reason=because)
        draft.emit(event)


def _incident(draft: Draft, alarm: _Alarm, did: str) -> None:
    draft.emit(
        IncidentOpened(
            at=draft.at,
            by=ENGINE,
            incident=f"I-{draft.scope.incidents + 1}",
            kind="alarm",
            effect=did,
            reason=alarm.reason,
            guard=alarm.guard.id,
            cell=alarm.cell,
            version=alarm.version,
        )
    )


def clears(draft: Draft, tick: Tick) -> None:
    """Emit SuspensionCleared where the measure of such a guard was good for its whole span."""
    for cell, version in tick.evidence:
        state = draft.scope.cells.get((cell, version))
        if cell in draft.policy.known and state is not None and (active_guards := _watching(state)):
            evidence, guards = tick.evidence[cell, version], draft.policy.guards_of(cell)
            for guard in guards:
                _clear(draft, tick, cell, version, guard, evidence)
            if _good(draft, tick, evidence, [g for g in guards if g.then == "suspend"]):
                for removed_guard in sorted(active_guards - {guard.id for guard in guards}):
                    _cleared(draft, cell, version, removed_guard)


def _watching(state: CellState) -> frozenset[str]:
    return state.suspended_by | state.reported


def _clear(draft: Draft, tick: Tick, cell: Cell, version: str, guard: Guard, known: Known) -> None:
    state = draft.scope.state(cell, version)
    if guard.id in state.suspended_by and _good(draft, tick, known, [guard]):
        if _third(state, guard):
            narrow(draft, cell, version, guard, "third suspension in 24 h", restart=False)
        _cleared(draft, cell, version, guard.id)
    elif guard.id in state.reported and not _reading(known, guard).alarm:
        _cleared(draft, cell, version, guard.id)


def _cleared(draft: Draft, cell: Cell, version: str, guard: str) -> None:
    draft.emit(SuspensionCleared(at=draft.at, by=ENGINE, cell=cell, version=version, guard=guard))


def _reading(known: Known, guard: Guard) -> GuardReading:
    return known.guards.get(guard.id, GuardReading(alarm=False))


def _good(draft: Draft, tick: Tick, known: Known, guards: Sequence[Guard]) -> bool:
    """Say whether each guard's measure was good for its whole span, by the tick's own clock.

    The ledger's last entry may lie ahead of a clock that was set back: it would shorten the span.
    """
    spans = (
        (_reading(known, guard).good_since, guard.over or draft.policy.tick) for guard in guards
    )
    return all(since is not None and tick.at - since >= span for since, span in spans)


def _third(state: CellState, guard: Guard) -> bool:
    """Say whether the guard's last suspension was its third within 24 h, however long it held."""
    times = [at for name, at in state.suspensions if name == guard.id]
    return len([at for at in times if times[-1] - at <= THIRD_WITHIN]) >= 3 and bool(state.grants)
