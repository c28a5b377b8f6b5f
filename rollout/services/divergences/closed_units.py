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
        sure = self.confidence
        return (-self.cost, sure is None, -(sure or 0.0), self.key)


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
        return {kinds: self._said(kinds) for kinds in {unit.kinds for unit in self.units}}

    def _said(self, kinds: str) -> Said | None:
        own = [self.classes[kind] for kind in json.loads(kinds) if kind in self.classes]
        return own[0] if own and own[0][0] != MISSING else None

    @cached_property
    def counts(self) -> Mapping[Said, int]:
        """Return how many were compared, by what was said."""
        found: Counter[Said] = Counter()
        for kinds, n in Counter(unit.kinds for unit in self.units).items():
            if (said := self.said[kinds]) is not None:
                found[said] += n
        return found

    def differing(self) -> list[tuple[Unit, Said]]:
        """Return the units on which people and the version differ, with what was said."""
        told = {kinds: said for kinds, said in self.said.items() if said and said[0] != said[1]}
        return [(unit, told[unit.kinds]) for unit in self.units if unit.kinds in told]


def look(
    transaction: Transaction, stood: Standing, where: Where, at: datetime, most: int
) -> Looked:
    """Return the newest closed units that fit, of at most so many.

    What an earlier policy counted keeps the window and the classes that it was counted in. Closed
    is a case by the grace of the policy in force.
    """
    store, tick = Compared(transaction, stood.rollout, where.version), stood.policy.tick
    places = {n: cell for n, cell in store.places().items() if where.readable(cell.site)}
    wanted = {n for n, cell in places.items() if _is_in(cell, where)}
    slots = range(slot_before(where.since, tick), slot_after(where.until, tick))
    numbers, reached = store.newest(wanted, slots, most)
    came_by = at - stood.policy.evidence.grace
    closed = store.closed(numbers, where.since, where.until, came_by)
    units = _known(closed, where.readable, Spans(transaction, stood.rollout).unseen(at))
    since = None if reached is None else max(where.since, instant(reached, tick))
    classes = store.classes(where.lever.id)
    return Looked(where, places, classes, units, _sliced(units, where.slices), since)


def _is_in(cell: Cell, where: Where) -> bool:
    return where.site in {None, cell.site} and where.window in {None, cell.window}


def _known(units: Iterable[Unit], readable: Fits, open_ones: Collection[int]) -> list[Unit]:
    """Return each case once: under two policies it may have been counted as two units."""
    found = {unit.case_id: unit for unit in units if unit.case_id not in open_ones}
    mine = {site for site in {unit.site for unit in found.values()} if readable(site)}
    return [unit for unit in found.values() if unit.site in mine]


def _sliced(units: Sequence[Unit], slices: Mapping[str, str]) -> Sequence[Unit]:
    if not slices:
        return units
    wanted, texts = slices.items(), {unit.attributes for unit in units}
    fit = {text for text in texts if wanted <= json.loads(text).items()}
    return [unit for unit in units if unit.attributes in fit]


# Those that differ


def pairs_of(transaction: Transaction, stood: Standing, looked: Looked) -> list[Pair]:
    """Return the units on which people and the version differ, in the order of a list."""
    where, differ = looked.where, looked.differing()
    numbers = [unit.case_id for unit, _ in differ]
    keys = CallerKeys(transaction, stood.rollout).keys_of(numbers)
    sure = Compared(transaction, stood.rollout, where.version).confidences(numbers)
    texts = _texts(transaction, stood, where, [one for one in differ if _is_untold(where, one[1])])
    priced: dict[tuple[Said, Said], Compare] = {}
    found = []
    for unit, said in differ:
        told = texts.get(unit.case_id, said)
        if (said, told) not in priced:
            priced[said, told] = _compare(where.lever, said, told)
        agrees, human_action, model_action, _, cost = priced[said, told]
        if agrees or unit.case_id not in sure:
            continue
        found.append(
            Pair(
                case_id=unit.case_id,
                key=keys[unit.case_id],
                window=looked.places[unit.series].window,
                human=told[0],
                model=told[1],
                human_action=human_action,
                model_action=model_action,
                cost=cost,
                confidence=sure[unit.case_id],
            )
        )
    return sorted(found, key=lambda pair: pair.place)


def _is_untold(where: Where, said: Said) -> bool:
    """Say whether a class does not hold what was said."""
    return where.lever.number is not None or said[0] == UNLISTED or said[1] == OUTSIDE


def _compare(lever: Lever, said: Said, told: Said) -> Compare:
    """Return how two answers compare; one that could not be used costs the largest possible."""
    unusable = said[0] == UNLISTED or said[1] in {FAILED, LATE, OUTSIDE}
    if lever.number is None or not unusable:
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
    model, people = _answers(records, where), _verdicts(records, where)
    several = stood.policy.evidence.verdicts > 1
    found = {}
    for unit, said in units:
        key = keys[unit.case_id]
        first = None if several else people.get(key, {}).get(unit.reviewer or "")
        human = first or _commonest(people.get(key, {}).values()) or said[0]
        usable = said[1] not in {FAILED, LATE}
        found[unit.case_id] = (human, (model.get(key) if usable else None) or said[1])
    return found


def _answers(records: Records, where: Where) -> Mapping[str, str | None]:
    own = records.predictions.filter(pl.col("version") == where.version)
    return dict(own.select("case_key", VALUE + where.lever.id).iter_rows())


def _verdicts(records: Records, where: Where) -> Mapping[str, Mapping[str, str]]:
    """Return what people who saw no answer of a model said, by case and person."""
    unseen = records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    found: dict[str, dict[str, str]] = {}
    for key, name, said in unseen.select(
        "case_key", "reviewer", VALUE + where.lever.id
    ).iter_rows():
        if said is not None:
            found.setdefault(key, {})[name] = said
    return found


def _commonest(said: Iterable[str]) -> str | None:
    found = Counter(said).most_common(1)
    return found[0][0] if found else None
