"""Causes of an incident or of differences in a filter, and the detector's course to an incident.

Causes: nobody may still be asked about the counted cases. A reader who may review at the site reads
units that closed, in whole batches, so that a look before and one after an own answer tells of no
case. Without an incident, where a version differs in a cell or a filter, population, search and
error rate are the same as for an incident (decision record 0076).

Judged units get the properties of their cases by column: a cell may have 100,000 units.

The detector's course tells how each record counted, so it is shown of cases that nobody may still
be asked about, and never to a user who may be asked for blind reviews at the site: a value after
each batch would still depend on the order within it (decision record 0085).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import polars as pl

from rollout.data.counting.closed_units import (
    JudgedUnitStore,
    PeriodRecords,
    list_counted_cases,
    load_answer_pairs,
)
from rollout.data.database.session import Transaction
from rollout.engine.decide.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.engine.evidence.frames import unify_spellings
from rollout.features.incidents.incident_impact import IncidentImpact
from rollout.features.reports.figures.incident_cause import (
    BATCH_SIZE,
    DetectorCourse,
    IncidentCause,
    JudgedUnits,
    build_detector_course,
    find_incident_cause,
    has_detector,
    list_batch_ends,
)
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import (
    EPOCH,
    Cell,
    find_slot_after,
    find_slot_before,
    from_micros,
    to_micros,
)
from rollout.kernel.errors import RefusalError, UnknownCellError, UnknownVersionError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.value_search import (
    ANSWER,
    ATTRIBUTE,
    MIN_CASES,
    ValueKind,
    ValueSearch,
)
from rollout.kernel.units import MISSING, UnitSelection
from rollout.live.evidence.evidence_reader import load_evidence_views
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

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
OTHER_VALUE: Final = r'":\s*[^"\sn]'
"""Pattern of a value that is neither a text nor null, or of some texts with quotes."""
HUMAN, MODEL = "human:", "model:"
"""Prefixes of the columns with the answers on a lever."""


def load_lever_answers(transaction: Transaction, state: RolloutState) -> LeverAnswers:
    """Return the answers of each class of the levers that units are compared on."""
    levers = {state.policy.whole_unit_lever, *state.policy.levers_by_id}
    return {lever: load_answer_pairs(transaction, state.rollout, lever) for lever in levers}


def select_with_attributes(units: pl.DataFrame, attributes: Mapping[str, str]) -> pl.DataFrame:
    """Return the units whose cases have all of some attribute values."""
    if not attributes:
        return units
    texts = units["attributes"].unique().to_list()
    pairs = attributes.items()
    matching = [
        text
        for text, values in zip(texts, _decode_texts(texts), strict=True)
        if all(_format_value(values.get(name)) == value for name, value in pairs)
    ]
    return units.filter(pl.col("attributes").is_in(matching))


def build_judged_units(
    units: pl.DataFrame, answers: LeverAnswers, policy: Policy, *, names_reviewers: bool
) -> JudgedUnits:
    """Return the units with the properties of their cases, those that the policy's levers count.

    Sites and windows are properties where the units are of several.

    Args:
        units: rows as `JudgedUnitStore.load_occurred` returns them, of any cells.
    """
    human, model = (prefix + policy.whole_unit_lever for prefix in (HUMAN, MODEL))
    judged = (
        units.join(_build_answers(units["classes"], answers), on="classes", maintain_order="left")
        .filter(pl.col(human).is_not_null() & (pl.col(human) != MISSING))
        .sort("occurred", "case_id")
    )
    hours, weekdays = _find_local_times(judged, policy)
    kinds = [
        *_build_attributes(judged["attributes"]),
        *(
            _build_kind(
                "human answer" if len(policy.levers) == 1 else f"human answer on {lever.id}",
                judged[HUMAN + lever.id],
                ANSWER,
            )
            for lever in policy.levers
            if lever.has_single_labels
        ),
        ValueKind(HOUR, HOURS, hours, HOUR),
        ValueKind(WEEKDAY, WEEKDAYS, weekdays, WEEKDAY),
        *(
            _build_kind(name, judged[name], name)
            for name in (SITE, WINDOW)
            if judged[name].n_unique() > 1
        ),
    ]
    if names_reviewers:
        kinds.append(_build_kind(REVIEWER, unify_spellings(judged["reviewer"]), REVIEWER))
    return JudgedUnits(
        judged["occurred"].to_numpy(),
        judged["day"].to_numpy(),
        judged.select(pl.col(human) != pl.col(model)).to_series().to_numpy(),
        tuple(kinds),
    )


def _build_answers(classes: pl.Series, answers: LeverAnswers) -> pl.DataFrame:
    """Return a row for each distinct text of class numbers, with the answers on each lever."""
    texts = classes.unique().to_list()
    class_ids = [json.loads(text) for text in texts]
    columns: dict[str, list[str | None]] = {}
    for lever, classes_by_id in answers.items():
        pairs = [
            next((classes_by_id[i] for i in ids if i in classes_by_id), (None, None))
            for ids in class_ids
        ]
        columns[HUMAN + lever] = [human for human, _ in pairs]
        columns[MODEL + lever] = [model for _, model in pairs]
    return pl.DataFrame(
        {"classes": texts, **columns},
        schema=dict.fromkeys(("classes", *columns), pl.String()),
    )


def _find_local_times(judged: pl.DataFrame, policy: Policy) -> tuple[Ints, Ints]:
    """Return the hour and the weekday of each case by the clock of its site."""
    hours, weekdays = np.zeros((2, judged.height), dtype=np.int64)
    sites = judged["site"]
    times = judged["occurred"].cast(pl.Datetime("us", "UTC"))
    zones = {site: policy.get_timezone(site) for site in sites.unique()}
    for zone in set(zones.values()):
        is_there = sites.is_in([site for site, name in zones.items() if name == zone])
        local_times, mask = times.filter(is_there).dt.convert_time_zone(zone), is_there.to_numpy()
        hours[mask] = local_times.dt.hour().cast(pl.Int64).to_numpy()
        weekdays[mask] = local_times.dt.weekday().cast(pl.Int64).to_numpy() - 1
    return hours, weekdays


def _build_attributes(texts: pl.Series) -> list[ValueKind]:
    """Return a kind for each attribute of any case."""
    return [_build_kind(column.name, column) for column in _split_attributes(texts)]


def _split_attributes(texts: pl.Series) -> list[pl.Series]:
    """Return a column of texts for each attribute, by name."""
    distinct = texts.unique(maintain_order=True)
    if len(distinct) and not distinct.str.contains(OTHER_VALUE).any():
        decoded = distinct.str.json_decode(infer_schema_length=None).struct.unnest()
        columns = decoded.select(pl.all().cast(pl.String))
    else:  # polars writes numbers and flags in another way than the pages
        attributes = _decode_texts(distinct.to_list())
        names: list[str] = sorted(set().union(*attributes))
        columns = pl.DataFrame(
            {name: [_format_value(values.get(name)) for values in attributes] for name in names},
            schema=dict.fromkeys(names, pl.String()),
        )
    numbers = pl.DataFrame({"text": distinct}).with_row_index("number")
    positions = pl.DataFrame({"text": texts}).join(numbers, on="text", maintain_order="left")
    return [columns[name].gather(positions["number"]) for name in sorted(columns.columns)]


def _decode_texts(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the attributes of stored JSON, all decoded at once."""
    return list(msgspec.json.decode(f"[{','.join(texts)}]"))


