"""Inputs of a report, who decided each case, stages over time, and changes in action frequency.

Deciders follow from the stage, acting version and sampling value at the case's time. The engine
counts units; costs are of cases, so every case is assigned.

The stage history of a cell has its grants at the end.

Changes in action frequency compare the model with humans on the same cases.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np
import polars as pl

from rollout.engine.decide.projection import apply_events, list_effective_times
from rollout.engine.decide.scope import Scope, compute_stage_level
from rollout.engine.evidence.case_placement import encode_values
from rollout.engine.evidence.frames import INSTANT, VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.stage_history import (
    FamiliarHistories,
    FamiliarHistory,
    StageHistory,
    build_stage_shares,
    draw_buckets,
)
from rollout.engine.evidence.stored_units import FirstValues
from rollout.engine.evidence.tallied_units import fill_attribute_values
from rollout.engine.ledger.ledger import CanonicalRow
from rollout.engine.records.records import BaselineCount
from rollout.engine.records.reviews import CleaningChoice
from rollout.features.reports.inputs.cell_facts import CellStages, GrantFacts, StageInterval
from rollout.features.reports.inputs.evidence_inputs import EvidenceInputs
from rollout.features.reports.inputs.pairs import Pairs, build_case_frame, build_pairs
from rollout.features.reports.inputs.pictures import MediaFinder, find_no_media
from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.calendar.instants import (
    SHADOW,
    Cell,
    count_micros,
    find_slot_after,
    to_instant,
    to_micros,
)
from rollout.kernel.policy.evidence_sources import RegisteredUnits
from rollout.kernel.policy.familiarity import FamiliarityRule, decode_unit_values, format_value
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.evidence import compute_paired_log_e
from rollout.kernel.statistics.intervals import (
    PairedChange,
    compute_case_difference_number,
    compute_paired_change,
)
from rollout.kernel.units import CASELESS, Lever

LATE_UNIT_SCHEMA = {"unit": pl.String(), "version": pl.String()}
ACTION_SCHEMA = {
    "case_key": pl.String(),
    "lever": pl.String(),
    "action": pl.String(),
    "by": pl.String(),  # person or model
    "version": pl.String(),
    "at": INSTANT,
    "permission": pl.String(),  # whether the action was authorized
    "permit_kind": pl.String(),  # bound or unbound; null without a permit
}
"""Schema of `ReportInputs.actions`: one row a case and lever, the last revision of it."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """An input file with the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PendingReviews:
    """Review tasks of one site when a report was made.

    Attributes:
        site: of the cases.
        open: open review tasks.
        overdue: tasks whose decision came too late, or never, in the span of the report.
        expiring: open tasks that are due within a quarter of the policy's grace.
        oldest: when the oldest open task was created; None without one.
    """

    site: str
    open: int
    overdue: int
    expiring: int
    oldest: datetime | None


@dataclass(frozen=True)
class PolicyPeriod:
    """A policy in force from `since` on, with its stage history by cell."""

    since: datetime
    policy: Policy
    timelines: Mapping[Cell, StageHistory]


