"""The funnel from rows read to compared units; each step's loss is the sum of its reasons."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from rollout.core.calendar.sites import OTHER_WINDOW
from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import MISSING
from rollout.core.policy.policy import Policy
from rollout.reports.figures.agreement import compute_missing_bounds
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.statistics.intervals import Share, compute_share
from rollout.tally.frames import VALUE_PREFIX, RecordFrames, RemarkReason
from rollout.tally.reviewer_checks import compute_required_reliability, mark_excluded

OTHER_CASE_PICKED = "another case of the same unit was picked"
OUTSIDE_WINDOWS = "outside every window: always shadow, never evidence"
NO_PREDICTION = "no prediction by this version"
STILL_OPEN = "still open: a verdict may come in until the unit closes"
SEVERAL_LABELS = "one person gave several labels"
UNANSWERED = "nobody answered"
ONLY_ASSISTED = "answered only with the model's answer in sight"
EXPOSURE_UNKNOWN = "answered, and nothing says that the model's answer was unseen"
UNSURE = "answered unsure"
EXCLUDED_REVIEWER = "judged by somebody whose verdicts are left out: they agree too seldom"
LATE = "answered after the grace"
NO_MAJORITY = "no majority of the verdicts asked for"


@dataclass(frozen=True, slots=True)
class FileRowCounts:
    """Row counts of one file: `rows` = `used` + rejected by reason; notes are on used rows."""

    kind: str
    file: str
    rows: int
    used: int
    set_aside: dict[str, int]
    notes: dict[str, int]


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of the funnel: the remaining number, and the losses by reason."""

    name: str
    left: int
    lost: dict[str, int]


@dataclass(frozen=True, slots=True)
class Funnel:
    """The funnel of one version from all cases to compared units.

    `agreement` is over units with a decision; `bounds` are its values if all missing decisions
    disagreed (as gates count them), and if all agreed.
    """

    version: str
    steps: tuple[FunnelStep, ...]
    agreement: Share
    bounds: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class RowExample:
    """One rejected row, or a used row with a note."""

    file: str
    line: int | None
    column: str | None
    reason: str
    detail: str


MAX_EXAMPLES = 20
MAX_ANSWERS = 5  # distinct answers listed


def count_file_rows(records: RecordFrames) -> tuple[FileRowCounts, ...]:
    """Return the row counts of every file."""
    return tuple(
        FileRowCounts(
            str(kind),
            counts.file,
            counts.rows,
            counts.used,
            dict(counts.rejected),
            dict(counts.notes),
        )
        for kind, counts in records.row_counts.items()
    )


def list_rejected_examples(records: RecordFrames) -> tuple[RowExample, ...]:
    """Return at most twenty rejected or noted rows, some for every reason."""
    notes = records.notes.filter(
        ~pl.col("reason").is_in([RemarkReason.UNSURE, RemarkReason.FAILED])
    )
    rejected = pl.concat([records.rejected, notes])
    nth = pl.int_range(pl.len()).over("file", "reason")
    first = rejected.with_columns(nth=nth).filter(pl.col("nth") < 4).sort("nth", "file", "line")
    selected = first.head(MAX_EXAMPLES).sort("file", "reason", "line", nulls_last=True)
    columns = ("file", "line", "column", "reason", "detail")
    return tuple(RowExample(*row) for row in selected.select(columns).iter_rows())


def compute_funnels(inputs: ReportInputs, versions: Iterable[str]) -> tuple[Funnel, ...]:
    """Return the funnel of each version."""
    decisions = _summarize_decisions(inputs.records, inputs.policy)
    return tuple(_compute_funnel(inputs, version, decisions) for version in versions)


def _compute_funnel(inputs: ReportInputs, version: str, decisions: pl.DataFrame) -> Funnel:
    cases, units = inputs.cases, inputs.cases["unit"].n_unique()
    predicted = inputs.units.filter(
        (pl.col("track") == "gate")
        & (pl.col("lever") == inputs.policy.whole_unit_lever)
        & (pl.col("version") == version)
    )
    in_window = predicted.filter(pl.col("window") != OTHER_WINDOW)
    evidence = in_window.filter(pl.col("excluded").is_null())
    still_open = _count_still_open(inputs, version)
    reviewed = evidence.filter(pl.col("decided") != MISSING)
    steps = (
        FunnelStep("cases", inputs.records.cases.height, {}),
        FunnelStep(
            "with a time, a site of the policy and a unit", cases.height, _count_unplaced(inputs)
        ),
        FunnelStep(
            "units, each counted once",
            units,
            _drop_zeros({OTHER_CASE_PICKED: cases.height - units}),
        ),
        FunnelStep(
            "with a prediction",
            predicted.height,
            _count_unpredicted(units - predicted.height, still_open),
        ),
        FunnelStep(
            "in a window",
            in_window.height,
            _drop_zeros({OUTSIDE_WINDOWS: predicted.height - in_window.height}),
        ),
        FunnelStep(
            "fit to be evidence",
            evidence.height,
            _count_reasons(in_window["excluded"].drop_nulls()),
        ),
        FunnelStep(
            "with a verdict in time",
            reviewed.height,
            _count_missing_reasons(evidence, decisions, inputs),
        ),
    )
    agreeing = reviewed.filter(pl.col("predicted") == pl.col("decided")).height
    missing = evidence.height - reviewed.height
    return Funnel(
        version,
        steps,
        compute_share(agreeing, reviewed.height),
        compute_missing_bounds(agreeing, reviewed.height, missing),
    )


