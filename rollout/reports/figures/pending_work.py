"""Pending reviews and the last activity of each site, when a report is made."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.reports.inputs.inputs import PendingReviews, ReportInputs


@dataclass(frozen=True, slots=True)
class SiteActivity:
    """The last activity of a site, a record or a heartbeat; None if never."""

    site: str
    last_activity_at: datetime | None


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Pending reviews, and the last activity of each site.

    Attributes:
        live: False for a replay; all other fields are then empty.
        open, overdue, expiring: reviews over all sites, as in `PendingReviews`.
        oldest: when the oldest open review was created; None without one.
        sites: the same by site, for sites with reviews.
        site_activities: every site of the policy; never active first, then the longest silent.
    """

    live: bool
    open: int
    overdue: int
    expiring: int
    oldest: datetime | None
    sites: tuple[PendingReviews, ...]
    site_activities: tuple[SiteActivity, ...]


def compute_pending_work(inputs: ReportInputs) -> PendingWork:
    """Return the pending reviews and site activity; empty for a replay."""
    sites = inputs.pending_reviews
    return PendingWork(
        live=inputs.is_live,
        open=sum(site.open for site in sites),
        overdue=sum(site.overdue for site in sites),
        expiring=sum(site.expiring for site in sites),
        oldest=min((site.oldest for site in sites if site.oldest), default=None),
        sites=tuple(sites),
        site_activities=tuple(_list_site_activity(inputs)) if inputs.is_live else (),
    )


def _list_site_activity(inputs: ReportInputs) -> Iterator[SiteActivity]:
    sites = [site.id for site in inputs.policy.sites]
    yield from (SiteActivity(site, None) for site in sites if site not in inputs.last_activity)
    active = [site for site in sites if site in inputs.last_activity]
    yield from (
        SiteActivity(site, inputs.last_activity[site])
        for site in sorted(active, key=lambda site: inputs.last_activity[site])
    )
