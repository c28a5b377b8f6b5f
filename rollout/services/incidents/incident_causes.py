"""The cause of an incident, loaded for a caller.

Nobody may still be asked about the counted cases. A reader who may review at the site reads units
that closed, in whole batches, so that a look before and one after an own answer tells of no case.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from rollout.core.calendar.instants import from_micros, to_micros
from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import MISSING
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Caller, Permission
from rollout.reports.figures.incident_cause import (
    BATCH_SIZE,
    IncidentCause,
    JudgedUnits,
    find_incident_cause,
    list_batch_ends,
)
from rollout.reports.statistics.value_search import (
    ATTRIBUTE,
    Codes,
    ValueKind,
    ValueSearch,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.incidents.incident_impact import IncidentImpact
from rollout.store.counting.judged_units import JudgedUnit, JudgedUnitStore
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Transaction
from rollout.tally.slots import find_slot_after, find_slot_before

ANSWER: Final = "answer"
HOUR: Final = "hour"
WEEKDAY: Final = "weekday"
REVIEWER: Final = "reviewer"
SITE, WINDOW = "site", "window"
LeverAnswers: TypeAlias = Mapping[str, Mapping[int, tuple[str, str]]]
WEEKDAYS: Final = (
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    *("Saturday", "Sunday"),
)
HOURS: Final = tuple(f"{hour:02}–{hour + 1:02}" for hour in range(24))
MIN_TIME_BEFORE: Final = timedelta(days=3)
MAX_TIME_BEFORE: Final = timedelta(days=30)
TIME_AFTER: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class LoadedCause:
    """The cause of an incident in its cell.

    Attributes:
        site, window: of the cell; "" for several cells.
        since, until: times of the read cases: around an incident from the stage before it, at least
            three and at most 30 days, until at most a week after it.
        opened: when the incident opened; None of a cell or a filter.
        started: the first judged case after the change, or the first case of all with the newest
            value; None if no change is likely.
        batch: units by which the figures move for this reader; None if one by one.
        names_reviewers: whether reviewers are compared: operators alone read their names.
        attributes: that all read cases have.
    """

    site: str
    window: str
    version: str
    timezone: str
    since: datetime
    until: datetime
    opened: datetime | None
    started: datetime | None
    batch: int | None
    names_reviewers: bool
    cause: IncidentCause
    attributes: Mapping[str, str] = field(default_factory=dict)


def load_incident_cause(
    service: Service, caller: Caller, rollout_name: str, impact: IncidentImpact, *, at: datetime
) -> LoadedCause | None:
    """Return the cause of an incident, None without a version in a cell of the policy.

    Args:
        impact: the incident as the caller may read it.
    """
    incident = impact.incident
    cell = Cell(incident.site, incident.window)
    if impact.period_before is None:
        return None
    state = service.state_cache.reload_rollout(rollout_name).state
    opened = incident.opened_at
    since = min(impact.period_before.since, opened - MIN_TIME_BEFORE)
    since = max(since, opened - MAX_TIME_BEFORE)
    until = min(at, opened + TIME_AFTER)
    is_batched = caller.has_permission(Permission.REVIEW, rollout_name, cell.site)
    names_reviewers = caller.has_permission(Permission.OPERATE, rollout_name, cell.site)
    timezone = state.policy.sites_by_id[cell.site].timezone
    with service.database.begin_read() as transaction:
        store = JudgedUnitStore(transaction, state.rollout, cell, incident.version)
        units = _list_units(transaction, state, store, since, until, at, is_batched=is_batched)
        judged = build_judged_units(
            [(unit, cell) for unit in units],
            load_lever_answers(store, state.policy),
            state.policy,
            names_reviewers=names_reviewers,
        )
        cause = find_incident_cause(judged, to_micros(opened))
        cause = withhold_values(cause) if is_batched else cause
        started = find_cause_start({cell: store}, judged, cause, since)
    return LoadedCause(
        *(cell.site, cell.window, incident.version, timezone),
        *(since, until, opened),
        started,
        BATCH_SIZE if is_batched else None,
        names_reviewers,
        cause,
    )


def withhold_values(cause: IncidentCause) -> IncidentCause:
    """Return a cause without its values, for whoever may be asked for blind reviews.

    All figures together move in batches; those of a value would move by the few cases of a batch
    that have it, and a reviewer knows the values of the own case.
    """
    return replace(cause, search=ValueSearch((), (), ()), findings=(), new_values=())


def load_lever_answers(store: JudgedUnitStore, policy: Policy) -> LeverAnswers:
    """Return the answers of each class of the levers that units are compared on."""
    levers = {policy.whole_unit_lever, *policy.levers_by_id}
    return {lever: store.load_answers(lever) for lever in levers}


def find_cause_start(
    stores: Mapping[Cell, JudgedUnitStore],
    judged: JudgedUnits,
    cause: IncidentCause,
    since: datetime,
) -> datetime | None:
    """Return the start of the change; a new value's first case may not have been judged."""
    if cause.started is None:
        return None
    started = from_micros(cause.started)
    if not cause.new_values:
        return started
    earlier = judged.occurred[judged.occurred < cause.started]
    last_before = max(since, from_micros(int(earlier[-1]))) if len(earlier) else since
    kind, value = cause.new_values[0].kind, cause.new_values[0].value
    firsts = [
        first
        for cell, store in stores.items()
        if (first := store.find_first_case(cell, kind, value, last_before, started)) is not None
    ]
    return from_micros(min(firsts)) if firsts else started


