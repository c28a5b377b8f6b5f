"""Where the next reviews help most: what each cell needs for its next stage, in cheapest order.

A decision counts for every version of a cell, so a cell has one row: of the version that needs the
fewest decisions. Only evidence is forecast, by simulated further units; stops, suspensions,
freezes, waves and approvals can hold a gate that the evidence opens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, inf, isfinite, log
from typing import TYPE_CHECKING, Final, Literal

from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.widening_steps import (
    WideningStep,
    find_acting_index,
    list_widening_steps,
)
from rollout.features.reports.inputs.cell_facts import CellVersionFacts
from rollout.kernel.arrays import Floats, np
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.measures import Condition, Statistic, Subject
from rollout.kernel.policy.cell_evidence import describe_floor_cases, format_floor, list_floors
from rollout.kernel.policy.gates import ConditionReading, GateReading, read_gate
from rollout.kernel.statistics.evidence import count_further_agreements
from rollout.kernel.statistics.forecast import (
    RUNS,
    draw_class_shares,
    draw_units,
    find_cheapest_effort,
    simulate_openings,
)
from rollout.kernel.statistics.gate_thresholds import compute_cost_log_e_path, get_gate_threshold
from rollout.kernel.words import say_requirement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rollout.engine.decide.scope import Scope
    from rollout.engine.evidence.evidence_view import EvidenceView
    from rollout.features.reports.inputs.evidence_inputs import (
        EvidenceInputs,
        StatePeriod,
    )
    from rollout.kernel.calendar.instants import Cell, CellVersion
    from rollout.kernel.policy.cell_evidence import EvidenceCounts
    from rollout.kernel.policy.policy import EvidenceRules, Gate, Policy


@dataclass(frozen=True, slots=True)
class OpeningTimes:
    """When a gate opens, over equally likely runs.

    The conditions of a gate are taken to open together with their luck: the first of a run is
    the first of each. So chances are the highest that the conditions allow by themselves.

    Attributes:
        units: further closed units by run, ascending; infinite beyond the horizon.
        ever_chance: share of runs that open within the horizon or whose true shares are within
            every threshold.
        deciding: the condition that opens last, as text; "" if none is unmet.
    """

    units: Floats
    ever_chance: float
    deciding: str


class NoOpeningTimesError(ValueError):
    """There are too few records for a forecast; the text says of what."""


def simulate_gate(
    readings: Sequence[ConditionReading],
    attempt: EvidenceCounts,
    policy: Policy,
    *,
    skipped: Condition | None = None,
) -> OpeningTimes:
    """Return the further closed units after which all conditions are met.

    Conditions about planted cases are excluded: those come as users plant them.

    Args:
        readings: the gate's conditions on the evidence so far.
        attempt: all units of the attempt; about as many of later ones bring a record.
        skipped: a condition that is ignored.

    Raises:
        NoOpeningTimesError: no decided unit, no record of a condition, or a gain.
    """
    if not attempt.decided:
        raise NoOpeningTimesError("no decided unit")
    units, ever_chance, deciding = np.zeros(RUNS), 1.0, ""
    for reading in readings:
        condition = reading.condition
        if condition.population.is_planted or condition == skipped:
            continue
        if condition.population.has_gain:
            raise NoOpeningTimesError(f"{condition} has no forecast")
        records = sum(reading.counts)
        if not records:
            raise NoOpeningTimesError(f"no record of {condition}")
        times, chance = _simulate_condition(condition, reading.counts, reading.risk, policy)
        if condition.population.attribute:
            times = np.maximum(times, condition.population.minimum - records)
        needed = np.sort(draw_units(times, records, max(records, attempt.closed)))
        if not reading.is_met and (not deciding or _rank(needed) > _rank(units)):
            deciding = str(condition)
        units, ever_chance = np.maximum(units, needed), min(ever_chance, chance)
    return OpeningTimes(units, ever_chance, deciding)


def count_required_units(
    gate: Gate, attempt: EvidenceCounts, entered: EvidenceCounts, missing_at_most: float
) -> float:
    """Return the closed units that the gate's minimum and its rule on missing units still need.

    The attempt has a decided unit. What lacks decisions is made up for by units that all have one;
    infinite if no number of them suffices.
    """
    for_minimum = max(0, gate.minimum.units - entered.decided) * attempt.closed / attempt.decided
    if attempt.missing <= missing_at_most * attempt.closed:
        return for_minimum
    if not missing_at_most:
        return inf
    return max(for_minimum, ceil(attempt.missing / missing_at_most) - attempt.closed)


def _rank(units: Floats) -> tuple[int, float]:
    """Return how late runs open: those that never do first, then the median."""
    return int(np.isinf(units).sum()), float(np.median(units))


def _simulate_condition(
    condition: Condition, counts: tuple[int, ...], risk: float, policy: Policy
) -> tuple[Floats, float]:
    """Return the further records by run, ascending, and the chance that it is ever met."""
    if condition.measure.statistic is Statistic.MEAN:
        levels, at_most = policy.cost_shares, policy.scale_cost(condition.threshold)
        return _simulate_cost(counts, levels, at_most, risk)
    return _simulate_share(counts, condition.share, risk)


@lru_cache(maxsize=4096)
def _simulate_cost(
    counts: tuple[int, ...], levels: tuple[float, ...], at_most: float, risk: float
) -> tuple[Floats, float]:
    shares = draw_class_shares(counts)
    times = simulate_openings(
        counts,
        shares,
        lambda totals: (
            compute_cost_log_e_path(totals, levels=levels, at_most=at_most) >= -log(risk)
        ),
    )
    is_within = shares @ np.array(levels) < at_most
    return np.sort(times), float((is_within | np.isfinite(times)).mean())


@lru_cache(maxsize=4096)
def _simulate_share(counts: tuple[int, ...], line: float, risk: float) -> tuple[Floats, float]:
    shares, threshold = draw_class_shares(counts), get_gate_threshold(line, risk)
    times = simulate_openings(
        counts, shares, lambda totals: threshold.are_met(totals[:, 0], totals[:, 1])
    )
    return np.sort(times), float(((shares[:, 0] > line) | np.isfinite(times)).mean())


HOPELESS_CHANCE: Final = 0.05
"""A cell that ever opens with a smaller chance is called hopeless."""
EVEN_CHANCE: Final = 0.5
DEFAULT_DECISIONS: Final = 1_000
MAX_DECISIONS: Final = 100_000
_OTHER_FACTOR: Final = 2.0  # another share is twice the policy's
_FIRST_SHARE: Final = 0.1  # or this, if the policy has none

Outlook = Literal["met", "on course", "uncertain", "hopeless", "waits", "no data"]
ChangedSetting = Literal["blind share", "planted cases"]


@dataclass(frozen=True, slots=True)
class ReviewChange:
    """What another setting of the policy would change for a cell's next stage.

    Attributes:
        setting: what is changed; `label` is that of planted cases, else "".
        share, other_share: the share now and the other one; None of planted cases.
        decisions, days: with the other setting, in half of the runs; None beyond the horizon or
            without a rate.
        planted: planted cases that are needed if the model gets each right; 0 for shares.
    """

    setting: ChangedSetting
    label: str
    share: float | None
    other_share: float | None
    decisions: int | None
    days: float | None
    planted: int = 0


@dataclass(frozen=True, slots=True)
class CellReviewPlan(CellVersionFacts):
    """What one cell needs for its next stage.

    Attributes:
        site, window, version, stage: the cell, the version of the row, and its stage.
        to, floor: the next stage, and which cases of it; "" for all.
        outlook: of a `met` gate reviews change nothing; one that `waits` needs no review either,
            but days, reviewers or planted cases. `on course` opens within the horizon in half of
            the runs, `hopeless` opens ever with a chance below 5 %. `no data` has no figures.
        reason: why there are no figures, or the condition that decides and what else is needed.
        judged, per_day: decided units so far, and a day; None without a rate.
        decisions_p50, decisions_p90: further decisions after which half and 90 % of the runs have
            opened; None beyond the horizon.
        days: `decisions_p50` at the present rate.
        ever_chance: chance that the cell ever opens at the present rate; None without data.
        cheapest_decisions: the number of decisions that spends least for each expected opening.
        decisions_per_opening: what is spent for each then.
        planned, opening_chance: decisions of the plan that go here, and the chance that they open.
        changes: what other settings would change.
    """

    stage: str
    to: str
    floor: str
    outlook: Outlook
    reason: str
    judged: int
    per_day: float | None
    decisions_p50: int | None = None
    decisions_p90: int | None = None
    days: float | None = None
    ever_chance: float | None = None
    decisions_per_opening: float | None = None
    cheapest_decisions: int | None = None
    planned: int = 0
    opening_chance: float = 0.0
    changes: tuple[ReviewChange, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewPlan:
    """Cells in the order in which decisions are cheapest, for a number of decisions.

    Attributes:
        decisions: number of decisions that are planned.
        cells: those with a next stage, cheapest first; then hopeless ones, then those without data.
        expected_openings: cells that the planned decisions open on average.
        unplanned: decisions that no cell needs.
        closed_cells: cells where no gate leads further.
    """

    decisions: int
    cells: tuple[CellReviewPlan, ...]
    expected_openings: float
    unplanned: int
    closed_cells: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A gate of one version, with its times in decisions; None without data."""

    row: CellReviewPlan
    times: Floats | None

    @property
    def rank(self) -> tuple[int, float, float]:
        """Return the place in the cheapest order: what can open first, then by spending."""
        groups: dict[Outlook, int] = {
            "met": -2,
            "waits": -1,
            "hopeless": 1,
            "no data": 2,
        }
        spending = self.row.decisions_per_opening
        spending = inf if spending is None else spending
        return groups.get(self.row.outlook, 0), spending, -(self.row.ever_chance or 0.0)


