"""Search for slices in which a version differs from humans more than elsewhere.

Dimensions are site, window, hour and weekday on the site's clock, human label, reviewer, the
attributes in the policy, and pairs of site, window and these attributes. Each value is a slice. A
slice is compared with the rest *of the same cells* (a site by window, a window by site), so that a
hard site does not affect its hours or reviewers. The units of a result are removed before the next
search: otherwise one bad scanner would appear as a site, a window and a reviewer. Labels are
searched last: some labels are nearly always harder than others.

Each unit counts once, by the first decision on its first case.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.engine.words.formatting import format_cell_name, format_count, format_percent
from rollout.features.reports.inputs.pairs import (
    UNASSISTED_EXPOSURES,
    LeverFigures,
    join_comparison,
)
from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.differences import (
    StrataTable,
    build_strata_table,
    compute_tail_bound,
    compute_tail_chance,
    compute_z_scores,
)
from rollout.kernel.statistics.intervals import EXACT_METHOD, clopper_pearson
from rollout.kernel.units import FAILED, Lever, group_pairs

SliceName = tuple[tuple[str, str], ...]

MIN_UNITS = 30  # in a slice, and in the rest of the same cells
MAX_VALUES = 500  # most frequent values of a dimension
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ABSENT = -1
LABEL_KIND = "label"


@dataclass(frozen=True, slots=True)
class SliceDimension:
    """A partition of units into slices, and the strata in which they are compared.

    `codes` and `strata` have shape (units,); the code is `ABSENT` for a unit without a value.
    `names` has the (kind, value) of each code.
    """

    names: tuple[SliceName, ...]
    codes: Ints
    strata: Ints


def find_first_decisions(
    records: RecordFrames, facts: pl.DataFrame, version: str, lever: Lever
) -> pl.DataFrame:
    """Return one row per unit: the first decision on its first decided case.

    The choice depends on keys, review tasks and times, never on an answer. Columns: the case's
    facts with hour and weekday, reviewer, human, model, differs, and model_right by a witness (the
    outcome, else another reviewer), null without one.
    """
    column = VALUE_PREFIX + lever.id
    decisions = (
        records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
        .drop_nulls(column)
        .sort("case_key", "seat", "at", "reviewer", nulls_last=True)
        .select("case_key", "reviewer", human=column)
    )
    model = records.predictions.filter(pl.col("version") == version).select(
        "case_key", model=pl.col(column).fill_null(FAILED)
    )
    first = (
        decisions.join(model, on="case_key", maintain_order="left")
        .join(facts, on="case_key", how="left", maintain_order="left")
        .sort("unit", "case_key", maintain_order=True)
        .unique("unit", keep="first", maintain_order=True)
        .join(_find_witnesses(decisions, records, column), on="case_key", how="left")
    )
    compared = join_comparison(lever, first, differs=~pl.col("agrees"))
    return join_comparison(lever, compared, "witness", model_right="agrees").sort("unit")


def _find_witnesses(decisions: pl.DataFrame, records: RecordFrames, column: str) -> pl.DataFrame:
    """Return the outcome of each case, else the answer of a second reviewer.

    `decisions` are sorted by case.
    """
    key = pl.col("case_key")
    is_second = (key == key.shift(1)) & key.ne_missing(key.shift(2))
    second = decisions.filter(is_second).select("case_key", second="human")
    return (
        records.outcomes.select("case_key", outcome=column)
        .drop_nulls()
        .join(second, on="case_key", how="full", coalesce=True)
        .select("case_key", witness=pl.coalesce("outcome", "second"))
    )


def add_clock(facts: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add hour and weekday on each site's clock; null without a usable time."""
    at = pl.from_epoch("occurred_us", time_unit="us").dt.replace_time_zone("UTC")
    hour = pl.lit(None, pl.Int8)
    weekday = pl.lit(None, pl.Int8)
    sites_by_zone = group_pairs((site.timezone, site.id) for site in policy.sites)
    for zone, sites in sites_by_zone.items():
        in_zone, local_time = pl.col("site").is_in(sites), at.dt.convert_time_zone(zone)
        hour = pl.when(in_zone).then(local_time.dt.hour()).otherwise(hour)
        weekday = pl.when(in_zone).then(local_time.dt.weekday()).otherwise(weekday)
    names = dict(enumerate(WEEKDAYS, start=1))
    return facts.with_columns(
        hour=pl.format("{}:00", hour.cast(pl.String).str.zfill(2)),
        weekday=weekday.replace_strict(names, default=None, return_dtype=pl.String),
    )


