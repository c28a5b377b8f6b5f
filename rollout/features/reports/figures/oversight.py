"""Human oversight: permits, stops, drills, incidents, silent sites, audits and what these cost.

Above shadow only a share of the units gets an unassisted decision, and the share differs by stage;
cases without a usable answer always go to humans. The plain rate of the sampled cases is therefore
biased. Weighted by one over its sampling chance, each case represents similar unsampled cases
(Horvitz and Thompson, Journal of the American Statistical Association 47 (1952) 663).

The cost of a low audit rate: the engine counts only sampled decisions; a replay has all of them.
For each narrowing by a quality guard the same detector runs over all decisions. The cost is of the
model's decisions from the fall of the measure until the narrowing, and until the detector's alarm
on all decisions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from rollout.engine.decide.projection import list_effective_times
from rollout.engine.decide.widening_steps import find_acting_index
from rollout.engine.events import (
    IncidentAcknowledged,
    IncidentOpened,
    Narrowed,
    Resumed,
    Stopped,
    select_events,
)
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.guard_series import compute_detector_series
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.features.reports.figures.incident_cause import compute_log_likelihood
from rollout.features.reports.figures.methods import ModelCost, compute_model_cost
from rollout.features.reports.inputs.cell_facts import CellFacts, CellVersionFacts
from rollout.features.reports.inputs.evidence_inputs import StatePeriod
from rollout.features.reports.inputs.inputs import (
    HUMAN,
    ReportInputs,
    find_usable_answers,
    join_stages,
)
from rollout.features.reports.inputs.pairs import UNASSISTED_EXPOSURES, Pairs
from rollout.kernel.arrays import Bools, Floats
from rollout.kernel.calendar.instants import (
    CellVersion,
    find_slot_after,
    find_slot_before,
    to_instant,
)
from rollout.kernel.facts import to_facts
from rollout.kernel.measures import Watch
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.statistics.intervals import (
    ONE_SIDED_METHOD,
    Share,
    WeightedShare,
    compute_share,
    compute_unit_share,
    compute_weighted_share,
)
from rollout.kernel.units import MISSING

NO_PERMIT = "none"


@dataclass(frozen=True, slots=True)
class PermitCount:
    """The number of the model's actions with one kind of permit and one authorization.

    Attributes:
        kind: `bound` to the answers of the question, `unbound`, or `none`: no permit of this
            service.
        authorization: `authorized`, `authorized_within_lease` or `unauthorized`.
        actions: on cases in the report; the last revision of each action.
    """

    kind: str
    authorization: str
    actions: int


def count_permits(inputs: ReportInputs) -> tuple[PermitCount, ...]:
    """Return the counts, ordered by kind and authorization; none without actions."""
    counts = (
        inputs.actions.filter(pl.col("by") == "model")
        .group_by(pl.col("permit_kind").fill_null(NO_PERMIT).alias("kind"), "permission")
        .agg(actions=pl.len())
        .sort("kind", "permission")
    )
    return tuple(PermitCount(*row) for row in counts.iter_rows())


@dataclass(frozen=True, slots=True)
class StopFacts:
    """One stop; `resumed_at` is None while it is active."""

    stop: str
    at: datetime
    by: str
    cells: int
    reason: str
    drill: bool
    resumed_at: datetime | None


@dataclass(frozen=True, slots=True)
class IncidentFacts:
    """One incident: its cause and effect, and who acknowledged it, if anyone.

    `alarms` is what guards read, and `trigger` what else the program saw; `reason` is their text.
    """

    incident: str
    at: datetime
    kind: str
    guard: str
    site: str | None
    window: str | None
    version: str
    effect: str
    reason: str
    alarms: tuple[Mapping[str, Any], ...]
    trigger: Mapping[str, Any] | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The longest span without a case at a site, including the ends of the report.

    `hours` is its length. It can be normal for the site (a camp in winter) or a broken camera.
    """

    site: str
    since: datetime
    until: datetime
    hours: float


@dataclass(frozen=True, slots=True)
class Oversight:
    """Stops, incidents and silences of a rollout.

    Attributes:
        stops: every stop, including drills, in order.
        last_stop, last_drill: time of the last real stop and of the last drill; None if never.
        incidents: every incident, in order.
        silences: the longest silence of each site with cases.
    """

    stops: tuple[StopFacts, ...]
    last_stop: datetime | None
    last_drill: datetime | None
    incidents: tuple[IncidentFacts, ...]
    silences: tuple[Silence, ...]


