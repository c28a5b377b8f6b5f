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
    stood = service.watch.confirmed(name).standing
    if version not in stood.scope.versions:
        return WorstCases((), 0, 0)
    with service.database.reading() as transaction:
        found = _found(transaction, stood, caller, cell, version, at, most)
    _note(service, stood, caller, [one.key for one in found.items], at)
    return found


def _found(
    transaction: Transaction, stood: Standing, caller: Caller, cell: Cell, version: str,
    at: datetime, most: int,
) -> WorstCases:  # fmt: skip
    attempt = stood.scope.state(cell, version).attempt
    differing = Differing(transaction, stood.rollout, cell, version, attempt)
    whole = stood.policy.whole
    dear = differing.dearest(whole, max(most, LOOKED_AT))
    newest, ids = Newest(transaction, stood.rollout), [one.case_id for one in dear]
    cases, said, decided = newest.cases(ids), newest.predictions(ids), newest.decisions(ids)
    there = [one for one in dear if version in said.get(one.case_id, {}) and one.case_id in cases]
    keys = [cases[one.case_id].key for one in there]
    hidden = hidden_from(transaction, stood, caller, keys, at)
    shown = [one for one in there if cases[one.case_id].key not in hidden]
    items = (
        _worst(stood.policy, one, cases[one.case_id], said[one.case_id][version],
               decided.get(one.case_id, {}).get(one.reviewer))
        for one in shown[:most]
    )  # fmt: skip
    return WorstCases(tuple(items), differing.count(whole), len(hidden))


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
        theirs = ("" if person is None else person.answers.get(lever.id)) or ""
        own = model.answers.get(lever.id) or ""
        if own != theirs:
            does, did = lever.action(own) or "", lever.action(theirs) or ""
            yield Said(lever.id, theirs, own, did, does)


def _note(
    service: Service, stood: Standing, caller: Caller, keys: Sequence[str], at: datetime
) -> None:
    """Note what a person is about to be shown; machines judge nothing."""
    if caller.machine or not keys:
        return
    with service.database.writing() as transaction:
        for what in (PREDICTION, VERDICTS):
            record_shown(transaction, stood, caller, keys, what=what, page=PAGE, at=at)
        if hidden_from(transaction, stood, caller, keys, at):  # they took one meanwhile
            raise StaleRevision("you have just been given one of these cases; ask again")
