"""How soon a stop holds, site by site: what the ledger tells of leases and earlier stops."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.ledger import EPOCH, MICROSECOND, Row
from rollout.core.policy import Policy, duration_text
from rollout.services.standing import Standing, kept_policy
from rollout.services.watching import STALE
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies
from rollout.store.session import Transaction

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
    told, until = Ledger(transaction, stood.rollout), stood.scope.revision
    rows = list(told.rows(until=until, kinds=("Stopped", "PolicyApplied")))
    stops = [row for row in rows if row.event_kind == "Stopped"]
    applied = [row for row in rows if row.event_kind == "PolicyApplied"]
    drills = [_at(row) for row in stops if row.fields["drill"]]
    texts = Policies(transaction, stood.rollout).texts(
        {row.fields["policy_hash"] for row in applied[:-1]}
    )
    ends = [_at(row) for row in applied[1:]]
    return Past(
        reasons={row.fields["stop"]: row.fields["reason"] for row in stops},
        last_drill=max(drills, default=None),
        replaced=tuple(
            (end, kept_policy(texts[row.fields["policy_hash"]]))
            for end, row in zip(ends, applied, strict=False)
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
    left = [lease_of(old, site) - (at - end) for end, old in past.replaced if site in old.site]
    return OWED + max(lease_of(policy, site), *left, timedelta(0))


def lease_of(policy: Policy, site: str) -> timedelta:
    """Return how long an answer may be used at a site."""
    own = policy.site[site].lease
    return policy.lease if own is None else own


def reach_text(reach: Sequence[StopLatency]) -> str:
    """Say by when a stop holds: sites that are as quick as each other together, quickest first."""
    spans: dict[float, list[str]] = {}
    for one in sorted(reach, key=lambda r: r.within_seconds):
        spans.setdefault(one.within_seconds, []).append(one.site)
    said = (f"{_and(sites)} within {_span(seconds)}" for seconds, sites in spans.items())
    return f"every effect of earlier answers has ended: {', '.join(said)}"


def _span(seconds: float) -> str:
    """Say a reach; the half second of a replica's staleness stands beside longer leases unsaid."""
    whole = timedelta(seconds=max(round(seconds - STALE), 1))
    return duration_text(whole)


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