def _format_value(value: object) -> str | None:
    return None if value is None else str(value)


def _build_kind(name: str, values: pl.Series, source: str = ATTRIBUTE) -> ValueKind:
    """Return a kind of the values that are frequent enough to be compared; others have no code."""
    numbers = values.drop_nulls().value_counts(name="n")
    ordered = numbers.filter(pl.col("n") >= MIN_CASES)[values.name].sort()
    codes = values.cast(pl.Enum(ordered), strict=False).to_physical().cast(pl.Int64)
    return ValueKind(name, tuple(ordered), codes.fill_null(-1).to_numpy(), source)


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
        opened_at: when the incident opened; None of a cell or a filter.
        started_at: the first judged case after the change, or the first case of all with the newest
            value; None if no change is likely.
        batch: units by which the figures move for this reader; None if one by one.
        attributes: that all read cases have.
    """

    site: str
    window: str
    version: str
    timezone: str
    since: datetime
    until: datetime
    opened_at: datetime | None
    started_at: datetime | None
    batch: int | None
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
    span = since, min(at, opened + TIME_AFTER)
    selection = UnitSelection(incident.version, cell.site, cell.window)
    return _search_cells(service, caller, state, (cell,), selection, span, at=at, opened=opened)


def _search_cells(  # noqa: PLR0913 - who looks at what, and when
    service: Service,
    caller: Caller,
    state: RolloutState,
    cells: tuple[Cell, ...],
    selection: UnitSelection,
    span: tuple[datetime, datetime],
    *,
    at: datetime,
    opened: datetime | None = None,
) -> LoadedCause:
    """Return the cause in the units that the reader may have figures of.

    Args:
        selection: names the version.
        span: of the units, of whole batches where the reader may review.
        opened: when the incident opened, else the end of the span.
    """
    since, until = span
    batched = _list_batched(caller, state, cells)
    names_reviewers = all(
        caller.has_permission(Permission.OPERATE, state.rollout.name, cell.site) for cell in cells
    )
    version = selection.version or ""
    with service.database.begin_read() as transaction:
        stores = {
            cell: JudgedUnitStore(transaction, state.rollout, cell, version) for cell in cells
        }
        units = [
            load_whole_batches(transaction, state, store, since, until, at)
            if cell in batched
            else load_answered_units(transaction, state, store, since, until, at)
            for cell, store in stores.items()
        ]
        judged = build_judged_units(
            select_with_attributes(pl.concat(units), selection.attributes),
            load_lever_answers(transaction, state),
            state.policy,
            names_reviewers=names_reviewers,
        )
        cause = find_incident_cause(judged, to_micros(opened or until))
        cause = withhold_values(cause) if batched else cause
        started = find_cause_start(stores, judged, cause, since)
    return LoadedCause(
        *(selection.site or "", selection.window or "", version),
        state.policy.get_timezone(cells[0].site if len(cells) == 1 else ""),
        *(since, until, opened),
        started,
        BATCH_SIZE if batched else None,
        cause,
        selection.attributes,
    )


def _list_batched(caller: Caller, state: RolloutState, cells: tuple[Cell, ...]) -> set[Cell]:
    """Return the cells in which the caller may review, so that units count in whole batches."""
    name = state.rollout.name
    return {cell for cell in cells if caller.has_permission(Permission.REVIEW, name, cell.site)}


def withhold_values(cause: IncidentCause) -> IncidentCause:
    """Return a cause without its values, for whoever may be asked for blind reviews.

    All figures together move in batches; those of a value would move by the few cases of a batch
    that have it, and a reviewer knows the values of the own case.
    """
    return replace(cause, search=ValueSearch((), (), ()), findings=(), new_values=(), standout=None)


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


def load_whole_batches(
    transaction: Transaction,
    state: RolloutState,
    store: JudgedUnitStore,
    since: datetime,
    until: datetime,
    at: datetime,
) -> pl.DataFrame:
    """Return the closed units of the batches that lie wholly in a span, by the time they counted.

    The units of a batch get the time of its first case. So each figure of a time is of whole
    batches, wherever the time begins and ends.
    """
    slots = load_closed_slots(transaction, state, store, at)
    ends = list_batch_ends(slots)
    first_slot, end_slot = (find_slot_before(end, state.policy.tick) for end in (since, until))
    begins = [int(slots[0]), *(end + 1 for end in ends)] if ends else []
    whole = [
        (begin, end)
        for begin, end in zip(begins, ends, strict=False)
        if begin >= first_slot and end <= end_slot
    ]
    read_slots = range(whole[0][0], whole[-1][1] + 1) if whole else range(0)
    units = store.load_occurred(EPOCH, at, slots=read_slots)
    batches = np.searchsorted(ends, units["slot"].to_numpy())
    batch_of_unit = pl.Series("batch", batches, dtype=pl.Int64)
    return (
        units.with_columns(batch_of_unit)
        .with_columns(pl.col("occurred").min().over("batch"))
        .drop("batch")
    )


def load_answered_units(
    transaction: Transaction,
    state: RolloutState,
    store: JudgedUnitStore,
    since: datetime,
    until: datetime,
    at: datetime,
) -> pl.DataFrame:
    """Return the units of a span whose cases nobody may still be asked about."""
    tick = state.policy.tick
    slots = range(find_slot_before(since, tick), find_slot_after(at, tick) + 1)
    open_cases = PeriodRecords(transaction, state.rollout).list_blind_cases(at)
    units = store.load_occurred(since, until, slots=slots)
    return units.filter(~pl.col("case_id").is_in(list(open_cases)))


def load_closed_slots(
    transaction: Transaction, state: RolloutState, store: JudgedUnitStore, at: datetime
) -> Ints:
    """Return the slot of each unit up to which no counted case may still be decided blind.

    Tasks keep the due time of the policy under which they were opened, which may be later than the
    grace of today's. Gold cases are closed ones that are asked again (decision record 0052).
    """
    slot = find_slot_before(at - state.policy.evidence.grace, state.policy.tick)
    records = PeriodRecords(transaction, state.rollout)
    open_case_ids = records.list_blind_cases(at, with_gold=False)
    return store.load_closed_slots(open_case_ids, until=slot).to_numpy()


DEFAULT_SPAN: Final = timedelta(days=30)
MAX_SPAN: Final = timedelta(days=90)


def load_cause(
    service: Service, caller: Caller, rollout_name: str, query: UnitSelection, *, at: datetime
) -> LoadedCause:
    """Return since when and in which cases a version differs, by default of the last 30 days.

    For a caller who may review at a site, its cases count in whole batches of closed ones.

    Raises:
        NotAllowedError: the caller may not read the site.
        UnknownCellError: no cell of the policy matches.
        UnknownVersionError: the rollout has no such version.
        RefusalError: the span ends before it begins or is too long; or a caller who may be asked
            for blind reviews chooses days or attributes, which could single out a case.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if query.site:
        require_permission(caller, Permission.READ, rollout_name, (query.site,))
    state = service.state_cache.reload_rollout(rollout_name).state
    cells = _list_cells(state, caller, query)
    version = _find_version(state, cells, query)
    is_narrowed = bool(query.since or query.until or query.attributes)
    if is_narrowed and _list_batched(caller, state, cells):
        raise RefusalError(
            "because you may be asked for blind reviews here, leave days and attributes empty: they"
            " could single out a case"
        )
    selection = replace(query, version=version)
    return _search_cells(service, caller, state, cells, selection, _find_span(query, at), at=at)


