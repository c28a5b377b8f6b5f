"""Closed units with the answers of humans and a version: one by one, and as confusion matrices.

Answers of units come from the counted classes, matrices from the counted sums. Records are read
only for differing pairs whose class does not hold the answer. Cases that may still be decided blind
are excluded.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from operator import itemgetter

import polars as pl

from rollout.data.counting.closed_units import (
    AnswerPair,
    ClosedUnit,
    ClosedUnits,
    PeriodRecords,
    load_answer_pairs,
)
from rollout.data.counting.counter import GROUP_COLUMNS, Matrices
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.engine.decide.permissions import Caller, Permission, may_be_asked_blind
from rollout.engine.evidence.evidence_view import BATCH_SIZE, batch_view
from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.units import UNLISTED
from rollout.engine.records.reviews import fold_name
from rollout.features.reports.figures.comparison import (
    Comparison,
    VersionMatrix,
    compute_comparisons,
)
from rollout.features.reports.inputs.inputs import CountedActionChange
from rollout.features.reports.inputs.pairs import (
    OTHER_ACTION,
    UNASSISTED_EXPOSURES,
    compare_answers,
)
from rollout.kernel.calendar.instants import Cell, find_slot_after, find_slot_before, to_instant
from rollout.kernel.errors import UnknownVersionError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.intervals import compute_paired_change
from rollout.kernel.units import FAILED, LATE, MISSING, OUTSIDE, Lever, UnitSelection
from rollout.live.evidence.evidence_reader import load_evidence_views
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

SitePredicate = Callable[[str], bool]
ComparisonResult = tuple[bool, str, str, bool, float]
"""The return value of `rollout.features.reports.inputs.pairs.compare_answers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFilter(UnitSelection):
    """Selection of closed units of one version and lever, at readable sites."""

    version: str
    lever: Lever
    is_readable: SitePredicate
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferingPair:
    """A case on which human and model differ."""

    case_id: int
    key: str
    window: str
    human: str
    model: str
    human_action: str
    model_action: str
    cost: float
    confidence: float | None

    @property
    def sort_key(self) -> tuple[float, bool, float, str]:
        """Return the list order: cost, then confidence, both descending, then key."""
        confidence = self.confidence
        return (-self.cost, confidence is None, -(confidence or 0.0), self.key)


@dataclass(frozen=True)
class ComparedUnits:
    """Closed units that match a filter.

    Attributes:
        series_cells: cells in which the version was ever counted, at readable sites.
        class_answers: the answers of each class of the lever.
        unsliced_units: matching units before the slice filter, each case once.
        units: matching units.
        since: start of the searched period if older units may match; else None.
    """

    unit_filter: UnitFilter
    series_cells: Mapping[int, Cell]
    class_answers: Mapping[int, AnswerPair]
    unsliced_units: Sequence[ClosedUnit]
    units: Sequence[ClosedUnit]
    since: datetime | None

    @cached_property
    def answers_by_class(self) -> Mapping[str, AnswerPair | None]:
        """Return the answers of each set of classes; None without a human answer."""
        return {
            class_ids: self._find_answers(class_ids)
            for class_ids in {unit.kinds for unit in self.units}
        }

    def _find_answers(self, kinds: str) -> AnswerPair | None:
        listed_answers = [
            self.class_answers[class_id]
            for class_id in json.loads(kinds)
            if class_id in self.class_answers
        ]
        return listed_answers[0] if listed_answers and listed_answers[0][0] != MISSING else None

    @cached_property
    def counts(self) -> Mapping[AnswerPair, int]:
        """Return the number of compared units by pair of answers."""
        counts: Counter[AnswerPair] = Counter()
        for kinds, count in Counter(unit.kinds for unit in self.units).items():
            if (answers := self.answers_by_class[kinds]) is not None:
                counts[answers] += count
        return counts

    def list_differing(self) -> list[tuple[ClosedUnit, AnswerPair]]:
        """Return the units with different answers, with these answers."""
        differing_answers = {
            kinds: answers
            for kinds, answers in self.answers_by_class.items()
            if answers and answers[0] != answers[1]
        }
        return [
            (unit, differing_answers[unit.kinds])
            for unit in self.units
            if unit.kinds in differing_answers
        ]


def load_compared_units(
    transaction: Transaction, state: RolloutState, unit_filter: UnitFilter, at: datetime, limit: int
) -> ComparedUnits:
    """Return the newest closed units that match, at most `limit`.

    Units counted under an earlier policy keep their window and classes. Whether a case is closed
    follows from the grace of the current policy.
    """
    unit_store = ClosedUnits(transaction, state.rollout, unit_filter.version, state.first_names)
    tick = state.policy.tick
    series_cells = {
        series: cell
        for series, cell in unit_store.load_cells().items()
        if unit_filter.is_readable(cell.site)
    }
    series_ids = {
        series
        for series, cell in series_cells.items()
        if unit_filter.site in {None, cell.site} and unit_filter.window in {None, cell.window}
    }
    slots = range(
        find_slot_before(unit_filter.since, tick), find_slot_after(unit_filter.until, tick)
    )
    case_ids, oldest_slot = unit_store.list_newest(series_ids, slots, limit)
    received_before = at - state.policy.evidence.grace
    closed_units = unit_store.load_closed(
        case_ids, unit_filter.since, unit_filter.until, received_before
    )
    units = _select_readable(
        closed_units,
        unit_filter.is_readable,
        PeriodRecords(transaction, state.rollout).list_blind_cases(at),
    )
    since = None if oldest_slot is None else max(unit_filter.since, to_instant(oldest_slot, tick))
    classes = load_answer_pairs(transaction, state.rollout, unit_filter.lever.id)
    return ComparedUnits(
        unit_filter,
        series_cells,
        classes,
        units,
        _filter_by_attributes(units, unit_filter.attributes),
        since,
    )


def _select_readable(
    units: Iterable[ClosedUnit], is_readable: SitePredicate, open_case_ids: Collection[int]
) -> list[ClosedUnit]:
    """Return readable units, one per case.

    Two policies may have counted a case in two units.
    """
    units_by_case = {unit.case_id: unit for unit in units if unit.case_id not in open_case_ids}
    readable_sites = {
        site for site in {unit.site for unit in units_by_case.values()} if is_readable(site)
    }
    return [unit for unit in units_by_case.values() if unit.site in readable_sites]


def _filter_by_attributes(
    units: Sequence[ClosedUnit], attributes: Mapping[str, str]
) -> Sequence[ClosedUnit]:
    if not attributes:
        return units
    wanted_items, texts = attributes.items(), {unit.attributes for unit in units}
    matching_texts = {text for text in texts if wanted_items <= json.loads(text).items()}
    return [unit for unit in units if unit.attributes in matching_texts]


def load_differing_pairs(
    transaction: Transaction, state: RolloutState, compared_units: ComparedUnits
) -> list[DifferingPair]:
    """Return the differing units in list order."""
    unit_filter, differing_units = compared_units.unit_filter, compared_units.list_differing()
    case_ids = [unit.case_id for unit, _ in differing_units]
    keys = ExternalKeys(transaction, state.rollout).find_keys(case_ids)
    confidences = ClosedUnits(
        transaction, state.rollout, unit_filter.version, state.first_names
    ).load_confidences(case_ids)
    record_answers = _load_record_answers(
        transaction,
        state,
        unit_filter,
        [  # of other units the class holds the answers itself
            item
            for item in differing_units
            if unit_filter.lever.number is not None
            or item[1][0] == UNLISTED
            or item[1][1] == OUTSIDE
        ],
    )
    comparisons: dict[tuple[AnswerPair, AnswerPair], ComparisonResult] = {}
    pairs = []
    for unit, answers in differing_units:
        shown_answers = record_answers.get(unit.case_id, answers)
        if (answers, shown_answers) not in comparisons:
            comparisons[answers, shown_answers] = _compare_answers(
                unit_filter.lever, answers, shown_answers
            )
        agrees, human_action, model_action, _, cost = comparisons[answers, shown_answers]
        if agrees or unit.case_id not in confidences:
            continue
        pairs.append(
            DifferingPair(
                case_id=unit.case_id,
                key=keys[unit.case_id],
                window=compared_units.series_cells[unit.series].window,
                human=shown_answers[0],
                model=shown_answers[1],
                human_action=human_action,
                model_action=model_action,
                cost=cost,
                confidence=confidences[unit.case_id],
            )
        )
    return sorted(pairs, key=lambda pair: pair.sort_key)


def _compare_answers(
    lever: Lever, answers: AnswerPair, shown_answers: AnswerPair
) -> ComparisonResult:
    """Compare two answers; an unusable answer has the largest cost."""
    is_unusable = answers[0] == UNLISTED or answers[1] in {FAILED, LATE, OUTSIDE}
    if lever.number is None or not is_unusable:
        return compare_answers(lever, *shown_answers)
    return (False, *shown_answers, False, lever.largest_cost)


def _load_record_answers(
    transaction: Transaction,
    state: RolloutState,
    unit_filter: UnitFilter,
    units: Sequence[tuple[ClosedUnit, AnswerPair]],
) -> Mapping[int, AnswerPair]:
    """Return the answers from the records, by case."""
    if not units:
        return {}
    keys = ExternalKeys(transaction, state.rollout).find_keys({unit.case_id for unit, _ in units})
    records = StoredHistory(
        transaction, state.rollout, levers=[unit_filter.lever.id], first_names=state.first_names
    ).load_records(keys)
    predictions = records.predictions.filter(pl.col("version") == unit_filter.version)
    model = dict(predictions.select("case_key", VALUE_PREFIX + unit_filter.lever.id).iter_rows())
    decisions = _select_unassisted_decisions(records, unit_filter)
    has_quorum = state.policy.evidence.verdicts > 1
    record_answers = {}
    for unit, answers in units:
        key = keys[unit.case_id]
        assigned_answer = (
            None if has_quorum else decisions.get(key, {}).get(fold_name(unit.reviewer or ""))
        )
        human_answer = (
            assigned_answer or _find_most_common(decisions.get(key, {}).values()) or answers[0]
        )
        is_usable = answers[1] not in {FAILED, LATE}
        record_answers[unit.case_id] = (
            human_answer,
            (model.get(key) if is_usable else None) or answers[1],
        )
    return record_answers


def _select_unassisted_decisions(
    records: RecordFrames, unit_filter: UnitFilter
) -> Mapping[str, Mapping[str, str]]:
    """Return human decisions without exposure to a prediction, by case and folded reviewer."""
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    decisions: dict[str, dict[str, str]] = {}
    for key, reviewer, answer in unassisted.select(
        "case_key", "reviewer", VALUE_PREFIX + unit_filter.lever.id
    ).iter_rows():
        if answer is not None:
            decisions.setdefault(key, {})[fold_name(reviewer)] = answer
    return decisions


def _find_most_common(answers: Iterable[str]) -> str | None:
    most_common = Counter(answers).most_common(1)
    return most_common[0][0] if most_common else None


GATE_TRACK = "gate"
FRAME_SCHEMA = {**dict.fromkeys(GROUP_COLUMNS, pl.String()), "n": pl.Int64()}


def load_count_frame(
    service: Service, state: RolloutState, caller: Caller, version: str
) -> pl.DataFrame:
    """Return the counts at the sites that the caller may read.

    Of sites where the caller may be asked for a blind review, they are of whole batches of units
    under the policy in force. Columns: `GROUP_COLUMNS` and n.
    """
    name = state.rollout.name
    with service.database.begin_read() as transaction:
        frame = Matrices(transaction, state.rollout).load_frame(track=GATE_TRACK, version=version)
    readable = [
        s for s in frame["site"].unique() if caller.has_permission(Permission.READ, name, s)
    ]
    blind = {site for site in readable if may_be_asked_blind(caller, name, (site,))}
    plain_frame = frame.filter(pl.col("site").is_in([s for s in readable if s not in blind]))
    if not blind:
        return plain_frame
    batched = _load_batched_frame(service, state, version, blind)
    return pl.concat([plain_frame.select(*FRAME_SCHEMA), batched])


def _load_batched_frame(
    service: Service, state: RolloutState, version: str, sites: set[str]
) -> pl.DataFrame:

    cells = [cell for cell in state.policy.cells if cell.site in sites]
    counts: Counter[tuple[str, ...]] = Counter()
    for (cell, view_version), view in load_evidence_views(service.database, state, cells).items():
        if view_version != version:
            continue
        for number in batch_view(view).rows.gate.unit_class.tolist():
            unit_class = view.unit_classes.classes[number]
            labels = (unit_class.decided, unit_class.predicted)
            counts[version, unit_class.lever, cell.site, cell.window, *labels] += 1
    rows = [(*key, n) for key, n in counts.items()]
    return pl.DataFrame(rows, schema=FRAME_SCHEMA, orient="row")


def load_action_changes(
    service: Service,
    caller: Caller,
    rollout_name: str,
    versions: tuple[str, ...],
    cell: Cell | None = None,
) -> tuple[CountedActionChange, ...]:
    """Return the change of every action at the sites the caller may read.

    Levers with numbers are excluded: they have no list of actions.

    Args:
        cell: restricts the counts to one cell.

    Raises:
        NotAllowedError: the caller may not read any site.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    frames = {version: load_count_frame(service, state, caller, version) for version in versions}
    return tuple(
        change
        for version, frame in frames.items()
        for lever in state.policy.levers
        if lever.has_single_labels
        for change in _compute_lever_changes(
            frame.filter(_build_cell_filter([*state.policy.sites_by_id], cell)), version, lever
        )
    )


def _build_cell_filter(sites: list[str], cell: Cell | None) -> pl.Expr:
    """Build the row filter for sites and, optionally, one cell."""
    site_filter = pl.col("site").is_in(sites)
    if cell is None:
        return site_filter
    return site_filter & (pl.col("site") == cell.site) & (pl.col("window") == cell.window)


def _compute_lever_changes(
    frame: pl.DataFrame, version: str, lever: Lever
) -> Iterator[CountedActionChange]:

    rows = frame.filter((pl.col("lever") == lever.id) & (pl.col("human") != ""))
    pairs: dict[tuple[str, str], int] = {}
    for human, model_action, count in rows.select("human", "model", "n").iter_rows():
        key = (
            lever.find_action(human) or OTHER_ACTION,
            lever.find_action(model_action) or OTHER_ACTION,
        )
        pairs[key] = pairs.get(key, 0) + count
    total = sum(pairs.values())
    for action in dict.fromkeys(lever.actions):
        human_count = sum(count for (human, _), count in pairs.items() if human == action)
        model_action = sum(
            count for (_, model_answer), count in pairs.items() if model_answer == action
        )
        agreed_count = pairs.get((action, action), 0)
        if human_count or model_action:
            change = compute_paired_change(
                model_action - agreed_count, human_count - agreed_count, total
            )
            yield CountedActionChange(version, lever.id, action, human_count, model_action, change)


BASIS_TEXT = (
    "units that are evidence, each counted once, when it closed: the first timely blind decision "
    "against the version's answer; under all policies so far, units taken as independent"
)


def load_version_confusion(
    service: Service, caller: Caller, rollout_name: str, version: str
) -> VersionMatrix:
    """Return the confusion of a version at the sites the caller may read.

    Takes constant time in the number of units, but for readers who may be asked for blind reviews:
    their counts move in whole batches. Units are counted when they close, so cases that may
    still be decided are not included.

    Raises:
        NotAllowedError: the caller may not read any site.
        UnknownVersionError: the rollout has no such version.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    version = state.scope.get_first_name(version)
    if version not in state.scope.versions:
        raise UnknownVersionError(f"no version {version} was seen in {rollout_name}")
    count_frame = load_count_frame(service, state, caller, version)
    basis = BASIS_TEXT
    if may_be_asked_blind(caller, rollout_name, ()):
        basis += f"; in batches of {BATCH_SIZE} where you may be asked for blind reviews"
    return VersionMatrix(version, basis, tuple(_build_comparisons(count_frame, state.policy)))


def _build_comparisons(count_frame: pl.DataFrame, policy: Policy) -> Iterator[Comparison]:
    """Yield a comparison per lever; levers no longer in the policy have only shares."""
    label_levers = {lever.id for lever in policy.levers if lever.has_single_labels}
    number_levers = {lever.id for lever in policy.levers if lever.number is not None}
    answered_counts = count_frame.with_columns(human=pl.col("human").replace("", None))
    frames_by_lever = answered_counts.partition_by("lever", as_dict=True)
    for (lever,), lever_frame in sorted(frames_by_lever.items(), key=itemgetter(0)):
        yield from compute_comparisons(
            lever_frame, has_labels=lever in label_levers, has_numbers=lever in number_levers
        )