def compute_oversight(inputs: ReportInputs) -> Oversight:
    """Return the stops, incidents and silences of a rollout."""
    resumed_at = {event.stop: event.at for event in select_events(inputs.events, Resumed)}
    stops = tuple(
        StopFacts(
            stop=event.stop,
            at=event.at,
            by=event.by,
            cells=len(event.cells),
            reason=event.cause_text,
            drill=event.drill,
            resumed_at=resumed_at.get(event.stop),
        )
        for event in select_events(inputs.events, Stopped)
    )
    return Oversight(
        stops=stops,
        last_stop=max((stop.at for stop in stops if not stop.drill), default=None),
        last_drill=max((stop.at for stop in stops if stop.drill), default=None),
        incidents=tuple(_list_incidents(inputs)),
        silences=tuple(_find_silences(inputs)),
    )


def _list_incidents(inputs: ReportInputs) -> Iterator[IncidentFacts]:
    acknowledgements = {
        event.incident: event for event in select_events(inputs.events, IncidentAcknowledged)
    }
    for event in select_events(inputs.events, IncidentOpened):
        acknowledgement = acknowledgements.get(event.incident)
        yield IncidentFacts(
            incident=event.incident,
            at=event.at,
            kind=event.kind,
            guard=event.guard,
            site=event.cell.site if event.cell else None,
            window=event.cell.window if event.cell else None,
            version=event.version,
            effect=event.effect,
            reason=event.cause_text,
            alarms=tuple(map(to_facts, event.alarms)),
            trigger=to_facts(event.trigger),
            acknowledged_at=acknowledgement.at if acknowledgement else None,
            acknowledged_by=acknowledgement.by if acknowledgement else None,
            note=acknowledgement.note if acknowledgement else "",
        )


def _find_silences(inputs: ReportInputs) -> Iterator[Silence]:
    """Yield the longest silence of each site, sorted by name."""
    occurred_cases = (
        inputs.cases.select("site", "occurred_at").drop_nulls().sort("site", "occurred_at")
    )
    for (site,), cases in occurred_cases.group_by("site", maintain_order=True):
        ends = pl.Series([inputs.first, inputs.last], dtype=cases["occurred_at"].dtype)
        times = pl.concat([cases["occurred_at"], ends]).sort()
        gaps = times.diff().drop_nulls()
        longest = int(gaps.arg_max() or 0)
        yield Silence(
            site=str(site),
            since=times[longest],
            until=times[longest + 1],
            hours=gaps[longest].total_seconds() / 3600,
        )


OFF_PLAN_LEVEL = 0.999  # one false flag in 1,000 rows
GROUP_COLUMNS = ["site", "window", "stage"]


@dataclass(frozen=True, slots=True)
class CellSampling(CellFacts):
    """How cases of one cell and stage were sampled for unassisted decisions.

    Attributes:
        site, window, stage: the cell and its stage.
        cases: all cases there.
        planned: mean sampling chance by the policy.
        drawn: share of sampled cases, with an interval over units.
        judged: share of the sampled cases with an unassisted decision.
        unsampled_decisions: unassisted decisions on other cases; no estimate uses them.
        differs_from_plan: whether a sampled share this far from the plan has a chance below 1 in
            1,000.
    """

    stage: str
    cases: int
    planned: float
    drawn: Share
    judged: Share
    unsampled_decisions: int
    differs_from_plan: bool


@dataclass(frozen=True, slots=True)
class SampledAgreement(CellVersionFacts):
    """Agreement of one version in one cell, estimated from the sampled cases.

    Attributes:
        site, window, version: the cell and the version.
        unweighted: plain agreement of the decided sampled cases.
        weighted: estimated agreement of all cases, each weighted by one over its chance.
        differs_at_most: one-sided upper bound of the share that differs; None without cases.
        method: method of the bound.
    """

    unweighted: Share
    weighted: WeightedShare
    differs_at_most: float | None
    method: str


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """Sampling by cell and stage, and estimated agreement by cell and version."""

    sampling: tuple[CellSampling, ...]
    sampled: tuple[SampledAgreement, ...]