def _list_units(
    transaction: Transaction,
    state: RolloutState,
    store: JudgedUnitStore,
    since: datetime,
    until: datetime,
    at: datetime,
    *,
    is_batched: bool,
) -> list[JudgedUnit]:
    """Return the judged units that the reader may have figures of, by time."""
    tick = state.policy.tick
    first_slot, last_slot = find_slot_before(since, tick), find_slot_after(at, tick)
    if is_batched:
        closed_slot = find_closed_slot(transaction, state, store, at)
        ends = list_batch_ends(np.array(store.list_slots(until=closed_slot), np.int64))
        last_slot = ends[-1] if ends else -1
    units = store.list_occurred(since, until, slots=range(first_slot, last_slot + 1))
    if is_batched:
        return units
    open_cases = PeriodRecords(transaction, state.rollout).list_blind_cases(at)
    return [unit for unit in units if unit.case_id not in open_cases]


def find_closed_slot(
    transaction: Transaction, state: RolloutState, store: JudgedUnitStore, at: datetime
) -> int:
    """Return the last slot up to which no counted case may still be decided blind.

    Tasks keep the due time of the policy under which they were opened, which may be later than the
    grace of today's. Gold cases are closed ones that are asked again (decision record 0052).
    """
    slot = find_slot_before(at - state.policy.evidence.grace, state.policy.tick)
    records = PeriodRecords(transaction, state.rollout)
    return store.find_slot_before_cases(records.list_blind_cases(at, with_gold=False), until=slot)


def build_judged_units(
    units: Sequence[tuple[JudgedUnit, Cell]],
    answers: LeverAnswers,
    policy: Policy,
    *,
    names_reviewers: bool,
) -> JudgedUnits:
    """Return the units with the properties of their cases, those that the policy's levers count.

    Sites and windows are properties where the units are of several.
    """
    class_ids = {text: tuple(json.loads(text)) for text in {unit.classes for unit, _ in units}}
    pairs = {
        lever: {
            text: next((classes[i] for i in ids if i in classes), None)
            for text, ids in class_ids.items()
        }
        for lever, classes in answers.items()
    }
    whole = pairs[policy.whole_unit_lever]
    placed = [
        (unit, cell)
        for unit, cell in units
        if (pair := whole[unit.classes]) is not None and pair[0] != MISSING
    ]
    judged = [unit for unit, _ in placed]
    whole_answers = [whole[unit.classes] or (MISSING, MISSING) for unit in judged]
    hours, weekdays = _find_local_times(
        judged, [policy.get_timezone(cell.site) for _, cell in placed]
    )
    kinds = [
        *_build_attributes([unit.attributes for unit in judged]),
        *(
            _build_kind(
                "human answer" if len(policy.levers) == 1 else f"human answer on {lever.id}",
                [(pairs[lever.id][unit.classes] or (None,))[0] for unit in judged],
                ANSWER,
            )
            for lever in policy.levers
            if lever.has_single_labels
        ),
        ValueKind(HOUR, HOURS, hours, HOUR),
        ValueKind(WEEKDAY, WEEKDAYS, weekdays, WEEKDAY),
    ]
    for source in (SITE, WINDOW):
        names = [getattr(cell, source) for _, cell in placed]
        if len(set(names)) > 1:
            kinds.append(_build_kind(source, names, source))
    if names_reviewers:
        kinds.append(_build_kind(REVIEWER, [unit.reviewer for unit in judged], REVIEWER))
    return JudgedUnits(
        np.array([unit.occurred for unit in judged], dtype=np.int64),
        np.array([unit.day for unit in judged], dtype=np.int64),
        np.array([human != model for human, model in whole_answers], dtype=bool),
        tuple(kinds),
    )


def _find_local_times(judged: Sequence[JudgedUnit], zones: Sequence[str]) -> tuple[Codes, Codes]:
    """Return the hour and the weekday of each case by the clock of its site."""
    hours, weekdays = np.zeros((2, len(judged)), dtype=np.int64)
    places = np.array(zones, dtype=object)
    times = pl.Series([unit.occurred for unit in judged], dtype=pl.Int64).cast(
        pl.Datetime("us", "UTC")
    )
    for zone in set(zones):
        is_there = places == zone
        local_times = times.filter(pl.Series(is_there, dtype=pl.Boolean)).dt.convert_time_zone(zone)
        hours[is_there] = _to_codes(local_times.dt.hour())
        weekdays[is_there] = _to_codes(local_times.dt.weekday()) - 1
    return hours, weekdays


def _build_attributes(texts: Sequence[str]) -> list[ValueKind]:
    """Return a kind for each attribute of any case."""
    attributes = {text: json.loads(text) for text in set(texts)}
    names = sorted({name for values in attributes.values() for name in values})
    return [
        _build_kind(name, [values.get(name) for values in map(attributes.__getitem__, texts)])
        for name in names
    ]


def _build_kind(name: str, values: Sequence[object], source: str = ATTRIBUTE) -> ValueKind:
    texts = [None if value is None else str(value) for value in values]
    ordered = sorted({text for text in texts if text is not None})
    numbers: dict[str | None, int] = {text: number for number, text in enumerate(ordered)}
    codes = np.array([numbers.get(text, -1) for text in texts], dtype=np.int64)
    return ValueKind(name, tuple(ordered), codes, source)


def _to_codes(series: pl.Series) -> Codes:
    return series.cast(pl.Int64).to_numpy()
