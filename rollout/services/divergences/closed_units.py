"""Closed units of a version, looked at for a list: what people said beside what the version said.

They are taken as they were counted, so that of all those that are looked at no record is read;
records are read of the pairs that differ where a class does not hold what was said, and of rows
that are shown. Left out is whatever somebody may still judge without the model's answer in sight.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED, LATE, MISSING, OUTSIDE
from rollout.reports.inputs.pairs import UNSEEN, compare
from rollout.services.engine.rollout_state import Standing
from rollout.store.counting.closed_units import Compared, Said, Unit
from rollout.store.counting.count_windows import Spans
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.history import StoredHistory
from rollout.tally.frames import VALUE, Records
from rollout.tally.slots import instant, slot_after, slot_before
from rollout.tally.units import UNLISTED

Fits = Callable[[str], bool]
Compare = tuple[bool, str, str, bool, float]
"""As `reports.pairs.compare` gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which units: of a version on a lever, at sites that fit and that `site` and `window` name.

    Attributes:
        version, lever: whose answers on what.
        site, window: None for all.
        readable: says of a site whether it may be read.
        slices: attributes with the value that they have.
        since, until: of cases that occurred from one up to the other.
    """

    version: str
    lever: Lever
    site: str | None
    window: str | None
    readable: Fits
    slices: Mapping[str, str]
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A case on which people and the version differ."""

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
    def place(self) -> tuple[float, bool, float, str]:
        """Return where it stands on a list: the dearest first, then the surest, then by case."""
        confidence = self.confidence
        return (-self.cost, confidence is None, -(confidence or 0.0), self.key)


@dataclass(frozen=True)
class Looked:
    """The units that were looked at.

    Attributes:
        where: which were asked for.
        places: where the version's units were ever counted, at sites that may be read.
        classes: what is said in each class of the lever.
        around: those that fit but for their slices, each case once.
        units: those that fit.
        since: how far back was looked, where there may be older ones that fit; else None.
    """

    where: Where
    places: Mapping[int, Cell]
    classes: Mapping[int, Said]
    around: Sequence[Unit]
    units: Sequence[Unit]
    since: datetime | None

    @cached_property
    def said(self) -> Mapping[str, Said | None]:
        """Return what is said in each set of classes; None where no person said anything."""
        return {
            class_ids: self._said(class_ids) for class_ids in {unit.kinds for unit in self.units}
        }

    def _said(self, kinds: str) -> Said | None:
        listed_answers = [
            self.classes[class_id] for class_id in json.loads(kinds) if class_id in self.classes
        ]
        return listed_answers[0] if listed_answers and listed_answers[0][0] != MISSING else None

    @cached_property
    def counts(self) -> Mapping[Said, int]:
        """Return how many were compared, by what was said."""
        counts: Counter[Said] = Counter()
        for kinds, count in Counter(unit.kinds for unit in self.units).items():
            if (answers := self.said[kinds]) is not None:
                counts[answers] += count
        return counts

    def differing(self) -> list[tuple[Unit, Said]]:
        """Return the units on which people and the version differ, with what was said."""
        differing_answers = {
            kinds: answers
            for kinds, answers in self.said.items()
            if answers and answers[0] != answers[1]
        }
        return [
            (unit, differing_answers[unit.kinds])
            for unit in self.units
            if unit.kinds in differing_answers
        ]


def look(
    transaction: Transaction, stood: Standing, where: Where, at: datetime, most: int
) -> Looked:
    """Return the newest closed units that fit, of at most so many.

    What an earlier policy counted keeps the window and the classes that it was counted in. Closed
    is a case by the grace of the policy in force.
    """
    unit_store, tick = Compared(transaction, stood.rollout, where.version), stood.policy.tick
    series_cells = {
        series: cell for series, cell in unit_store.places().items() if where.readable(cell.site)
    }
    series_ids = {series for series, cell in series_cells.items() if _is_in(cell, where)}
    slots = range(slot_before(where.since, tick), slot_after(where.until, tick))
    case_ids, oldest_slot = unit_store.newest(series_ids, slots, most)
    received_before = at - stood.policy.evidence.grace
    closed_units = unit_store.closed(case_ids, where.since, where.until, received_before)
    units = _known(closed_units, where.readable, Spans(transaction, stood.rollout).unseen(at))
    since = None if oldest_slot is None else max(where.since, instant(oldest_slot, tick))
    classes = unit_store.classes(where.lever.id)
    return Looked(where, series_cells, classes, units, _sliced(units, where.slices), since)


def _is_in(cell: Cell, where: Where) -> bool:
    return where.site in {None, cell.site} and where.window in {None, cell.window}


