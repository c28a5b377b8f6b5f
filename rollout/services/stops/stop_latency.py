"""How soon a stop holds, site by site: what the ledger tells of leases and earlier stops."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.calendar.instants import EPOCH, MICROSECOND
from rollout.core.ledger.ledger import Row
from rollout.core.policy.policy import Policy, duration_text
from rollout.services.engine.rollout_state import Standing, kept_policy
from rollout.services.engine.state_cache import STALE
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies

OWED = timedelta(seconds=STALE)


@dataclass(frozen=True, slots=True)
class StopLatency:
    """How soon a stop holds at a site, at the latest, counted from the answer that tells it."""

    site: str
    within_seconds: float


@dataclass(frozen=True, slots=True)
class Past:
    """What the ledger tells of stops and leases before now.

    Attributes:
        reasons: of each stop, by its id.
        last_drill: when a stop was last tried out, None if never.
        replaced: earlier policies, with when another one took their place.
    """

    reasons: Mapping[str, str]
    last_drill: datetime | None
    replaced: tuple[tuple[datetime, Policy], ...]


def past_of(transaction: Transaction, stood: Standing) -> Past:
    """Return what the ledger tells, up to a standing's revision."""
    ledger, until = Ledger(transaction, stood.rollout), stood.scope.revision
    rows = list(ledger.rows(until=until, kinds=("Stopped", "PolicyApplied")))
    stop_rows = [row for row in rows if row.event_kind == "Stopped"]
    applied_rows = [row for row in rows if row.event_kind == "PolicyApplied"]
    drill_times = [_at(row) for row in stop_rows if row.fields["drill"]]
    texts = Policies(transaction, stood.rollout).texts(
        {row.fields["policy_hash"] for row in applied_rows[:-1]}
    )
    end_times = [_at(row) for row in applied_rows[1:]]
    return Past(
        reasons={row.fields["stop"]: row.fields["reason"] for row in stop_rows},
        last_drill=max(drill_times, default=None),
        replaced=tuple(
            (end, kept_policy(texts[row.fields["policy_hash"]]))
            for end, row in zip(end_times, applied_rows, strict=False)
        ),
    )


def _at(row: Row) -> datetime:
    return EPOCH + row.at * MICROSECOND


def reach_of(
    past: Past, policy: Policy, sites: Iterable[str], at: datetime
) -> tuple[StopLatency, ...]:
    """Return how soon a stop of now holds at each site: staleness of a replica, then the lease.

    An answer that was given under a longer lease, before the policy was edited, is still good
    for what is left of it.
    """
    return tuple(
        StopLatency(site, _within(past, policy, site, at).total_seconds()) for site in sites
    )


def _within(past: Past, policy: Policy, site: str, at: datetime) -> timedelta:
    remaining_leases = [
        lease_of(old_policy, site) - (at - end)
        for end, old_policy in past.replaced
        if site in old_policy.site
    ]
    return OWED + max(lease_of(policy, site), *remaining_leases, timedelta(0))


def lease_of(policy: Policy, site: str) -> timedelta:
    """Return how long an answer may be used at a site."""
    site_lease = policy.site[site].lease
    return policy.lease if site_lease is None else site_lease


def reach_text(reach: Sequence[StopLatency]) -> str:
    """Say by when a stop holds: sites that are as quick as each other together, quickest first."""
    sites_by_latency: dict[float, list[str]] = {}
    for latency in sorted(reach, key=lambda r: r.within_seconds):
        sites_by_latency.setdefault(latency.within_seconds, []).append(latency.site)
    latency_texts = (
        f"{_and(sites)} within {_span(seconds)}" for seconds, sites in sites_by_latency.items()
    )
    return f"every effect of earlier answers has ended: {', '.join(latency_texts)}"


def _span(seconds: float) -> str:
    """Say a reach; the half second of a replica's staleness stands beside longer leases unsaid."""
    rounded_latency = timedelta(seconds=max(round(seconds - STALE), 1))
    return duration_text(rounded_latency)


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