def compute_audits(inputs: ReportInputs, pairs: Pairs, cases: pl.DataFrame) -> AuditFigures:
    """Return how cases were sampled, and the agreement estimated from them.

    `cases`: the rows of `build_sampling_frame`.
    """
    order = {cell: index for index, cell in enumerate(inputs.policy.cells)}
    stage_levels = {stage: index for index, stage in enumerate(inputs.policy.stage_ids)}
    sampling = sorted(
        _compute_sampling(cases, inputs),
        key=lambda row: (
            order.get(row.cell, len(order)),
            stage_levels.get(row.stage, 99),
        ),
    )
    sampled = sorted(
        _compute_sampled_agreements(cases, pairs, inputs),
        key=lambda row: (order.get(row.cell, len(order)), row.version),
    )
    return AuditFigures(tuple(sampling), tuple(sampled))


def build_sampling_frame(inputs: ReportInputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return every case in a cell with its chance of an unassisted decision.

    Columns: those of `assign_deciders` and of `join_stages`, usable (whether the acting version's
    answer could be used), chance, drawn.
    """
    joined = join_stages(inputs, cases).join(
        find_usable_answers(inputs), on=["case_key", "version"], how="left", nulls_equal=False
    )
    is_usable = pl.col("usable").fill_null(value=False)
    return joined.with_columns(
        usable=is_usable,
        chance=pl.when(is_usable).then("reviewed_share").otherwise(1.0),
        drawn=(pl.col("decider") == HUMAN) | pl.col("audited"),
    ).sort("case_key")


def _compute_sampling(cases: pl.DataFrame, inputs: ReportInputs) -> Iterator[CellSampling]:
    unassisted = inputs.records.decisions.filter(
        pl.col("exposure").is_in(UNASSISTED_EXPOSURES) & ~pl.col("unsure")
    )
    marked = cases.with_columns(
        judged=pl.col("case_key").is_in(unassisted["case_key"].unique().implode())
    )
    for (site, window, stage), part in marked.partition_by(GROUP_COLUMNS, as_dict=True).items():
        sampled = part.filter("drawn")
        sampled_share = compute_unit_share(part, "drawn")
        planned = float(part["chance"].to_numpy().mean())
        low, high = sampled_share.compute_ends(OFF_PLAN_LEVEL)
        yield CellSampling(
            site=str(site),
            window=str(window),
            stage=str(stage),
            cases=part.height,
            planned=planned,
            drawn=sampled_share,
            judged=compute_unit_share(sampled, "judged"),
            unsampled_decisions=part.filter(~pl.col("drawn") & pl.col("judged")).height,
            differs_from_plan=planned != 1 and not low <= planned <= high,
        )


def _compute_sampled_agreements(
    cases: pl.DataFrame, pairs: Pairs, inputs: ReportInputs
) -> Iterator[SampledAgreement]:
    agreements = pairs.frame.filter(pl.col("lever") == inputs.policy.whole_unit_lever).select(
        "case_key", "version", "agrees"
    )
    sampled = cases.filter("drawn").drop("version").join(agreements, on="case_key")
    parts = sampled.sort("case_key").partition_by("site", "window", "version", as_dict=True)
    for (site, window, version), part in parts.items():
        agrees = part["agrees"].cast(pl.Int64).to_numpy()
        units = part["unit"].rank("dense").to_numpy()
        weighted = compute_weighted_share(agrees, part["chance"].to_numpy(), units)
        yield SampledAgreement(
            site=str(site),
            window=str(window),
            version=str(version),
            unweighted=compute_unit_share(part),
            weighted=weighted,
            differs_at_most=None
            if weighted.effective is None
            else 1 - weighted.compute_ends(2 * 0.95 - 1)[0],  # one-sided
            method=ONE_SIDED_METHOD,
        )


@dataclass(frozen=True, slots=True)
class Hindsight(CellVersionFacts):
    """One narrowing by a guard, compared with the same guard on all decisions.

    Attributes:
        site, window, version, guard: the narrowed cell and version, and the guard.
        counted: which records speak against the guard's condition, to follow `15 of 182`.
        from_stage, to_stage: the stages.
        changed_at: start of the guard's counts.
        began_at: best estimate, from all decisions, of when the measure fell.
        narrowed_at: when the engine narrowed.
        seen_at: when the same guard would have tripped on all decisions; None if never. It can be
            later than `narrowed_at`, by chance.
        sampled_bad_records, all_bad_records: bad records of the guard until the narrowing: among
            the sampled, among all.
        cost: cost of the model's decisions from `began_at` to `narrowed_at`.
        cost_if_seen: the same until `seen_at`; None if that is unknown or later.
    """

    guard: str
    counted: str
    from_stage: str
    to_stage: str
    changed_at: datetime
    began_at: datetime
    narrowed_at: datetime
    seen_at: datetime | None
    sampled_bad_records: Share
    all_bad_records: Share
    cost: ModelCost
    cost_if_seen: ModelCost | None


@dataclass(frozen=True, slots=True)
class VisibleAgreement(CellVersionFacts):
    """Agreement of one cell and version: sampled, weighted, and of all decisions.

    `sampled` are the decided units of the attempt that the engine counted. `weighted` corrects them
    for the sample rate of each stage; `all` are all decided units of the attempt.
    """

    sampled: Share
    weighted: WeightedShare
    all: Share


def compute_hindsights(
    inputs: ReportInputs,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    model_cases: pl.DataFrame,
) -> tuple[Hindsight, ...]:
    """Return the hindsight of each narrowing by a quality guard, in order.

    A raised confidence floor keeps the stage, and is none.
    """
    return tuple(
        _compute_hindsight(event, guard, period, inputs, model_cases)
        for event, guard, period in _find_narrowings(inputs, state_periods)
    )


def _find_narrowings(
    inputs: ReportInputs, state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]]
) -> Iterator[tuple[Narrowed, Guard, StatePeriod]]:
    for each, at in list_effective_times(inputs.events):
        for event in select_events((each,), Narrowed):
            guards = {guard.id: guard for guard in inputs.policy.list_guards(event.cell)}
            guard = None if event.confidence_floor else guards.get(event.guard)
            periods = state_periods.get((event.cell, event.version), ())
            earlier = [period for period in periods if period.since < at <= period.until]
            if guard is not None and earlier and _is_quality_guard(guard):
                yield event, guard, earlier[-1]


def _is_quality_guard(guard: Guard) -> bool:
    measure = guard.condition.measure
    return measure.watch is Watch.UNITS and not measure.reads_assisted


def _compute_hindsight(
    event: Narrowed,
    guard: Guard,
    period: StatePeriod,
    inputs: ReportInputs,
    model_cases: pl.DataFrame,
) -> Hindsight:
    policy, state = inputs.policy, period.state
    view = inputs.evidence_views[event.cell, event.version].get_floor_view(
        find_acting_index(policy, state)
    )
    changed_at = max(state.changed_at, state.last_alarms.get(guard.id, state.changed_at))
    rows = view.rows.guard.select(
        view.rows.guard.occurred >= find_slot_after(changed_at, policy.tick)
    )
    alarm = compute_detector_series(guard, rows, view.unit_classes, policy).find_next_alarm(0)
    detected_at = None if alarm is None else to_instant(alarm, policy.tick)
    counted_rows = rows.select(rows.slot <= find_slot_before(event.at, policy.tick))
    began_at = estimate_start(counted_rows, guard, view.unit_classes, policy) or changed_at
    cell_cases = model_cases.filter(
        (pl.col("site") == event.cell.site)
        & (pl.col("window") == event.cell.window)
        & (pl.col("version") == event.version)
    )
    is_sooner = detected_at is not None and detected_at <= event.at
    return Hindsight(
        site=event.cell.site,
        window=event.cell.window,
        version=event.version,
        guard=str(guard.condition),
        counted=guard.condition.measure.describe_against(guard.condition.subject),
        from_stage=event.from_stage,
        to_stage=event.to_stage,
        changed_at=changed_at,
        began_at=began_at,
        narrowed_at=event.at,
        seen_at=detected_at,
        sampled_bad_records=_compute_bad_share(
            counted_rows.select(_find_visible_rows(view, counted_rows)),
            guard,
            view.unit_classes,
            policy,
        ),
        all_bad_records=_compute_bad_share(counted_rows, guard, view.unit_classes, policy),
        cost=compute_cost_between(cell_cases, began_at, event.at),
        cost_if_seen=compute_cost_between(cell_cases, began_at, detected_at)
        if is_sooner and detected_at
        else None,
    )


def compute_cost_between(model_cases: pl.DataFrame, since: datetime, until: datetime) -> ModelCost:
    """Return the cost of the cases that occurred in [since, until)."""
    occurred_at = pl.from_epoch("occurred_us", time_unit="us").dt.replace_time_zone("UTC")
    return compute_model_cost(model_cases.filter((occurred_at >= since) & (occurred_at < until)))


def _find_visible_rows(view: EvidenceView, rows: UnitArrays) -> Bools:
    """Return which rows have a decision that the engine's guards counted."""
    if not view.stage_history.ever_left_shadow:
        return np.ones(len(rows), dtype=bool)
    return view.find_reviewed(rows)


def _compute_losses(rows: UnitArrays, guard: Guard, kinds: UnitClasses, policy: Policy) -> Floats:
    """Return each record's loss in the guard's measure, in [0, 1]; NaN for other units."""
    matches = kinds.get_class_counts(guard.condition)[rows.unit_class]
    weights = np.array(guard.condition.measure.weigh_losses(policy.cost_shares))
    return np.where(matches.any(axis=1), matches @ weights, np.nan)


def _compute_bad_share(rows: UnitArrays, guard: Guard, kinds: UnitClasses, policy: Policy) -> Share:
    losses = _compute_losses(rows, guard, kinds, policy)
    return compute_share(int(np.sum(losses > 0)), int(np.sum(~np.isnan(losses))))


def estimate_start(
    rows: UnitArrays, guard: Guard, kinds: UnitClasses, policy: Policy
) -> datetime | None:
    """Return when the measure most likely fell: the split that explains the losses best.

    Records are sorted by time; the mean loss is higher after the split than before. A split must
    gain more than ln n (Schwarz, The Annals of Statistics 6 (1978) 461); otherwise the time of the
    first record is returned. None without records.
    """
    order = np.argsort(rows.occurred, kind="stable")
    losses = _compute_losses(rows, guard, kinds, policy)[order]
    is_valid = ~np.isnan(losses)
    losses, occurred = losses[is_valid], rows.occurred[order][is_valid]
    if not len(losses):
        return None
    n, total = len(losses), losses.sum()
    before = np.concatenate([[0.0], np.cumsum(losses)[:-1]])
    count = np.arange(n, dtype=float)
    gain = compute_log_likelihood(before, count) + compute_log_likelihood(total - before, n - count)
    with np.errstate(invalid="ignore", divide="ignore"):
        is_worse = (count == 0) | ((total - before) / (n - count) > before / count)
    index = int(np.argmax(np.where(is_worse, gain, -np.inf)))
    index = index if gain[index] - gain[0] > np.log(n) else 0
    return to_instant(int(occurred[index]), policy.tick)


def compute_visible_agreements(inputs: ReportInputs) -> tuple[VisibleAgreement, ...]:
    """Return the agreement of every cell and version, in order of the policy."""
    return tuple(
        _compute_visible_agreement(inputs.evidence_views[key], inputs.policy)
        for key in inputs.cell_versions
    )


def _compute_visible_agreement(view: EvidenceView, policy: Policy) -> VisibleAgreement:
    rows = view.rows.gate
    rows = rows.select(rows.occurred >= find_slot_before(view.state.attempt_since, policy.tick))
    rows = rows.select(
        view.unit_classes.is_whole_unit[rows.unit_class]
        & ~view.unit_classes.is_missing[rows.unit_class]
    )
    is_visible = _find_visible_rows(view, rows)
    kind_agrees = np.array(
        [kind.agrees and kind.decided != MISSING for kind in view.unit_classes.classes], dtype=bool
    )
    is_agreeing = kind_agrees[rows.unit_class]
    sampling_rates = np.array([1.0, *(stage.reviewed_share for stage in policy.stages)])
    row_rates = sampling_rates[view.stage_history.find_levels(rows.occurred)]
    return VisibleAgreement(
        site=view.cell.site,
        window=view.cell.window,
        version=view.version,
        sampled=compute_share(int(is_agreeing[is_visible].sum()), int(is_visible.sum())),
        weighted=compute_weighted_share(is_agreeing[is_visible], row_rates[is_visible]),
        all=compute_share(int(is_agreeing.sum()), len(rows)),
    )
