"""The list of divergences of a version, with figures, page by page.

It covers closed units only, on which no blind decision can count any more: so programs that send
predictions or decisions may read it. Rows have the form of `divergences.csv`; those of a page also
have training choices and pictures. Exposure is recorded before the answer is returned: for the
cases of the rows, and as a time limit for the figures.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial

import polars as pl

from rollout.data.counting.closed_units import AnswerPair, PeriodRecords
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.scope import find_acting_version
from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX
from rollout.engine.evidence.units import UNLISTED
from rollout.engine.records.reviews import (
    LISTED_PERIOD,
    CleaningChoice,
    LabelKey,
    find_final_choices,
)
from rollout.features.divergences.closed_units import (
    ComparedUnits,
    DifferingPair,
    UnitFilter,
    load_compared_units,
    load_differing_pairs,
)
from rollout.features.reports.builder import NothingToReportError
from rollout.features.reports.figures.comparison import (
    ConfusionMatrix,
    NumberSides,
    build_action_matrix,
    build_matrix_from_counts,
    compute_number_sides,
)
from rollout.features.reports.inputs.divergence_columns import Divergence, build_divergence_id
from rollout.features.reports.inputs.divergences import (
    build_divergence,
    build_divergence_frame,
    format_csv,
)
from rollout.features.reports.inputs.pairs import Pairs, compare_answers
from rollout.features.reports.inputs.pictures import find_picture
from rollout.features.reviews.decisions import record_shown_cases
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import OUTSIDE, Lever, UnitSelection
from rollout.live.rollout_state import RolloutState, read_rollout, write_rollout


@dataclass(frozen=True, slots=True)
class CostliestKind:
    """The costliest kind of divergence: its count and total cost.

    Of numbers the kind is the side: `human` is empty, `model` is below or above the tolerance.
    """

    human: str
    model: str
    count: int
    cost: float


def find_costliest_kind(pairs: Iterable[DifferingPair], lever: Lever) -> CostliestKind | None:
    """Return the kind of divergence with the largest total cost, or None."""
    counts: Counter[AnswerPair] = Counter()
    costs: dict[AnswerPair, float] = {}
    for pair in pairs:
        answers = (pair.human, pair.model) if lever.number is None else ("", _find_side(pair))
        counts[answers] += 1
        costs[answers] = costs.get(answers, 0.0) + pair.cost
    costly_answers = [answers for answers in costs if costs[answers] > 0]
    if not costly_answers:
        return None
    costliest = min(costly_answers, key=lambda answers: (-costs[answers], *answers))
    return CostliestKind(*costliest, counts[costliest], costs[costliest])


def _find_side(pair: DifferingPair) -> str:
    """Return on which side of the human's number the model's lies."""
    try:
        is_below = float(pair.model) < float(pair.human)
    except ValueError:
        return "without a number"
    return f"{'below' if is_below else 'above'} the tolerance"


def _build_label_matrix(compared_units: ComparedUnits) -> ConfusionMatrix:
    """Return the confusion matrix of the labels, as counted."""
    rows = [(*answers, count) for answers, count in compared_units.counts.items()]
    return build_matrix_from_counts(
        _build_count_frame(rows), compared_units.unit_filter.lever.labels
    )


def _build_action_matrix(compared_units: ComparedUnits) -> ConfusionMatrix:
    """Return the confusion matrix of the actions, at the current policy's costs."""
    lever = compared_units.unit_filter.lever
    comparisons = (
        (compare_answers(lever, *answers), count)
        for answers, count in compared_units.counts.items()
    )
    rows = [(comparison[1], comparison[2], count) for comparison, count in comparisons]
    return build_action_matrix(_build_count_frame(rows), lever)