def build_dimensions(
    frame: pl.DataFrame, policy: Policy, lever: Lever
) -> tuple[SliceDimension, ...]:
    """Return all dimensions of the rows of `find_first_decisions`, pairs last.

    A site is compared with others in the same window, a window with others of the same site, a
    reviewer with others in the same cell on cases of equal attributes and model label. Human labels
    are a dimension, numbers and sets are not.
    """
    attributes = {
        a: ATTRIBUTE_PREFIX + a for a in policy.slices if ATTRIBUTE_PREFIX + a in frame.columns
    }
    cell, unit_count = _encode_combinations(frame, ["site", "window"]), frame["site"].len()
    # nearly every number or set is another one, so equal ones leave no one to compare
    answers = ["model"] if lever.has_single_labels else []
    case_mix = _encode_combinations(frame, ["site", "window", *answers, *attributes.values()])
    single_columns = {"site": "site", "window": "window", **attributes}
    columns = {**single_columns, "hour": "hour", "weekday": "weekday", "person": "reviewer"}
    strata_by_kind = {
        "site": _encode_combinations(frame, ["window"]),
        "window": _encode_combinations(frame, ["site"]),
        "person": case_mix,
    }
    if lever.has_single_labels:
        columns[LABEL_KIND] = "human"
    dimensions = [
        _build_dimension(frame, {kind: column}, strata_by_kind.get(kind, cell))
        for kind, column in columns.items()
    ]
    for first, second in combinations(single_columns, 2):
        strata = (
            np.zeros(unit_count, dtype=np.int64) if (first, second) == ("site", "window") else cell
        )
        pair = {first: single_columns[first], second: single_columns[second]}
        dimensions.append(_build_dimension(frame, pair, strata))
    return tuple(dimensions)


def _encode_combinations(frame: pl.DataFrame, columns: list[str]) -> Ints:
    """Return a code for each distinct combination of values, including nulls."""
    return (frame.select(pl.struct(columns).rank("dense")).to_series().to_numpy() - 1).astype(
        np.int64
    )


def _build_dimension(frame: pl.DataFrame, columns: dict[str, str], strata: Ints) -> SliceDimension:
    """Return the dimension of one or two columns; rare and absent values are no slice."""
    names = list(columns.values())
    counts = frame.select(names).drop_nulls().group_by(names).agg(units=pl.len())
    counts = _drop_redundant(frame, counts, names) if len(names) > 1 else counts
    counts = counts.filter(pl.col("units") >= MIN_UNITS).sort(
        "units", *names, descending=[True, *[False] * len(names)]
    )
    values = counts.head(MAX_VALUES).drop("units").with_row_index("code")
    codes = frame.select(names).join(values, on=names, how="left", maintain_order="left")["code"]
    return SliceDimension(
        tuple(
            tuple(zip(columns, map(str, row), strict=True))
            for row in values.select(names).iter_rows()
        ),
        codes.cast(pl.Int64).fill_null(ABSENT).to_numpy(),
        strata,
    )