def _list_cells(state: RolloutState, caller: Caller, query: UnitSelection) -> tuple[Cell, ...]:
    cells = tuple(
        cell
        for cell in state.policy.cells
        if query.site in {None, cell.site}
        and query.window in {None, cell.window}
        and caller.has_permission(Permission.READ, state.rollout.name, cell.site)
    )
    if not cells:
        place = " · ".join(filter(None, (query.site, query.window)))
        raise UnknownCellError(f"the policy has no {place}; list the cells to see their names")
    return cells


def _find_version(state: RolloutState, cells: tuple[Cell, ...], query: UnitSelection) -> str:
    versions = state.scope.versions
    if query.version:
        version = state.scope.get_first_name(query.version)
        if version not in versions:
            raise UnknownVersionError(f"no version {version} was seen in {state.rollout.name}")
        return version
    return state.scope.get_holder(cells[0]) or next(reversed(list(versions)), "")


def _find_span(query: UnitSelection, at: datetime) -> tuple[datetime, datetime]:
    until = min(query.until or at, at)
    if until <= EPOCH:
        raise RefusalError("no case is older than 1970; choose a later end")
    since = query.since or until - DEFAULT_SPAN
    if since >= until:
        raise RefusalError("nothing is in this span: its begin has to be before its end and now")
    if until - since > MAX_SPAN:
        raise RefusalError(f"choose at most {MAX_SPAN.days} days")
    return since, until