def _build_count_frame(rows: Sequence[tuple[str, str, int]]) -> pl.DataFrame:
    schema = {"human": pl.String(), "model": pl.String(), "n": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


PAIR_SCHEMA = {
    "case_key": pl.String(),
    "window": pl.String(),
    "human": pl.String(),
    "model": pl.String(),
    "human_action": pl.String(),
    "model_action": pl.String(),
    "cost": pl.Float64(),
    "confidence": pl.Float64(),
}


def load_divergence_rows(
    transaction: Transaction,
    state: RolloutState,
    unit_filter: UnitFilter,
    pairs: Sequence[DifferingPair],
) -> pl.DataFrame:
    """Return pairs with site, time, attributes and outcome, in list order."""
    case_ids, lever = {pair.case_id for pair in pairs}, unit_filter.lever.id
    attribute_names = PeriodRecords(transaction, state.rollout).list_attributes(case_ids)
    store = StoredHistory(
        transaction,
        state.rollout,
        levers=[lever],
        attributes=attribute_names,
        first_names=state.first_names,
    )
    records = store.load_records(case_ids)
    pair_frame = pl.DataFrame(
        [{"case_key": pair.key, **asdict(pair)} for pair in pairs], schema=PAIR_SCHEMA
    )
    facts = records.cases.select(
        "case_key",
        "site",
        "occurred_text",
        *(ATTRIBUTE_PREFIX + name for name in attribute_names),
        occurred_us=pl.col("occurred_at").dt.epoch("us"),
    )
    outcomes = records.outcomes.select("case_key", outcome=VALUE_PREFIX + lever)
    frame = pair_frame.join(facts, on="case_key").join(outcomes, on="case_key", how="left")
    version_columns = {"version": pl.lit(unit_filter.version), "lever": pl.lit(lever)}
    divergences = frame.with_columns(agrees=pl.lit(value=False), **version_columns)
    return build_divergence_frame(Pairs(divergences, {}), records, state.policy)


@dataclass(frozen=True, slots=True)
class ListedDivergence:
    """A divergence with its training choice."""

    divergence: Divergence
    choice: CleaningChoice | None

    @property
    def divergence_id(self) -> str:
        """Return its identifier, of constant length."""
        divergence = self.divergence
        return build_divergence_id(divergence.version, divergence.lever, divergence.case_key)


def build_rows(
    transaction: Transaction,
    state: RolloutState,
    unit_filter: UnitFilter,
    page: Sequence[DifferingPair],
) -> tuple[ListedDivergence, ...]:
    """Return pairs with their training choices and pictures."""
    choices = load_pair_choices(transaction, state, page)
    table = load_divergence_rows(transaction, state, unit_filter, page)
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(set(table["case_key"]))
    media = {
        case.key: [case.media[media_name] for media_name in sorted(case.media)]
        for case in NewestRecords(transaction, state.rollout).load_cases(case_ids.values()).values()
    }
    divergences = (
        build_divergence(row, find_picture(media.get(row["case_key"], ()), may_embed=True))
        for row in table.iter_rows(named=True)
    )
    return tuple(
        ListedDivergence(divergence, choices.get((divergence.case_key, divergence.lever)))
        for divergence in divergences
    )


def load_pair_choices(
    transaction: Transaction, state: RolloutState, pairs: Sequence[DifferingPair]
) -> Mapping[LabelKey, CleaningChoice]:
    """Return the training choices of the pairs."""
    cleanings = CleaningStore(transaction, state.rollout)
    return find_final_choices(cleanings.list_for_cases({pair.case_id for pair in pairs}))


@dataclass(frozen=True, slots=True)
class DivergenceFilterOptions:
    """Available filter values, in display order.

    Sites and windows are all in which the version was ever counted. Answers and attributes come
    from
    the compared units.
    """

    sites: tuple[str, ...]
    windows: tuple[str, ...]
    human_answers: tuple[str, ...]
    model_answers: tuple[str, ...]
    costs: tuple[float, ...]
    slices: Mapping[str, tuple[str, ...]]


def build_filter_options(
    compared_units: ComparedUnits, pairs: Sequence[DifferingPair], policy: Policy
) -> DivergenceFilterOptions:
    """Return the available filter values of a list.

    Args:
        pairs: all differing pairs, before the filters for answers and cost.
        policy: gives the order of values and the slices.
    """
    lever, cells = compared_units.unit_filter.lever, compared_units.series_cells.values()
    answer_counts = compared_units.counts if lever.has_single_labels else ()
    return DivergenceFilterOptions(
        sites=_order_values((cell.site for cell in cells), policy.sites_by_id),
        windows=_order_values(
            (cell.window for cell in cells), [window.id for window in policy.windows]
        ),
        human_answers=_order_values(_collect_answers(answer_counts, pairs, 0), lever.labels),
        model_answers=_order_values(_collect_answers(answer_counts, pairs, 1), lever.labels),
        costs=tuple(cost for cost in reversed(lever.cost_levels) if cost > 0),
        slices=_collect_slices(compared_units, policy.slices),
    )


def _collect_answers(
    class_answers: Iterable[AnswerPair], pairs: Sequence[DifferingPair], side: int
) -> Iterable[str]:
    """Return the listed answers of one side (0: human, 1: model)."""
    pair_answers = {(pair.human, pair.model) for pair in pairs}
    return {answers[side] for answers in {*class_answers, *pair_answers}} - {UNLISTED, OUTSIDE}


def _collect_slices(
    compared_units: ComparedUnits, slice_names: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    if not slice_names:
        return {}
    values_by_slice: dict[str, set[str]] = {}
    for attributes in map(json.loads, {unit.attributes for unit in compared_units.unsliced_units}):
        for slice_name in attributes.keys() & set(slice_names):
            values_by_slice.setdefault(slice_name, set()).add(attributes[slice_name])
    return {
        slice_name: tuple(sorted(values_by_slice[slice_name]))
        for slice_name in slice_names
        if slice_name in values_by_slice
    }


def _order_values(values: Iterable[str], policy_order: Iterable[str]) -> tuple[str, ...]:
    """Return distinct values in policy order, then all others sorted."""
    value_set = set(values)
    return (
        *(value for value in policy_order if value in value_set),
        *sorted(value_set - set(policy_order)),
    )


DIVERGENCES_PAGE = "divergences"
MAX_COMPARED_UNITS = 5_000  # newest first; takes some hundredths of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceQuery(UnitSelection):
    """Filter of divergences, by default of the last 30 days; None means no restriction.

    Without a version, the one that acts in most cells, else the newest with counted units.

    Attributes:
        lever: by default the first of the policy.
        human, model: the two answers.
        has_choice: with (True) or without (False) a training choice.
    """

    lever: str | None = None
    human: str | None = None
    model: str | None = None
    min_cost: float | None = None
    has_choice: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergencePage:
    """A page of divergences with its figures.

    Attributes:
        policy: the current policy, which gives the costs.
        version: "" if the rollout has no version yet.
        since, until: times of the cases, `until` exclusive.
        is_truncated: whether `MAX_COMPARED_UNITS` cut the requested period.
        compared: number of closed cases with a model answer and a decision that counts for gates,
            in the requested cells with the requested attributes; the matrices count the same cases.
        count, action_count, cost: number of matching divergences, number of these with different
            actions, and their total cost.
        label_matrix, action_matrix: None for a lever with numbers, or if nothing was compared.
        sides: the same cases of a lever with numbers; None for labels.
        first_position: position of the first row, from 1.
        next_id: cursor of the next page; None on the last page.
    """

    policy: Policy
    version: str
    lever: str
    since: datetime
    until: datetime
    is_truncated: bool
    compared: int
    count: int
    action_count: int
    cost: float
    costliest_kind: CostliestKind | None
    label_matrix: ConfusionMatrix | None
    action_matrix: ConfusionMatrix | None
    sides: NumberSides | None
    filter_options: DivergenceFilterOptions
    rows: tuple[ListedDivergence, ...]
    first_position: int
    next_id: str | None


def load_divergence_page(
    database: Database,
    caller: Caller,
    rollout_name: str,
    query: DivergenceQuery,
    at: datetime,
    *,
    after: str | None = None,
    limit: int = 25,
) -> DivergencePage:
    """Return a page of divergences at readable sites, costliest first.

    Args:
        query: which divergences.
        after: `next_id` of the previous page; starts again if it is no longer listed.

    Raises:
        NotAllowedError: the caller may not read cases of the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        NothingToReportError: the period is empty.
        RefusalError: the policy has no such lever.
        StaleRevisionError: the caller claimed one of the cases meanwhile; repeat the request.
    """
    query = _begin_search(database, caller, rollout_name, query, at)
    with read_rollout(database, rollout_name) as (transaction, state):
        result = _find_divergences(transaction, state, caller, query, at)
        start = _find_position_after(result, after)
        page = result.pairs[start : start + limit]
        rows = build_rows(transaction, state, result.compared_units.unit_filter, page)
    keys = [pair.key for pair in page]
    record_shown_cases(database, state, caller, keys, at, page=DIVERGENCES_PAGE)
    has_more = len(result.pairs) > start + limit
    return _build_divergence_list(
        result, rows, start + 1, rows[-1].divergence_id if has_more else None
    )


def export_divergences_csv(
    database: Database, caller: Caller, rollout_name: str, query: DivergenceQuery, at: datetime
) -> bytes:
    """Return the whole list as CSV, in the form of `divergences.csv`.

    Raises the errors of `load_divergence_page`.
    """
    query = _begin_search(database, caller, rollout_name, query, at)
    with read_rollout(database, rollout_name) as (transaction, state):
        result = _find_divergences(transaction, state, caller, query, at)
        table = load_divergence_rows(
            transaction, state, result.compared_units.unit_filter, result.pairs
        )
    keys = sorted(pair.key for pair in result.pairs)
    record_shown_cases(database, state, caller, keys, at, page=DIVERGENCES_PAGE)
    return format_csv(table)


def _begin_search(
    database: Database, caller: Caller, rollout_name: str, query: DivergenceQuery, at: datetime
) -> DivergenceQuery:
    """Return the query with its whole period, after recording what its figures will reveal.

    Figures of few cases reveal the answer on each. A gold case issued after this is not affected.
    """
    require_permission(caller, Permission.READ_CASES, rollout_name)
    query = _complete_period(database, rollout_name, query, at)
    if not caller.is_service_account and query.until is not None:
        with write_rollout(database, rollout_name) as (transaction, state):
            ExposureStore(transaction, state.rollout).record_figures(
                caller.name, query.until, page=DIVERGENCES_PAGE
            )
    return query


@dataclass(frozen=True, slots=True)
class _DivergenceResult:
    """The compared units with the matching pairs."""

    policy: Policy
    compared_units: ComparedUnits
    pairs: Sequence[DifferingPair]
    filter_options: DivergenceFilterOptions


def _find_divergences(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    query: DivergenceQuery,
    at: datetime,
) -> _DivergenceResult:
    policy = state.policy
    lever = policy.levers_by_id.get(query.lever or policy.levers[0].id)
    if lever is None:
        raise RefusalError(f"no lever {query.lever}; there is {', '.join(policy.levers_by_id)}")
    version = state.scope.get_first_name(query.version or find_main_version(state, at))
    assert query.since is not None  # noqa: S101 - `_complete_period` fills both in
    assert query.until is not None  # noqa: S101 - as above
    unit_filter = UnitFilter(
        version=version,
        lever=lever,
        site=query.site,
        window=query.window,
        is_readable=partial(caller.has_permission, Permission.READ_CASES, state.rollout.name),
        attributes=query.attributes,
        since=query.since,
        until=query.until,
    )
    compared_units = load_compared_units(transaction, state, unit_filter, at, MAX_COMPARED_UNITS)
    all_pairs = load_differing_pairs(transaction, state, compared_units)
    pairs = [pair for pair in all_pairs if _matches_query(pair, query)]
    if query.has_choice is not None:
        current_choices = load_pair_choices(transaction, state, pairs)
        pairs = [p for p in pairs if ((p.key, lever.id) in current_choices) == query.has_choice]
    return _DivergenceResult(
        policy,
        compared_units,
        pairs,
        build_filter_options(compared_units, all_pairs, policy),
    )


def _matches_query(pair: DifferingPair, query: DivergenceQuery) -> bool:
    answers_match = query.human in {None, pair.human} and query.model in {None, pair.model}
    return answers_match and (query.min_cost is None or pair.cost >= query.min_cost)


def _find_position_after(result: _DivergenceResult, divergence_id: str | None) -> int:
    """Return the number of pairs up to a divergence; 0 if it is not listed."""
    if not divergence_id:
        return 0
    unit_filter = result.compared_units.unit_filter
    divergence_ids = (
        build_divergence_id(unit_filter.version, unit_filter.lever.id, pair.key)
        for pair in result.pairs
    )
    return next(
        (
            position
            for position, item in enumerate(divergence_ids, start=1)
            if item == divergence_id
        ),
        0,
    )


def find_main_version(state: RolloutState, at: datetime) -> str:
    """Return the version that acts in most cells, else the newest, else "".

    One with counted units comes before one that only a question or its first case has named.
    """
    acting_grants = (
        find_acting_version(state.scope, state.policy, cell, at) for cell in state.policy.cells
    )
    acting_versions = [grant[0] for grant in acting_grants if grant is not None]
    if acting_versions:
        return max(dict.fromkeys(acting_versions), key=acting_versions.count)
    versions = state.scope.versions
    begun = {version for (_, version), cell in state.scope.cells.items() if cell.has_begun}
    in_service = [version for version in versions if not versions[version].retired]
    return max(reversed(in_service), key=begun.__contains__, default="")


def _complete_period(
    database: Database, rollout_name: str, query: DivergenceQuery, at: datetime
) -> DivergenceQuery:
    """Return the query with both ends of its period."""
    with read_rollout(database, rollout_name) as (transaction, state):
        started_at = next(Ledger(transaction, state.rollout).list_events(until=1)).at
    until = at if query.until is None else min(query.until, at)
    since = until - LISTED_PERIOD if query.since is None else query.since
    if until < started_at:
        raise NothingToReportError(
            f"{rollout_name} began at {started_at.isoformat()}; let the span end after it"
        )
    if since >= until:
        raise NothingToReportError(f"{since.isoformat()} is not before {until.isoformat()}")
    return replace(query, since=since, until=until)


def _build_divergence_list(
    result: _DivergenceResult,
    rows: tuple[ListedDivergence, ...],
    first_position: int,
    next_id: str | None,
) -> DivergencePage:
    compared_units, pairs = result.compared_units, result.pairs
    unit_filter, lever = compared_units.unit_filter, compared_units.unit_filter.lever
    has_labels = lever.has_single_labels and bool(compared_units.counts)
    return DivergencePage(
        policy=result.policy,
        version=unit_filter.version,
        lever=lever.id,
        since=compared_units.since or unit_filter.since,
        until=unit_filter.until,
        is_truncated=compared_units.since is not None,
        compared=sum(compared_units.counts.values()),
        count=len(pairs),
        action_count=sum(pair.human_action != pair.model_action for pair in pairs),
        cost=sum(pair.cost for pair in pairs),
        costliest_kind=find_costliest_kind(pairs, lever),
        label_matrix=_build_label_matrix(compared_units) if has_labels else None,
        action_matrix=_build_action_matrix(compared_units) if has_labels else None,
        sides=None
        if lever.number is None
        else compute_number_sides(
            (*answers, count) for answers, count in compared_units.counts.items()
        ),
        filter_options=result.filter_options,
        rows=rows,
        first_position=first_position,
        next_id=next_id,
    )
