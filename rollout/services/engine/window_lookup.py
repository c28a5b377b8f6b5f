"""Windows of incoming cases; opening hours are computed once a day and site."""

from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from rollout.core.calendar.instants import to_micros
from rollout.core.calendar.opening_hours import compute_open_edges, is_always_open
from rollout.core.calendar.sites import OTHER_WINDOW, Site, Window
from rollout.core.calendar.timezones import DAY, to_instant_micros
from rollout.core.policy.policy import Policy

MAX_CACHED_DAYS: Final = 50_000  # pairs of day and site, for one policy
DayWindows = tuple[tuple[Window, tuple[int, ...] | None], ...]
"""Each window and when it opens and closes; None if it is always open."""


class WindowLookup:
    """Windows of one policy, by the rule of `rollout.core.calendar.windows.find_window`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._days = _get_day_cache(policy.rollout, policy.hash)

    def find_window(self, site: str, at: datetime, attributes: Mapping[str, str]) -> str:
        """Return the window of an instant and attributes; `other` at unknown sites.

        Raises:
            ValueError: `at` has no time zone.
        """
        try:
            instant = to_micros(at)
        except TypeError:
            instant = to_instant_micros(at)  # raises with an explanation
        key = (site, instant // DAY)
        day_windows = self._days.get(key)
        if day_windows is None:
            policy_site = self._policy.sites_by_id.get(site)
            if policy_site is None:
                return OTHER_WINDOW
            day_windows = self._load_day(policy_site, key[1])
        return _find_first_open(day_windows, instant, attributes)

    def _load_day(self, site: Site, day: int) -> DayWindows:
        day_start, day_end = day * DAY, (day + 1) * DAY
        day_windows = tuple(
            (
                window,
                None
                if is_always_open(window.hours)
                else tuple(compute_open_edges(window.hours, site, day_start, day_end).tolist()),
            )
            for window in self._policy.windows
        )
        if len(self._days) >= MAX_CACHED_DAYS:
            self._days.clear()
        self._days[site.id, day] = day_windows
        return day_windows


@lru_cache(maxsize=64)
def _get_day_cache(_rollout: str, _policy_hash: str) -> dict[tuple[str, int], DayWindows]:
    return {}


def _find_first_open(day_windows: DayWindows, instant: int, attributes: Mapping[str, str]) -> str:
    for window, edges in day_windows:
        if edges is not None and bisect_right(edges, instant) % 2 == 0:
            continue
        if not window.when:
            return window.id
        if any(attributes.get(attribute) is None for attribute in window.when):
            return OTHER_WINDOW
        if all(attributes[attribute] in values for attribute, values in window.when.items()):
            return window.id
    return OTHER_WINDOW
