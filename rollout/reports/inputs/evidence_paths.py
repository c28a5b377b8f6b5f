"""How the evidence of each cell and version went, look by look, against the line of its gate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.gates import risk_of
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.gate_progress import Leg
from rollout.reports.inputs.inputs import Inputs, Key
from rollout.reports.statistics.bounds import Ints, bounds_of, estimates_of
from rollout.tally.count_windows import Span
from rollout.tally.evidence_view import Sight
from rollout.tally.slots import instant, slot_after

MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Path:
    """One condition of one gate while it was the one in play.

    Lists run in parallel, one entry for each look that is kept: at most 400, the first, the last
    and the extremes among them.

    Attributes:
        condition, measure, at_least, line: what is asked for, in the measure's unit.
        to: the stage that the gate leads to.
        attempt, risk: which attempt, at which risk.
        at: instants of the looks.
        n: records counted by then.
        estimate: the plain share or mean cost.
        bound: the bound that decides, valid at every look; empty for parity.
    """

    condition: str
    measure: str
    at_least: bool
    line: float
    to: str
    attempt: int
    risk: float
    at: tuple[datetime, ...]
    n: tuple[int, ...]
    estimate: tuple[float, ...]
    bound: tuple[float, ...]


def paths_of(key: Key, legs: tuple[Leg, ...], inputs: Inputs) -> tuple[Path, ...]:
    """Return the paths of a cell and version, leg by leg; legs without records give none."""
    view = inputs.sights[key]
    looks = sum(len(_slots(span, period, inputs.policy)) for period, span in _spans(view, legs))
    return tuple(
        path
        for period, span in _spans(view, legs)
        for path in _of_leg(view, period, span, inputs.policy, looks)
    )


def _spans(sight: Sight, legs: tuple[Leg, ...]) -> Iterator[tuple[Leg, Span]]:
    """Yield each leg with the evidence that its attempt had been shown."""
    spans: dict[int, Span] = {}
    for period in legs:
        attempt = period.state.attempt
        if attempt not in spans:
            state = replace(sight.state, attempt=attempt, attempt_since=period.state.attempt_since)
            spans[attempt] = replace(sight, state=state).attempt
        yield period, spans[attempt]


def _slots(span: Span, leg: Leg, policy: Policy) -> Ints:
    first, last = slot_after(leg.since, policy.tick), slot_after(leg.until, policy.tick)
    return span.slots[(span.slots > first) & (span.slots <= last)]


def rung_in_play(cell: Cell, leg: Leg, policy: Policy) -> int:
    """Return the rung whose gate is looked at: the next one, at the top the one that was passed.

    A challenger is held against the gate of the stage that the acting version holds. 0: the
    policy's limits leave nothing to look at.
    """
    return min(max(leg.rung + 1, leg.ahead), policy.ceiling(cell, leg.since))


def _of_leg(sight: Sight, leg: Leg, span: Span, policy: Policy, looks: int) -> Iterator[Path]:
    stage_level = rung_in_play(sight.cell, leg, policy)
    gate = policy.gate(stage_level, sight.cell)
    slots = _slots(span, leg, policy)
    if gate is None or not len(slots):
        return
    point_limit = max(2, MOST_POINTS * len(slots) // max(looks, 1))
    for condition in policy.required(stage_level, sight.cell):
        counts = span.counts(condition)[span.places(slots)]
        selected = _kept(estimates_of(condition, counts, policy), point_limit)
        selected_counts = counts[selected]
        if not selected_counts.sum():
            continue
        risk = risk_of(gate, leg.state.attempt)
        yield _path(
            condition, gate.to, leg.state.attempt, risk, slots[selected], selected_counts, policy
        )


def _path(
    condition: Condition,
    to: str,
    attempt: int,
    risk: float,
    slots: Ints,
    counts: Ints,
    policy: Policy,
) -> Path:
    has_records = counts.sum(axis=1) > 0
    slots, counts = slots[has_records], counts[has_records]
    bound = bounds_of(condition, counts, risk, policy)
    return Path(
        condition=str(condition),
        measure=condition.measure,
        at_least=condition.at_least,
        line=condition.line,
        to=to,
        attempt=attempt,
        risk=risk,
        at=tuple(instant(int(slot), policy.tick) for slot in slots),
        n=tuple(int(n) for n in counts.sum(axis=1)),
        estimate=tuple(float(value) for value in estimates_of(condition, counts, policy)),
        bound=() if bound is None else tuple(float(value) for value in bound),
    )


def _kept(values: np.ndarray[tuple[int], np.dtype[np.float64]], most: int) -> Ints:
    """Return which looks are kept: first and last, and of each stretch its lowest and highest."""
    n = len(values)
    if n <= most:
        return np.arange(n)
    filled = np.where(np.isnan(values), -np.inf, values)
    edges = np.linspace(0, n, max(2, (most - 2) // 2) + 1).astype(int)
    selected = {0, n - 1}
    for start, end in pairwise(edges):
        section = filled[start:end]
        selected |= {int(start + section.argmin()), int(start + section.argmax())}
    return np.array(sorted(selected), dtype=np.int64)[:most] if most > 1 else np.array([n - 1])


def all_paths(
    inputs: Inputs, courses: Mapping[Key, tuple[Leg, ...]]
) -> dict[Key, tuple[Path, ...]]:
    """Return the paths of every cell and version."""
    return {key: paths_of(key, periods, inputs) for key, periods in courses.items()}