@dataclass(frozen=True)
class ReportInputs(EvidenceInputs):
    """All inputs of a report; the same inputs give the same report.

    Attributes:
        timelines: stage history of each cell, of any acting version.
        units: one row per track, unit, version and lever, of the cases that occurred.
        records: all records as read.
        cases: the cases in a cell, with window, day, unit and t.
        unplaced: number of cases without a cell, by reason.
        salt: salt of the sampling values.
        audit_salt: salt of the audits; empty: the same.
        is_simulated: whether approvals were simulated.
        sources: input files, including the policy.
        command: the command that reproduces the report.
        product: name and version of the program.
        media: finds the media of the report's costliest cases.
        chosen_sources: sources whose decisions a replay counts; () for all.
        whole_cells: of a replay with several confidence floors, the same with one gate for each
            cell.

    Only of a live rollout:

    Attributes:
        made_at: when the report was made; later records are ignored. None for a replay.
        counted_until: the last tick, up to which units were counted; None for a replay.
        closes_at: when the last case of the span closes; None for a replay.
        pending_units: units that are not counted yet, as rows of `units`, gate track only.
        late_units: unit and version of those whose decision arrived after gates had counted them.
        withheld_count: cases withheld because they can still be reviewed blind.
        actions: actions taken, with columns `ACTION_SCHEMA`.
        baselines: the manual baseline.
        pending_reviews: by site, for sites with review tasks.
        last_activity: by site, the time of its last record or heartbeat.
        ledger_rows: the stored ledger, up to the end of the span.
        policy_periods: all policies in order, the current one last.
        choices: cleaning choices in order of time.
        first_values: of all counted units; None for those of `units`.
        registered: who registered the cases, by name.
    """

    timelines: Mapping[Cell, StageHistory]
    units: pl.DataFrame
    records: RecordFrames
    cases: pl.DataFrame
    unplaced: Mapping[str, int]
    salt: bytes
    is_simulated: bool
    audit_salt: bytes = field(default=b"", repr=False)
    sources: tuple[SourceSummary, ...] = ()
    command: str = ""
    product: str = ""
    media: MediaFinder = find_no_media
    chosen_sources: tuple[str, ...] = ()
    whole_cells: "ReportInputs | None" = None
    made_at: datetime | None = None
    counted_until: datetime | None = None
    closes_at: datetime | None = None
    pending_units: pl.DataFrame = field(default_factory=pl.DataFrame)
    late_units: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LATE_UNIT_SCHEMA))
    withheld_count: int = 0
    actions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ACTION_SCHEMA))
    baselines: tuple[BaselineCount, ...] = ()
    pending_reviews: tuple[PendingReviews, ...] = ()
    last_activity: Mapping[str, datetime] = field(default_factory=dict)
    ledger_rows: tuple[CanonicalRow, ...] = ()
    policy_periods: tuple[PolicyPeriod, ...] = ()
    choices: tuple[CleaningChoice, ...] = ()
    first_values: FirstValues | None = None
    registered: tuple[RegisteredUnits, ...] = ()

    @property
    def is_live(self) -> bool:
        """Return whether the inputs are of a live rollout, not of a replay."""
        return self.made_at is not None

    @cached_property
    def pairs(self) -> Pairs:
        """Return the pairs of the records, built once for all figures."""
        return build_pairs(self.records, self.cases, self.policy)

    @cached_property
    def case_facts(self) -> pl.DataFrame:
        """Return the facts of each case, built once for all figures."""
        return build_case_frame(self.records, self.cases)

    @cached_property
    def decided_cases(self) -> pl.DataFrame:
        """Return every case in a cell with its decider, assigned once for all figures."""
        return assign_deciders(self)

    @property
    def all_policy_periods(self) -> tuple[PolicyPeriod, ...]:
        """Return the policy periods; a single policy is one period."""
        return self.policy_periods or (PolicyPeriod(self.first, self.policy, self.timelines),)


@dataclass(frozen=True, slots=True)
class CountedActionChange:
    """How often model and humans take one action, on the cases that both decided.

    `change` is model minus humans, per 100 cases.
    """

    version: str
    lever: str
    action: str
    by_human: int
    by_model: int
    change: PairedChange


@dataclass(frozen=True, slots=True)
class ActionFrequencyChange(CountedActionChange):
    """How often model and humans take one action, and the evidence of a difference.

    `log_e` is valid at every look, over one case of each unit.
    """

    log_e: float


def compute_action_changes(pairs: Pairs, policy: Policy) -> tuple[ActionFrequencyChange, ...]:
    """Return the change of every action in use, for levers with labels."""
    return tuple(
        change
        for version in pairs.predicted
        for lever in policy.levers
        if lever.has_single_labels
        for change in _compute_lever_changes(pairs.select(version, lever.id), version, lever)
    )


