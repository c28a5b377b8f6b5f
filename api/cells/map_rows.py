"""Data of the week map: markers of each cell, rows with their window hours, and a description.

Hours are in minutes since Monday 00:00 local time. A skipped hour in spring belongs to the
surrounding window; a repeated hour in autumn is drawn once. So every week has the same length.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from api.web_kit.cell_view import build_named_withheld_marker, build_stage_markers
from rollout.engine.decide.scope import STOPPED, SUSPENDED, Scope, compute_held_level
from rollout.engine.words.formatting import join_words
from rollout.features.reports.pages.timeline_layout import StageMarker
from rollout.kernel.calendar.instants import (
    MINUTE,
    SHADOW,
    Cell,
    Site,
    Window,
    to_instant_micros,
    to_wall_times,
)
from rollout.kernel.calendar.opening_hours import compute_open_edges, follows_sun
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import group_pairs

DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
MinuteSpan = tuple[int, int]
WindowBand = tuple[int, int, str]
"""First minute, last minute (exclusive), and the window, "" for none."""


def compute_monday(at: datetime, zone: str) -> date:
    """Return the local Monday of the week of an instant."""
    today = at.astimezone(ZoneInfo(zone)).date()
    return today - timedelta(days=today.weekday())


def compute_week_minute(at: datetime, zone: str, monday: date) -> int:
    """Return the local minute of the week; outside 0 to 10,080 in other weeks."""
    local_time = at.astimezone(ZoneInfo(zone))
    days = (local_time.date() - monday).days
    return days * DAY_MINUTES + local_time.hour * 60 + local_time.minute


def compute_bands(site: Site, windows: Sequence[Window], monday: date) -> tuple[WindowBand, ...]:
    """Return the windows at a site by minute; the first match wins.

    Windows chosen by case attributes need one call each.
    """
    return _list_bands(
        tuple((window.id, window.hours) for window in windows),
        *_get_clock_site(site, windows),
        monday,
    )


def compute_spans(hours: str, site: Site, monday: date) -> tuple[MinuteSpan, ...]:
    """Return when hours apply at a site: of a freeze, or of one window."""
    return _compute_spans(hours, *_get_clock_site(site, (Window("", hours),)), monday)


def _get_clock_site(site: Site, windows: Sequence[Window]) -> tuple[Site]:
    """Return the site fields that hours depend on, so that equal sites share a cache entry."""
    follows_sunlight = any(follows_sun(window.hours) for window in windows)
    return (
        replace(
            site,
            id="",
            wave=1,
            lease=None,
            coordinates=site.coordinates if follows_sunlight else None,
        ),
    )


@lru_cache(maxsize=4096)
def _list_bands(
    windows: tuple[tuple[str, str | None], ...], site: Site, monday: date
) -> tuple[WindowBand, ...]:
    edges_by_window = {
        name: [edge for span in _compute_spans(hours, site, monday) for edge in span]
        for name, hours in windows
    }
    edges = sorted(
        {
            0,
            WEEK_MINUTES,
            *(minute for window_edges in edges_by_window.values() for minute in window_edges),
        }
    )
    bands: list[WindowBand] = []
    for start, end in pairwise(edges):
        window = _find_window(edges_by_window, start)
        if bands and bands[-1][2] == window:
            bands[-1] = (bands[-1][0], end, window)
        else:
            bands.append((start, end, window))
    return tuple(bands)


def _find_window(edges_by_window: Mapping[str, list[int]], minute: int) -> str:
    return next(
        (
            name
            for name, window_edges in edges_by_window.items()
            if bisect_right(window_edges, minute) % 2
        ),
        "",
    )


@lru_cache(maxsize=4096)
def _compute_spans(hours: str, site: Site, monday: date) -> tuple[MinuteSpan, ...]:
    zone = ZoneInfo(site.timezone)
    week_start, week_end = (
        datetime.combine(day, datetime.min.time(), zone)
        for day in (monday, monday + timedelta(days=7))
    )
    edges = compute_open_edges(
        hours, site, to_instant_micros(week_start), to_instant_micros(week_end)
    )
    midnight = to_instant_micros(week_start) + (week_start.utcoffset() or timedelta()) // timedelta(
        microseconds=1
    )
    minutes = np.clip(
        (to_wall_times(site.timezone, edges) - midnight) // MINUTE, 0, WEEK_MINUTES
    ).tolist()
    spans: list[MinuteSpan] = []
    for start, end in sorted(zip(minutes[::2], minutes[1::2], strict=True)):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif end > start:
            spans.append((start, end))
    return tuple(spans)


MAX_ROWS: Final = 12
"""With more rows, equal ones are grouped."""
MAP_PERIOD: Final = timedelta(days=7)  # the map shows only one week ahead


@dataclass(frozen=True, slots=True)
class StageSchedule:
    """Markers of a cell: the current one, and those after grants end."""

    marker: StageMarker
    changes: tuple[tuple[datetime, StageMarker], ...] = ()


@dataclass(frozen=True, slots=True)
class MapRow:
    """One row of the map: a site, equal sites, or one window of a site.

    Attributes:
        label: site name, or `14 sites` for equal ones.
        text: what is allowed, in words.
        bands: what is allowed between two minutes of the week; nothing where no
            window holds, which is shadow too.
        outside: minutes in which no window of the site holds; none in a row of one window.
        freezes: minutes in which nothing widens.
        now_minute: current minute of the week by the site's clock.
    """

    label: str
    text: str
    bands: tuple[tuple[int, int, StageMarker], ...]
    outside: tuple[MinuteSpan, ...]
    freezes: tuple[MinuteSpan, ...]
    now_minute: int


def compute_schedules(scope: Scope, policy: Policy, at: datetime) -> dict[Cell, StageSchedule]:
    """Return the markers of each cell of a policy.

    A grant not yet renewed is drawn until its end.
    """
    markers = build_stage_markers(policy)
    at = at if scope.at is None else max(at, scope.at)
    stopped = {cell for stop in scope.stops.values() for cell in stop.cells}
    fixed_schedules = {
        STOPPED: StageSchedule(build_named_withheld_marker(markers, STOPPED)),
        SHADOW: StageSchedule(markers[SHADOW]),
    }
    return {
        cell: fixed_schedules[STOPPED if cell in stopped else SHADOW]
        if cell in stopped or scope.get_holder(cell) is None
        else _compute_schedule(scope, policy, cell, at, markers)
        for cell in policy.cells
    }


def _compute_schedule(
    scope: Scope, policy: Policy, cell: Cell, at: datetime, markers: Mapping[str, StageMarker]
) -> StageSchedule:
    acting_version = scope.get_holder(cell)
    if acting_version is None or scope.versions[acting_version].retired:
        return StageSchedule(markers[SHADOW])
    cell_state = scope.get_cell_state(cell, acting_version)
    if cell_state.suspended_by:
        return StageSchedule(build_named_withheld_marker(markers, SUSPENDED))

    def get_marker(instant: datetime) -> StageMarker:
        return markers[
            policy.stage_ids[
                min(
                    compute_held_level(policy, cell_state, instant),
                    policy.compute_ceiling(cell, instant),
                )
            ]
        ]

    change_times = {*(grant.until for grant in cell_state.grants), policy.compute_end(cell)}
    return StageSchedule(
        get_marker(at),
        tuple((end, get_marker(end)) for end in sorted(change_times) if at < end < at + MAP_PERIOD),
    )


def list_sites(policy: Policy, sites: Collection[str] | None) -> list[Site]:
    """Return the drawn sites in the policy's order; None means all."""
    return [site for site in policy.sites if sites is None or site.id in sites]


