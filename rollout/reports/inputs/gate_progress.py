"""How the state of each cell and version went: attempts, rungs held, who had the place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.scope.events import (
    CellEvent,
    Event,
    PolicyApplied,
    VersionFirstUsed,
    VersionRetired,
)
from rollout.core.scope.projection import evolve
from rollout.core.scope.scope import CellState, Scope, held_rung
from rollout.reports.inputs.inputs import Inputs, Key


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch in which nothing changed for one version in one cell.

    Attributes:
        since, until: from when to when.
        state: what the version held.
        rung: the rung that its grants reached, whatever withheld them.
        ahead: the rung that another version held in the cell meanwhile, 0 if none did.
    """

    since: datetime
    until: datetime
    state: CellState
    rung: int
    ahead: int


def courses(inputs: Inputs) -> Mapping[Key, tuple[Leg, ...]]:
    """Return the legs of every cell and version that the engine looked at, in order."""
    open_periods: dict[Key, Leg] = {}
    closed_periods: dict[Key, list[Leg]] = {key: [] for key in inputs.sights}
    scope = Scope()
    for event in inputs.events:
        scope = evolve(scope, event)
        for key in _touched(event, closed_periods):
            _step(key, event.at, scope, inputs, open_periods, closed_periods)
    for key, period in open_periods.items():
        closed_periods[key].append(_until(period, inputs.last))
    return {key: tuple(periods) for key, periods in closed_periods.items()}


def _touched(event: Event, keys: Iterable[Key]) -> list[Key]:
    """Return the keys whose grants, attempt or holder the event can change."""
    if isinstance(event, CellEvent):
        return [key for key in keys if key[0] == event.cell]
    return (
        list(keys) if isinstance(event, PolicyApplied | VersionFirstUsed | VersionRetired) else []
    )


def _step(
    key: Key,
    at: datetime,
    scope: Scope,
    inputs: Inputs,
    open_legs: dict[Key, Leg],
    done: dict[Key, list[Leg]],
) -> None:
    cell, version = key
    if version not in scope.versions:
        return
    state, acting_version = scope.state(cell, version), scope.holder(cell)
    acting_state = (
        None if acting_version in (None, version) else scope.state(cell, str(acting_version))
    )
    period = Leg(
        since=at,
        until=at,
        state=state,
        rung=held_rung(inputs.policy, state, at),
        ahead=0 if acting_state is None else held_rung(inputs.policy, acting_state, at),
    )
    previous = open_legs.get(key)
    if previous is not None and _same(previous, period):
        return
    if previous is not None:
        done[key].append(_until(previous, at))
    open_legs[key] = period


def _same(before: Leg, after: Leg) -> bool:
    old, new = before.state, after.state
    return (before.rung, before.ahead, old.attempt, old.changed_at, old.suspended_by) == (
        after.rung, after.ahead, new.attempt, new.changed_at, new.suspended_by,
    )  # fmt: skip


def _until(leg: Leg, at: datetime) -> Leg:
    return Leg(leg.since, max(at, leg.since), leg.state, leg.rung, leg.ahead)
