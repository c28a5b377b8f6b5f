"""Inputs of figures of evidence, and each cell's and version's state and evidence over time.

A state is an attempt, stage levels of the version and of another acting one, and a suspension.
Evidence is compared with the threshold of its gate.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

import numpy as np

from rollout.engine.decide.guards import foresee_attempt
from rollout.engine.decide.projection import apply_event, list_effective_times
from rollout.engine.decide.scope import CellState, Scope, compute_held_level
from rollout.engine.events import LedgerEvent, Reach
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.guard_evidence import CountWindow
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import Cell, CellVersion, find_slot_after, to_instant
from rollout.kernel.facts import EvidenceSeries
from rollout.kernel.measures import Condition
from rollout.kernel.policy.cell_evidence import compute_gate_risk
from rollout.kernel.policy.gates import GainReading
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.evidence import compute_bounds, compute_estimates


@dataclass(frozen=True)
class EvidenceInputs:
    """What figures of evidence need; pages have no more, a report has its records too.

    Attributes:
        policy: the policy in force, the last one if there were several.
        events: the whole ledger, in order.
        evidence_views: evidence of each cell and version at the end.
        first, last: the span of the report, or of the whole ledger.
    """

    policy: Policy
    events: tuple[LedgerEvent, ...]
    evidence_views: Mapping[CellVersion, EvidenceView]
    first: datetime
    last: datetime

    @property
    def cell_versions(self) -> list[CellVersion]:
        """Return the cells and versions with evidence, in order of the policy's cells."""
        order = {cell: index for index, cell in enumerate(self.policy.cells)}
        return sorted(self.evidence_views, key=lambda key: (order[key[0]], key[1]))


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


def build_state_period(
    key: CellVersion, scope: Scope, policy: Policy, at: datetime, held_at: datetime
) -> StatePeriod:
    """Return the period of a version in a cell that begins at an instant; its end is that too.

    Stage levels are those of the grants that are held at `held_at`.
    """
    cell, version = key
    state = foresee_attempt(scope, policy, cell, version, at)
    acting_version = scope.get_holder(cell)
    acting_state = (
        None
        if acting_version in (None, version)
        else scope.get_cell_state(cell, str(acting_version))
    )
    return StatePeriod(
        since=at,
        until=at,
        state=state,
        stage_level=compute_held_level(policy, state, held_at),
        other_stage_level=0
        if acting_state is None
        else compute_held_level(policy, acting_state, held_at),
    )


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
    if key[1] not in scope.versions:
        return
    held_at = at if scope.at is None else max(at, scope.at)  # a grant begins after its slot
    period = build_state_period(key, scope, inputs.policy, at, held_at)
    previous = open_periods.get(key)
    if previous is not None and _is_unchanged(previous, period):
        if period.state.has_begun and not previous.state.has_begun:  # no unit was counted before
            open_periods[key] = replace(previous, state=period.state)
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
    return replace(period, until=max(at, period.since))


MAX_POINTS = 400
MIN_GAIN_POINTS, MAX_GAIN_POINTS = 6, 24
MAX_GAIN_READINGS = 480_000  # units over all looks: each bound reads those up to its look 15 times


def build_evidence_paths(
    key: CellVersion, periods: tuple[StatePeriod, ...], inputs: EvidenceInputs
) -> tuple[EvidenceSeries, ...]:
    """Return the evidence series of a cell and version, for each period with records."""
    view = inputs.evidence_views[key]
    looks = sum(
        len(_select_slots(span, period, inputs.policy))
        for period, span in _build_spans(view, periods)
    )
    return tuple(
        path
        for period, span in _build_spans(view, periods)
        for path in _build_period_paths(view, period, span, inputs.policy, looks)
    )


def compute_bounds_at(
    view: EvidenceView,
    periods: tuple[StatePeriod, ...],
    condition: Condition,
    slots: Ints,
    policy: Policy,
) -> dict[int, float]:
    """Return the bound on a condition's measure by slot, where the next gate has one.

    Slots without records of the attempt, and of gates without the measure, have none.
    """
    bounds: dict[int, float] = {}
    for period, span in _build_spans(view, periods):
        stage_level = find_open_stage_level(view.cell, period, policy)
        gate = policy.find_gate(stage_level, view.cell)
        first = find_slot_after(period.since, policy.tick)
        chosen = slots[(slots > first) & (slots <= find_slot_after(period.until, policy.tick))]
        conditions = policy.list_conditions(stage_level, view.cell)
        if gate is None or condition.key not in {c.key for c in conditions if is_plain(c)}:
            continue
        counts = span.get_counts_at(condition, chosen)
        chosen, counts = chosen[counts.sum(axis=1) > 0], counts[counts.sum(axis=1) > 0]
        risk = compute_gate_risk(policy, gate, period.state.risk_share)
        if len(chosen):
            values = compute_bounds(condition, counts, risk, policy)
            bounds |= zip(chosen.tolist(), values.tolist(), strict=True)
    return bounds


def is_plain(condition: Condition) -> bool:
    """Return whether a condition counts decided cases that occur, without slices."""
    return type(condition) is Condition


