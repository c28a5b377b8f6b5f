"""The funnel from rows to compared units, why units are missing, and new and unfamiliar values.

Each step's loss in the funnel is the sum of its reasons.

A unit is missing because no decision counts as evidence, or no prediction stood before it.

A new value is one that a cell had not met in its first days; its first counted case is marked.

Unfamiliar are the cases that went to humans because the acting version was not familiar with them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import narwhals as nw
import polars as pl

from rollout.engine.evidence.frames import SLICES, VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.picks import is_in_range, parse_number
from rollout.engine.evidence.stored_units import GATE, FirstValues, NewCellValue
from rollout.engine.evidence.units import is_missing_unit
from rollout.engine.records.records import RemarkReason
from rollout.features.reports.figures.methods import add_costs
from rollout.features.reports.inputs.cell_facts import CellVersionFacts, TimelineMark, sort_marks
from rollout.features.reports.inputs.inputs import MODEL, ReportInputs, mark_uncounted_units
from rollout.kernel.calendar.instants import (
    OTHER_WINDOW,
    Cell,
    CellVersion,
    count_micros,
    find_slot_before,
    to_instant,
)
from rollout.kernel.policy.cell_evidence import read_slice_value
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.intervals import (
    Share,
    compute_missing_bounds,
    compute_share,
    compute_unit_share,
)
from rollout.kernel.units import SILENT_REASONS, Lever, is_label_set

SEVERAL_LABELS = "several labels by one reviewer"
UNANSWERED = "no decision"
ONLY_ASSISTED = "exposure assisted"
EXPOSURE_UNKNOWN = "exposure unknown"
UNSURE = "reviewer unsure"
LATE = "decided after the grace"
ARRIVED_LATE = "arrived after the unit closed"
COLUMNS = ("version", "site", "window", "unit", "reason")


def find_missing_reasons(inputs: ReportInputs) -> pl.DataFrame:
    """Return each missing unit with the reason.

    The columns are `COLUMNS`. The first fitting reason of a unit counts. Units outside every window
    are excluded. Without units the frame is empty.
    """
    if inputs.units.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String))
    missing = inputs.units.filter(
        (pl.col("track") == "gate")
        & (pl.col("lever") == inputs.policy.whole_unit_lever)
        & (pl.col("window") != OTHER_WINDOW)
        & pl.col("excluded").is_null()
        & is_missing_unit()
    ).with_columns(
        pl.col("version", "site", "window", "predicted").cast(pl.String)  # a replay's: categories
    )
    decisions = _summarize_decisions(inputs.records, inputs.policy, missing["case_key"])
    several_labels = inputs.records.rejected.filter(pl.col("reason") == RemarkReason.SEVERAL_LABELS)
    late_units = inputs.late_units.with_columns(arrived_late=pl.lit(value=True))
    return (
        missing.join(decisions, on="case_key", how="left")
        .join(late_units, on=("unit", "version"), how="left")
        .with_columns(
            several=pl.col("case_key").is_in(several_labels["case_key"].unique().implode())
        )
        .with_columns(reason=_choose_reason(inputs.policy))
        .select(*COLUMNS)
    )


def count_cell_reasons(inputs: ReportInputs) -> dict[CellVersion, dict[str, int]]:
    """Return how often each reason occurs in each cell, by version."""
    counts: dict[CellVersion, dict[str, int]] = {}
    for version, site, window, _, reason in find_missing_reasons(inputs).sort("reason").iter_rows():
        cell_counts = counts.setdefault((Cell(site, window), version), {})
        cell_counts[reason] = cell_counts.get(reason, 0) + 1
    return counts


def count_reasons(reasons: pl.Series) -> dict[str, int]:
    """Return how often each reason occurs, by name."""
    return dict(reasons.value_counts(sort=True).sort(reasons.name).iter_rows())


def _choose_reason(policy: Policy) -> pl.Expr:
    is_single = policy.evidence.verdicts == 1
    stated = -(-pl.col("stated").dt.epoch("us") // count_micros(policy.tick))  # its slot
    silent = pl.col("predicted").replace_strict(dict(SILENT_REASONS), default=None)
    return (
        pl.when(silent.is_not_null()).then(silent)
        .when(pl.col("arrived_late")).then(pl.lit(ARRIVED_LATE))
        .when(pl.col("people").is_null() & pl.col("several")).then(pl.lit(SEVERAL_LABELS))
        .when(pl.col("people").is_null()).then(pl.lit(UNANSWERED))
        .when(~pl.col("unseen") & pl.col("unsaid")).then(pl.lit(EXPOSURE_UNKNOWN))
        .when(~pl.col("unseen")).then(pl.lit(ONLY_ASSISTED))
        .when(~pl.col("sure")).then(pl.lit(UNSURE))
        .when(is_single & (stated <= pl.col("slot"))).then(pl.lit(ARRIVED_LATE))
        .otherwise(pl.lit(LATE if is_single else "no majority of the requested decisions"))
    )  # fmt: skip


def _summarize_decisions(
    records: RecordFrames, policy: Policy, case_keys: pl.Series
) -> pl.DataFrame:
    """Return for each of these cases: people (number of answers), unseen, sure, unsaid, stated.

    `unseen`: an unassisted answer exists; `unsaid`: the exposure of an answer is unknown;
    `stated`: when the first unassisted one was made.
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
    return (
        records.decisions.filter(pl.col("case_key").is_in(case_keys.unique().implode()))
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
            stated=pl.col("at").sort_by("rank").filter(is_counted).first(),
        )
    )


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
    def evidence_units(self) -> int:
        """Return the units that gates would count if each had a decision."""
        return self.steps[-1].remaining + sum(self.steps[-1].lost.values())

    @property
    def main_loss(self) -> tuple[str, int]:
        """Return why most of them are without one, and how many; ("", 0) if none is."""
        return max(self.steps[-1].lost.items(), key=lambda row: row[1], default=("", 0))

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
            _drop_zeros({"another case of the unit was sampled": cases.height - units}),
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
    return (
        nw.from_native(answers.to_frame("answer"))
        .select(is_in_range(lever.number, parse_number(nw.col("answer"))).fill_null(value=False))
        .to_native()
        .to_series()
    )