def _drop_redundant(frame: pl.DataFrame, counts: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return the counts without combinations equal to one of their values alone."""
    for name in names:
        alone = frame.group_by(name).agg(alone=pl.len())
        counts = counts.join(alone, on=name).filter(pl.col("units") < pl.col("alone")).drop("alone")
    return counts


ALPHA = 0.05
MAX_SLICES = 10  # per version and lever
MIN_OVERLAP = 0.9  # shared units of two slices from which they are aliases
MIN_Z_SCORE = 2.0  # below it, no slice is significant after correction


@dataclass(frozen=True, slots=True)
class DivergentSlice:
    """A slice in which a version differs from humans more than elsewhere in the same cells.

    Attributes:
        names: one or two (kind, value) that define the slice.
        name: the same as text, with the cell or site if all units share one.
        summary: the result as text.
        n, differ: units, and divergent ones, without the units of earlier results.
        share, low, high, method: share of divergent units, with its interval.
        elsewhere: expected share if the slice were like the rest of its cells.
        at_least: lower bound of the excess, corrected for all slices; results are sorted by it.
        p: uncorrected chance of as many divergences if the slice were like the rest.
        same_units_as: other values of nearly the same units, as text; the data can't separate them.
        model_right, human_right: divergences in which the witness agrees with the model, or with
            the reviewer; the witness is the outcome, else a second reviewer. None without any.
        wrong_side: `person` if witnesses show, at 95 %, that mostly reviewers were wrong; `cases`
            if mostly the model was; empty if neither.
    """

    names: SliceName
    name: str
    summary: str
    n: int
    differ: int
    share: float
    low: float
    high: float
    method: str
    elsewhere: float
    at_least: float
    p: float
    same_units_as: tuple[str, ...]
    model_right: int | None
    human_right: int | None
    wrong_side: str


@dataclass(frozen=True, slots=True)
class SliceSearch(LeverFigures):
    """The slice search of one version on one lever.

    Attributes:
        version, lever: whose answers.
        n, differ: units, and divergent units.
        tested_slices: number of tested slices, over all versions and levers.
        alpha: family-wise error rate.
        min_units: minimal number of units of a slice.
        method: of the test.
        error_rate_text: the error rate as text.
        compared_attributes: the attributes of this version's tested slices, with values and number,
            as text.
        slices: at most 10 slices, the strongest first, labels last.
    """

    n: int
    differ: int
    tested_slices: int
    alpha: float
    min_units: int
    method: str
    error_rate_text: str
    slices: tuple[DivergentSlice, ...]
    compared_attributes: tuple[str, ...] = ()


PHRASES = {
    "site": "{}",
    "window": "by {}",
    "hour": "from {}",
    "weekday": "on {}s",
    "label": "human label {}",
    "person": "reviewer {}",
}
KIND_TEXTS = {"person": "reviewer", "label": "human label"}
MAX_LISTED_VALUES = 7
CAUSE_TEXTS = {
    "person": "outcomes or second reviewers mostly agree with the model",
    "cases": "outcomes or second reviewers mostly agree with humans",
    "": "",
}
METHOD = "exact one-sided test of the slice against the rest, one case a unit"


def compute_slice_searches(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> tuple[SliceSearch, ...]:
    """Return the slice search of every version and lever, sorted by version."""
    facts = add_clock(facts, policy)
    prepared = []
    for version in records.predictions["version"].unique().sort():
        for lever in policy.levers:
            frame = find_first_decisions(records, facts, str(version), lever)
            prepared.append((str(version), lever.id, frame, build_dimensions(frame, policy, lever)))
    tested_count = sum(
        count_testable_slices(dimension) for *_, dimensions in prepared for dimension in dimensions
    )
    return tuple(_build_search(*item, tested_count) for item in prepared)


def count_testable_slices(dimension: SliceDimension) -> int:
    """Return how many slices of a dimension have enough units, and a large enough rest."""
    return len(_find_testable_codes(dimension))


def _find_testable_codes(dimension: SliceDimension) -> Ints:
    all_units = np.ones(len(dimension.codes), dtype=bool)
    return np.flatnonzero(_has_enough_units(_count_units(dimension, all_units, all_units)))


@dataclass(frozen=True, slots=True)
class SliceCandidate:
    """A slice of one dimension that differs significantly.

    `remaining` are the units outside earlier results, `units` those of them in the slice, both of
    shape (all units,); `aliases` are other values of nearly the same units.
    """

    dimension_index: int
    code: int
    counts: StrataTable
    at_least: float
    remaining: Bools
    units: Bools
    aliases: tuple[SliceName, ...] = ()


def find_divergent_slices(
    dimensions: tuple[SliceDimension, ...], differs: Bools, tested_count: int
) -> list[SliceCandidate]:
    """Return the slices that differ more than the rest, the strongest first, then labels.

    The units of each result are removed before the next search. After the first label, only labels
    are searched.

    Args:
        dimensions: of the same units.
        differs: whether model and person differ, shape (units,).
        tested_count: number of slices that share the error rate.
    """
    remaining, slices = np.ones(len(differs), dtype=bool), list[SliceCandidate]()
    level = ALPHA / max(tested_count, 1)
    label_indices = {
        index
        for index, dimension in enumerate(dimensions)
        if any(kind == LABEL_KIND for name in dimension.names for kind, _ in name)
    }
    for indices in (set(range(len(dimensions))) - label_indices, label_indices):
        while len(slices) < MAX_SLICES:
            candidates = [
                candidate
                for index in sorted(indices)
                for candidate in _find_candidates(dimensions, index, differs, remaining, level)
            ]
            if not candidates:
                break
            strongest = max(
                candidates,
                key=lambda candidate: (
                    candidate.at_least,
                    -candidate.dimension_index,
                    -candidate.code,
                ),
            )
            first = _find_simplest(strongest, candidates, dimensions, differs, level)
            slices.append(replace(first, aliases=tuple(_find_aliases(first, dimensions))))
            remaining = remaining & ~first.units
    return slices


def _find_simplest(
    strongest: SliceCandidate,
    candidates: list[SliceCandidate],
    dimensions: tuple[SliceDimension, ...],
    differs: Bools,
    level: float,
) -> SliceCandidate:
    """Return a slice by one value instead of two, if its remainder differs too.

    Otherwise chance would report the worse half of a bad scanner's cases.
    """
    names = dimensions[strongest.dimension_index].names[strongest.code]
    for candidate in candidates:
        candidate_names = dimensions[candidate.dimension_index].names[candidate.code]
        if len(candidate_names) < len(names) and set(candidate_names) < set(names):
            n, differ, all_n, all_differ = _count_units(
                dimensions[candidate.dimension_index],
                differs,
                candidate.remaining & ~strongest.units,
            )
            rest = build_strata_table(n[candidate.code], differ[candidate.code], all_n, all_differ)
            if rest.unit_count >= MIN_UNITS and compute_tail_chance(rest) <= level:
                return candidate
    return strongest


def _find_candidates(
    dimensions: tuple[SliceDimension, ...],
    index: int,
    differs: Bools,
    remaining: Bools,
    level: float,
) -> Iterator[SliceCandidate]:
    """Yield the slices of a dimension that are significant at `level`."""
    counts = _count_units(dimensions[index], differs, remaining)
    n, differ, all_n, all_differ = counts
    is_likely = _has_enough_units(counts) & (compute_z_scores(*counts) > MIN_Z_SCORE)
    for code in np.flatnonzero(is_likely):
        slice_table = build_strata_table(n[code], differ[code], all_n, all_differ)
        if compute_tail_bound(slice_table) <= level or compute_tail_chance(slice_table) <= level:
            differing, size = slice_table.differing_count, slice_table.unit_count
            low, _ = clopper_pearson(differing, size, 1 - 2 * level)
            yield SliceCandidate(
                index,
                int(code),
                slice_table,
                low - slice_table.expected_share,
                remaining,
                remaining & (dimensions[index].codes == code),
            )


def _count_units(
    dimension: SliceDimension, differs: Bools, remaining: Bools
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return units and divergences by slice and stratum, and by stratum alone."""
    strata = int(dimension.strata.max(initial=0)) + 1
    with_value = remaining & (dimension.codes != ABSENT)
    index = dimension.codes * strata + dimension.strata

    def count_by_slice(units: Bools) -> Ints:
        counts = np.bincount(index[units], minlength=len(dimension.names) * strata)
        return counts.reshape(len(dimension.names), strata)

    def count_by_stratum(units: Bools) -> Ints:
        return np.bincount(dimension.strata[units], minlength=strata)

    return (
        count_by_slice(with_value),
        count_by_slice(with_value & differs),
        count_by_stratum(remaining),
        count_by_stratum(remaining & differs),
    )


def _has_enough_units(counts: tuple[Ints, Ints, Ints, Ints]) -> Bools:
    """Return whether each slice and the rest of its strata have enough units."""
    n, _, all_n, _ = counts
    shared = (n > 0) & (all_n > n)
    slice_sizes = np.where(shared, n, 0).sum(axis=1)
    rest_sizes = np.where(shared, all_n - n, 0).sum(axis=1)
    return np.asarray((slice_sizes >= MIN_UNITS) & (rest_sizes >= MIN_UNITS))


def _find_aliases(
    candidate: SliceCandidate, dimensions: tuple[SliceDimension, ...]
) -> Iterator[SliceName]:
    """Yield other single values of nearly the same units."""
    candidate_names = dimensions[candidate.dimension_index].names[candidate.code]
    for dimension in dimensions:
        sizes = _count_sizes(dimension, candidate.remaining)
        shared = _count_sizes(dimension, candidate.units)
        union_sizes = sizes + int(candidate.units.sum()) - shared
        for code in np.flatnonzero(shared >= MIN_OVERLAP * union_sizes):
            if len(dimension.names[code]) == 1 and not set(dimension.names[code]) <= set(
                candidate_names
            ):
                yield dimension.names[code]


def _count_sizes(dimension: SliceDimension, units: Bools) -> Ints:
    return np.bincount(
        dimension.codes[units & (dimension.codes != ABSENT)], minlength=len(dimension.names)
    )


def _build_search(
    version: str,
    lever: str,
    frame: pl.DataFrame,
    dimensions: tuple[SliceDimension, ...],
    tested_count: int,
) -> SliceSearch:
    differs = frame["differs"].to_numpy()
    candidates = find_divergent_slices(dimensions, differs, tested_count)
    return SliceSearch(
        version=version,
        lever=lever,
        n=frame.height,
        differ=int(differs.sum()),
        tested_slices=tested_count,
        alpha=ALPHA,
        min_units=MIN_UNITS,
        method=METHOD,
        error_rate_text=_describe_error_rate(tested_count),
        slices=tuple(
            _build_divergent_slice(
                candidate, dimensions[candidate.dimension_index].names[candidate.code], frame
            )
            for candidate in candidates
        ),
        compared_attributes=tuple(filter(None, map(_describe_compared, dimensions))),
    )


def _describe_compared(dimension: SliceDimension) -> str:
    """Describe the tested slices of a dimension: `lens (2: clear, wet)`; "" without one."""
    tested = [dimension.names[code] for code in _find_testable_codes(dimension)]
    if not tested:
        return ""
    kinds = " and ".join(KIND_TEXTS.get(kind, kind) for kind, _ in tested[0])
    if len(tested[0]) > 1:
        return f"{kinds} ({format_count(len(tested))})"
    values = sorted(value for ((_, value),) in tested)
    values.sort(key=lambda value: WEEKDAYS.index(value) if value in WEEKDAYS else -1)
    more = ", …" if len(values) > MAX_LISTED_VALUES else ""
    return f"{kinds} ({format_count(len(values))}: {', '.join(values[:MAX_LISTED_VALUES])}{more})"


def _build_divergent_slice(
    candidate: SliceCandidate, names: SliceName, frame: pl.DataFrame
) -> DivergentSlice:
    counts, units = candidate.counts, frame.filter(candidate.units)
    low, high = clopper_pearson(counts.differing_count, counts.unit_count)
    witnessed = units.filter("differs").drop_nulls("model_right")["model_right"]
    witness_counts = (
        None if witnessed.is_empty() else (int(witnessed.sum()), int((~witnessed).sum()))
    )
    cause = _find_cause(witness_counts)
    name = f"{format_slice_name(names)}{_describe_place(names, units)}"
    return DivergentSlice(
        names=names,
        name=name,
        summary=_describe_slice(name, counts, witness_counts, cause),
        n=counts.unit_count,
        differ=counts.differing_count,
        share=counts.differing_count / counts.unit_count,
        low=low,
        high=high,
        method=EXACT_METHOD,
        elsewhere=counts.expected_share,
        at_least=candidate.at_least,
        p=compute_tail_chance(counts),
        same_units_as=tuple(format_slice_name(name) for name in candidate.aliases),
        model_right=None if witness_counts is None else witness_counts[0],
        human_right=None if witness_counts is None else witness_counts[1],
        wrong_side=cause,
    )


def _find_cause(witness_counts: tuple[int, int] | None) -> str:
    """Return which side the divergences follow, if witnesses show it at 95 %."""
    if witness_counts is None:
        return ""
    low, high = clopper_pearson(witness_counts[0], sum(witness_counts))
    return "person" if low > 1 / 2 else "cases" if high < 1 / 2 else ""


def _describe_error_rate(tested_count: int) -> str:
    level_text = f"each at a level of {format_percent(ALPHA / max(tested_count, 1), 3)}"
    return (
        f"{format_count(tested_count)} slices were compared, over all versions, {level_text}:"
        f" the chance that any is named when none differs is at most {format_percent(ALPHA, 0)} in"
        " one report, and anew in each. The test takes units as independent."
    )


def format_slice_name(names: SliceName) -> str:
    """Format the name of a slice.

    >>> (
    ...     format_slice_name((("scanner", "worn"),)),
    ...     format_slice_name((("site", "oslo"), ("window", "night"))),
    ... )
    ('scanner worn', 'oslo · night')
    """
    values = dict(names)
    if values.keys() == {"site", "window"}:
        return format_cell_name(values["site"], values["window"])
    return ", ".join(PHRASES.get(kind, kind + " {}").format(value) for kind, value in names)


def _describe_slice(
    name: str, counts: StrataTable, witness_counts: tuple[int, int] | None, cause: str
) -> str:
    share = (
        f"{format_count(counts.differing_count)} of {format_count(counts.unit_count)} units differ"
    )
    share += f" ({format_percent(counts.differing_count / counts.unit_count)})"
    text = f"{name}: {share} against {format_percent(counts.expected_share)} elsewhere"
    if witness_counts is None or not cause:
        return text
    ratio = f"{format_count(witness_counts[0])} of {format_count(sum(witness_counts))}"
    return f"{text}; {CAUSE_TEXTS[cause]} (with the model in {ratio})"


def _describe_place(names: SliceName, units: pl.DataFrame) -> str:
    """Describe the common cell or site of a slice's units; empty if there is none."""
    if {kind for kind, _ in names} & {"site", "window"}:
        return ""
    sites, windows = units["site"].unique(), units["window"].unique()
    if len(sites) > 1 or sites[0] is None:
        return ""
    is_one_window = len(windows) == 1 and windows[0] is not None
    return f" at {format_cell_name(str(sites[0]), str(windows[0])) if is_one_window else sites[0]}"
