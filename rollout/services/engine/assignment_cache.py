"""Rulings: what `assign` says of one scope, remembered until something ends by itself.

Who decides follows from the site, the window, the version, whether the version is sure enough and
the draw's band; it changes with the ledger, which makes a new scope, and when a window changes or
a grant begins or ends. So each ruling is made once, by `assign`, and holds for all cases like it
until the next of these. What is remembered never says more than `assign` would: a test compares.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from rollout.core.calendar.opening_hours import next_change
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.policy import NEVER, Policy
from rollout.core.scope.assignment import MOST_ASKEW, Assignment, Question, assign, ending, unit_of
from rollout.core.scope.scope import Scope
from rollout.core.statistics.sampling import draw, draws
from rollout.services.engine.window_lookup import LiveWindows

Place = tuple[str, str, str, bool, int]  # site, window, version, sure enough, the draw's band
ASKEW: Final = MOST_ASKEW.total_seconds()
MOST: Final = 20_000  # rulings that are remembered: the names of versions are the askers'


class Asked(Protocol):
    """What a client asks about a case: a `Question`, or a request body with the same fields."""

    @property
    def site(self) -> str:
        """Return where it is."""
        ...

    @property
    def at(self) -> datetime | None:
        """Return when it occurred."""
        ...

    @property
    def version(self) -> str:
        """Return which version asks."""
        ...

    @property
    def key(self) -> str:
        """Return the caller's key."""
        ...

    @property
    def episode(self) -> str | None:
        """Return the burst that it belongs to."""
        ...

    @property
    def confidence(self) -> float | None:
        """Return how sure the version is."""
        ...

    @property
    def attributes(self) -> Mapping[str, str] | None:
        """Return what windows ask for."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """An assignment that holds for all cases alike; one object for them, so it is a quick key."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Held:
    """A ruling that holds in [since, until), its lease whole up to `whole_until`; Unix seconds."""

    ruling: Ruling
    since: float
    until: float
    whole_until: float


@dataclass(frozen=True, slots=True)
class Hours:
    """The window of a site's cases in [since, until), where windows ask for hours alone."""

    window: str
    since: float
    until: float


class Rulings:
    """What one scope answers. Used by several threads: what two make at once is the same."""

    def __init__(self, scope: Scope, policy: Policy, salt: bytes) -> None:
        """Remember nothing yet."""
        self._scope, self._policy, self._salt, self._at = scope, policy, salt, scope.at
        self._sites, self._cuts = policy.site, policy.cuts
        self._floor = policy.evidence.confidence_floor
        self._alone = policy.evidence.unit == "case"
        self._windows = LiveWindows(policy)
        self._by_hours = not any(window.when for window in policy.windows)
        self._began = 0.0 if scope.at is None else scope.at.timestamp()
        self._held: dict[Place, Held] = {}
        self._same: dict[Assignment, Ruling] = {}
        self._hours: dict[str, Hours] = {}

    def of(self, asked: Sequence[Asked], now: datetime) -> list[Ruling]:
        """Return who decides each case, as `assign` says it.

        Args:
            asked: the cases.
            now: the instant of asking, with its zone.
        """
        if len(asked) == 1:
            unit_key = self._unit(asked[0])
            return [self._of(asked[0], draw(self._salt, "stage", unit_key), now, now.timestamp())]
        unit_keys = (
            [question.key for question in asked]
            if self._alone
            else [self._unit(question) for question in asked]
        )
        sampling_values, seconds = draws(self._salt, "stage", unit_keys).tolist(), now.timestamp()
        return [
            self._of(o, sampling_value, now, seconds)
            for o, sampling_value in zip(asked, sampling_values, strict=True)
        ]

    def _unit(self, asked: Asked) -> str:
        at = asked.at if asked.at is not None and asked.at.tzinfo is not None else None
        return unit_of(self._policy, asked.key, asked.site, at, asked.episode)

    def _of(self, asked: Asked, number: float, now: datetime, seconds: float) -> Ruling:
        at, site = asked.at, asked.site
        if at is None or at.tzinfo is None or site not in self._sites or not asked.key:
            return self._ruling(self._assigned(asked, now))
        occurred_seconds = at.timestamp()  # as numbers: instants of two zones are slow to compare
        if abs(occurred_seconds - seconds) > ASKEW:
            return self._ruling(self._assigned(asked, now))
        is_confident = self._floor is None or _sure(asked.confidence, self._floor)
        cached_window = self._hours.get(site)
        if (
            cached_window is not None
            and cached_window.since <= occurred_seconds < cached_window.until
        ):
            window = cached_window.window
        else:
            window = self._window(site, at, occurred_seconds, asked.attributes)
        cache_key = (site, window, asked.version, is_confident, bisect_right(self._cuts, number))
        cached_assignment = self._held.get(cache_key)
        if (
            cached_assignment is None
            or not cached_assignment.since <= seconds < cached_assignment.until
        ):
            cached_assignment = self._hold(cache_key, self._assigned(asked, now), now)
        if seconds <= cached_assignment.whole_until >= self._began:
            return cached_assignment.ruling
        return self._ruling(self._assigned(asked, now))

    def _assigned(self, asked: Asked, now: datetime) -> Assignment:
        assignment_question = Question(
            site=asked.site,
            at=asked.at,
            version=asked.version,
            key=asked.key,
            episode=asked.episode or "",
            confidence=asked.confidence,
            attributes=asked.attributes,
        )
        return assign(self._scope, self._policy, self._salt, assignment_question, now=now)

    def _ruling(self, made: Assignment) -> Ruling:
        """Return the one ruling of an assignment: cells alike share it."""
        if len(self._same) >= MOST:
            self._same.clear()
        return self._same.setdefault(made, Ruling(made))

    def _window(
        self, site: str, at: datetime, instant: float, attributes: Mapping[str, str] | None
    ) -> str:
        if not self._by_hours:
            return self._windows.at(site, at, attributes or {})
        opening_hours = (
            window.hours for window in self._policy.windows if window.hours is not None
        )
        changes = (
            next_change(window_hours, self._sites[site], at) for window_hours in opening_hours
        )
        until = min((change for change in changes if change is not None), default=NEVER)
        cached_window = self._hours[site] = Hours(
            self._windows.at(site, at, {}), instant, until.timestamp()
        )
        return cached_window.window

    def _hold(self, place: Place, made: Assignment, now: datetime) -> Held:
        """Remember an assignment; `shadow` for good, as time alone gives nothing back."""
        until, site = NEVER, self._sites[place[0]]
        full_lease = site.lease or self._policy.lease
        if made.stage != SHADOW:
            made = replace(made, lease=full_lease)
            since = now if self._at is None else max(now, self._at)
            until = ending(self._scope, self._policy, Cell(*place[:2]), place[2], since)
        end_seconds = until.timestamp()
        full_lease_until = (
            end_seconds - full_lease.total_seconds() if made.stage != SHADOW else end_seconds
        )
        cached_assignment = Held(self._ruling(made), now.timestamp(), end_seconds, full_lease_until)
        if len(self._held) >= MOST:
            self._held.clear()
        self._held[place] = cached_assignment
        return cached_assignment


def _sure(confidence: float | None, floor: float) -> bool:
    return confidence is not None and floor <= confidence <= 1
