"""Where the records went: rows read, cases placed, units picked, verdicts had, pairs compared.

Nothing is lost in silence: each step's loss is the sum of its reasons.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from rollout.core.calendar.sites import OTHER
from rollout.core.policy.measures import MISSING
from rollout.core.policy.policy import Policy
from rollout.reports.figures.agreement import missing_bounds
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.statistics.intervals import Share, share
from rollout.tally.frames import VALUE, Reason, Records
from rollout.tally.reviewer_checks import asked_of, mark_left_out

NOT_PICKED = "another case of the same unit was picked"
OUTSIDE = "outside every window: always shadow, never evidence"
NOT_ASKED = "no prediction by this version"
STILL_DUE = "still open: a verdict may come in until the unit closes"
SEVERAL = "one person gave several labels"
NOBODY = "nobody answered"
SEEN = "answered only with the model's answer in sight"
NOT_SAID = "answered, and nothing says that the model's answer was unseen"
UNSURE = "answered unsure"
LEFT_OUT = "judged by somebody whose verdicts are left out: they agree too seldom"
LATE = "answered after the grace"
NO_MAJORITY = "no majority of the verdicts asked for"


@dataclass(frozen=True, slots=True)
class FileRows:
    """One file: `rows` = `used` + what was set aside, by reason. Notes are on rows in use."""

    kind: str
    file: str
    rows: int
    used: int
    set_aside: dict[str, int]
    notes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the funnel: what is left, and how much was lost before it, by reason."""

    name: str
    left: int
    lost: dict[str, int]


@dataclass(frozen=True, slots=True)
class Funnel:
    """One version's way from all cases to compared units, each counted once.

    `agreement` is of the units with a verdict; `bounds` say what it would be if every missing
    verdict disagreed (as gates count them), and if every one agreed.
    """

    version: str
    steps: tuple[Step, ...]
    agreement: Share
    bounds: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class RowExample:
    """One row that was set aside, or one that is used with a reserve."""

    file: str
    line: int | None
    column: str | None
    reason: str
    detail: str


EXAMPLES = 20


def file_rows(records: Records) -> tuple[FileRows, ...]:
    """Return what became of the rows of every file."""
    return tuple(
        FileRows(
            str(kind),
            counts.file,
            counts.rows,
            counts.used,
            dict(counts.set_aside),
            dict(counts.notes),
        )
        for kind, counts in records.read.items()
    )


def set_aside_examples(records: Records) -> tuple[RowExample, ...]:
    """Return rows that were set aside or noted: at most twenty, some of every reason."""
    notes = records.notes.filter(~pl.col("reason").is_in([Reason.UNSURE, Reason.FAILED]))
    rejected = pl.concat([records.set_aside, notes])
    nth = pl.int_range(pl.len()).over("file", "reason")
    first = rejected.with_columns(nth=nth).filter(pl.col("nth") < 4).sort("nth", "file", "line")
    selected = first.head(EXAMPLES).sort("file", "reason", "line", nulls_last=True)
    columns = ("file", "line", "column", "reason", "detail")
    return tuple(RowExample(*row) for row in selected.select(columns).iter_rows())


def funnels(inputs: Inputs, versions: Iterable[str]) -> tuple[Funnel, ...]:
    """Return the funnel of each version."""
    decisions = _said(inputs.records, inputs.policy)
    return tuple(_funnel(inputs, version, decisions) for version in versions)


