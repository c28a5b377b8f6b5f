"""State history of each cell and version: attempts, stage levels, acting versions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from rollout.core.scope.attempts import foresee_attempt
from rollout.core.scope.events import (
    LedgerEvent,
    Reach,
)
from rollout.core.scope.projection import apply_event, list_effective_times
from rollout.core.scope.scope import CellState, Scope, compute_held_level
from rollout.reports.inputs.evidence_inputs import CellVersion, EvidenceInputs


@dataclass(frozen=True, slots=True)
class StatePeriod:
    """A period without a change for one version in one cell.

    Attributes:
        since, until: its ends.
        state: state of the version.
        stage_level: stage level of its grants, also while suspended.
        other_stage_level: stage level of another acting version in the cell, 0 without one.
    """

    since: datetime
    until: datetime
    state: CellState
    stage_level: int
    other_stage_level: int


def build_state_periods(inputs: EvidenceInputs) -> Mapping[CellVersion, tuple[StatePeriod, ...]]:
    """Return the state periods of every cell and version with evidence, in order."""
    open_periods: dict[CellVersion, StatePeriod] = {}
    closed_periods: dict[CellVersion, list[StatePeriod]] = {
        key: [] for key in inputs.evidence_views
    }
    scope = Scope()
    for event, at in list_effective_times(inputs.events):
        scope = apply_event(scope, event)
        for key in _find_affected_keys(event, closed_periods):
            _record_event(key, at, scope, inputs, open_periods, closed_periods)
    for key, period in open_periods.items():
        closed_periods[key].append(_close_period(period, inputs.last))
    return {key: tuple(periods) for key, periods in closed_periods.items()}


def _find_affected_keys(event: LedgerEvent, keys: Iterable[CellVersion]) -> list[CellVersion]:
    """Return the keys whose grants, attempt or acting version the event can change."""
    if event.state_reach is Reach.OWN:
        return [key for key in keys if event.can_change(*key)]
    return list(keys) if event.state_reach is Reach.ALL else []


def _record_event(
    key: CellVersion,
    at: datetime,
    scope: Scope,
    inputs: EvidenceInputs,
    open_periods: dict[CellVersion, StatePeriod],
    closed_periods: dict[CellVersion, list[StatePeriod]],
) -> None:
    cell, version = key
    if version not in scope.versions:
        return
    state = foresee_attempt(scope, inputs.policy, cell, version, at)
    held_at = at if scope.at is None else max(at, scope.at)  # a grant begins after its slot
    acting_version = scope.get_holder(cell)
    acting_state = (
        None
        if acting_version in (None, version)
        else scope.get_cell_state(cell, str(acting_version))
    )
    period = StatePeriod(
        since=at,
        until=at,
        state=state,
        stage_level=compute_held_level(inputs.policy, state, held_at),
        other_stage_level=0
        if acting_state is None
        else compute_held_level(inputs.policy, acting_state, held_at),
    )
    previous = open_periods.get(key)
    if previous is not None and _is_unchanged(previous, period):
        if state.has_begun and not previous.state.has_begun:  # no unit was counted before
            open_periods[key] = replace(previous, state=state)
        return
    if previous is not None:
        closed_periods[key].append(_close_period(previous, at))
    open_periods[key] = period


def _is_unchanged(previous: StatePeriod, current: StatePeriod) -> bool:
    old, new = previous.state, current.state
    return (
        previous.stage_level,
        previous.other_stage_level,
        old.attempt,
        old.changed_at,
        old.suspended_by,
    ) == (
        current.stage_level,
        current.other_stage_level,
        new.attempt,
        new.changed_at,
        new.suspended_by,
    )


def _close_period(period: StatePeriod, at: datetime) -> StatePeriod:
    return StatePeriod(
        period.since,
        max(at, period.since),
        period.state,
        period.stage_level,
        period.other_stage_level,
    )