def compute_review_plan(
    inputs: EvidenceInputs,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    decisions: int = DEFAULT_DECISIONS,
) -> ReviewPlan:
    """Return what each cell needs for its next stage, in the cheapest order.

    Args:
        inputs: policy, ledger and evidence, of a replay or a running rollout.
        state_periods: of each cell and version; the last one is read.
        decisions: how many decisions are planned.
    """
    scope = apply_events(inputs.events)
    best: dict[Cell, _Candidate] = {}
    cells = {key[0] for key in inputs.evidence_views}
    for key in inputs.cell_versions:
        if not state_periods[key] or not _can_widen(key, scope):
            continue
        for candidate in _list_candidates(key, state_periods[key][-1], scope, inputs):
            if key[0] not in best or candidate.rank < best[key[0]].rank:
                best[key[0]] = candidate
    ordered = sorted(best.values(), key=lambda candidate: candidate.rank)
    rows = tuple(_plan_decisions(ordered, decisions))
    return ReviewPlan(
        decisions,
        rows,
        sum(row.opening_chance for row in rows),
        decisions - sum(row.planned for row in rows),
        len(cells - best.keys()),
    )


def _plan_decisions(candidates: list[_Candidate], decisions: int) -> Iterator[CellReviewPlan]:
    """Yield the rows with the decisions that each one gets, in order.

    No decision is planned for a hopeless cell.
    """
    left = decisions
    for candidate in candidates:
        row, times = candidate.row, candidate.times
        if times is None or row.cheapest_decisions is None or row.outlook == "hopeless":
            yield row
            continue
        planned = min(left, row.cheapest_decisions)
        left -= planned
        has_opened = row.outlook == "met" or planned > 0
        chance = float((times <= planned).mean()) if has_opened else 0.0
        yield replace(row, planned=planned, opening_chance=chance)


