"""How many cases each site sends, and what share of them the model decides."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from rollout.core.scope.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.core.scope.record_events import CasesErased, RecordsPurged
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.store.records.site_traffic import (
    ClosedBatches,
    SiteSpans,
    TrafficCount,
    count_site_traffic,
)

SHOWN_DAYS: Final = 14
HOUR: Final = timedelta(hours=1)
NEVER: Final = 10**9
"""A batch that is never whole: an hour that moves on has none."""


@dataclass(frozen=True, slots=True)
class TrafficSpan:
    """Cases of a site that occurred in a span of time.

    Attributes:
        since, until: the span; today's ends now.
        cases: all that are stored.
        per_hour: of them.
        decided: those with an action, or a stored assignment, that says who decided; in whole
            batches for a reader who may review at the site.
        decided_by_model: how many of them the model decided.
        model_share: of `decided`; None without any.
        is_purged: whether records of the span were deleted, so that figures lack them.
    """

    since: datetime
    until: datetime
    cases: int
    per_hour: float
    decided: int
    decided_by_model: int
    model_share: float | None
    is_purged: bool


@dataclass(frozen=True, slots=True)
class SiteTraffic:
    """The traffic of a site.

    Attributes:
        last_hour: the hour up to now; its share is unknown to a reader of batches.
        days: local days, oldest first; the last is today.
        batch: cases by which the model's share moves for this reader; None if one by one.
    """

    site: str
    timezone: str
    last_hour: TrafficSpan
    days: tuple[TrafficSpan, ...]
    batch: int | None


@dataclass(frozen=True, slots=True)
class MeasuredTraffic:
    """The traffic of the sites that a caller may read.

    Attributes:
        purged_before: records before this time were deleted; None if none were.
        erased: cases that were erased on request since the first day: the figures lack those that
            occurred in the shown days. None for a caller who may not read all sites.
    """

    sites: tuple[SiteTraffic, ...]
    at: datetime
    purged_before: datetime | None
    erased: int | None


def load_site_traffic(
    service: Service, caller: Caller, rollout_name: str, *, at: datetime
) -> MeasuredTraffic:
    """Return the cases of the last hour and of 14 days at the sites that the caller may read.

    A reader who may review at a site gets deciders of closed cases alone, in batches of each day:
    so no figure tells who decided a case about which they may still be asked.

    Raises:
        NotAllowedError: the caller may read no site of the rollout.
    """
    from rollout.tally.batched_evidence import BATCH_SIZE

    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    sites = [
        site
        for site in state.policy.sites_by_id
        if caller.has_permission(Permission.READ, rollout_name, site)
    ]
    if not sites:
        return MeasuredTraffic((), at, None, None)
    batched = frozenset(s for s in sites if may_be_asked_blind(caller, rollout_name, (s,)))
    day_spans, hour_span = _list_day_spans(state, sites, at), (at - HOUR, at)
    day_batches = ClosedBatches(batched, BATCH_SIZE, state.policy.evidence.grace)
    hour_batches = day_batches._replace(size=NEVER)
    hour_spans = [SiteSpans(tuple(sites), hour_span)]
    with service.database.begin_read() as transaction:
        day_counts = count_site_traffic(transaction, state.rollout, day_spans, day_batches)
        hour_counts = count_site_traffic(transaction, state.rollout, hour_spans, hour_batches)
    purged_before, erased = _find_deletions(service, state, min(s.edges[0] for s in day_spans))
    if not caller.has_permission(Permission.READ, rollout_name):
        erased = None
    days, hours = _group_counts(day_counts), _group_counts(hour_counts)
    edges = {site: part.edges for part in day_spans for site in part.sites}
    return MeasuredTraffic(
        tuple(
            SiteTraffic(
                site,
                state.policy.sites_by_id[site].timezone,
                _build_spans(hours.get(site, {}), hour_span, purged_before)[0],
                _build_spans(days.get(site, {}), edges[site], purged_before),
                BATCH_SIZE if site in batched else None,
            )
            for site in sites
        ),
        at,
        purged_before,
        erased,
    )


def _list_day_spans(state: RolloutState, sites: Iterable[str], at: datetime) -> list[SiteSpans]:
    """Return the local days of the sites of each timezone, the last of them up to now."""
    by_zone: dict[str, list[str]] = {}
    for site in sites:
        by_zone.setdefault(state.policy.sites_by_id[site].timezone, []).append(site)
    return [
        SiteSpans(tuple(names), (*_list_midnights(ZoneInfo(zone), at), at))
        for zone, names in by_zone.items()
    ]


def _list_midnights(zone: ZoneInfo, at: datetime) -> Iterator[datetime]:
    today = at.astimezone(zone).date()
    for number in range(SHOWN_DAYS - 1, -1, -1):
        day = today - timedelta(days=number)
        yield datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(at.tzinfo)


def _group_counts(counts: Iterable[TrafficCount]) -> Mapping[str, Mapping[int, TrafficCount]]:
    by_site: dict[str, dict[int, TrafficCount]] = {}
    for count in counts:
        by_site.setdefault(count.site, {})[count.span] = count
    return by_site


def _build_spans(
    counts: Mapping[int, TrafficCount], edges: Iterable[datetime], purged_before: datetime | None
) -> tuple[TrafficSpan, ...]:
    return tuple(
        _build_span(
            since,
            until,
            counts.get(number, TrafficCount("", number, 0, 0, 0)),
            is_purged=purged_before is not None and since < purged_before,
        )
        for number, (since, until) in enumerate(pairwise(edges))
    )


def _build_span(
    since: datetime, until: datetime, count: TrafficCount, *, is_purged: bool
) -> TrafficSpan:
    hours = (until - since) / HOUR
    return TrafficSpan(
        since=since,
        until=until,
        cases=count.cases,
        per_hour=round(count.cases / hours, 3) if hours else 0.0,
        decided=count.decided,
        decided_by_model=count.decided_by_model,
        model_share=count.decided_by_model / count.decided if count.decided else None,
        is_purged=is_purged,
    )


def _find_deletions(
    service: Service, state: RolloutState, since: datetime
) -> tuple[datetime | None, int | None]:
    """Return up to when records were purged, and how many cases were erased since a time."""
    from rollout.services.engine.evidence_reader import load_events

    events = load_events(service.database, state)
    purges = [event.before for event in events if isinstance(event, RecordsPurged)]
    erasures = [e for e in events if isinstance(e, CasesErased) and e.at >= since]
    return max(purges, default=None), sum(len(event.keys) for event in erasures)
