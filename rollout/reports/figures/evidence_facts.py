"""What each cell and version has shown, what its next gate asks for, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log

import numpy as np

from rollout.core.policy.cell_evidence import Counted
from rollout.core.policy.gates import Reading, lacking, read_gate, risk_of
from rollout.core.policy.policy import Policy
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import Scope, stage_at
from rollout.core.statistics.forecast import forecast
from rollout.reports.figures.next_step import next_step
from rollout.reports.inputs.evidence_paths import Path, rung_in_play
from rollout.reports.inputs.gate_progress import Leg
from rollout.reports.inputs.inputs import Inputs, Key
from rollout.reports.statistics.bounds import bounds_of, estimates_of
from rollout.tally.evidence_view import Sight
from rollout.tally.slots import slot_before

PACE = timedelta(days=14)  # how far back the pace of verdicts is taken from


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """One condition of a gate on the evidence that there is.

    Attributes:
        condition, measure, label, lever: what is measured.
        line, at_least: what is asked for, in the measure's unit.
        n, counts: records, and how they fall (agreeing and not; per cost level; parity classes).
        estimate: plain share or mean cost, None without records.
        bound: the bound that decides, valid at every look; None for parity and without records.
        log_e, needed: the evidence and what opens the gate, natural logarithms.
        met: whether this condition is met.
        further: agreements still needed if every record to come agrees; None where none are
            needed, or the measure is no share.
        below: chance that the true share lies below the line, by what was seen.
        median, ninety: further records by which half, and 90 %, of the ways on would have met the
            line at the present share; None where it is not on course.
    """

    condition: str
    measure: str
    label: str | None
    lever: str | None
    line: float
    at_least: bool
    n: int
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None
    log_e: float
    needed: float
    met: bool
    further: int | None
    below: float | None
    median: int | None
    ninety: int | None


@dataclass(frozen=True, slots=True)
class GateFacts:
    """A gate as it stands: its conditions, and what is missing beside them in words."""

    to: str
    risk: float
    met: bool
    lacks: tuple[str, ...]
    approvals: tuple[str, ...]
    conditions: tuple[ConditionFacts, ...]


@dataclass(frozen=True, slots=True)
class EvidenceFacts:
    """The evidence of one version in one cell at the end.

    Attributes:
        site, window, version: whose evidence.
        stage: on which this version stands at the end.
        acting: whether it has the cell's place.
        since: since when nothing changed for it.
        attempt, attempt_since: which attempt, and the first instant whose units count in it.
        closed, judged, missing: units of the attempt that the engine was shown.
        per_day: judged units a day over the last two weeks; None without any.
        gate: the gate in play; None where nothing leads further.
        decides_next: in words, what decides about the next step.
        versions, attempts: versions that were ever tried in the cell, and attempts of them all.
        path: how the evidence went.
    """

    site: str
    window: str
    version: str
    stage: str
    acting: bool
    since: datetime
    attempt: int
    attempt_since: datetime
    closed: int
    judged: int
    missing: int
    per_day: float | None
    gate: GateFacts | None
    decides_next: str
    versions: int
    attempts: int
    path: tuple[Path, ...]


def evidence_facts(
    inputs: Inputs,
    courses: Mapping[Key, tuple[Leg, ...]],
    paths: Mapping[Key, tuple[Path, ...]],
) -> tuple[EvidenceFacts, ...]:
    """Return the evidence of every cell and version, in the order of the policy's cells."""
    scope = fold(inputs.events)
    order = {cell: index for index, cell in enumerate(inputs.policy.cells)}
    keys = sorted(courses, key=lambda key: (order[key[0]], key[1]))
    return tuple(_of(key, courses, scope, inputs, paths[key]) for key in keys if courses[key])


def _of(
    key: Key,
    courses: Mapping[Key, tuple[Leg, ...]],
    scope: Scope,
    inputs: Inputs,
    path: tuple[Path, ...],
) -> EvidenceFacts:
    (cell, version), policy = key, inputs.policy
    view, period = inputs.sights[key], courses[key][-1]
    slot = slot_before(inputs.last, policy.tick)
    attempt, stage_evidence = view.attempt.at(slot), view.entered.at(slot)
    gate = _gate_facts(view, period, attempt, stage_evidence, policy)
    per_day = _pace(view, slot, policy)
    return EvidenceFacts(
        site=cell.site,
        window=cell.window,
        version=version,
        stage=policy.rungs[stage_at(scope, policy, cell, version, inputs.last)],
        acting=scope.holder(cell) == version,
        since=period.since,
        attempt=period.state.attempt,
        attempt_since=period.state.attempt_since,
        closed=attempt.closed,
        judged=attempt.judged,
        missing=attempt.missing,
        per_day=per_day,
        gate=gate,
        decides_next=next_step(key, period, gate, per_day, scope, policy, inputs.last),
        versions=sum(other_key[0] == cell for other_key in courses),
        attempts=sum(
            periods[-1].state.attempt
            for other_key, periods in courses.items()
            if other_key[0] == cell and periods
        ),
        path=path,
    )


def _gate_facts(
    sight: Sight, leg: Leg, attempt: Counted, entered: Counted, policy: Policy
) -> GateFacts | None:
    stage_level = rung_in_play(sight.cell, leg, policy)
    gate = policy.gate(stage_level, sight.cell)
    if gate is None or stage_level == leg.rung:
        return None
    gate_evidence = attempt if leg.ahead else entered
    reading = read_gate(policy, sight.cell, stage_level, leg.state.attempt, attempt, gate_evidence)
    return GateFacts(
        to=gate.to,
        risk=risk_of(gate, leg.state.attempt),
        met=reading.met,
        lacks=lacking(gate, attempt, gate_evidence, policy.evidence.missing_at_most),
        approvals=gate.approvals,
        conditions=tuple(
            _condition(condition_reading, policy) for condition_reading in reading.readings
        ),
    )


def _condition(reading: Reading, policy: Policy) -> ConditionFacts:
    condition, counts = reading.condition, np.array([reading.counts], dtype=np.int64)
    n = int(counts.sum())
    bound = bounds_of(condition, counts, reading.risk, policy) if n else None
    is_share = len(reading.counts) == 2 and condition.measure != "cost"
    agreed, disagreed = reading.counts[:2]
    has_forecast = is_share and not reading.met
    outlook = (
        forecast(agreed, disagreed, at_least=condition.line, alpha=reading.risk)
        if has_forecast
        else None
    )
    opening = None if outlook is None else outlook.opening
    return ConditionFacts(
        condition=str(condition),
        measure=condition.measure,
        label=condition.label,
        lever=condition.lever,
        line=condition.line,
        at_least=condition.at_least,
        n=n,
        counts=reading.counts,
        estimate=float(estimates_of(condition, counts, policy)[0]) if n else None,
        bound=None if bound is None else float(bound[0]),
        log_e=reading.log_e(policy),
        needed=log(1 / reading.risk),
        met=reading.met,
        further=None if outlook is None else outlook.if_all_agree,
        below=None if outlook is None else outlook.chance_below,
        median=None if opening is None else opening.median,
        ninety=None if opening is None else opening.ninety,
    )


def _pace(sight: Sight, slot: int, policy: Policy) -> float | None:
    """Return judged units a day of the last two weeks before `slot`."""
    span = sight.attempt
    start_slot = slot - PACE // policy.tick
    reviewed = span.at(slot).judged - span.at(start_slot).judged
    if not reviewed:
        return None
    first_slot = int(span.slots[0])
    days = min(slot - start_slot, max(slot - first_slot, 1)) * (policy.tick / timedelta(days=1))
    return reviewed / max(days, 1.0)