NEW_VALUE: Final = "NewValue"
SlotUnit = tuple[int, str, datetime]
"""A counted unit: its slot, its case's values as stored JSON, and when the case occurred."""


def list_first_values(inputs: ReportInputs) -> Mapping[Cell, tuple[TimelineMark, ...]]:
    """Return the first counted case with each new value, by cell."""
    units = _select_counted(inputs)
    first_values = inputs.first_values
    if first_values is None:
        first_values = FirstValues()
        if SLICES in units.columns:
            groups = units.filter(pl.col(SLICES) != "").group_by("site", "window", SLICES)
            first_values.add(groups.agg(pl.col("occurred").min()).iter_rows())
    new_values = first_values.find_new(inputs.policy, inputs.policy.cells)
    return {
        cell: tuple(
            list_value_marks(values, _list_units(units, inputs, cell, values), inputs.policy.tick)
        )
        for cell, values in new_values.items()
    }


def _select_counted(inputs: ReportInputs) -> pl.DataFrame:
    last_slot = find_slot_before(inputs.counted_until or inputs.last, inputs.policy.tick)
    is_evidence = (pl.col("track") == GATE) & pl.col("excluded").is_null()
    return inputs.units.filter(is_evidence & (pl.col("slot") <= last_slot))


def _list_units(
    units: pl.DataFrame, inputs: ReportInputs, cell: Cell, values: Iterable[NewCellValue]
) -> Iterator[SlotUnit]:
    is_theirs = (
        (pl.col("site") == cell.site)
        & (pl.col("window") == cell.window)
        & pl.col("occurred").is_in([value.slot for value in values])
    )
    times = inputs.cases.select("case_key", "occurred_at")
    rows = units.filter(is_theirs).join(times, on="case_key")
    yield from rows.select("occurred", "slices", "occurred_at").iter_rows()