def _build_spans(
    view: EvidenceView, periods: tuple[StatePeriod, ...]
) -> Iterator[tuple[StatePeriod, CountWindow]]:
    """Yield each period with the count window of its attempt."""
    spans: dict[int, CountWindow] = {}
    for period in periods:
        attempt = period.state.attempt
        if attempt not in spans:
            state = replace(view.state, attempt=attempt, attempt_since=period.state.attempt_since)
            spans[attempt] = replace(view, state=state).attempt_window
        yield period, spans[attempt]


def _select_slots(span: CountWindow, period: StatePeriod, policy: Policy) -> Ints:
    first = find_slot_after(period.since, policy.tick)
    last = find_slot_after(period.until, policy.tick)
    return span.slots[(span.slots > first) & (span.slots <= last)]


def find_open_stage_level(cell: Cell, period: StatePeriod, policy: Policy) -> int:
    """Return the stage level of the next gate; at the top that of the last one.

    For a challenger it is at least the stage of the acting version. 0 if the policy's limits allow
    no stage.
    """
    return min(
        max(period.stage_level + 1, period.other_stage_level),
        policy.compute_ceiling(cell, period.since),
    )


def _build_period_paths(
    view: EvidenceView, period: StatePeriod, span: CountWindow, policy: Policy, looks: int
) -> Iterator[EvidenceSeries]:
    stage_level = find_open_stage_level(view.cell, period, policy)
    gate = policy.find_gate(stage_level, view.cell)
    slots = _select_slots(span, period, policy)
    if gate is None or not len(slots):
        return
    point_limit = max(2, MAX_POINTS * len(slots) // max(looks, 1))
    risk = compute_gate_risk(policy, gate, period.state.risk_share)
    for condition in policy.list_conditions(stage_level, view.cell):
        if condition.population.has_gain:
            points = _read_gains(condition, risk, slots, span)
        elif condition.population.attribute:
            continue  # one line over all values would hide the worst; the gate lists each value
        else:
            points = _read_shares(condition, risk, slots, span, policy, point_limit)
        if points:
            at, n, estimates, bounds = zip(*points, strict=True)
            yield EvidenceSeries(
                condition=str(condition),
                name=condition.name,
                unit=condition.find_unit(policy.charter.cost_in),
                measure=condition.measure.name,
                at_least=condition.at_least,
                threshold=condition.threshold,
                to=gate.to,
                attempt=period.state.attempt,
                risk=risk,
                at=tuple(to_instant(slot, policy.tick) for slot in at),
                n=n,
                estimate=estimates,
                bound=bounds,
            )


EvidencePoint = tuple[int, int, float, float]
"""Slot, number of units, estimate and bound."""


def _read_shares(
    condition: Condition, risk: float, slots: Ints, span: CountWindow, policy: Policy, limit: int
) -> list[EvidencePoint]:
    """Return a condition's figures at some slots with records, at most `limit`."""
    counts = span.get_counts_at(condition, slots)
    estimates = compute_estimates(condition, counts, policy)
    selected = _select_looks(estimates, limit)
    selected = selected[counts[selected].sum(axis=1) > 0]
    if not len(selected):
        return []
    slots, counts, estimates = slots[selected], counts[selected], estimates[selected]
    bounds = compute_bounds(condition, counts, risk, policy)
    figures = zip(slots, counts.sum(axis=1), estimates, bounds, strict=True)
    return [(int(slot), int(n), float(value), float(bound)) for slot, n, value, bound in figures]


def _read_gains(
    condition: Condition, risk: float, slots: Ints, span: CountWindow
) -> list[EvidencePoint]:
    """Return the gain at some slots with units in both arms."""
    units, lowest = span.get_arms(condition), -condition.population.outcome.span
    affordable = max(MIN_GAIN_POINTS, MAX_GAIN_READINGS // max(len(units), 1))
    count = min(MAX_GAIN_POINTS, affordable)
    looks = slots[np.unique(np.linspace(0, len(slots) - 1, count).astype(int))]
    readings = (
        (int(slot), GainReading(condition, units.select(units.slots <= slot), risk))
        for slot in looks
    )
    return [
        (slot, sum(r.counts[:2]), r.estimate, lowest if r.bound is None else r.bound)
        for slot, r in readings
        if r.estimate is not None
    ]


def _select_looks(values: np.ndarray[tuple[int], np.dtype[np.float64]], limit: int) -> Ints:
    """Return the indices to keep: first, last, and the extremes of each section."""
    n = len(values)
    if n <= limit:
        return np.arange(n)
    filled = np.where(np.isnan(values), -np.inf, values)
    edges = np.linspace(0, n, max(2, (limit - 2) // 2) + 1).astype(int)
    selected = {0, n - 1}
    for start, end in pairwise(edges):
        section = filled[start:end]
        selected |= {int(start + section.argmin()), int(start + section.argmax())}
    return np.array(sorted(selected), dtype=np.int64)[:limit] if limit > 1 else np.array([n - 1])