MAY_BE_ASKED: Final = "asked"
OPEN: Final = "open"
RECOUNTED: Final = "recounted"
HIDDEN_COURSE_TEXTS: Final = {
    MAY_BE_ASKED: (
        "The detector's course is not shown to you, because you may be asked for blind reviews"
        " here."
    ),
    OPEN: (
        "The detector's course appears when nobody may still be asked about a case that it read."
    ),
    RECOUNTED: (
        "The detector's course can't be drawn: the records of today are not those that it read, as"
        " after a change of the policy."
    ),
}


@dataclass(frozen=True, slots=True)
class LoadedCourse:
    """The course of an incident's detector, or why there is none: a key of the texts above."""

    course: DetectorCourse | None
    hidden: Literal["", "asked", "open", "recounted"] = ""


def load_detector_course(
    service: Service, caller: Caller, rollout_name: str, impact: IncidentImpact, *, at: datetime
) -> LoadedCourse | None:
    """Return the course of the incident's detector, None if its guard has none.

    Args:
        impact: the incident as the caller may read it.
    """
    incident, guard, state_before = impact.incident, impact.guard, impact.state_before
    if guard is None or state_before is None or not has_detector(guard):
        return None
    if may_be_asked_blind(caller, rollout_name, (incident.site,)):
        return LoadedCourse(None, MAY_BE_ASKED)
    state = service.state_cache.reload_rollout(rollout_name).state
    cell = Cell(incident.site, incident.window)
    last_slot = find_slot_before(incident.opened_at, state.policy.tick)
    with service.database.begin_read() as transaction:
        counted_cases = list_counted_cases(
            transaction, state.rollout, cell, incident.version, until=last_slot
        )
        if counted_cases & PeriodRecords(transaction, state.rollout).list_blind_cases(at):
            return LoadedCourse(None, OPEN)
    view = load_evidence_views(service.database, state, (cell,))[cell, incident.version]
    course = build_detector_course(view, guard, state_before, incident.opened_at, incident.readings)
    return LoadedCourse(course, RECOUNTED if course is None else "")
