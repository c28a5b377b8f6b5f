"""Who decides one case, right now. In doubt a person does."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from rollout.core.calendar.instants import MICROSECOND
from rollout.core.calendar.opening_hours import is_open, next_change, on_holidays
from rollout.core.calendar.sites import OTHER, Cell, Site, Window, window_at
from rollout.core.calendar.sun import follows_sun
from rollout.core.calendar.timezones import count
from rollout.core.policy.policy import NEVER, Policy, Stage
from rollout.core.scope.scope import Scope, acting
from rollout.core.statistics.sampling import draw

MOST_ASKEW = timedelta(minutes=5)  # a live question about another time is a person's
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Question:
    """One case to be decided: where, when, by which version, at which confidence."""

    site: str
    at: datetime | None
    version: str
    key: str
    episode: str = ""
    confidence: float | None = None
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What is done with one lever if no person answers in time: `action`, after `after`."""

    lever: str
    action: str
    after: timedelta


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer to "who decides this case".

    Attributes:
        decider: `human` or `model`.
        stage: the stage that the version holds there.
        exposure: what a person sees: `blind` or `assisted`; a model's audited case is `blind`.
        audited: whether a blind verdict is asked for afterwards.
        share: the share of units that the draw would have treated alike.
        because: why, in one phrase.
        revision: position in the ledger that the answer follows from.
        lease: how long the answer may be used, from the moment the question was sent.
        unanswered: per lever that says so, what is done when nobody answers in time.
    """

    decider: str
    stage: str
    exposure: str
    audited: bool
    share: float
    because: str
    revision: int
    lease: timedelta
    unanswered: tuple[Unanswered, ...] = ()

    @property
    def answer_within(self) -> timedelta | None:
        """Return when the first lever stops waiting for a person, None where none ever does."""
        return min((lever.after for lever in self.unanswered), default=None)


def assign(
    scope: Scope,
    policy: Policy,
    salt: bytes,
    asked: Question,
    *,
    now: datetime,
    left: timedelta | None = None,
) -> Assignment:
    """Say who decides; a person whenever something asked for is missing, unknown or askew.

    Args:
        scope: the fold of the ledger.
        policy: the policy in force.
        salt: the rollout's secret; the same case gets the same draw for ever.
        asked: the case.
        now: the asker's instant of asking, with its zone.
        left: what is left of the lease of a copy of the scope; None where the scope is no copy.
    """
    assignment = _assigned(scope, policy, salt, asked, now)
    if left is not None and left <= timedelta(0):
        return _person(scope, policy, timedelta(0), "the lease has ended")
    return (
        assignment if left is None or assignment.lease <= left else replace(assignment, lease=left)
    )


def _assigned(
    scope: Scope, policy: Policy, salt: bytes, asked: Question, now: datetime
) -> Assignment:
    site = policy.site.get(asked.site)
    full_lease = policy.lease if site is None or site.lease is None else site.lease
    cell, reason = _cell(policy, site, asked, now)
    acting_stage = None if cell is None else acting(scope, policy, cell, now)
    if cell is None or acting_stage is None or acting_stage[0] != asked.version:
        return _person(scope, policy, full_lease, reason or "shadow: people decide")
    stage = policy.stage(acting_stage[1])
    since = now if scope.at is None else max(now, scope.at)
    lease = min(full_lease, ending(scope, policy, cell, asked.version, since) - since)
    floor = policy.evidence.confidence_floor
    if floor is not None and not _sure(asked.confidence, floor):
        return _person(scope, policy, lease, "below the confidence floor", stage.id)
    sampling_key = unit_of(policy, asked.key, asked.site, asked.at, asked.episode)
    return _drawn(stage, draw(salt, "stage", sampling_key), scope, policy, lease)


def unit_of(policy: Policy, key: str, site: str, at: datetime | None, episode: str | None) -> str:
    """Return the key by which a case is drawn: its own, its episode's, or its span's.

    With `unit: episode` a case that names no episode is one with those of its site in the same
    span of the clock, if the policy has such spans; else it is alone, and no evidence.
    """
    if policy.evidence.unit == "case":
        return key
    span = policy.evidence.episode_span
    if episode or span is None or at is None:
        return episode or key
    return f"{site}@{count(at) // (span // MICROSECOND)}"


def _sure(confidence: float | None, floor: float) -> bool:
    """Say whether a confidence reaches the floor; none, or one that is no share, does not."""
    return confidence is not None and floor <= confidence <= 1


def _cell(
    policy: Policy, site: Site | None, asked: Question, now: datetime
) -> tuple[Cell | None, str]:
    if site is None or not asked.key or not asked.version:
        return None, "unknown site, key or version"
    if asked.at is None:
        return None, "the case has no time"
    if asked.at.utcoffset() is None:
        return None, "the case's time has no zone"
    if abs(asked.at - now) > MOST_ASKEW:
        return None, "the case's time is more than 5 min from now"
    open_windows = _open_at(site, policy.windows, asked.at)[0]
    window = window_at(site, open_windows, asked.at, asked.attributes)
    return (None, "no window fits") if window == OTHER else (Cell(site.id, window), "")


def _person(
    scope: Scope, policy: Policy, lease: timedelta, because: str, stage: str = "shadow"
) -> Assignment:
    revision, fallbacks = scope.revision, _unanswered(policy)
    return Assignment("human", stage, "blind", False, 1.0, because, revision, lease, fallbacks)


def _drawn(
    stage: Stage, number: float, scope: Scope, policy: Policy, lease: timedelta
) -> Assignment:
    is_audited = False
    if number < stage.blind:
        decider, exposure, share, reason = "human", "blind", stage.blind, "blind share"
    elif not stage.model_decides:
        share, reason = 1 - stage.blind, "a person confirms"
        decider, exposure = "human", "assisted"
    else:
        decider, exposure, is_audited = "model", "blind", number < stage.seen
        share = stage.seen - stage.blind if is_audited else 1 - stage.seen
        reason = "audited" if is_audited else "the model decides"
    revision, fallbacks = scope.revision, _unanswered(policy)
    return Assignment(
        decider, stage.id, exposure, is_audited, share, reason, revision, lease, fallbacks
    )


def _unanswered(policy: Policy) -> tuple[Unanswered, ...]:
    return tuple(
        Unanswered(lever.id, lever.unanswered, lever.answer_within)
        for lever in policy.levers
        if lever.unanswered is not None and lever.answer_within is not None
    )


def ending(scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime) -> datetime:
    """Return when what a version holds in a cell may change by itself, without a new event.

    That is the next change of any window of the site, the end of a grant, and the end of the last
    day that a limit allows above shadow; the end of the calendar where none of them comes.
    """
    changes = _open_at(policy.site[cell.site], policy.windows, at)[1]
    ends = [grant.until for grant in scope.state(cell, version).grants if grant.valid(at)]
    return min((changes, policy.ends(cell), *ends))


# Opening hours are dear to ask about (a third of a millisecond for four windows), and a site's
# clock opens and shuts them a few times a day: each day is asked about once.


def _open_at(
    site: Site, windows: tuple[Window, ...], at: datetime
) -> tuple[tuple[Window, ...], datetime]:
    """Return the windows whose hours hold at a site, and when this next changes."""
    at = at.astimezone(UTC)
    edges, open_windows = _day(site, windows, at.toordinal())
    position = bisect_right(edges, at)
    return open_windows[position], edges[position]


Day = tuple[tuple[datetime, ...], tuple[tuple[Window, ...], ...]]


@lru_cache(maxsize=2**15)
def _day(site: Site, windows: tuple[Window, ...], day: int) -> Day:
    """Return when a site's windows change from the start of a UTC day on, and which hold between.

    The last change is the first one after the day. Windows that hold are given without hours.
    """
    changes_by_window = [_turns(w.hours, _clock(site, w.hours), day) for w in windows]
    last = min(change_times[-1] for _, change_times in changes_by_window)
    edges = [
        *sorted({edge for _, change_times in changes_by_window for edge in change_times[:-1]}),
        last,
    ]
    starts = (datetime.fromordinal(day).replace(tzinfo=UTC), *edges[:-1])
    open_windows = (
        tuple(
            w
            for w, window_changes in zip(windows, changes_by_window, strict=True)
            if _on(window_changes, t)
        )
        for t in starts
    )
    return tuple(edges), tuple(
        tuple(Window(w.id, None, w.when) for w in windows_then) for windows_then in open_windows
    )


Turns = tuple[bool, tuple[datetime, ...]]


@lru_cache(maxsize=2**12)
def _turns(hours: str | None, clock: Site, day: int) -> Turns:
    """Return whether hours hold as a UTC day begins, and their turns, the last one after it."""
    start = datetime.fromordinal(day).replace(tzinfo=UTC)
    return is_open(hours, clock, start), tuple(_turning(hours, clock, start))


def _turning(hours: str | None, clock: Site, begin: datetime) -> Iterator[datetime]:
    at, end = begin, begin + DAY
    while at < end:
        change = None if hours is None else next_change(hours, clock, at)
        at = NEVER if change is None else change
        yield at


def _on(turns: Turns, at: datetime) -> bool:
    """Say whether hours hold at an instant of the day that they were asked about."""
    is_open_first, changes = turns
    return is_open_first ^ (bisect_right(changes, at) % 2 == 1)


def _clock(site: Site, hours: str | None) -> Site:
    """Return what of a site its hours ask about, so that sites of one zone share the answers."""
    needs_sun = hours is not None and follows_sun(hours)
    country = site.country if hours is not None and on_holidays(hours) else None
    return Site(
        site.id if needs_sun else "", site.timezone, country, site.place if needs_sun else None
    )
