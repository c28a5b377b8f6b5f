"""The funnel from rows read to compared units; each step's loss is the sum of its reasons."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from rollout.core.calendar.sites import OTHER_WINDOW
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.row_remarks import RemarkReason
from rollout.kernel.label_sets import is_label_set
from rollout.reports.figures.missing_decisions import count_reasons, find_missing_reasons
from rollout.reports.inputs.decided_by import mark_uncounted_units
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.statistics.intervals import Share, compute_missing_bounds, compute_share
from rollout.tally.frames import VALUE_PREFIX, RecordFrames
from rollout.tally.units import is_missing_unit

OTHER_CASE_PICKED = "another case of the unit was sampled"
OUTSIDE_WINDOWS = "outside every window"
NO_PREDICTION = "no prediction by this version"
DRAWN_STEP = "in shadow, or sampled for a blind review or an audit"
STILL_OPEN = "still open: a decision may come in until the unit closes"
WITHHELD = "withheld: a blind review is still possible"


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
    remaining: int
    lost: dict[str, int]


@dataclass(frozen=True, slots=True)
class Funnel:
    """The funnel of one version from all cases to the decided units that gates counted.

    `agreement` is over the last step, in all attempts; `bounds` is its 95 % interval whatever the
    missing decisions would have said. Gates count these as disagreements.
    """

    version: str
    steps: tuple[FunnelStep, ...]
    agreement: Share
    bounds: tuple[float, float] | None

    @property
    def has_drawn_step(self) -> bool:
        """Return whether units that no gate asked for are left out."""
        return any(step.name == DRAWN_STEP for step in self.steps)


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
OTHER_SEPARATORS = re.compile(r"[,|/+&\s\[\]'\"]+")  # also a list of Python as text


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
    missing = find_missing_reasons(inputs)
    return tuple(_compute_funnel(inputs, version, missing) for version in versions)


def _compute_funnel(inputs: ReportInputs, version: str, missing_units: pl.DataFrame) -> Funnel:
    cases, units = inputs.cases, inputs.cases["unit"].n_unique()
    predicted = inputs.units.filter(
        (pl.col("track") == "gate")
        & (pl.col("lever") == inputs.policy.whole_unit_lever)
        & (pl.col("version") == version)
    )
    in_window = predicted.filter(pl.col("window") != OTHER_WINDOW)
    evidence = in_window.filter(pl.col("excluded").is_null())
    still_open = _count_still_open(inputs, version)
    marked = mark_uncounted_units(inputs, evidence)
    counted = marked.filter(pl.col("uncounted").is_null())
    reviewed = counted.filter(~is_missing_unit())
    undecided = missing_units.filter(
        (pl.col("version") == version) & pl.col("unit").is_in(counted["unit"].implode())
    )
    steps = (
        FunnelStep("cases", inputs.records.cases.height + inputs.withheld_count, {}),
        FunnelStep(
            "with a time, a site of the policy and a unit",
            cases.height,
            _drop_zeros({WITHHELD: inputs.withheld_count, **inputs.unplaced}),
        ),
        FunnelStep(
            "units, each counted once",
            units,
            _drop_zeros({OTHER_CASE_PICKED: cases.height - units}),
        ),
        FunnelStep(
            "with a prediction",
            predicted.height + still_open,
            _drop_zeros({NO_PREDICTION: units - predicted.height - still_open}),
        ),
        FunnelStep("closed", predicted.height, _drop_zeros({STILL_OPEN: still_open})),
        FunnelStep(
            "in a window",
            in_window.height,
            _drop_zeros({OUTSIDE_WINDOWS: predicted.height - in_window.height}),
        ),
        FunnelStep(
            "usable as evidence",
            evidence.height,
            count_reasons(in_window["excluded"].drop_nulls()),
        ),
        FunnelStep(
            DRAWN_STEP,
            counted.height,
            count_reasons(marked["uncounted"].drop_nulls()),
        ),
        FunnelStep(
            "with a human decision that can count",
            reviewed.height,
            count_reasons(undecided["reason"]),
        ),
    )
    agreeing = reviewed.filter(pl.col("predicted") == pl.col("decided")).height
    missing = counted.height - reviewed.height
    return Funnel(
        version,
        steps,
        compute_share(agreeing, reviewed.height),
        compute_missing_bounds(compute_share(agreeing, reviewed.height), missing),
    )


def _count_still_open(inputs: ReportInputs, version: str) -> int:
    """Return how many units of a version are open; 0 for a replay."""
    if inputs.pending_units.is_empty():
        return 0
    is_own_unit = (pl.col("version") == version) & (
        pl.col("lever") == inputs.policy.whole_unit_lever
    )
    return inputs.pending_units.filter(is_own_unit).height


def _drop_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class UnknownLabels:
    """Answers of one side outside a lever.

    Attributes:
        lever: its id.
        side: `model` or `people`.
        count: number of such answers.
        answers: at most five, the most frequent first, with their counts.
        other_separators: such answers that are sets joined by another separator than `;`.
    """

    lever: str
    side: str
    count: int
    answers: tuple[tuple[str, int], ...]
    other_separators: int = 0


def find_unknown_labels(records: RecordFrames, policy: Policy) -> tuple[UnknownLabels, ...]:
    """Return the unknown labels by lever and side; empty without any."""
    sides = {"model": records.predictions, "human": records.decisions}
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
        joined = [text for text in unknown.unique() if _is_joined_otherwise(lever, text)]
        yield UnknownLabels(
            lever.id,
            side,
            unknown.len(),
            tuple(top.iter_rows()),
            int(unknown.is_in(joined).sum()),
        )


def _is_joined_otherwise(lever: Lever, text: str) -> bool:
    """Return whether an answer is a set of the lever but for the separator."""
    parts = [part for part in OTHER_SEPARATORS.split(text) if part]
    return lever.many and len(parts) == len(set(parts)) and set(parts) <= set(lever.labels)


def _is_offered(lever: Lever, answers: pl.Series) -> pl.Series:
    if lever.many:
        offered = [text for text in answers.unique() if is_label_set(text, lever.labels)]
        return answers.is_in(offered)
    if lever.number is None:
        return answers.is_in(list(lever.labels))
    return answers.cast(pl.Float64).is_between(lever.number.low, lever.number.high)