def _compute_lever_changes(
    pairs: pl.DataFrame, version: str, lever: Lever
) -> list[ActionFrequencyChange]:
    observed = set(pairs["human_action"]) | set(pairs["model_action"])
    actions = [action for action in dict.fromkeys(lever.actions) if action in observed]
    first_cases = pairs.sort("case_key").unique("unit", keep="first")
    return [
        _compute_action_change(pairs, first_cases, version, lever.id, action) for action in actions
    ]


def _compute_action_change(
    pairs: pl.DataFrame, first_cases: pl.DataFrame, version: str, lever: str, action: str
) -> ActionFrequencyChange:
    human_acts, model_acts = _find_action(pairs, action)
    difference = model_acts.astype(np.int64) - human_acts
    number = compute_case_difference_number(pairs["unit"], difference)
    model_only, human_only = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    first_human, first_model = _find_action(first_cases, action)
    return ActionFrequencyChange(
        version=version,
        lever=lever,
        action=action,
        by_human=int(human_acts.sum()),
        by_model=int(model_acts.sum()),
        change=compute_paired_change(model_only, human_only, pairs.height, number),
        log_e=compute_paired_log_e(
            int(np.sum(first_model & ~first_human)), int(np.sum(first_human & ~first_model))
        ),
    )


def _find_action(pairs: pl.DataFrame, action: str) -> tuple[Bools, Bools]:
    """Return on which cases humans, and the model, take an action."""
    human_acts, model_acts = pairs["human_action"] == action, pairs["model_action"] == action
    return human_acts.to_numpy(), model_acts.to_numpy()


def find_unfamiliar_values(
    cases: pl.DataFrame, occurred: Ints, history: FamiliarHistory, rule: FamiliarityRule
) -> pl.Series:
    """Return the unfamiliar values of each case in words, null if all were familiar.

    Args:
        cases: of one cell, with their attributes.
        occurred: the slot of each.
        history: of the acting version in the cell.
        rule: of the policy.
    """
    texts = encode_values(cases, rule)
    unfamiliar: list[list[str]] = [[] for _ in range(cases.height)]
    for text in texts.unique(maintain_order=True):
        places = np.flatnonzero((texts == text).to_numpy())
        (values,) = decode_unit_values(f"[{text}]")
        for value in sorted(values):
            is_familiar = history.find_familiar(value, occurred[places])
            for place in places[~is_familiar].tolist():
                unfamiliar[place].append(format_value(value))
    return pl.Series([", ".join(names) or None for names in unfamiliar], dtype=pl.String)


HUMAN, HUMAN_CONFIRMS, MODEL = "person", "confirms", "model"
"""Deciders: a human blind, a human who sees the model's answer, or the model."""

DECIDER_SCHEMA = {
    "case_key": pl.String,
    "site": pl.String,
    "window": pl.String,
    "unit": pl.String,
    "occurred_us": pl.Int64,
    "rung": pl.Int64,
    "version": pl.String,
    "decider": pl.String,
    "audited": pl.Boolean,
    "reviewed_share": pl.Float64,
    "unfamiliar": pl.String,
    "stage_decider": pl.String,
}


def assign_deciders(inputs: ReportInputs) -> pl.DataFrame:
    """Return every case in a cell with its decider.

    Columns: case_key, site, window, unit (its number), t, rung (stage level), version (null in
    shadow), decider, audited, reviewed_share (decided blind; 1 in shadow),
    unfamiliar (values in words with which the acting version was not familiar, null without any),
    stage_decider (the decider if all values had been familiar). Unfamiliar cases, and those without
    a usable answer of the acting version, are decided by a human.
    """
    acting_versions = find_acting_versions(inputs)
    histories = build_familiar_histories(inputs)
    parts = [
        _reassign_unfamiliar(
            _assign_cell_deciders(
                part, Cell(str(site), str(window)), period, inputs, acting_versions
            ),
            part,
            period.policy,
            histories,
        )
        for period, cases in split_by_policy_period(inputs, inputs.cases)
        for (site, window), part in cases.sort("case_key")
        .partition_by("site", "window", as_dict=True)
        .items()
    ]
    decided_cases = pl.concat(parts) if parts else pl.DataFrame(schema=DECIDER_SCHEMA)
    decided_cases = decided_cases.with_columns(pl.col("unit").rank("dense"))
    return _reassign_unanswered(decided_cases, inputs).sort("case_key")