def _count_still_open(inputs: ReportInputs, version: str) -> int:
    """Return how many units of a version are open; 0 for a replay."""
    if inputs.pending_units.is_empty():
        return 0
    is_own_unit = (pl.col("version") == version) & (
        pl.col("lever") == inputs.policy.whole_unit_lever
    )
    return inputs.pending_units.filter(is_own_unit).height


def _count_unpredicted(lost: int, still_open: int) -> dict[str, int]:
    return _drop_zeros({NO_PREDICTION: lost - still_open, STILL_OPEN: still_open})


def _count_unplaced(inputs: ReportInputs) -> dict[str, int]:
    return _drop_zeros(dict(inputs.unplaced))


def _drop_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


def _count_reasons(reasons: pl.Series) -> dict[str, int]:
    return dict(reasons.value_counts(sort=True).sort(reasons.name).iter_rows())


def _count_missing_reasons(
    evidence: pl.DataFrame, decisions: pl.DataFrame, inputs: ReportInputs
) -> dict[str, int]:
    """Count the reasons of missing decisions; the first fitting reason of a unit counts."""
    missing = evidence.filter(pl.col("decided") == MISSING).select("case_key")
    several_labels = inputs.records.rejected.filter(pl.col("reason") == RemarkReason.SEVERAL_LABELS)
    joined = missing.join(decisions, on="case_key", how="left").with_columns(
        several=pl.col("case_key").is_in(several_labels["case_key"].unique().implode())
    )
    is_single = inputs.policy.evidence.verdicts == 1
    reason = (
        pl.when(pl.col("people").is_null() & pl.col("several")).then(pl.lit(SEVERAL_LABELS))
        .when(pl.col("people").is_null()).then(pl.lit(UNANSWERED))
        .when(~pl.col("unseen") & pl.col("unsaid")).then(pl.lit(EXPOSURE_UNKNOWN))
        .when(~pl.col("unseen")).then(pl.lit(ONLY_ASSISTED))
        .when(~pl.col("sure")).then(pl.lit(UNSURE))
        .when(pl.col("left_out")).then(pl.lit(EXCLUDED_REVIEWER))
        .otherwise(pl.lit(LATE if is_single else NO_MAJORITY))
    )  # fmt: skip
    return _count_reasons(joined.select(reason=reason)["reason"])


def _summarize_decisions(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return for each case: people (number of answers), unseen, sure, left_out, unsaid.

    `unseen`: an unassisted answer exists; `left_out`: its reviewer is excluded; `unsaid`: the
    exposure of an answer is unknown.
    """
    is_unknown = pl.col("exposure") == "unknown"
    is_unassisted = pl.col("exposure") == "blind"
    if policy.evidence.outside_blind:
        is_unassisted |= is_unknown
    is_sure = pl.all_horizontal(
        [pl.col(VALUE_PREFIX + lever.id).is_not_null() for lever in policy.levers]
    )
    is_counted = pl.col("counts").sort_by("rank")
    first_sure = pl.col("sure").sort_by("rank").filter(is_counted).first()
    is_excluded = pl.col("left_out").sort_by("rank").filter(is_counted)
    return (
        _mark_excluded(records, policy)
        .with_columns(
            counts=is_unassisted,
            unsaid=is_unknown,
            sure=is_sure,
            rank=pl.coalesce(pl.col("seat").cast(pl.Int64), pl.lit(99)),
        )
        .group_by("case_key")
        .agg(
            pl.col("unsaid").any(),
            people=pl.len(),
            unseen=pl.col("counts").any(),
            sure=first_sure.fill_null(value=False),
            left_out=(
                is_excluded.first() if policy.evidence.verdicts == 1 else is_excluded.any()
            ).fill_null(value=False),
        )
    )


def _mark_excluded(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return the decisions with `left_out`: True if the reviewer is excluded."""
    times = records.cases.select("case_key", "occurred_at")
    decisions = records.decisions.join(times, on="case_key", how="left")
    at = pl.coalesce("at", "occurred_at").dt.epoch("us").fill_null(0)
    return mark_excluded(
        decisions.with_columns(at=at), compute_required_reliability(records, policy)
    )


@dataclass(frozen=True, slots=True)
class UnknownLabels:
    """Answers of one side outside a lever.

    Attributes:
        lever: its id.
        by: `model` or `people`.
        count: number of such answers.
        answers: at most five, the most frequent first, with their counts.
    """

    lever: str
    by: str
    count: int
    answers: tuple[tuple[str, int], ...]


def find_unknown_labels(records: RecordFrames, policy: Policy) -> tuple[UnknownLabels, ...]:
    """Return the unknown labels by lever and side; empty without any."""
    sides = {"model": records.predictions, "people": records.decisions}
    return tuple(
        item
        for lever in policy.levers
        for side, frame in sides.items()
        for item in _find_unknown_on_side(lever, side, frame[VALUE_PREFIX + lever.id].drop_nulls())
    )


def _find_unknown_on_side(lever: Lever, side: str, answers: pl.Series) -> Iterator[UnknownLabels]:
    unknown = answers.filter(~_is_offered(lever, answers))
    if unknown.len():
        counts = unknown.rename("answer").value_counts(name="n")
        top = counts.sort("n", "answer", descending=[True, False]).head(MAX_ANSWERS)
        yield UnknownLabels(lever.id, side, unknown.len(), tuple(top.iter_rows()))


def _is_offered(lever: Lever, answers: pl.Series) -> pl.Series:
    if lever.number is None:
        return answers.is_in(list(lever.labels))
    return answers.cast(pl.Float64).is_between(lever.number.low, lever.number.high)
