"""The timeline of one cell, and the calendar of a site with the stage at each hour of each day.

A timeline shows who decided, how versions agreed, and what happened. All figures are of closed
units, so nobody may still be asked about their cases. A reader who may review others sees agreement
in batches, so that a look before and one after an own answer differ by a whole batch.

The columns of a calendar are local days, its rows the hours of the local clock. Neighbouring hours
of equal stage form one rectangle.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from rollout.engine.events import RecordsPurged, select_events
from rollout.engine.evidence.evidence_view import BATCH_SIZE, EvidenceView, batch_view
from rollout.engine.evidence.stage_history import StageHistory
from rollout.engine.evidence.unit_arrays import UnitArrays
from rollout.engine.words.event_kinds import CELL_KINDS
from rollout.features.reports.figures.funnel import list_first_values
from rollout.features.reports.inputs.cell_facts import (
    CONFIRMED,
    DECIDERS,
    HUMAN,
    MODEL,
    CellTimeline,
    TimelineBucket,
    TimelineGap,
    TimelineMark,
    TimelinePoint,
    TimelineStage,
    TimelineThreshold,
    TimelineVersion,
    list_cell_marks,
    sort_marks,
)
from rollout.features.reports.inputs.evidence_inputs import (
    StatePeriod,
    compute_bounds_at,
    is_plain,
)
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.calendar.instants import (
    OTHER_WINDOW,
    SHADOW,
    Cell,
    CellVersion,
    Site,
    Window,
    compute_local_days,
    compute_local_hours,
    count_micros,
    find_slot_after,
    find_slot_before,
    to_instant,
)
from rollout.kernel.calendar.windows import find_open_windows, find_windows
from rollout.kernel.measures import AGREEMENT, Condition
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.evidence import compute_estimates
from rollout.kernel.units import FAILED, LATE, OUTSIDE, group_pairs

MAX_BUCKETS: Final = 400
DAY_BUCKETS: Final = (("day", 1), ("week", 7), ("4 weeks", 28), ("52 weeks", 364))
HOUR: Final = "hour"
HOURLY_SPAN: Final = timedelta(days=2)
WHOLE_AGREEMENT: Final = Condition(AGREEMENT, 0.0)
ANSWERLESS: Final = frozenset({FAILED, LATE, OUTSIDE})


@dataclass(frozen=True, slots=True)
class TimelineSource:
    """What a timeline is built from: a cell's views and periods by version, and its events.

    `shown` are the versions with points; who decided follows from all.
    """

    cell: Cell
    policy: Policy
    holder: str | None
    views: Mapping[str, EvidenceView]
    periods: Mapping[str, tuple[StatePeriod, ...]]
    shown: tuple[str, ...]
    marks: tuple[TimelineMark, ...]
    purged_before: datetime | None
    last_slot: int

    @property
    def timezone(self) -> str:
        """Return the timezone of the cell's site."""
        return self.policy.sites_by_id[self.cell.site].timezone


@dataclass(frozen=True, slots=True)
class _TimeGrid:
    """Buckets as instants: `edges` has one more than there are buckets."""

    name: str
    edges: tuple[datetime, ...]
    edge_slots: Ints
    first_day: int
    days: int

    def find_by_slot(self, slots: Ints) -> Ints:
        """Return the bucket of each slot, -1 outside."""
        index = np.searchsorted(self.edge_slots, slots, side="right") - 1
        return np.where(index < len(self.edges) - 1, index, -1)

    def find_by_time(self, rows: UnitArrays) -> Ints:
        """Return the bucket in which each unit occurred, -1 outside."""
        if not self.days:
            return self.find_by_slot(rows.occurred)
        index = (rows.day - self.first_day) // self.days
        return np.where((index >= 0) & (index < len(self.edges) - 1), index, -1)


