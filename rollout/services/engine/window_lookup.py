"""The window of each case that comes in: hours are asked once a day and site, not once a case."""

from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from rollout.core.calendar.instants import micros
from rollout.core.calendar.opening_hours import always, open_edges
from rollout.core.calendar.sites import OTHER, Site, Window
from rollout.core.calendar.timezones import DAY, count
from rollout.core.policy.policy import Policy

MOST_KNOWN: Final = 50_000  # days at sites, of one policy
Held = tuple[tuple[Window, tuple[int, ...] | None], ...]
"""Each window with the instants at which it opens and closes; None where it always holds."""


class LiveWindows:
    """The windows of one policy, by the same rule as `rollout.core.calendar.sites.window_at`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known = _known(policy.rollout, policy.hash)

    def at(self, site: str, at: datetime, attributes: Mapping[str, str]) -> str:
        """Return the window of an instant and a case's attributes; `other` at unknown sites.

        Raises:
            ValueError: `at` has no time zone.
        """
        try:
            instant = micros(at)
        except TypeError:
            instant = count(at)  # says what is wrong
        key = (site, instant // DAY)
        day_windows = self._known.get(key)
        if day_windows is None:
            policy_site = self._policy.site.get(site)
            if policy_site is None:
                return OTHER
            day_windows = self._held(policy_site, key[1])
        return _first(day_windows, instant, attributes)

    def _held(self, site: Site, day: int) -> Held:
        day_start, day_end = day * DAY, (day + 1) * DAY
        day_windows = tuple(
            (
                window,
                None
                if always(window.hours)
                else tuple(open_edges(window.hours, site, day_start, day_end).tolist()),
            )
            for window in self._policy.windows
        )
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[site.id, day] = day_windows
        return day_windows


@lru_cache(maxsize=64)
def _known(_rollout: str, _policy_hash: str) -> dict[tuple[str, int], Held]:
    return {}


def _first(held: Held, instant: int, attributes: Mapping[str, str]) -> str:
    for window, edges in held:
        if edges is not None and bisect_right(edges, instant) % 2 == 0:
            continue
        if not window.when:
            return window.id
        if any(attributes.get(attribute) is None for attribute in window.when):
            return OTHER
        if all(attributes[attribute] in values for attribute, values in window.when.items()):
            return window.id
    return OTHER