def _can_widen(key: CellVersion, scope: Scope) -> bool:
    from rollout.features.reports.figures.evidence_facts import find_successor

    cell, version = key
    is_retired = version in scope.versions and scope.versions[version].retired
    return not (is_retired or find_successor(scope, cell, version))


def _list_candidates(
    key: CellVersion, period: StatePeriod, scope: Scope, inputs: EvidenceInputs
) -> Iterator[_Candidate]:
    """Yield what a version may open next in its cell: a stage at each confidence floor."""
    (cell, version), policy = key, inputs.policy
    # another version's attempt changes the next share without a period of this one
    period = replace(period, state=scope.get_cell_state(cell, version))
    for step in _list_steps(cell, period, scope, inputs):
        if policy.is_reachable(cell, step.stage_level, inputs.last):
            yield _build_candidate(inputs.evidence_views[key], period, step, inputs)


def _list_steps(
    cell: Cell, period: StatePeriod, scope: Scope, inputs: EvidenceInputs
) -> list[WideningStep]:
    """Return what may open next; a challenger has to meet the holder's floor."""
    from rollout.features.reports.inputs.evidence_inputs import find_open_stage_level

    if not period.other_stage_level:
        return list_widening_steps(inputs.policy, period.state, inputs.last)
    holder = scope.get_holder(cell)
    assert holder is not None  # noqa: S101 - its stage level is above 0
    floor_index = find_acting_index(inputs.policy, scope.get_cell_state(cell, holder))
    return [WideningStep(find_open_stage_level(cell, period, inputs.policy), floor_index)]