def _funnel(inputs: Inputs, version: str, said: pl.DataFrame) -> Funnel:
    cases, units = inputs.cases, inputs.cases["unit"].n_unique()
    predicted = inputs.units.filter(
        (pl.col("track") == "gate")
        & (pl.col("lever") == inputs.policy.whole)
        & (pl.col("version") == version)
    )
    in_window = predicted.filter(pl.col("window") != OTHER)
    evidence = in_window.filter(pl.col("excluded").is_null())
    still_open = _still_due(inputs, version)
    reviewed = evidence.filter(pl.col("decided") != MISSING)
    steps = (
        Step("cases", inputs.records.cases.height, {}),
        Step("with a time, a site of the policy and a unit", cases.height, _left_out(inputs)),
        Step("units, each counted once", units, _some({NOT_PICKED: cases.height - units})),
        Step(
            "with a prediction",
            predicted.height,
            _asked_later(units - predicted.height, still_open),
        ),
        Step(
            "in a window", in_window.height, _some({OUTSIDE: predicted.height - in_window.height})
        ),
        Step("fit to be evidence", evidence.height, _counts(in_window["excluded"].drop_nulls())),
        Step("with a verdict in time", reviewed.height, _missing(evidence, said, inputs)),
    )
    agreeing = reviewed.filter(pl.col("predicted") == pl.col("decided")).height
    missing = evidence.height - reviewed.height
    return Funnel(
        version,
        steps,
        share(agreeing, reviewed.height),
        missing_bounds(agreeing, reviewed.height, missing),
    )


def _still_due(inputs: Inputs, version: str) -> int:
    """Return how many units of a version are not closed yet; none of a replay is left open."""
    if inputs.waiting.is_empty():
        return 0
    is_own_unit = (pl.col("version") == version) & (pl.col("lever") == inputs.policy.whole)
    return inputs.waiting.filter(is_own_unit).height


def _asked_later(lost: int, due: int) -> dict[str, int]:
    return _some({NOT_ASKED: lost - due, STILL_DUE: due})


def _left_out(inputs: Inputs) -> dict[str, int]:
    return _some(dict(inputs.left_out))


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


def _counts(reasons: pl.Series) -> dict[str, int]:
    return dict(reasons.value_counts(sort=True).sort(reasons.name).iter_rows())


def _missing(evidence: pl.DataFrame, said: pl.DataFrame, inputs: Inputs) -> dict[str, int]:
    """Return why units have no verdict, by reason; the first that fits a unit counts."""
    missing = evidence.filter(pl.col("decided") == MISSING).select("case_key")
    several_labels = inputs.records.set_aside.filter(pl.col("reason") == Reason.SEVERAL_LABELS)
    joined = missing.join(said, on="case_key", how="left").with_columns(
        several=pl.col("case_key").is_in(several_labels["case_key"].unique().implode())
    )
    is_single = inputs.policy.evidence.verdicts == 1
    reason = (
        pl.when(pl.col("people").is_null() & pl.col("several")).then(pl.lit(SEVERAL))
        .when(pl.col("people").is_null()).then(pl.lit(NOBODY))
        .when(~pl.col("unseen") & pl.col("unsaid")).then(pl.lit(NOT_SAID))
        .when(~pl.col("unseen")).then(pl.lit(SEEN))
        .when(~pl.col("sure")).then(pl.lit(UNSURE))
        .when(pl.col("left_out")).then(pl.lit(LEFT_OUT))
        .otherwise(pl.lit(LATE if is_single else NO_MAJORITY))
    )  # fmt: skip
    return _counts(joined.select(reason=reason)["reason"])


def _said(records: Records, policy: Policy) -> pl.DataFrame:
    """Return per case how many people answered, whether one did unseen, was sure, is left out.

    `unsaid` marks cases with a verdict of which neither records nor policy say if it was unseen.
    """
    is_unknown = pl.col("exposure") == "unknown"
    is_unassisted = pl.col("exposure") == "blind"
    if policy.evidence.outside_blind:
        is_unassisted |= is_unknown
    is_sure = pl.all_horizontal([pl.col(VALUE + lever.id).is_not_null() for lever in policy.levers])
    is_counted = pl.col("counts").sort_by("rank")
    first_sure = pl.col("sure").sort_by("rank").filter(is_counted).first()
    is_excluded = pl.col("left_out").sort_by("rank").filter(is_counted)
    return (
        _marked(records, policy)
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


def _marked(records: Records, policy: Policy) -> pl.DataFrame:
    """Return what people said, with `left_out`: whose verdicts gates don't count."""
    times = records.cases.select("case_key", "occurred_at")
    decisions = records.decisions.join(times, on="case_key", how="left")
    at = pl.coalesce("at", "occurred_at").dt.epoch("us").fill_null(0)
    return mark_left_out(decisions.with_columns(at=at), asked_of(records, policy))
