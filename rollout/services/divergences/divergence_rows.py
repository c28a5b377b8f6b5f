"""Rows of the list of divergences: facts, training choices and pictures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.records.label_cleaning import CleaningChoice, LabelKey, find_final_choices
from rollout.reports.figures.comparison import NumberSides, compute_number_sides
from rollout.reports.figures.confusion import ConfusionMatrix, add_costs, build_matrix_from_counts
from rollout.reports.inputs.divergence_columns import Divergence
from rollout.reports.inputs.divergences import build_divergence, build_divergence_frame
from rollout.reports.inputs.pairs import Pairs, compare_answers
from rollout.reports.inputs.pictures import find_picture
from rollout.services.divergences.closed_units import (
    ComparedUnits,
    DifferingPair,
    UnitFilter,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.history import StoredHistory
from rollout.store.records.newest_records import NewestRecords
from rollout.store.reviews.cleanings import CleaningStore
from rollout.tally.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX

if TYPE_CHECKING:
    from rollout.store.counting.closed_units import AnswerPair


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


def build_number_sides(compared_units: ComparedUnits) -> NumberSides:
    """Return how many numbers lie within, below and above the tolerance, as counted."""
    return compute_number_sides(
        (*answers, count) for answers, count in compared_units.counts.items()
    )


def build_label_matrix(compared_units: ComparedUnits) -> ConfusionMatrix:
    """Return the confusion matrix of the labels, as counted."""
    rows = [(*answers, count) for answers, count in compared_units.counts.items()]
    return build_matrix_from_counts(
        _build_count_frame(rows), compared_units.unit_filter.lever.labels
    )


def build_action_matrix(compared_units: ComparedUnits) -> ConfusionMatrix:
    """Return the confusion matrix of the actions, at the current policy's costs."""
    lever = compared_units.unit_filter.lever
    comparisons = (
        (compare_answers(lever, *answers), count)
        for answers, count in compared_units.counts.items()
    )
    rows = [(comparison[1], comparison[2], count) for comparison, count in comparisons]
    return add_costs(build_matrix_from_counts(_build_count_frame(rows), lever.actions), lever)


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
    pair_frame = pl.DataFrame([_build_pair_row(pair) for pair in pairs], schema=PAIR_SCHEMA)
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


def _build_pair_row(pair: DifferingPair) -> dict[str, object]:
    return {"case_key": pair.key, **asdict(pair)}


def build_divergence_id(version: str, lever: str, key: str) -> str:
    """Return the identifier of a divergence, of constant length."""
    return sha256(f"{version}\x1f{lever}\x1f{key}".encode()).hexdigest()


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
    current_choices = load_pair_choices(transaction, state, page)
    table = load_divergence_rows(transaction, state, unit_filter, page)
    rows = [_build_row(row, current_choices) for row in table.iter_rows(named=True)]
    return _add_pictures(transaction, state, rows)


def load_pair_choices(
    transaction: Transaction, state: RolloutState, pairs: Sequence[DifferingPair]
) -> Mapping[LabelKey, CleaningChoice]:
    """Return the training choices of the pairs."""
    cleanings = CleaningStore(transaction, state.rollout)
    return find_final_choices(cleanings.list_for_cases({pair.case_id for pair in pairs}))


def _build_row(
    row: Mapping[str, object], choices: Mapping[LabelKey, CleaningChoice]
) -> ListedDivergence:
    divergence = build_divergence(row)
    return ListedDivergence(divergence, choices.get((divergence.case_key, divergence.lever)))


def _add_pictures(
    transaction: Transaction, state: RolloutState, rows: Sequence[ListedDivergence]
) -> tuple[ListedDivergence, ...]:
    keys = ExternalKeys(transaction, state.rollout).find_ids({r.divergence.case_key for r in rows})
    cases = NewestRecords(transaction, state.rollout).load_cases(keys.values())
    media = {
        case.key: [case.media[media_name] for media_name in sorted(case.media)]
        for case in cases.values()
    }
    return tuple(
        replace(row, divergence=replace(row.divergence, picture=_find_picture(row, media)))
        for row in rows
    )


def _find_picture(row: ListedDivergence, media: Mapping[str, Sequence[str]]) -> str | None:
    return find_picture(media.get(row.divergence.case_key, ()), may_embed=True)