def _build_candidate(
    view: EvidenceView,
    period: StatePeriod,
    step: WideningStep,
    inputs: EvidenceInputs,
) -> _Candidate:
    from rollout.features.reports.figures.evidence_facts import compute_daily_rate

    policy, slot = inputs.policy, find_slot_before(inputs.last, inputs.policy.tick)
    gate = policy.find_gate(step.stage_level, view.cell)
    assert gate is not None  # noqa: S101 - a reachable stage has one
    at_floor = view.get_floor_view(step.floor_index)
    attempt = at_floor.attempt_window.count_at(slot)
    entered = attempt if period.other_stage_level else at_floor.entered_window.count_at(slot)
    reading = read_gate(
        policy, view.cell, step.stage_level, period.state.risk_share, attempt, entered
    )
    whole, floors = view.attempt_window.count_at(slot), list_floors(policy.evidence)
    row = CellReviewPlan(
        site=view.cell.site,
        window=view.cell.window,
        version=view.version,
        stage=policy.stage_ids[period.stage_level],
        to=gate.to,
        floor=describe_floor_cases(format_floor(floors[step.floor_index])) if floors[1:] else "",
        outlook="no data",
        reason="",
        judged=whole.decided,
        per_day=compute_daily_rate(view, slot, policy),
    )
    try:
        opening = simulate_gate(reading.readings, attempt, policy)
    except NoOpeningTimesError as error:
        return _Candidate(replace(row, reason=str(error)), None)
    pace = _Pace(
        units=whole.decided / attempt.closed,
        decisions_per_unit=count_decisions_per_unit(policy.evidence),
        units_per_day=row.per_day,
        required=count_required_units(gate, attempt, entered, policy.evidence.missing_at_most),
        required_days=max(0, gate.minimum.days - entered.days),
    )
    row = _add_figures(row, opening, pace, reading)
    if row.outlook in {"on course", "uncertain"}:
        level = max(period.stage_level, period.other_stage_level)
        changes = _list_changes(reading, attempt, opening, pace, level, policy)
        row = replace(row, changes=tuple(changes))
    return _Candidate(row, pace.count_decisions(opening.units))


def count_decisions_per_unit(rules: EvidenceRules) -> float:
    """Return the blind decisions that a decided unit takes on average."""
    return rules.verdicts + (rules.second_verdict if rules.verdicts == 1 else 0.0)


