"""The costliest divergences of a version in one cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.records import Case, Decision, Prediction
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.version_names import find_by_any_name
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.reviews.exposure import find_hidden_cases, record_shown_cases
from rollout.store.counting.divergences import CellDivergences, CountedDivergence
from rollout.store.database.session import Transaction
from rollout.store.records.newest_records import NewestRecords

PROPOSAL_PAGE: Final = "proposal"
MAX_SEARCHED_CASES: Final = (
    50  # costliest cases searched: some may be purged or hidden from the caller
)


@dataclass(frozen=True, slots=True)
class AnswerDifference:
    """Human and model answer on a lever with their actions; "" if missing."""

    lever: str
    human: str
    model: str
    human_action: str
    model_action: str


@dataclass(frozen=True, slots=True)
class CostliestDivergence:
    """A divergent case; `cost` in the charter's unit, `note` by the reviewer."""

    key: str
    occurred_at: datetime
    differences: tuple[AnswerDifference, ...]
    confidence: float | None
    cost: float
    note: str
    attributes: Mapping[str, str]
    media: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CostliestDivergences:
    """The costliest cases, with the numbers of all and of hidden divergences."""

    items: tuple[CostliestDivergence, ...]
    count: int
    withheld_cases: int


def load_costliest_divergences(
    service: Service, caller: Caller, rollout_name: str, cell: Cell, version: str, *, at: datetime,
    limit: int = 5,
) -> CostliestDivergences:  # fmt: skip
    """Return the costliest divergences of the current attempt.

    Records the exposure. Cases that the caller may still decide blind are excluded, whatever other
    roles the caller has. Unknown versions have no divergences.

    Raises:
        NotAllowedError: the caller may not read cases of the site.
        StaleRevisionError: the caller claimed one of the cases meanwhile; repeat the request.
    """
    require_permission(caller, Permission.READ_CASES, rollout_name, (cell.site,))
    state = service.state_cache.reload_rollout(rollout_name).state
    version = state.scope.get_first_name(version)
    if version not in state.scope.versions:
        return CostliestDivergences((), 0, 0)
    with service.database.begin_read() as transaction:
        divergences = _find_costliest_divergences(
            transaction, state, caller, cell, version, at, limit
        )
    keys = [item.key for item in divergences.items]
    record_shown_cases(service.database, state, caller, keys, at, page=PROPOSAL_PAGE)
    return divergences


def _find_costliest_divergences(
    transaction: Transaction, state: RolloutState, caller: Caller, cell: Cell, version: str,
    at: datetime, limit: int,
) -> CostliestDivergences:  # fmt: skip
    attempt = state.scope.get_cell_state(cell, version).attempt
    divergence_store = CellDivergences(transaction, state.rollout, cell, version, attempt)
    whole_unit_lever = state.policy.whole_unit_lever
    costliest = divergence_store.list_costliest(whole_unit_lever, max(limit, MAX_SEARCHED_CASES))
    newest = NewestRecords(transaction, state.rollout)
    case_ids = [divergence.case_id for divergence in costliest]
    cases = newest.load_cases(case_ids)
    predictions = newest.load_predictions(case_ids)
    decisions = newest.load_decisions(case_ids)
    own_predictions = {
        case_id: prediction
        for case_id, by_name in predictions.items()
        if (prediction := find_by_any_name(state.scope, version, by_name)) is not None
    }
    existing = [
        divergence
        for divergence in costliest
        if divergence.case_id in own_predictions and divergence.case_id in cases
    ]
    keys = [cases[divergence.case_id].key for divergence in existing]
    hidden_keys = find_hidden_cases(transaction, state, caller, keys, at)
    visible = [
        divergence for divergence in existing if cases[divergence.case_id].key not in hidden_keys
    ]
    items = (
        _build_divergence(state.policy, divergence, cases[divergence.case_id],
               own_predictions[divergence.case_id],
               decisions.get(divergence.case_id, {}).get(divergence.reviewer))
        for divergence in visible[:limit]
    )  # fmt: skip
    return CostliestDivergences(
        tuple(items), divergence_store.count_units(whole_unit_lever), len(hidden_keys)
    )


def _build_divergence(
    policy: Policy,
    divergence: CountedDivergence,
    case: Case,
    prediction: Prediction,
    decision: Decision | None,
) -> CostliestDivergence:
    levels = policy.cost_levels
    return CostliestDivergence(
        key=case.key,
        occurred_at=case.occurred_at,
        differences=tuple(_list_differences(policy.levers, prediction, decision)),
        confidence=prediction.confidence,
        cost=levels[min(divergence.level, len(levels) - 1)],
        note=(decision.note or "") if decision is not None else "",
        attributes=case.attributes,
        media=case.media,
    )


def _list_differences(
    levers: Sequence[Lever], prediction: Prediction, decision: Decision | None
) -> Iterator[AnswerDifference]:
    """Yield the levers whose answers differ in their text."""
    for lever in levers:
        human_answer = ("" if decision is None else decision.answers.get(lever.id)) or ""
        model_answer = prediction.answers.get(lever.id) or ""
        if model_answer != human_answer:
            model_action = lever.find_action(model_answer) or ""
            human_action = lever.find_action(human_answer) or ""
            yield AnswerDifference(lever.id, human_answer, model_answer, human_action, model_action)
