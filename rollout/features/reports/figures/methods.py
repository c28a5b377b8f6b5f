"""Cost and gain of the model's decisions, and what other rules would have decided.

Costs are compared with those of humans on the same cases.

Other ways to open cells: a gate for each confidence floor, one gate for each whole cell, and a
plain threshold of confidence, which needs no evidence. All are about the same cases.

Gain is what the model's arm brought beyond the people's arm, per cell, version and outcome. All
units count that the sampling value alone gave to an arm, in all attempts. The interval holds at
every look; unknown outcomes count against the model below, and against people above.

Plain rules say when they would have widened each cell; they are for comparison only. They look at
each decision as it comes, count every case and drop missing decisions. They repeat a fixed-sample
comparison at every look, so their error rate is not controlled.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.frames import VALUE_PREFIX
from rollout.engine.words.formatting import TruthWords, choose_words
from rollout.features.reports.inputs.cell_facts import CellVersionFacts
from rollout.features.reports.inputs.inputs import MODEL, ReportInputs
from rollout.features.reports.inputs.pairs import UNASSISTED_EXPOSURES, Pairs, join_comparison
from rollout.kernel.arrays import Bools
from rollout.kernel.calendar.instants import FIRST_SLOT, Cell, CellVersion, from_micros, to_micros
from rollout.kernel.policy.cell_evidence import format_floor, list_floors
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.gain import ArmUnits, compute_gain_interval, estimate_gain
from rollout.kernel.statistics.intervals import Share, compute_unit_share
from rollout.kernel.units import DECIDES, PROPOSES, Lever, OutcomeRule


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Errors and cost of the cases that the model decided.

    Attributes:
        cases, audited: all such cases, and those with an audit.
        known_cases: cases with a known truth: the outcome, else the first unassisted decision.
        by_outcome: cases with a known outcome.
        wrong: known cases on which the model's label was wrong.
        wrong_action: known cases on which the wrong action was taken.
        cost: cost of the wrong actions, in the policy's unit.
        human_known_cases: cases with both an outcome and an unassisted decision.
        human_wrong, human_wrong_action, human_cost: humans on these; None without outcomes.
    """

    cases: int
    audited: int
    known_cases: int
    by_outcome: int
    wrong: Share
    wrong_action: Share
    cost: float | None
    human_known_cases: int
    human_wrong: int | None
    human_wrong_action: int | None
    human_cost: float | None

    @property
    def words(self) -> TruthWords:
        """Return the words for answers to the cases with a known truth."""
        return choose_words(self.by_outcome, self.known_cases)


@dataclass(frozen=True, slots=True)
class CellModelCost(CellVersionFacts):
    """The model's cost in one cell, by version."""

    cost: ModelCost


