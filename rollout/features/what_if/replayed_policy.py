"""One policy replayed over records: stages, decisions, divergences, and what is unknown.

A replay counts an answer that nobody gave as missing. Here it is unknown instead: from the first
slot in which more than `missing_at_most` of the answers that the policy would have asked for don't
exist, the cell can't be known from these records. A cell is sure only if none is unknown, because
one more answer could move a gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from rollout.data.counting.closed_units import UnplacedHistory
from rollout.engine.decide.guards import is_heard_elsewhere
from rollout.engine.evidence.case_placement import PlacedHistory
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.evidence.reviewer_checks import is_blind_decision
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import build_record_inputs, replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.methods import add_costs
from rollout.features.reports.inputs.cell_facts import CellFacts, CellStages, StageInterval
from rollout.features.reports.inputs.inputs import (
    MODEL,
    PolicyPeriod,
    ReportInputs,
    compute_stage_histories,
    find_drawn_units,
)
from rollout.kernel.calendar.instants import Cell, count_micros, to_instant
from rollout.kernel.errors import RefusalError
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.policy.policy import Policy

OUTCOMES_TEXT = (
    "what-if can't compare policies with outcomes: an outcome belongs to who acted when it was"
    " recorded; start an experiment with the draft instead"
)
APPROVAL_DELAY = timedelta(hours=4)  # of simulated approvals, as `rollout replay` has it
NO_FILE = RecordPaths(Path("predictions"), Path("decisions"))


@dataclass(frozen=True)
class WhatIfRecords:
    """Closed cases of a rollout, as both policies are replayed over them.

    Attributes:
        records: closed cases alone, each of whose episode is closed too.
        trained_until: end of the training data by version.
        shares: columns case_key and share; cases that are not in it were all asked for.
        unplaced: decisions that belonged to no cell; None without any.
    """

    records: RecordFrames
    trained_until: Mapping[str, datetime] = field(default_factory=dict)
    shares: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"case_key": pl.String, "share": pl.Float64})
    )
    unplaced: UnplacedHistory | None = None


@dataclass(frozen=True, slots=True)
class WhatIfFigures:
    """Figures of one policy, in one cell or several.

    Attributes:
        model: cases that the model would have decided.
        human: decisions that people would have been asked for.
        known: cases of `model` with an outcome or a blind human answer.
        wrong, cost: divergences of the model and their cost; None if none of the cases is known.
        is_estimated: whether `wrong` and `cost` are estimated from the known cases.
    """

    model: int
    human: int
    known: int
    wrong: float | None
    cost: float | None
    is_estimated: bool


@dataclass(frozen=True, slots=True)
class UnknownStart:
    """From when on a cell can't be known.

    Attributes:
        at: begin of the first slot up to which too many answers don't exist.
        missing, needed: these answers, and those that the policy would have asked for until then.
    """

    at: datetime
    missing: int
    needed: int


@dataclass(frozen=True, slots=True)
class CellReplay(CellFacts):
    """One policy in one cell.

    Attributes:
        site, window: the cell.
        cases: recorded cases.
        answered: those with a blind human answer.
        needed: units whose answer the policy would have asked for.
        missing: those of them that nobody answered.
        unknown: from when on the cell can't be known from these records; None if it can.
        is_sure: whether nothing that matters to the cell is unknown or estimated.
        intervals: the stages; after `unknown.at` they mean nothing.
        figures: None where the cell can't be known.
    """

    cases: int
    answered: int
    needed: int
    missing: int
    unknown: UnknownStart | None
    is_sure: bool
    intervals: tuple[StageInterval, ...]
    figures: WhatIfFigures | None


def check_comparable(current: Policy, draft: Policy) -> None:
    """Raise RefusalError if a draft can't be compared with the policy in force.

    An outcome belongs to the one who acted; answers are recorded by lever.
    """
    if current.outcomes or draft.outcomes:
        raise RefusalError(OUTCOMES_TEXT)
    levers = [[lever.id for lever in policy.levers] for policy in (current, draft)]
    if levers[0] != levers[1]:
        raise RefusalError(
            f"what-if compares policies of the same levers; in force: {', '.join(levers[0])},"
            f" in the draft: {', '.join(levers[1])}"
        )
    for now, then in zip(current.levers, draft.levers, strict=True):
        if (set(now.labels), now.many, now.number) != (set(then.labels), then.many, then.number):
            raise RefusalError(
                f"the draft changes the labels or the number of {now.id}; recorded answers are in"
                " those of the policy in force"
            )


def replay_policy(
    policy: Policy, records: WhatIfRecords, salt: bytes, audit_salt: bytes = b""
) -> tuple[CellReplay, ...]:
    """Return the cells of a policy after a replay, in the policy's order.

    Raises:
        NothingToReplayError: no record can be evidence.
    """
    request = ReplayRequest(
        Path("policy.yaml"),
        NO_FILE,
        options=ReplayOptions(
            salt,
            audit_salt,
            approval_delay=APPROVAL_DELAY,
            count_unplaced=None if records.unplaced is None else records.unplaced.count_at,
        ),
        trained_until=records.trained_until,
    )
    replayed = replay_records(request, policy, records.records)
    return _build_cells(build_record_inputs(replayed), replayed.history, records)


def _build_cells(
    inputs: ReportInputs, history: PlacedHistory, records: WhatIfRecords
) -> tuple[CellReplay, ...]:
    policy = inputs.policy
    answered = _find_answered(inputs)
    decided = add_costs(inputs, inputs.decided_cases).join(
        records.shares, on="case_key", how="left"
    )
    needed = _find_needed(inputs, history, answered)
    unknown = needed.filter(~pl.col("answered"))
    unknown_cells = {Cell(*row) for row in unknown.select("site", "window").unique().iter_rows()}
    doubtful = _list_doubtful_cells(policy, unknown_cells)
    return tuple(
        _build_cell(
            stages,
            decided.filter(_is_in(stages)),
            needed.filter(_is_in(stages)),
            answered,
            policy,
            is_doubtful=stages.cell in doubtful,
        )
        for stages in compute_stage_histories(inputs)
    )


def _is_in(stages: CellStages) -> pl.Expr:
    return (pl.col("site") == stages.site) & (pl.col("window") == stages.window)


def _find_answered(inputs: ReportInputs) -> pl.Series:
    """Return the cases with as many blind decisions as the policy counts, unsure ones too."""
    policy = inputs.policy
    blind = inputs.records.decisions.filter(is_blind_decision(policy))
    counts = blind.group_by("case_key").agg(pl.col("reviewer").n_unique().alias("n"))
    return counts.filter(pl.col("n") >= policy.evidence.verdicts)["case_key"]


def _find_needed(inputs: ReportInputs, history: PlacedHistory, answered: pl.Series) -> pl.DataFrame:
    """Return a row a case whose answer the policy would have asked for.

    Columns: site, window, occurred_us, is_unit (whether it is the unit's own case), answered.
    Cases of an episode beside its own one may count too, if somebody answered them.
    """
    policy = inputs.policy
    own_cases = inputs.units.filter(pl.col("track") == "gate")["case_key"].unique()
    predicted = inputs.records.predictions["case_key"].unique()
    cases = history.cases.filter(pl.col("case_key").is_in(predicted.implode()))
    period = PolicyPeriod(inputs.first, policy, inputs.timelines)
    parts = [
        part.filter(pl.Series(_find_asked(part, Cell(str(site), str(window)), period, inputs)))
        for (site, window), part in cases.partition_by("site", "window", as_dict=True).items()
        if Cell(str(site), str(window)) in policy.cell_set
    ]
    needed = pl.concat(parts) if parts else cases.clear()
    return needed.select(
        "case_key",
        "site",
        "window",
        "occurred_us",
        is_unit=pl.col("case_key").is_in(own_cases.implode()),
        answered=pl.col("case_key").is_in(answered.implode()),
    ).sort("occurred_us", "case_key")


def _find_asked(
    part: pl.DataFrame, cell: Cell, period: PolicyPeriod, inputs: ReportInputs
) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    if period.policy.evidence.familiar is not None:  # humans decide all unfamiliar cases
        return np.ones(part.height, dtype=bool)
    return find_drawn_units(part, cell, period, inputs)


def _list_doubtful_cells(policy: Policy, unknown_cells: set[Cell]) -> set[Cell]:
    """Return the cells that unknown answers of any cell could move.

    All cells, if a rule needs answers that this module doesn't look for: those given with the
    model's in sight, second ones, and those on planted cases.
    """
    conditions = [c for gate in policy.gates for c in gate.require]
    conditions += [guard.condition for guard in policy.guards]
    if (
        any(
            c.population.is_planted for c in conditions
        )  # one that nobody answered counts as a miss
        or any(_reads_assisted_or_actions(condition) for condition in conditions)
    ):
        return set(policy.cells)
    reaches = {guard.reach for guard in policy.guards}
    is_heard = any(map(is_heard_elsewhere, policy.guards))  # another cell's widening may be held
    if unknown_cells and (policy.waves is not None or "rollout" in reaches or is_heard):
        return set(policy.cells)
    if "site" in reaches:
        sites = {cell.site for cell in unknown_cells}
        return {cell for cell in policy.cells if cell.site in sites}
    return unknown_cells


def _reads_assisted_or_actions(condition: Condition) -> bool:
    measure = condition.measure
    return measure.reads_assisted or measure.statistic is Statistic.EXCESS


def _build_cell(
    stages: CellStages,
    decided: pl.DataFrame,
    needed: pl.DataFrame,
    answered: pl.Series,
    policy: Policy,
    *,
    is_doubtful: bool,
) -> CellReplay:
    units = needed.filter("is_unit")
    unknown = _find_unknown_start(units, policy)
    figures = None if unknown is not None else compute_figures(decided)
    return CellReplay(
        site=stages.site,
        window=stages.window,
        cases=decided.height,
        answered=int(decided["case_key"].is_in(answered.implode()).sum()),
        needed=units.height,
        missing=units.height - int(units["answered"].sum()),
        unknown=unknown,
        is_sure=figures is not None and not is_doubtful and not figures.is_estimated,
        intervals=stages.intervals,
        figures=figures,
    )


def _find_unknown_start(units: pl.DataFrame, policy: Policy) -> UnknownStart | None:
    """Return from when on too much of what the policy needs is unknown.

    No gate opens before its minimum of units, so the share is one of at least the smallest minimum:
    else one of the first three units would make the cell unknown.
    """
    slots = units["occurred_us"].to_numpy() // count_micros(policy.tick)
    distinct, firsts, sizes = np.unique(slots, return_index=True, return_counts=True)
    missing = (~units["answered"].to_numpy().astype(bool)).cumsum()[firsts + sizes - 1]
    needed = sizes.cumsum()
    least = min((gate.minimum.units for gate in policy.gates), default=0)
    is_unknown = missing > policy.evidence.missing_at_most * np.maximum(needed, least)
    if not is_unknown.any():
        return None
    first = int(np.argmax(is_unknown))
    at = to_instant(int(distinct[first]), policy.tick)
    return UnknownStart(at, int(missing[first]), int(needed[first]))


def compute_figures(decided: pl.DataFrame) -> WhatIfFigures:
    """Return the figures of cases with their deciders, costs and shares.

    Cases with an outcome count themselves, since nobody drew them by chance. Those without one are
    estimated from the judged ones of them, each with the weight 1/share (Hájek's estimator).
    """
    model = decided.filter(pl.col("decider") == MODEL)
    human = decided.height - model.height + int(model["audited"].sum())
    is_known = pl.col("known").fill_null(value=False)
    by_outcome = pl.col("by_outcome").fill_null(value=False)
    known_cases = model.filter(is_known)
    counts = model.height, human, known_cases.height
    if known_cases.height == model.height:
        wrong, cost = float(known_cases["wrong"].sum()), float(known_cases["cost"].sum())
        return WhatIfFigures(*counts, wrong, cost, is_estimated=False)
    judged = known_cases.filter(~by_outcome).with_columns(weight=1 / pl.col("share").fill_null(1.0))
    if not judged.height:
        return WhatIfFigures(*counts, None, None, is_estimated=True)
    certain = known_cases.filter(by_outcome)
    scale = (model.height - certain.height) / float(judged["weight"].sum())
    wrong, cost = (
        float(certain[name].sum())
        + scale * float((judged[name].cast(pl.Float64) * judged["weight"]).sum())
        for name in ("wrong", "cost")
    )
    return WhatIfFigures(*counts, wrong, cost, is_estimated=True)