@dataclass(frozen=True, slots=True)
class _Pace:
    """From closed units at a floor to decisions and days.

    Attributes:
        units: decided units of the cell for each closed unit at the floor.
        decisions_per_unit: decisions for each decided unit.
        units_per_day: decided units a day; None without a rate.
        required: closed units at the floor that the gate needs besides its conditions.
        required_days: days with a decided unit that it still needs.
    """

    units: float
    decisions_per_unit: float
    units_per_day: float | None
    required: float
    required_days: int

    def count_decisions(self, times: Floats) -> Floats:
        """Return the decisions of closed units; more than one are whole numbers."""
        return np.ceil(np.maximum(times, self.required) * self.units * self.decisions_per_unit)

    def compute_days(self, decisions: int | None) -> float | None:
        """Return the days that decisions take; None without a rate."""
        if decisions is None or not self.units_per_day:
            return None
        days = decisions / self.decisions_per_unit / self.units_per_day
        return max(days, float(self.required_days))


def _add_figures(
    row: CellReviewPlan, opening: OpeningTimes, pace: _Pace, reading: GateReading
) -> CellReviewPlan:
    decisions = pace.count_decisions(opening.units)
    effort, per_opening = find_cheapest_effort(decisions)
    median = _find_quantile(decisions, EVEN_CHANCE)
    ever_chance = opening.ever_chance if isfinite(pace.required) else 0.0
    planted = (r for r in reading.readings if r.condition.population.is_planted)
    waits = [str(r.condition) for r in planted if not r.is_met]
    deciding = [opening.deciding] if opening.deciding else []
    return replace(
        row,
        outlook=_find_outlook(median, ever_chance, is_met=reading.is_met),
        reason="; ".join([*deciding, *map(say_requirement, reading.unmet_requirements), *waits]),
        decisions_p50=median,
        decisions_p90=_find_quantile(decisions, 0.9),
        days=pace.compute_days(median),
        ever_chance=ever_chance,
        decisions_per_opening=per_opening if isfinite(per_opening) else None,
        cheapest_decisions=int(effort) if isfinite(effort) else None,
    )


def _find_outlook(median: int | None, ever_chance: float, *, is_met: bool) -> Outlook:
    if is_met:
        return "met"
    if ever_chance < HOPELESS_CHANCE:
        return "hopeless"
    if median is None:
        return "uncertain"
    return "on course" if median else "waits"


def _find_quantile(times: Floats, share: float) -> int | None:
    """Return after how many decisions a share of the runs has opened; None beyond the horizon."""
    value = times[ceil(share * len(times)) - 1]
    return int(value) if isfinite(value) else None


def _list_changes(
    reading: GateReading,
    attempt: EvidenceCounts,
    opening: OpeningTimes,
    pace: _Pace,
    stage_level: int,
    policy: Policy,
) -> Iterator[ReviewChange]:
    """Yield what other settings would change; in shadow people decide every case blind anyway."""
    stage = policy.get_stage(stage_level) if stage_level else None
    decisions = _find_quantile(pace.count_decisions(opening.units), EVEN_CHANCE)
    days = pace.compute_days(decisions)
    if stage is not None and stage.reviewed_share:
        other = replace(stage, blind=min(1.0, stage.blind * _OTHER_FACTOR) or _FIRST_SHARE)
        less = stage.reviewed_share / other.reviewed_share
        other_days = None if days is None else max(days * less, float(pace.required_days))
        yield ReviewChange("blind share", "", stage.blind, other.blind, decisions, other_days)
    for item in reading.readings:
        measure = item.condition.measure
        if (
            type(item.condition) is Condition
            and measure.has_planted
            and measure.subject is Subject.LABEL
            and not item.is_met
        ):
            times = simulate_gate(reading.readings, attempt, policy, skipped=item.condition)
            decisions = _find_quantile(pace.count_decisions(times.units), EVEN_CHANCE)
            yield ReviewChange(
                setting="planted cases",
                label=str(item.condition.label),
                share=None,
                other_share=None,
                decisions=decisions,
                days=pace.compute_days(decisions),
                planted=count_further_agreements(
                    0, 0, at_least=item.condition.share, alpha=item.risk
                ),
            )