def describe_map(
    policy: Policy, schedules: Mapping[Cell, StageSchedule], sites: Collection[str] | None = None
) -> str:
    """Describe the map in words; of many sites, equal ones together."""
    sites_shown = list_sites(policy, sites)
    sites_by_text = group_pairs(
        (describe_site(policy, schedules, site.id), site.id) for site in sites_shown
    )
    if len(sites_shown) <= MAX_ROWS:
        text_by_site = {name: text for text, names in sites_by_text.items() for name in names}
        return " ".join(f"{site.id}: {text_by_site[site.id]}." for site in sites_shown)
    return " ".join(f"{_join_sites(names)}: {text}." for text, names in sites_by_text.items())


def _join_sites(names: list[str]) -> str:
    return join_words(names) if len(names) < 4 else f"{len(names)} sites"


def describe_site(policy: Policy, schedules: Mapping[Cell, StageSchedule], site: str) -> str:
    """Describe what is allowed at a site: `autonomous by day, supervised by night`."""
    stage_names = {
        window.id: schedules[Cell(site, window.id)].marker.name for window in policy.windows
    }
    if len(set(stage_names.values())) == 1:
        return next(iter(stage_names.values())) + (" everywhere" if len(stage_names) > 1 else "")
    return ", ".join(f"{stage_name} by {window}" for window, stage_name in stage_names.items())


def build_map_rows(
    policy: Policy,
    schedules: Mapping[Cell, StageSchedule],
    at: datetime,
    sites: Collection[str] | None = None,
) -> tuple[MapRow, ...]:
    """Return the rows in the policy's order; if more than twelve, grouped."""
    monday = compute_monday(at, policy.timezone)
    rows = [
        _build_row(policy, schedules, site, window, monday, at)
        for site in list_sites(policy, sites)
        for window in policy.calendar_windows
    ]
    return group_rows(rows) if len(rows) > MAX_ROWS else tuple(rows)