def list_value_marks(
    values: Iterable[NewCellValue], units: Iterable[SlotUnit], tick: timedelta
) -> Iterator[TimelineMark]:
    """Yield the mark of the first counted case with each value.

    Args:
        values: the values.
        units: those that occurred in the values' slots; a value whose cases are gone gets the begin
            of its slot.
        tick: length of a slot.
    """
    values = tuple(values)
    attributes = {value.attribute for value in values}
    times: dict[NewCellValue, datetime] = {}
    for slot, text, at in units:
        for attribute in attributes:
            key = NewCellValue(attribute, read_slice_value(text, attribute), slot)
            times[key] = min(at, times.get(key, at))
    for new_value in values:
        attribute, value, slot = new_value
        at = times.get(new_value, to_instant(slot, tick))
        yield build_value_mark(attribute, value, at, "first counted case")


def build_value_mark(
    attribute: str, value: str, at: datetime, case: str = "first case"
) -> TimelineMark:
    """Return the mark of the first case with a value, which need not be counted yet."""
    text = f"{case} with {attribute} = {value}"
    return TimelineMark(at, 0, NEW_VALUE, text, "", attribute, value)


def join_value_marks(
    marks: Iterable[TimelineMark], first_marks: Iterable[TimelineMark]
) -> tuple[TimelineMark, ...]:
    """Return marks with those of first cases, which replace first counted ones."""
    first_marks = tuple(first_marks)
    replaced = {(mark.kind, mark.attribute, mark.value) for mark in first_marks}
    others = [mark for mark in marks if (mark.kind, mark.attribute, mark.value) not in replaced]
    return sort_marks([*others, *first_marks])


@dataclass(frozen=True, slots=True)
class UnfamiliarCases(CellVersionFacts):
    """The cases of one cell and version with the same unfamiliar values.

    They are evidence for no gate and no guard.

    Attributes:
        values: the unfamiliar values, in words.
        cases: how many.
        share: of the cell's cases while the version acted.
        agreement: the version's label against the known truth: the outcome, else the first
            unassisted decision.
        by_outcome: those of these cases whose truth is an outcome.
        model_cases: cases that the stage alone would have given to the model.
        prevented: of these, cases with a known truth and another action of the model.
    """

    values: str
    cases: int
    share: float
    agreement: Share
    by_outcome: int
    model_cases: int
    prevented: int


def compute_unfamiliar_cases(
    inputs: ReportInputs, decided_cases: pl.DataFrame
) -> tuple[UnfamiliarCases, ...]:
    """Return the unfamiliar cases by cell, version and values, most first.

    `decided_cases` are the rows of `assign_deciders`.
    """
    acting = decided_cases.filter(pl.col("version").is_not_null())
    if acting["unfamiliar"].null_count() == acting.height:
        return ()
    key = ["site", "window", "version"]
    parts = (
        add_costs(inputs, acting.filter(pl.col("unfamiliar").is_not_null()))
        .join(acting.group_by(key).agg(total=pl.len()), on=key)
        .with_columns(right=~pl.col("wrong"))
        .partition_by([*key, "unfamiliar"], as_dict=True, maintain_order=True)
    )
    rows = [_count_part(names, part) for names, part in parts.items()]
    return tuple(sorted(rows, key=lambda row: (-row.cases, row.site, row.window, row.values)))


def _count_part(names: tuple[object, ...], part: pl.DataFrame) -> UnfamiliarCases:
    site, window, version, values = map(str, names)
    by_model = part.filter(pl.col("stage_decider") == MODEL)
    return UnfamiliarCases(
        site=site,
        window=window,
        version=version,
        values=values,
        cases=part.height,
        share=part.height / int(part["total"][0]),
        agreement=compute_unit_share(part.filter("known"), "right"),
        by_outcome=int(part["by_outcome"].sum()),
        model_cases=by_model.height,
        prevented=int(by_model.filter("known")["wrong_action"].sum()),
    )