def build_cell_timeline(
    source: TimelineSource,
    since: datetime,
    until: datetime,
    *,
    is_batched: bool = False,
    max_buckets: int = MAX_BUCKETS,
) -> CellTimeline:
    """Return the timeline of a cell.

    Args:
        source: the cell's evidence and events.
        since, until: the span; it is extended to whole buckets at its begin.
        is_batched: whether the reader may be asked for blind reviews here.
        max_buckets: most buckets.
    """
    policy, tick = source.policy, source.policy.tick
    grid = _build_grid(since, until, source.timezone, tick, max_buckets)
    condition = _choose_condition(policy, source.cell)
    counted_until = None if source.last_slot < 0 else to_instant(source.last_slot, tick)
    versions = (
        _build_version(source, version, condition, grid, until, is_batched=is_batched)
        for version in source.shown
    )
    begin = grid.edges[0]
    return CellTimeline(
        site=source.cell.site,
        window=source.cell.window,
        timezone=source.timezone,
        since=begin,
        until=until,
        counted_until=counted_until,
        bucket=grid.name,
        measure=condition.measure.name,
        at_least=condition.at_least,
        batch=BATCH_SIZE if is_batched else None,
        buckets=_build_buckets(source, grid),
        stages=tuple(_list_stages(source, begin, min(until, counted_until or begin))),
        versions=tuple(v for v in versions if v.points),
        thresholds=tuple(_list_thresholds(policy, source.cell, condition)),
        marks=tuple(mark for mark in source.marks if begin <= mark.at <= until),
        gaps=_list_gaps(source.purged_before, begin, until),
    )