def find_acting_versions(inputs: ReportInputs) -> Mapping[Cell, list[tuple[datetime, str]]]:
    """Return the acting versions of each cell, and from when they hold for units."""
    acting_versions: dict[Cell, list[tuple[datetime, str]]] = {}
    for event, at in list_effective_times(inputs.events):
        if event.opened_key:
            cell, version = event.opened_key
            changes = acting_versions.setdefault(cell, [])
            if not changes or changes[-1][1] != version:
                changes.append((at, version))
    return acting_versions


def build_familiar_histories(inputs: ReportInputs) -> FamiliarHistories:
    """Return which attribute values were familiar when, by cell and version."""
    histories = FamiliarHistories()
    for event, at in list_effective_times(inputs.events):
        histories.add_event(event, find_slot_after(at, inputs.policy.tick))
    return histories


def split_by_policy_period(
    inputs: ReportInputs, rows: pl.DataFrame
) -> Iterator[tuple[PolicyPeriod, pl.DataFrame]]:
    """Yield each policy period with its rows by `occurred_us`; earlier ones go to the first."""
    policy_periods = inputs.all_policy_periods
    starts = [to_micros(period.since) for period in policy_periods]
    for index, period in enumerate(policy_periods):
        next_start = starts[index + 1] if index + 1 < len(policy_periods) else None
        is_after = pl.lit(value=True) if index == 0 else pl.col("occurred_us") >= starts[index]
        is_before = pl.lit(value=True) if next_start is None else pl.col("occurred_us") < next_start
        yield period, rows.filter(is_after & is_before)


