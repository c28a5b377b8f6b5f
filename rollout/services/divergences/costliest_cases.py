"""The dearest divergences of a version in a cell, as whoever decides about it may see them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.errors import StaleRevision
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.records import Case, Decision, Prediction
from rollout.core.records.reviews import PREDICTION, VERDICTS
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.reviews.exposure import hidden_from, record_shown
from rollout.store.counting.divergences import Differed, Differing
from rollout.store.database.session import Transaction
from rollout.store.records.recent_units import Newest

PAGE: Final = "proposal"
LOOKED_AT: Final = 50  # of the dearest: some may be purged, or kept from the reader


@dataclass(frozen=True, slots=True)
class Said:
    """What a person and a version said on a lever, and what each would have done; "" where none."""

    lever: str
    human: str
    model: str
    human_action: str
    model_action: str


@dataclass(frozen=True, slots=True)
class WorstCase:
    """A case on which they differ. `cost` is in the charter's unit; `note` is the person's."""

    key: str
    occurred_at: datetime
    said: tuple[Said, ...]
    confidence: float | None
    cost: float
    note: str
    attributes: Mapping[str, str]
    media: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WorstCases:
    """The dearest cases, how many units differ in all, and how many are kept from the reader."""

    items: tuple[WorstCase, ...]
    count: int
    kept_back: int


def worst_cases(
    service: Service, caller: Caller, name: str, cell: Cell, version: str, *, at: datetime,
    most: int = 5,
) -> WorstCases:  # fmt: skip
    """Return the dearest divergences of the present attempt, and note that they were shown.

    Cases that the caller may still judge are left out, whatever their other roles.

    Args:
        service: the replica that is asked.
        caller: who looks.
        name: of the rollout.
        cell: where.
        version: whose; one that was never seen has none.
        at: now.
        most: how many.

    Raises:
        NotAllowed: the caller may not read cases of the site.
        StaleRevision: one of them was given to the caller to judge meanwhile; ask again.
    """
    require(caller, Act.EXPLAIN, name, (cell.site,))
    state = service.watch.confirmed(name).standing
    if version not in state.scope.versions:
        return WorstCases((), 0, 0)
    with service.database.reading() as transaction:
        divergences = _found(transaction, state, caller, cell, version, at, most)
    _note(service, state, caller, [item.key for item in divergences.items], at)
    return divergences


def _found(
    transaction: Transaction, stood: Standing, caller: Caller, cell: Cell, version: str,
    at: datetime, most: int,
) -> WorstCases:  # fmt: skip
    attempt = stood.scope.state(cell, version).attempt
    divergence_store = Differing(transaction, stood.rollout, cell, version, attempt)
    whole_unit_lever = stood.policy.whole
    costliest = divergence_store.dearest(whole_unit_lever, max(most, LOOKED_AT))
    newest, case_ids = (
        Newest(transaction, stood.rollout),
        [divergence.case_id for divergence in costliest],
    )
    cases, predictions, decisions = (
        newest.cases(case_ids),
        newest.predictions(case_ids),
        newest.decisions(case_ids),
    )
    existing = [
        divergence
        for divergence in costliest
        if version in predictions.get(divergence.case_id, {}) and divergence.case_id in cases
    ]
    keys = [cases[divergence.case_id].key for divergence in existing]
    hidden_keys = hidden_from(transaction, stood, caller, keys, at)
    visible = [
        divergence for divergence in existing if cases[divergence.case_id].key not in hidden_keys
    ]
    items = (
        _worst(stood.policy, divergence, cases[divergence.case_id],
               predictions[divergence.case_id][version],
               decisions.get(divergence.case_id, {}).get(divergence.reviewer))
        for divergence in visible[:most]
    )  # fmt: skip
    return WorstCases(tuple(items), divergence_store.count(whole_unit_lever), len(hidden_keys))


def _worst(
    policy: Policy, one: Differed, case: Case, model: Prediction, person: Decision | None
) -> WorstCase:
    levels = policy.cost_levels
    return WorstCase(
        key=case.key,
        occurred_at=case.occurred_at,
        said=tuple(_differences(policy.levers, model, person)),
        confidence=model.confidence,
        cost=levels[min(one.level, len(levels) - 1)],
        note=(person.note or "") if person is not None else "",
        attributes=case.attributes,
        media=case.media,
    )


def _differences(
    levers: Sequence[Lever], model: Prediction, person: Decision | None
) -> Iterator[Said]:
    """Yield the levers on which the answers are written differently."""
    for lever in levers:
        human_answer = ("" if person is None else person.answers.get(lever.id)) or ""
        model_answer = model.answers.get(lever.id) or ""
        if model_answer != human_answer:
            model_action, human_action = (
                lever.action(model_answer) or "",
                lever.action(human_answer) or "",
            )
            yield Said(lever.id, human_answer, model_answer, human_action, model_action)


def _note(
    service: Service, stood: Standing, caller: Caller, keys: Sequence[str], at: datetime
) -> None:
    """Note what a person is about to be shown; machines judge nothing."""
    if caller.machine or not keys:
        return
    with service.database.writing() as transaction:
        for content in (PREDICTION, VERDICTS):
            record_shown(transaction, stood, caller, keys, what=content, page=PAGE, at=at)
        if hidden_from(transaction, stood, caller, keys, at):  # they took one meanwhile
            raise StaleRevision("you have just been given one of these cases; ask again")