def _build_grid(
    since: datetime, until: datetime, timezone: str, tick: timedelta, max_buckets: int
) -> _TimeGrid:
    """Return hours for up to two days, else the shortest buckets of at most `max_buckets`."""
    zone = ZoneInfo(timezone)
    local = since.astimezone(zone)
    if until - since <= HOURLY_SPAN and tick <= timedelta(hours=1):
        first = since - timedelta(
            minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
        count = -((first - until) // timedelta(hours=1)) or 1
        edges = tuple(first + timedelta(hours=number) for number in range(count + 1))
        return _build_grid_of(HOUR, edges, tick, 0, 0)
    day_count = (until.astimezone(zone).date() - local.date()).days + 1
    name, days = next(
        (name, days) for name, days in DAY_BUCKETS if day_count + days - 1 <= max_buckets * days
    )
    first_date = local.date()
    if days > 1:
        first_date -= timedelta(days=first_date.weekday())
    count = -(-(day_count + (local.date() - first_date).days) // days)
    dates = (first_date + timedelta(days=days * number) for number in range(count + 1))
    edges = tuple(datetime(date.year, date.month, date.day, tzinfo=zone) for date in dates)
    return _build_grid_of(name, edges, tick, first_date.toordinal(), days)


def _build_grid_of(
    name: str, edges: tuple[datetime, ...], tick: timedelta, first_day: int, days: int
) -> _TimeGrid:
    edge_slots = np.array([find_slot_after(edge, tick) for edge in edges], dtype=np.int64)
    return _TimeGrid(name, edges, edge_slots, first_day, days)


def _choose_condition(policy: Policy, cell: Cell) -> Condition:
    """Return agreement over all levers, or else cost, if a gate asks for it; else agreement."""
    levels = range(1, len(policy.stage_ids))
    plain = [c for level in levels for c in policy.list_conditions(level, cell)]
    by_key = {c.key: c for c in plain if is_plain(c)}
    whole = [c for c in by_key.values() if c.label is None and c.lever is None]
    return max(whole, key=lambda c: c.is_whole_agreement, default=WHOLE_AGREEMENT)


def _list_thresholds(
    policy: Policy, cell: Cell, condition: Condition
) -> Iterator[TimelineThreshold]:
    """Yield each threshold on the measure once, with the stages or the effect it has."""
    stages = group_pairs(
        (other.threshold, stage)
        for level, stage in enumerate(policy.stage_ids[1:], start=1)
        for other in policy.list_conditions(level, cell)
        if is_plain(other) and other.key == condition.key
    )
    for value, names in stages.items():
        yield TimelineThreshold("gate", f"gate to {' and '.join(names)}", value)
    guards = {
        g.condition.threshold for g in policy.list_guards(cell) if g.condition.key == condition.key
    }
    for value in sorted(guards):
        yield TimelineThreshold("guard", "guard", value)


def _build_buckets(source: TimelineSource, grid: _TimeGrid) -> tuple[TimelineBucket, ...]:
    """Return the units of each bucket by decider.

    Above shadow these are the acting version's; in shadow those of the version with most.
    """
    size = len(grid.edges) - 1
    totals = {decider: np.zeros(size, dtype=np.int64) for decider in DECIDERS}
    in_shadow = np.zeros(size, dtype=np.int64)
    for version, view in source.views.items():
        rows = view.rows.gate.select(view.unit_classes.is_whole_unit[view.rows.gate.unit_class])
        index = grid.find_by_time(rows)
        rows, index = rows.select(index >= 0), index[index >= 0]
        own_levels = view.stage_history.find_own_levels(version, rows.occurred)
        is_in_shadow = view.stage_history.find_levels(rows.occurred) == 0
        in_shadow = np.maximum(in_shadow, np.bincount(index[is_in_shadow], minlength=size))
        for decider, mask in _find_deciders(view, rows, own_levels).items():
            totals[decider] += np.bincount(index[mask], minlength=size)
    totals[HUMAN] += in_shadow
    return tuple(
        TimelineBucket(since, *(int(totals[decider][number]) for decider in DECIDERS))
        for number, since in enumerate(grid.edges[:-1])
    )


def _find_deciders(view: EvidenceView, rows: UnitArrays, own_levels: Ints) -> dict[str, Bools]:
    """Return which units of the acting version each decided: humans also unfamiliar ones."""
    shares, is_acting = view.shares, own_levels > 0
    has_answer = np.array([c.predicted not in ANSWERLESS for c in view.unit_classes.classes], bool)
    is_open = view.find_buckets(rows) >= shares.blind_buckets[own_levels]
    if len(rows):
        is_open &= has_answer[rows.unit_class]
    if view.unit_classes.has_values:
        is_open &= view.find_familiar(rows)
    by_model = shares.model_decides[own_levels]
    return {
        HUMAN: is_acting & ~is_open,
        CONFIRMED: is_acting & is_open & ~by_model,
        MODEL: is_acting & is_open & by_model,
    }


def _list_stages(
    source: TimelineSource, since: datetime, until: datetime
) -> Iterator[TimelineStage]:
    """Yield the stages of a cell without gaps, up to the last counted slot."""
    view = next(iter(source.views.values()), None)
    if until <= since:
        return
    if view is None:
        yield TimelineStage(SHADOW, "", HUMAN, since, until)
        return
    history, tick = view.stage_history, source.policy.tick
    starts = [since, *(to_instant(slot, tick) for slot in history.slots), until]
    kinds = zip((0, *history.stage_levels), ("", *history.versions), strict=True)
    for (start, end), (row, version) in zip(pairwise(starts), kinds, strict=True):
        clipped_start, clipped_end = max(start, since), min(end, until)
        if clipped_start < clipped_end:
            decider = MODEL if view.shares.model_decides[row] else CONFIRMED if row else HUMAN
            stage = view.shares.stage_ids[row]
            share = float(np.nan_to_num(view.shares.model_shares[row], nan=1.0))
            drawn = share if decider == MODEL else None
            yield TimelineStage(stage, version, decider, clipped_start, clipped_end, drawn)


def _build_version(
    source: TimelineSource,
    version: str,
    condition: Condition,
    grid: _TimeGrid,
    until: datetime,
    *,
    is_batched: bool,
) -> TimelineVersion:
    view, size = source.views[version], len(grid.edges) - 1
    rows = batch_view(view).visible_rows if is_batched else view.visible_rows
    is_judged = view.unit_classes.is_whole_unit & ~view.unit_classes.is_missing
    rows = rows.select(is_judged[rows.unit_class]) if len(rows) else rows
    index = grid.find_by_slot(rows.slot) if is_batched else grid.find_by_time(rows)
    rows, index = rows.select(index >= 0), index[index >= 0]
    class_counts = view.unit_classes.get_class_counts(condition)
    counts = np.zeros((size, class_counts.shape[1]), dtype=np.int64)
    np.add.at(counts, index, class_counts[rows.unit_class])
    values = compute_estimates(condition, counts, source.policy)
    bounds = {} if is_batched else _compute_bucket_bounds(source, version, condition, grid, until)
    judged = counts.sum(axis=1)
    points = tuple(
        TimelinePoint(
            bucket,
            int(judged[bucket]),
            round(float(values[bucket]), 6) if judged[bucket] else None,
            bounds.get(bucket),
        )
        for bucket in range(size)
        if judged[bucket] or bucket in bounds
    )
    return TimelineVersion(version, version == source.holder, points)


def _compute_bucket_bounds(
    source: TimelineSource,
    version: str,
    condition: Condition,
    grid: _TimeGrid,
    until: datetime,
) -> dict[int, float]:
    """Return the bound at the end of each bucket that has begun to be counted."""
    tick, view = source.policy.tick, source.views[version]
    last = min(find_slot_before(until, tick), source.last_slot)
    ends = np.minimum(np.array([find_slot_before(e, tick) for e in grid.edges[1:]]), last)
    is_counted = grid.edge_slots[:-1] <= last
    if not len(view.visible_rows) or not is_counted.any():
        return {}
    is_counted &= ends >= int(view.visible_rows.slot[0])
    periods = source.periods.get(version, ())
    bounds = compute_bounds_at(view, periods, condition, np.unique(ends), source.policy)
    return {
        bucket: round(bounds[int(end)], 6)
        for bucket, end in enumerate(ends)
        if is_counted[bucket] and int(end) in bounds
    }


def _list_gaps(
    purged_before: datetime | None, since: datetime, until: datetime
) -> tuple[TimelineGap, ...]:
    if purged_before is None or purged_before <= since:
        return ()
    return (TimelineGap("purged", since, min(purged_before, until)),)


def find_first_unit(source: TimelineSource) -> datetime | None:
    """Return when the first counted unit of the cell occurred; None without any."""
    rows = [view.rows.gate.occurred for view in source.views.values()]
    firsts = [int(occurred.min()) for occurred in rows if len(occurred)]
    return to_instant(min(firsts), source.policy.tick) if firsts else None


MAX_TIMELINES: Final = 8
MAX_REPORT_BUCKETS: Final = 120


def compute_cell_timelines(
    inputs: ReportInputs, state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]]
) -> tuple[CellTimeline, ...]:
    """Return the timelines of the cells with most events of their own, in the policy's order."""
    first_values = list_first_values(inputs)
    marks = {
        cell: sort_marks([*list_cell_marks(inputs.events, cell), *first_values.get(cell, ())])
        for cell in inputs.policy.cells
    }
    counts = {
        cell: sum(mark.kind in CELL_KINDS for mark in cell_marks)
        for cell, cell_marks in marks.items()
    }
    by_count = sorted((cell for cell in marks if counts[cell]), key=lambda cell: -counts[cell])
    drawn = set(by_count[:MAX_TIMELINES])
    return tuple(
        _build_timeline(inputs, state_periods, cell, marks[cell])
        for cell in inputs.policy.cells
        if cell in drawn
    )


def _build_timeline(
    inputs: ReportInputs,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    cell: Cell,
    marks: tuple[TimelineMark, ...],
) -> CellTimeline:
    last_slot = find_slot_before(inputs.counted_until or inputs.last, inputs.policy.tick)
    views = {
        version: _select_counted(view, last_slot)
        for (view_cell, version), view in inputs.evidence_views.items()
        if view_cell == cell
    }
    history = inputs.timelines.get(cell)
    versions = () if history is None else history.versions
    source = TimelineSource(
        cell=cell,
        policy=inputs.policy,
        holder=versions[-1] or None if versions else None,
        views=views,
        periods={
            version: periods
            for (period_cell, version), periods in state_periods.items()
            if period_cell == cell
        },
        shown=tuple(views),
        marks=marks,
        purged_before=max(
            (event.before for event in select_events(inputs.events, RecordsPurged)),
            default=None,
        ),
        last_slot=last_slot,
    )
    firsts = [*(mark.at for mark in marks[:1]), find_first_unit(source) or inputs.first]
    since = min(*firsts, inputs.last)
    return build_cell_timeline(source, since, inputs.last, max_buckets=MAX_REPORT_BUCKETS)


def _select_counted(view: EvidenceView, last_slot: int) -> EvidenceView:
    """Return a view of the units that are counted by a slot."""
    gate = view.rows.gate
    return replace(view, rows=replace(view.rows, gate=gate.select(gate.slot <= last_slot)))


OUTSIDE_WINDOWS = -1  # no window of the policy: always shadow
NOT_IN_PANEL = -2  # not of the panel's window
NO_SUCH_HOUR = -3  # no such hour on that day
ONE_HOUR, HOUR_STEP = timedelta(hours=1), np.timedelta64(1, "h")


@dataclass(frozen=True, slots=True)
class CalendarBlock:
    """Local days `first` to `last` and hours from `start` to before `end`, on one stage.

    `stage` is None outside every window of the policy, where shadow is permanent.
    """

    first: date
    last: date
    start: int
    end: int
    stage: str | None


@dataclass(frozen=True, slots=True)
class SiteCalendar:
    """One site's calendar; of one window if attributes of cases choose the window."""

    site: str
    window: str | None
    zone: str
    stretches: tuple[CalendarBlock, ...]


def build_calendars(inputs: ReportInputs) -> tuple[SiteCalendar, ...]:
    """Return a calendar for every site, over the local days of the history.

    The stage of an hour is that at its start, also in windows that follow the sun. In autumn the
    first of two equal hours counts. Hours before the first case are shadow.
    """
    first, last = _find_span(inputs)
    return tuple(
        _build_calendar(site, window, inputs, first, last)
        for site in inputs.policy.sites
        for window in inputs.policy.calendar_windows
    )


def _find_span(inputs: ReportInputs) -> tuple[datetime, datetime]:
    """Return the first and last instant of cases and later stage changes."""
    tick = inputs.policy.tick
    changes = [
        to_instant(slot, tick) for timeline in inputs.timelines.values() for slot in timeline.slots
    ]
    occurred = inputs.cases["occurred_at"].drop_nulls()
    if occurred.is_empty():
        return inputs.first, inputs.last
    lowest, highest = occurred.min(), occurred.max()
    assert isinstance(lowest, datetime) and isinstance(highest, datetime)  # noqa: S101, PT018 - the column holds instants
    return lowest, max([highest, *changes])


def _build_calendar(
    site: Site, window: Window | None, inputs: ReportInputs, first: datetime, last: datetime
) -> SiteCalendar:
    starts = _list_hours(site, first, last)
    grid, first_day = _build_hour_grid(
        _compute_codes(site, window, inputs, starts),
        compute_local_days(site, starts),
        compute_local_hours(site, starts),
    )
    stages = (*inputs.policy.stage_ids, None)
    blocks = tuple(
        CalendarBlock(
            date.fromordinal(first_day + left),
            date.fromordinal(first_day + right),
            top,
            bottom,
            stages[code],
        )
        for left, right, top, bottom, code in find_rectangles(grid)
        if code != NOT_IN_PANEL
    )
    return SiteCalendar(site.id, window.id if window else None, site.timezone, blocks)


def _list_hours(site: Site, first: datetime, last: datetime) -> NDArray[np.datetime64]:
    """Return every full hour, UTC, of the local days from `first` to `last`."""
    start = (first - 26 * ONE_HOUR).astimezone(UTC).replace(tzinfo=None, minute=0, second=0)
    count = int((last - first) / ONE_HOUR) + 54
    starts = np.datetime64(start.replace(microsecond=0), "us") + np.arange(count) * HOUR_STEP
    days = compute_local_days(site, starts)
    ends = compute_local_days(
        site, np.array([_to_naive_utc(first), _to_naive_utc(last)], dtype="datetime64[us]")
    )
    return np.asarray(starts[(days >= ends[0]) & (days <= ends[1])])


def _to_naive_utc(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def _compute_codes(
    site: Site, window: Window | None, inputs: ReportInputs, starts: NDArray[np.datetime64]
) -> Ints:
    """Return the stage level at each instant, OUTSIDE_WINDOWS or NOT_IN_PANEL."""
    policy = inputs.policy
    slots = starts.astype("datetime64[us]").astype(np.int64) // count_micros(policy.tick)
    if window is not None:
        in_window = find_open_windows(site, (window,), starts)[window.id]
        stage_levels = _find_stage_levels(Cell(site.id, window.id), inputs, slots)
        return np.where(in_window, stage_levels, NOT_IN_PANEL)
    names = find_windows(site, policy.windows, starts)
    codes = np.full(len(starts), OUTSIDE_WINDOWS, dtype=np.int64)
    for name in set(names.tolist()) - {OTHER_WINDOW}:
        is_window = names == name
        codes[is_window] = _find_stage_levels(Cell(site.id, str(name)), inputs, slots[is_window])
    return codes


def _find_stage_levels(cell: Cell, inputs: ReportInputs, slots: Ints) -> Ints:
    return inputs.timelines.get(cell, StageHistory()).find_levels(slots)


def _build_hour_grid(codes: Ints, days: Ints, hours: Ints) -> tuple[Ints, int]:
    """Return the codes by day and hour, with the ordinal of the first day.

    The hour that is skipped in spring copies the one before it.
    """
    first, last = int(days.min()), int(days.max())
    grid = np.full((last - first + 1, 24), NO_SUCH_HOUR, dtype=np.int64)
    _, earliest = np.unique(days * 24 + hours, return_index=True)
    grid[days[earliest] - first, hours[earliest]] = codes[earliest]
    for day, hour in np.argwhere(grid == NO_SUCH_HOUR):
        grid[day, hour] = grid[day, hour - 1] if hour else NOT_IN_PANEL
    return grid, first


def find_rectangles(grid: Ints) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (first day, last day, first hour, end hour, code): equal neighbours as one.

    >>> list(find_rectangles(np.array([[0, 0, 1], [0, 0, 1], [0, 1, 1]])))
    [(0, 1, 0, 2, 0), (0, 1, 2, 3, 1), (2, 2, 0, 1, 0), (2, 2, 1, 3, 1)]
    """
    open_runs: dict[tuple[int, int, int], int] = {}
    for day, row in enumerate(grid):
        runs = set(_find_runs(row))
        for run in sorted(set(open_runs) - runs):
            yield open_runs.pop(run), day - 1, *run
        for run in runs - set(open_runs):
            open_runs[run] = day
    for run, since in sorted(open_runs.items()):
        yield since, len(grid) - 1, *run


def _find_runs(row: Ints) -> list[tuple[int, int, int]]:
    """Return the (start, end, code) of equal neighbours in one day."""
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    return [(a, b, int(row[a])) for a, b in pairwise(edges)]