def _build_row(
    policy: Policy,
    schedules: Mapping[Cell, StageSchedule],
    site: Site,
    window: Window | None,
    monday: date,
    at: datetime,
) -> MapRow:
    windows = policy.windows if window is None else (window,)
    window_schedules = {
        window_item.id: schedules[Cell(site.id, window_item.id)] for window_item in windows
    }
    return MapRow(
        label=site.id if window is None else f"{site.id} · {window.id}",
        text=describe_site(policy, schedules, site.id)
        if window is None
        else window_schedules[window.id].marker.name,
        bands=tuple(_join_bands(_compute_bands(window_schedules, site, windows, monday))),
        outside=tuple(
            (start, end)
            for start, end, name in compute_bands(site, policy.windows, monday)
            if window is None and not name
        ),
        freezes=tuple(_list_freezes(policy, site, windows, monday)),
        now_minute=compute_week_minute(at, site.timezone, monday),
    )


def _compute_bands(
    window_schedules: Mapping[str, StageSchedule],
    site: Site,
    windows: tuple[Window, ...],
    monday: date,
) -> Iterator[tuple[int, int, StageMarker]]:
    for start, end, window in compute_bands(site, windows, monday):
        if window:
            yield from _split_band(window_schedules[window], site, monday, start, end)


def _split_band(
    schedule: StageSchedule, site: Site, monday: date, start: int, end: int
) -> Iterator[tuple[int, int, StageMarker]]:
    """Yield a band, split where a grant ends within it."""
    marker = schedule.marker
    for at, next_marker in schedule.changes:
        change_minute = compute_week_minute(at, site.timezone, monday)
        if start < change_minute < end:
            yield start, change_minute, marker
            start = change_minute
        if change_minute <= start:
            marker = next_marker
    yield start, end, marker


def _join_bands(
    bands: Iterator[tuple[int, int, StageMarker]],
) -> Iterator[tuple[int, int, StageMarker]]:
    """Join adjacent bands with the same marker."""
    previous: tuple[int, int, StageMarker] | None = None
    for start, end, marker in bands:
        if previous is not None and (previous[1], previous[2]) == (start, marker):
            previous = (previous[0], end, marker)
            continue
        if previous is not None:
            yield previous
        previous = (start, end, marker)
    if previous is not None:
        yield previous


def _list_freezes(
    policy: Policy, site: Site, windows: tuple[Window, ...], monday: date
) -> Iterator[MinuteSpan]:
    for freeze in policy.freezes:
        if any(freeze.where.fits(Cell(site.id, window.id)) for window in windows):
            yield from compute_spans(freeze.hours, site, monday)


def group_rows(rows: Collection[MapRow]) -> tuple[MapRow, ...]:
    """Group equal rows at the position of the first."""
    labels_by_row = group_pairs((replace(row, label=""), row.label) for row in rows)
    return tuple(
        replace(row, label=labels[0] if len(labels) == 1 else f"{len(labels)} sites")
        for row, labels in labels_by_row.items()
    )


def describe_window_changes(
    policy: Policy, at: datetime, sites: Collection[str] | None = None
) -> str:
    """Describe today's window changes at each site, or the first if sites differ; "" if none.

    `at each site today 06:00 and 18:00`
    """
    times_by_site = {
        site.id: _list_change_times(policy, site, at) for site in list_sites(policy, sites)
    }
    if not times_by_site:
        return ""
    (first_site, change_times), *others = times_by_site.items()
    if not change_times:
        return ""
    is_equal = bool(others) and all(times == change_times for _, times in others)
    return f"at {'each site' if is_equal else first_site} today {join_words(change_times)}"


def _list_change_times(policy: Policy, site: Site, at: datetime) -> list[str]:
    monday = compute_monday(at, site.timezone)
    midnight = compute_week_minute(at, site.timezone, monday) // DAY_MINUTES * DAY_MINUTES
    starts = [start - midnight for start, _, _ in compute_bands(site, policy.windows, monday)]
    return [f"{minute // 60:02}:{minute % 60:02}" for minute in starts if 0 < minute < DAY_MINUTES]


def has_hours_outside(policy: Policy, at: datetime, sites: Collection[str] | None = None) -> bool:
    """Return whether a site has hours outside every window in the week of an instant."""
    return any(
        not window_id
        for site in list_sites(policy, sites)
        for _, _, window_id in compute_bands(
            site, policy.windows, compute_monday(at, site.timezone)
        )
    )