def _known(units: Iterable[Unit], readable: Fits, open_ones: Collection[int]) -> list[Unit]:
    """Return each case once: under two policies it may have been counted as two units."""
    units_by_case = {unit.case_id: unit for unit in units if unit.case_id not in open_ones}
    readable_sites = {
        site for site in {unit.site for unit in units_by_case.values()} if readable(site)
    }
    return [unit for unit in units_by_case.values() if unit.site in readable_sites]


def _sliced(units: Sequence[Unit], slices: Mapping[str, str]) -> Sequence[Unit]:
    if not slices:
        return units
    wanted_items, texts = slices.items(), {unit.attributes for unit in units}
    matching_texts = {text for text in texts if wanted_items <= json.loads(text).items()}
    return [unit for unit in units if unit.attributes in matching_texts]


# Those that differ


def pairs_of(transaction: Transaction, stood: Standing, looked: Looked) -> list[Pair]:
    """Return the units on which people and the version differ, in the order of a list."""
    unit_filter, differing_units = looked.where, looked.differing()
    case_ids = [unit.case_id for unit, _ in differing_units]
    keys = CallerKeys(transaction, stood.rollout).keys_of(case_ids)
    confidences = Compared(transaction, stood.rollout, unit_filter.version).confidences(case_ids)
    record_answers = _texts(
        transaction,
        stood,
        unit_filter,
        [item for item in differing_units if _is_untold(unit_filter, item[1])],
    )
    comparisons: dict[tuple[Said, Said], Compare] = {}
    pairs = []
    for unit, answers in differing_units:
        shown_answers = record_answers.get(unit.case_id, answers)
        if (answers, shown_answers) not in comparisons:
            comparisons[answers, shown_answers] = _compare(
                unit_filter.lever, answers, shown_answers
            )
        agrees, human_action, model_action, _, cost = comparisons[answers, shown_answers]
        if agrees or unit.case_id not in confidences:
            continue
        pairs.append(
            Pair(
                case_id=unit.case_id,
                key=keys[unit.case_id],
                window=looked.places[unit.series].window,
                human=shown_answers[0],
                model=shown_answers[1],
                human_action=human_action,
                model_action=model_action,
                cost=cost,
                confidence=confidences[unit.case_id],
            )
        )
    return sorted(pairs, key=lambda pair: pair.place)


def _is_untold(where: Where, said: Said) -> bool:
    """Say whether a class does not hold what was said."""
    return where.lever.number is not None or said[0] == UNLISTED or said[1] == OUTSIDE


def _compare(lever: Lever, said: Said, told: Said) -> Compare:
    """Return how two answers compare; one that could not be used costs the largest possible."""
    is_unusable = said[0] == UNLISTED or said[1] in {FAILED, LATE, OUTSIDE}
    if lever.number is None or not is_unusable:
        return compare(lever, *told)
    return (False, *told, False, lever.largest_cost)


def _texts(
    transaction: Transaction,
    stood: Standing,
    where: Where,
    units: Sequence[tuple[Unit, Said]],
) -> Mapping[int, Said]:
    """Return what was said in words of the records, where these are there."""
    if not units:
        return {}
    keys = CallerKeys(transaction, stood.rollout).keys_of({unit.case_id for unit, _ in units})
    history = StoredHistory(transaction, stood.rollout, levers=[where.lever.id])
    records = history.records(keys)
    model, decisions = _answers(records, where), _verdicts(records, where)
    has_quorum = stood.policy.evidence.verdicts > 1
    record_answers = {}
    for unit, answers in units:
        key = keys[unit.case_id]
        assigned_answer = None if has_quorum else decisions.get(key, {}).get(unit.reviewer or "")
        human_answer = assigned_answer or _commonest(decisions.get(key, {}).values()) or answers[0]
        is_usable = answers[1] not in {FAILED, LATE}
        record_answers[unit.case_id] = (
            human_answer,
            (model.get(key) if is_usable else None) or answers[1],
        )
    return record_answers


def _answers(records: Records, where: Where) -> Mapping[str, str | None]:
    predictions = records.predictions.filter(pl.col("version") == where.version)
    return dict(predictions.select("case_key", VALUE + where.lever.id).iter_rows())


def _verdicts(records: Records, where: Where) -> Mapping[str, Mapping[str, str]]:
    """Return what people who saw no answer of a model said, by case and person."""
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    decisions: dict[str, dict[str, str]] = {}
    for key, reviewer, answer in unassisted.select(
        "case_key", "reviewer", VALUE + where.lever.id
    ).iter_rows():
        if answer is not None:
            decisions.setdefault(key, {})[reviewer] = answer
    return decisions


def _commonest(said: Iterable[str]) -> str | None:
    most_common = Counter(said).most_common(1)
    return most_common[0][0] if most_common else None