def join_stages(inputs: ReportInputs, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the stage of their `rung`, by the policy then in force.

    Added are stage, blind (the share that humans decide blind) and decides (whether the model
    decides the rest).
    """
    return pl.concat(
        part.join(_build_ladder(period.policy), on="rung", how="left")
        for period, part in split_by_policy_period(inputs, rows)
    )


def _build_ladder(policy: Policy) -> pl.DataFrame:
    """Return the stages of a policy, shadow first: rung, stage, blind, decides."""
    rows = [(stage.id, stage.blind, stage.model_decides) for stage in policy.stages]
    schema = {"stage": pl.String, "blind": pl.Float64, "decides": pl.Boolean}
    ladder = pl.DataFrame([(policy.stage_ids[0], 1.0, False), *rows], schema=schema, orient="row")
    return ladder.with_columns(rung=pl.int_range(pl.len(), dtype=pl.Int64))


def _assign_cell_deciders(
    part: pl.DataFrame,
    cell: Cell,
    period: PolicyPeriod,
    inputs: ReportInputs,
    acting_versions: Mapping[Cell, list[tuple[datetime, str]]],
) -> pl.DataFrame:
    policy, shares = period.policy, build_stage_shares(period.policy)
    occurred = part["occurred_us"].to_numpy() // count_micros(policy.tick)
    stage_levels, buckets = _find_levels_and_buckets(part, cell, period, inputs)
    is_above_shadow = stage_levels > 0
    versions = _find_versions(policy, acting_versions.get(cell, []), occurred, is_above_shadow)
    is_sampled = ~is_above_shadow | shares.find_reviewed(buckets, stage_levels)
    is_blind = np.where(is_above_shadow, buckets < shares.blind_buckets[stage_levels], True)
    decider = np.where(
        is_blind, HUMAN, np.where(shares.model_decides[stage_levels], MODEL, HUMAN_CONFIRMS)
    )
    return part.select("case_key", "site", "window", "unit", "occurred_us").with_columns(
        rung=pl.Series(stage_levels),
        version=versions,
        decider=pl.Series(decider.astype(str)),
        audited=pl.Series(is_sampled & ~is_blind),
        reviewed_share=pl.Series(shares.reviewed_shares[stage_levels]),
    )


def find_drawn_units(
    part: pl.DataFrame, cell: Cell, period: PolicyPeriod, inputs: ReportInputs
) -> Bools:
    """Return which rows were in shadow, or drawn for a blind decision above it.

    `part` are rows of one cell and policy period, with `unit` and `occurred_us`.
    """
    stage_levels, buckets = _find_levels_and_buckets(part, cell, period, inputs)
    is_reviewed = build_stage_shares(period.policy).find_reviewed(buckets, stage_levels)
    return np.asarray((stage_levels == 0) | is_reviewed)


def _find_levels_and_buckets(
    part: pl.DataFrame, cell: Cell, period: PolicyPeriod, inputs: ReportInputs
) -> tuple[Ints, Ints]:
    """Return the stage level and the sampling bucket of each row; buckets are 0 in shadow."""
    occurred = part["occurred_us"].to_numpy() // count_micros(period.policy.tick)
    stage_levels = period.timelines.get(cell, StageHistory()).find_levels(occurred)
    buckets = np.zeros(len(stage_levels), dtype=np.int64)
    is_above_shadow = stage_levels > 0
    if is_above_shadow.any():
        keys = part.filter(pl.Series(is_above_shadow))["unit"].to_list()
        shares = build_stage_shares(period.policy)
        salts = inputs.salt, inputs.audit_salt or inputs.salt
        buckets[is_above_shadow] = draw_buckets(shares, *salts, keys)
    return stage_levels, buckets


def _reassign_unfamiliar(
    cases: pl.DataFrame, attributes: pl.DataFrame, policy: Policy, histories: FamiliarHistories
) -> pl.DataFrame:
    """Return a cell's cases with humans as deciders where the acting version is not familiar.

    `attributes` are the same cases in the same order, with their attributes.
    """
    rule = policy.evidence.familiar
    cases = cases.with_columns(unfamiliar=pl.lit(None, pl.String), stage_decider=pl.col("decider"))
    if rule is None:
        return cases
    occurred = cases["occurred_us"].to_numpy() // count_micros(policy.tick)
    cell = Cell(*cases.select("site", "window").row(0))
    for version in cases["version"].drop_nulls().unique():
        values = find_unfamiliar_values(attributes, occurred, histories[cell, version], rule)
        is_own = pl.col("version").eq_missing(pl.lit(version))
        cases = cases.with_columns(unfamiliar=pl.when(is_own).then(values).otherwise("unfamiliar"))
    is_familiar = pl.col("unfamiliar").is_null()
    return cases.with_columns(
        decider=pl.when(is_familiar).then("decider").otherwise(pl.lit(HUMAN)),
        audited=pl.col("audited") & is_familiar,
    )


def _find_versions(
    policy: Policy,
    changes: list[tuple[datetime, str]],
    occurred: Ints,
    is_above_shadow: Bools,
) -> pl.Series:
    """Return the acting version in each slot, null in shadow."""
    slots = np.array([find_slot_after(at, policy.tick) for at, _ in changes], dtype=np.int64)
    names = np.array([None, *(version for _, version in changes)], dtype=object)
    indices = np.where(is_above_shadow, np.searchsorted(slots, occurred, side="right"), 0)
    return pl.Series(names[indices].tolist(), dtype=pl.String)


def find_usable_answers(inputs: ReportInputs) -> pl.DataFrame:
    """Return whether each answer is complete and confident enough: case_key, version, usable.

    With several confidence floors that is the one in force when the case occurred.
    """
    levers, confidence_floor = inputs.policy.levers, inputs.policy.evidence.lowest_floor
    is_usable = pl.all_horizontal(pl.col(VALUE_PREFIX + lever.id).is_not_null() for lever in levers)
    if confidence_floor is not None:
        is_usable &= (pl.col("confidence") >= confidence_floor).fill_null(value=False)
    predictions = inputs.records.predictions
    if inputs.policy.evidence.higher_floors:
        predictions = predictions.join(_find_acting_floors(inputs), on="case_key", how="left")
        is_usable &= pl.col("floor").fill_null(0).eq(0) | (
            (pl.col("confidence") >= pl.col("floor")) & (pl.col("confidence") <= 1)
        ).fill_null(value=False)
    return predictions.select("case_key", "version", usable=is_usable)


def _find_acting_floors(inputs: ReportInputs) -> pl.DataFrame:
    """Return the acting confidence floor of each case: case_key, floor; 0 in shadow."""
    parts = [
        part.select("case_key").with_columns(
            floor=pl.Series(
                period.timelines.get(Cell(str(site), str(window)), StageHistory()).find_floors(
                    part["occurred_us"].to_numpy() // count_micros(period.policy.tick)
                )
            )
        )
        for period, cases in split_by_policy_period(inputs, inputs.cases)
        for (site, window), part in cases.partition_by("site", "window", as_dict=True).items()
    ]
    return (
        pl.concat(parts)
        if parts
        else pl.DataFrame(schema={"case_key": pl.String, "floor": pl.Float64})
    )


def _reassign_unanswered(cases: pl.DataFrame, inputs: ReportInputs) -> pl.DataFrame:
    """Return the cases with humans as deciders where no answer is usable."""
    joined = cases.join(find_usable_answers(inputs), on=["case_key", "version"], how="left")
    has_answer = pl.col("usable").fill_null(value=False)
    return joined.with_columns(
        decider=pl.when(has_answer).then("decider").otherwise(pl.lit(HUMAN)),
        audited=pl.col("audited") & has_answer,
    ).drop("usable")


NOT_DRAWN = "not sampled for a blind review or an audit"
UNFAMILIAR = "a value was not familiar to the version"


def mark_uncounted_units(inputs: ReportInputs, units: pl.DataFrame) -> pl.DataFrame:
    """Return units with `uncounted`: why gates do not count them, null if they do.

    `units`: rows of `ReportInputs.units` in a window; each stage asks for its share of them, under
    the policy in force when they occurred.
    """
    histories = build_familiar_histories(inputs)
    rows = fill_attribute_values(units).with_columns(
        occurred_us=pl.col("occurred") * count_micros(inputs.policy.tick)
    )
    parts = []
    for period, period_rows in split_by_policy_period(inputs, rows):
        groups = period_rows.partition_by("site", "window", "version", as_dict=True)
        for (site, window, version), part in groups.items():
            cell = Cell(str(site), str(window))
            is_drawn = find_drawn_units(part, cell, period, inputs)
            is_familiar = _find_familiar(part, histories[cell, str(version)])
            reason = (
                pl.when(~pl.Series(is_drawn)).then(pl.lit(NOT_DRAWN))
                .when(~pl.Series(is_familiar)).then(pl.lit(UNFAMILIAR))
            )  # fmt: skip
            parts.append(part.with_columns(uncounted=reason))
    return pl.concat(parts) if parts else rows.with_columns(uncounted=pl.lit(None, pl.String))


def _find_familiar(part: pl.DataFrame, history: FamiliarHistory) -> Bools:
    """Return which units had only values that were familiar when they occurred, or no case."""
    is_familiar = np.ones(part.height, dtype=bool)
    stored = pl.when(pl.col("predicted") != CASELESS).then("attribute_values")
    texts = part.select(stored.otherwise(pl.lit(""))).to_series()
    for text in texts.unique().to_list():
        places = np.flatnonzero((texts == text).to_numpy())
        for value in frozenset().union(*decode_unit_values(text)):
            is_familiar[places] &= history.find_familiar(value, part["occurred"].to_numpy()[places])
    return is_familiar


def compute_stage_histories(inputs: ReportInputs) -> tuple[CellStages, ...]:
    """Return the stage history of every cell of the policy, in its order."""
    scope, acting_versions = apply_events(inputs.events), find_acting_versions(inputs)
    return tuple(
        _build_cell_stages(cell, inputs, scope, acting_versions.get(cell, []))
        for cell in inputs.policy.cells
    )


def _build_cell_stages(
    cell: Cell, inputs: ReportInputs, scope: Scope, acting_versions: list[tuple[datetime, str]]
) -> CellStages:
    timeline = inputs.timelines.get(cell, StageHistory())
    intervals = tuple(_list_intervals(timeline, acting_versions, inputs))
    last = intervals[-1]
    steps = [
        step
        for slot, step in zip(timeline.slots, pairwise((0, *timeline.stage_levels)), strict=True)
        if to_instant(slot, inputs.policy.tick) >= inputs.first
    ]
    time_above = sum(
        (interval.until - interval.since for interval in intervals if interval.stage != SHADOW),
        timedelta(),
    )
    return CellStages(
        site=cell.site,
        window=cell.window,
        stage=last.stage,
        version=last.version,
        since=_find_start(timeline, acting_versions, inputs, last),
        intervals=intervals,
        grants=_list_grants(cell, inputs, scope),
        widened=sum(after > before for before, after in steps),
        narrowed=sum(after < before for before, after in steps),
        days_above=time_above / timedelta(days=1),
    )


def _find_start(
    timeline: StageHistory,
    acting_versions: list[tuple[datetime, str]],
    inputs: ReportInputs,
    last: StageInterval,
) -> datetime:
    """Return when an interval's stage and version began, also before the report's span."""
    if last.since > inputs.first:
        return last.since
    changes = [to_instant(slot, inputs.policy.tick) for slot in timeline.slots]
    if last.version is not None:
        changes += [at for at, _ in acting_versions]
    starts = [*(event.at for event in inputs.events[:1]), *changes]
    return max((at for at in starts if at <= inputs.first), default=inputs.first)


def _list_intervals(
    timeline: StageHistory, acting_versions: list[tuple[datetime, str]], inputs: ReportInputs
) -> Iterator[StageInterval]:
    """Yield the periods without a change of stage or acting version."""
    starts = [to_instant(slot, inputs.policy.tick) for slot in timeline.slots]
    changes = sorted({inputs.first, *starts, *(at for at, _ in acting_versions)})
    changes = [at for at in changes if inputs.first <= at < inputs.last] or [inputs.first]
    intervals = []
    for since, until in zip(changes, [*changes[1:], inputs.last], strict=True):
        stage_level = (0, *timeline.stage_levels)[bisect_right(starts, since)]
        index = bisect_right([at for at, _ in acting_versions], since) - 1
        version = acting_versions[index][1] if stage_level and index >= 0 else None
        stage = inputs.policy.stage_ids[stage_level]
        intervals.append(StageInterval(stage, version, since, until))
    for _, group in groupby(intervals, key=lambda interval: (interval.stage, interval.version)):
        same = list(group)
        yield replace(same[0], until=same[-1].until)


def _list_grants(cell: Cell, inputs: ReportInputs, scope: Scope) -> tuple[GrantFacts, ...]:
    acting_version = scope.get_holder(cell)
    if acting_version is None or not compute_stage_level(
        scope, inputs.policy, cell, acting_version, inputs.last
    ):
        return ()
    return tuple(
        GrantFacts(grant.stage, acting_version, grant.since, grant.until, grant.proposal)
        for grant in scope.get_cell_state(cell, acting_version).grants
        if grant.is_valid(inputs.last)
    )