def build_model_cases(inputs: ReportInputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return the cases that the model decided, with errors and costs."""
    return add_costs(inputs, cases.filter(pl.col("decider") == MODEL)).sort(
        "occurred_us", "case_key"
    )


def add_costs(inputs: ReportInputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return cases with the errors and costs of a version and of humans.

    `cases`: columns case_key, version and any others.

    Returns:
        The same rows with known, by_outcome, wrong, wrong_action, cost, people_known,
        people_wrong, people_wrong_action, people_cost; wrong means wrong on any lever.
    """
    levers = [_compute_lever_costs(inputs, cases, lever) for lever in inputs.policy.levers]
    combined = (
        pl.concat(levers)
        .lazy()
        .group_by("case_key", "version")
        .agg(
            pl.col("known", "by_outcome", "people_known").all(),
            pl.col("wrong", "wrong_action", "people_wrong", "people_wrong_action").any(),
            pl.col("cost", "people_cost").sum(),
        )
    )
    return cases.lazy().join(combined, on=["case_key", "version"], how="left").collect()


def _compute_lever_costs(
    inputs: ReportInputs, case_frame: pl.DataFrame, lever: Lever
) -> pl.DataFrame:
    column = VALUE_PREFIX + lever.id
    records = inputs.records
    answers = records.predictions.lazy().select("case_key", "version", model=column)
    outcomes = records.outcomes.lazy().select("case_key", outcome=column)
    decisions = _find_first_decisions(inputs, column)
    keys = case_frame.lazy().select("case_key", "version")
    cases = (
        keys.join(answers, on=["case_key", "version"])
        .join(outcomes, on="case_key", how="left")
        .join(decisions, on="case_key", how="left")
        .with_columns(right=pl.coalesce("outcome", "verdict"))
        .collect()
    )
    wrong, wrong_action = ~pl.col("agrees"), ~pl.col("same_action")
    compared = join_comparison(
        lever, cases, "right", "model", wrong=wrong, wrong_action=wrong_action, cost="cost"
    )
    both = join_comparison(
        lever,
        compared,
        *("outcome", "verdict"),
        people_wrong=wrong,
        people_wrong_action=wrong_action,
        people_cost="cost",
    )
    return both.select(
        *("case_key", "version", "wrong", "wrong_action", "cost"),
        *("people_wrong", "people_wrong_action", "people_cost"),
        known=pl.col("right").is_not_null(),
        by_outcome=pl.col("outcome").is_not_null(),
        people_known=pl.col("outcome").is_not_null() & pl.col("verdict").is_not_null(),
    )


def _find_first_decisions(inputs: ReportInputs, column: str) -> pl.LazyFrame:
    """Return the first unassisted answer to each case: case_key, verdict."""
    return (
        inputs.records.decisions.lazy()
        .filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
        .drop_nulls(column)
        .sort("seat", "at", "reviewer", nulls_last=True)
        .unique("case_key", keep="first")
        .select("case_key", verdict=column)
    )


def compute_model_cost(cases: pl.DataFrame) -> ModelCost:
    """Return the cost of rows of `build_model_cases`."""
    with_truth, with_both = cases.filter("known"), cases.filter("people_known")
    has_both = with_both.height > 0
    return ModelCost(
        cases=cases.height,
        audited=int(cases["audited"].sum()),
        known_cases=with_truth.height,
        by_outcome=int(cases["by_outcome"].sum()),
        wrong=compute_unit_share(with_truth, "wrong"),
        wrong_action=compute_unit_share(with_truth, "wrong_action"),
        cost=float(with_truth["cost"].sum()) if with_truth.height else None,
        human_known_cases=with_both.height,
        human_wrong=int(with_both["people_wrong"].sum()) if has_both else None,
        human_wrong_action=int(with_both["people_wrong_action"].sum()) if has_both else None,
        human_cost=float(with_both["people_cost"].sum()) if has_both else None,
    )


def compute_cell_costs(cases: pl.DataFrame) -> tuple[CellModelCost, ...]:
    """Return the model's cost in every cell and version with a decision of it."""
    parts = cases.sort("site", "window", "version").partition_by(
        "site", "window", "version", as_dict=True, maintain_order=True
    )
    return tuple(
        CellModelCost(str(site), str(window), str(version), compute_model_cost(part))
        for (site, window, version), part in parts.items()
    )


FLOORS, WHOLE_CELL, PLAIN = "floors", "whole cell", "plain threshold"


@dataclass(frozen=True, slots=True)
class MethodOutcome:
    """What one way to open cells gives, over all cases in cells.

    Attributes:
        kind: `floors`, `whole cell` or `plain threshold`.
        floor: of a plain threshold, the confidence from which on the model decides; else "".
        human_decisions: cases that a human decides, confirms or audits.
        model_cost: the cases that the model decides, and its errors.
    """

    kind: str
    floor: str
    human_decisions: int
    model_cost: ModelCost


def compare_methods(
    inputs: ReportInputs, decided_cases: pl.DataFrame, model_cases: pl.DataFrame
) -> tuple[MethodOutcome, ...]:
    """Return the ways to open cells; () without a replay that has one gate for each cell.

    `decided_cases` are the rows of `assign_deciders`, `model_cases` those of `build_model_cases`.
    """
    whole = inputs.whole_cells
    if whole is None:
        return ()
    total, answers = decided_cases.height, _find_newest_answers(inputs, decided_cases)
    return (
        _sum_method(FLOORS, total, model_cases),
        _sum_method(WHOLE_CELL, total, build_model_cases(whole, whole.decided_cases)),
        *(
            _sum_method(
                PLAIN,
                total,
                add_costs(inputs, answers.filter(pl.col("confidence") >= floor)),
                floor=format_floor(floor),
            )
            for floor in list_floors(inputs.policy.evidence)
            if floor
        ),
    )


def _sum_method(
    kind: str,
    total: int,
    model_cases: pl.DataFrame,
    *,
    floor: str = "",
) -> MethodOutcome:
    price = compute_model_cost(model_cases)
    return MethodOutcome(kind, floor, total - price.cases + price.audited, price)


def _find_newest_answers(inputs: ReportInputs, decided_cases: pl.DataFrame) -> pl.DataFrame:
    """Return the whole answer of each case's newest version: what a plain threshold reads.

    The newest version is the one whose first case is the latest; nothing is audited.
    """
    columns = [VALUE_PREFIX + lever.id for lever in inputs.policy.levers]
    cases = decided_cases.drop("version", "audited").join(
        inputs.records.predictions.drop_nulls(columns).select("case_key", "version", "confidence"),
        on="case_key",
    )
    first_us = pl.col("occurred_us").min().over("version")
    newest = cases.sort(first_us, "version").unique("case_key", keep="last", maintain_order=True)
    return newest.with_columns(audited=pl.lit(value=False)).sort("occurred_us", "case_key")


INTERVAL_RISK = 0.05


@dataclass(frozen=True, slots=True)
class GainFacts(CellVersionFacts):
    """What one version brought in one cell, in the outcome's unit.

    Attributes:
        site, window, version: the cell and the version.
        outcome, unit: the outcome and the unit of its values.
        arm: `decides` or `proposes`, what the model did in its arm.
        model_units, human_units: units with a value, by arm.
        missing: units of both arms whose deadline passed without a value.
        model_missing, human_missing: the same by arm.
        missing_reasons: units whose value is of no source of evidence, by reason: also missing.
        model_mean, human_mean: mean values, clipped to the policy's range; None without units.
        gain: the model's arm less the people's, as better counts; None without both arms.
        lower, upper: its interval of 95 %, valid at every look.
        has_one_share: whether all units had the same chance to get to the model.
        without_arm: units of the same stages that are in no arm: more than chance decided them.
        has_recorded_arms: whether the records say which arm a unit was in; without, the replay
            assigned the arms.
        more_is_better: whether a higher value is better; if not, a gain is a lower mean.
    """

    outcome: str
    unit: str
    arm: str
    model_units: int
    human_units: int
    missing: int
    model_missing: int
    human_missing: int
    model_mean: float | None
    human_mean: float | None
    gain: float | None
    lower: float
    upper: float
    has_one_share: bool
    without_arm: int = 0
    has_recorded_arms: bool = True
    missing_reasons: Mapping[str, int] = field(default_factory=dict)
    more_is_better: bool = True


def compute_gains(inputs: ReportInputs) -> tuple[GainFacts, ...]:
    """Return the gains of all cells and versions with units at a stage with two arms."""
    return tuple(
        gain
        for key in inputs.cell_versions
        for outcome in inputs.policy.outcomes
        for gain in compute_view_gains(inputs.evidence_views[key], outcome)
    )


def compute_view_gains(view: EvidenceView, outcome: OutcomeRule) -> Iterator[GainFacts]:
    """Yield one version's gain in one cell, for each thing that the model did in its arm."""
    for arm in (DECIDES, PROPOSES):
        units = view.build_arms(outcome, arm, FIRST_SLOT)
        staged_count = view.arm_reader.count_staged(outcome, arm)
        if staged_count:
            yield _build_gain_facts(view, outcome, arm, units, staged_count - len(units))


def _build_gain_facts(
    view: EvidenceView, outcome: OutcomeRule, arm: str, units: ArmUnits, without_arm: int
) -> GainFacts:
    is_known, is_model = units.is_known, units.is_model
    lower, upper = compute_gain_interval(units, alpha=INTERVAL_RISK)
    gain = estimate_gain(units)
    return GainFacts(
        site=view.cell.site,
        window=view.cell.window,
        version=view.version,
        outcome=outcome.id,
        unit=outcome.unit,
        arm=arm,
        model_units=int((is_known & is_model).sum()),
        human_units=int((is_known & ~is_model).sum()),
        missing=int((~is_known).sum()),
        model_missing=int((~is_known & is_model).sum()),
        human_missing=int((~is_known & ~is_model).sum()),
        model_mean=_compute_mean(outcome, units.scores[is_known & is_model]),
        human_mean=_compute_mean(outcome, units.scores[is_known & ~is_model]),
        gain=None if gain is None else gain * outcome.span,
        lower=lower * outcome.span,
        upper=upper * outcome.span,
        has_one_share=len(np.unique(units.shares[is_known])) <= 1,
        without_arm=without_arm,
        has_recorded_arms=view.arm_reader.has_recorded_arms(outcome),
        missing_reasons=view.arm_reader.count_source_faults(outcome, arm),
        more_is_better=outcome.more_is_better,
    )


def _compute_mean(outcome: OutcomeRule, scores: np.ndarray) -> float | None:
    """Return the mean value of scores, in the outcome's unit; None without any."""
    if not len(scores):
        return None
    distance = float(scores.mean()) * outcome.span
    return outcome.low + distance if outcome.more_is_better else outcome.high - distance


MIN_CASES, BLOCK_SIZE, BLOCKS_IN_A_ROW = 100, 50, 3
RATE_RULE = "the cell's agreement is at the threshold, from 100 cases on"
BLOCKS_RULE = "three times 50 cases in a row are at the threshold"
SITE_RATE_RULE = "the site's agreement is at the threshold, from 100 cases on"


@dataclass(frozen=True, slots=True)
class NaiveOpening(CellVersionFacts):
    """A cell that a plain rule widens before the engine does.

    Attributes:
        site, window, version: the cell and the version.
        rule: its text; the threshold is that of the first gate's agreement.
        opened_at, decided_cases: when, and after how many decided cases of the cell.
        engine_opened_at: when the engine widened the cell for this version; None if never.
        wrong: wrong actions of the model among cases with known truth between the two times.
        by_outcome: those of these cases whose truth is an outcome.
        human_wrong: the same for humans, on cases with known outcome.
    """

    rule: str
    opened_at: datetime
    decided_cases: int
    engine_opened_at: datetime | None
    wrong: Share
    by_outcome: int
    human_wrong: Share

    @property
    def words(self) -> TruthWords:
        """Return the words for the model's actions with a known truth."""
        return choose_words(self.by_outcome, self.wrong.n)


def find_naive_openings(inputs: ReportInputs, pairs: Pairs) -> tuple[NaiveOpening, ...]:
    """Return every opening by a plain rule before the engine's, by cell."""
    cases = build_naive_cases(inputs, pairs, inputs.records.predictions)
    return tuple(
        opening for key in inputs.cell_versions for opening in _find_openings(key, cases, inputs)
    )


def build_naive_cases(
    inputs: ReportInputs, pairs: Pairs, predictions: pl.DataFrame
) -> pl.DataFrame:
    """Return the cases of predictions with errors and `agrees`, sorted by time."""
    predicted = (
        inputs.cases.lazy()
        .select("case_key", "site", "window", "occurred_us", pl.col("unit").rank("dense"))
        .join(predictions.lazy().select("case_key", "version"), on="case_key")
    )
    agreements = (
        pairs.frame.lazy()
        .filter(pl.col("lever") == inputs.policy.whole_unit_lever)
        .select("case_key", "version", "agrees")
    )
    cases = predicted.join(agreements, on=["case_key", "version"], how="left").collect()
    return add_costs(inputs, cases).sort("occurred_us", "case_key")


def _find_openings(
    key: CellVersion, cases: pl.DataFrame, inputs: ReportInputs
) -> Iterator[NaiveOpening]:
    cell, version = key
    threshold = find_first_threshold(inputs.policy, cell)
    if threshold is None:
        return
    site_cases = cases.filter((pl.col("site") == cell.site) & (pl.col("version") == version))
    reviewed = site_cases.filter(pl.col("agrees").is_not_null())
    in_cell = (reviewed["window"] == cell.window).to_numpy()
    agrees = reviewed["agrees"].to_numpy()
    engine_at = next((event.at for event in inputs.events if event.opened_key == key), None)
    crossings = find_crossings(agrees, in_cell, threshold)
    for rule, index in zip((RATE_RULE, BLOCKS_RULE, SITE_RATE_RULE), crossings, strict=True):
        at = None if index is None else from_micros(int(reviewed["occurred_us"][index]))
        if index is not None and at is not None and (engine_at is None or at < engine_at):
            later_cases = site_cases.filter(
                (pl.col("window") == cell.window)
                & (pl.col("occurred_us") > int(reviewed["occurred_us"][index]))
            )
            later_cases = (
                later_cases
                if engine_at is None
                else later_cases.filter(pl.col("occurred_us") < to_micros(engine_at))
            )
            yield NaiveOpening(
                site=cell.site,
                window=cell.window,
                version=version,
                rule=rule,
                opened_at=at,
                decided_cases=int(in_cell[: index + 1].sum()),
                engine_opened_at=engine_at,
                wrong=compute_unit_share(later_cases.filter("known"), "wrong_action"),
                by_outcome=int(later_cases["by_outcome"].sum()),
                human_wrong=compute_unit_share(
                    later_cases.filter("people_known"), "people_wrong_action"
                ),
            )


def find_first_threshold(policy: Policy, cell: Cell) -> float | None:
    """Return the threshold of agreement of the cell's first gate, if any."""
    conditions = policy.list_conditions(1, cell)  # no gain: no stage below has arms
    return next(
        (condition.threshold for condition in conditions if condition.is_whole_agreement),
        None,
    )


def find_crossings(
    agrees: Bools, in_cell: Bools, threshold: float
) -> tuple[int | None, int | None, int | None]:
    """Return the case at which each plain rule opens a cell, or None.

    The rules are: the cell's running rate, its blocks, and the running rate of all cases.
    """
    return (
        find_rate_crossing(agrees, in_cell, threshold),
        find_block_crossing(agrees, in_cell, threshold),
        find_rate_crossing(agrees, np.ones_like(in_cell), threshold),
    )


def find_rate_crossing(agrees: Bools, selection: Bools, threshold: float) -> int | None:
    """Return the first index where the running rate reaches the threshold, or None."""
    indices = np.flatnonzero(selection)
    agreeing = np.cumsum(agrees[indices])
    n = np.arange(1, len(indices) + 1)
    crossings = np.flatnonzero((n >= MIN_CASES) & (agreeing >= threshold * n))
    return int(indices[crossings[0]]) if len(crossings) else None


def find_block_crossing(agrees: Bools, selection: Bools, threshold: float) -> int | None:
    """Return the last index of the first three consecutive blocks at the threshold."""
    indices = np.flatnonzero(selection)
    block_count = len(indices) // BLOCK_SIZE
    block_passes = (
        agrees[indices[: block_count * BLOCK_SIZE]].reshape(block_count, BLOCK_SIZE).sum(axis=1)
        >= threshold * BLOCK_SIZE
    )
    for last in range(BLOCKS_IN_A_ROW - 1, block_count):
        if block_passes[last - BLOCKS_IN_A_ROW + 1 : last + 1].all():
            return int(indices[(last + 1) * BLOCK_SIZE - 1])
    return None
